"""What really happens to a run: a disk that fills up, kill -9, and the server it leaves behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in_engine import write_interpreter, write_model

from advisor.calibrate.bench.points import read_points

pytestmark = pytest.mark.live

SERVER = f"""#!{sys.executable}
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Health).serve_forever()
"""

HOLDER = """
import sys, time
from pathlib import Path
from advisor.calibrate.bench.server import VllmServer
folder = Path(sys.argv[1])
with VllmServer(
    folder / "server", model=str(folder), arguments={}, variables={}, beside=[0],
    log=folder / "server.log",
) as server:
    print(server.process.pid, flush=True)
    time.sleep(60)
"""


def command(folder: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "advisor", "calibrate", "run", "--no-server"),
        *(
            "--model",
            str(write_model(folder / "model")),
            "--python",
            str(write_interpreter(folder)),
        ),
        *("--output", str(folder / "run.jsonl"), *more),
    ]


def test_a_disk_that_fills_up_is_one_line_and_the_points_are_whole(tmp_path: Path) -> None:
    """No file may grow beyond 12 kB: some points fit, the coefficients do not."""

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    done = subprocess.run(
        command(tmp_path, "--budget", "30s"),
        preexec_fn=small,
        capture_output=True,
        text=True,
        timeout=120,
    )
    kept = read_points(tmp_path / "run.jsonl")

    assert done.returncode == 2
    assert (
        f"File too large; its {len(kept)} measured points are kept" in done.stderr.splitlines()[-1]
    )
    assert "Traceback" not in done.stderr
    assert len(kept) > 3
    assert not list(tmp_path.glob("*.part"))
    again = subprocess.run(command(tmp_path, "--budget", "5s"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{len(kept)} points of this engine are in" in again.stderr


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    process = subprocess.Popen(
        command(tmp_path, "--budget", "60s", "--precision", "0.01"), stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (
            not path.exists() or path.read_bytes().count(b"\n") < 5
        ):
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    kept = len(read_points(path))
    assert kept >= 5
    again = subprocess.run(command(tmp_path, "--budget", "5s"), capture_output=True, text=True)

    assert again.returncode == 0, again.stderr
    assert f"{kept} points of this engine are in" in again.stderr
    shapes = [point.shape for point in read_points(path)]
    assert len(set(shapes)) == len(shapes), "nothing was measured twice"


@pytest.mark.skipif(not Path("/usr/bin/setpriv").exists(), reason="needs setpriv (util-linux)")
def test_a_server_does_not_outlive_the_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "server").write_text(SERVER, encoding="utf-8")
    (tmp_path / "server").chmod(0o755)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    server = int(holder.stdout.readline())
    os.kill(server, 0)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{server}").exists(), "the server still runs"
