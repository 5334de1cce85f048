"""`advisor route` as a process: configuration errors, signals, draining."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.live


class SlowModel(BaseHTTPRequestHandler):
    """Answers after half a second."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.5)
        message = {"role": "assistant", "content": "yes"}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowModel)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "advisor", "route", str(path), *more]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def written(folder: Path, **parts: Any) -> Path:
    path = folder / "router.yaml"
    path.write_text(yaml.safe_dump(parts), encoding="utf-8")
    return path


def status(url: str, data: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(url, data, timeout=10) as response:
            found: int = response.status
            return found
    except OSError:
        return 0


def test_sigterm_lets_answers_finish_and_takes_no_more(tmp_path: Path, model: str) -> None:
    path = written(tmp_path, llm={"base_url": model, "model": "m"}, policy={"name": "llm_only"})
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    found: list[int] = []
    with subprocess.Popen(command(path, "--port", str(port)), stderr=subprocess.PIPE) as router:
        deadline = time.monotonic() + 60
        while status(f"{url}/healthz") != 200:
            assert router.poll() is None, "the router ended"
            assert time.monotonic() < deadline, "the router did not start"
            time.sleep(0.05)
        body = json.dumps({"messages": [{"role": "user", "content": "?"}]}).encode()
        asking = threading.Thread(
            target=lambda: found.append(status(f"{url}/v1/chat/completions", body))
        )
        asking.start()
        time.sleep(0.2)
        router.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert status(f"{url}/healthz") == 0, "a draining router takes no connections"
        asking.join(20)
        assert router.wait(20) == 0
    assert found == [200]


def test_every_problem_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        slm={"base_url": "http://169.254.169.254/v1", "model": "m"},
        llm={"base_url": "http://127.0.0.1:1/v1"},
        typo=1,
    )
    done = subprocess.run(command(path), capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("advisor: router configuration: ") for line in lines)


def test_check_says_what_would_stop_it(tmp_path: Path, model: str) -> None:
    upstream = {"base_url": model, "model": "m", "api_key_env": "SURELY_NOT_SET_ANYWHERE"}
    path = written(tmp_path, llm=upstream, policy={"name": "llm_only"})
    done = subprocess.run(command(path, "--check"), capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "SURELY_NOT_SET_ANYWHERE is not set" in done.stderr

    path = written(tmp_path, llm={"base_url": model, "model": "m"}, policy={"name": "llm_only"})
    assert subprocess.run(command(path, "--check"), capture_output=True).returncode == 0


def test_a_taken_port_is_one_line(tmp_path: Path, model: str) -> None:
    path = written(tmp_path, llm={"base_url": model, "model": "m"}, policy={"name": "llm_only"})
    taken = model.rsplit(":", 1)[1].removesuffix("/v1")
    done = subprocess.run(command(path, "--port", taken), capture_output=True, text=True)

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.endswith("cannot listen: Address already in use")


def test_a_model_that_is_not_there_yet_is_named_at_the_start(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    path = written(tmp_path, llm={"base_url": nobody, "model": "m"}, policy={"name": "llm_only"})
    port = free_port()
    with subprocess.Popen(
        command(path, "--port", str(port)), stderr=subprocess.PIPE, text=True
    ) as router:
        assert router.stderr is not None
        lines = [router.stderr.readline() for _ in range(2)]
        assert f"listens on http://127.0.0.1:{port}/v1" in lines[0]
        assert lines[1].startswith(f"llm: nothing answers at {nobody} yet")
        assert status(f"http://127.0.0.1:{port}/healthz") == 200
        router.send_signal(signal.SIGTERM)
        assert router.wait(20) == 0
