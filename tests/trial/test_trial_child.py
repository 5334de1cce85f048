"""A server in a child process: it is waited for, its reason is told, and nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from advisor.errors import InputError
from advisor.trial.child import ServingChild, tree_cpu_s

SERVER = """
import http.server, json
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(json.dumps({"port": server.server_port}), flush=True)
server.serve_forever()
"""


def child(program: str, **given: Any) -> ServingChild:
    return ServingChild(
        [sys.executable, "-c", program],
        named="the server",
        health="/",
        environment=dict(os.environ),
        folder=TemporaryDirectory(),
        **given,
    )


def test_it_answers_after_the_wait_and_is_gone_after_its_context() -> None:
    with child(SERVER).wait() as server:
        assert server.running
        assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
        folder = Path(server._folder.name)
        assert folder.is_dir()
    assert not server.running
    assert not folder.exists()
    server.close()


@pytest.mark.parametrize(
    ("program", "given", "reason"),
    [
        ("import sys; sys.exit('error: no such model')", {}, "no such model"),
        ("pass", {}, "it wrote nothing"),
        ("import sys; sys.exit('a\\nb')", {"why": lambda log: log.name}, "log"),
        ("import time; time.sleep(60)", {"start_timeout_s": 0.3}, "did not answer within 0 s"),
    ],
)
def test_a_child_that_does_not_come_up_says_why(
    program: str, given: dict[str, Any], reason: str
) -> None:
    server = child(program, **given)
    with pytest.raises(InputError, match=f"the server did not come up: .*{reason}"):
        server.wait()
    assert not server.running


def test_a_command_that_cannot_be_run_is_named() -> None:
    folder = TemporaryDirectory()
    with pytest.raises(InputError, match="the server cannot be started: No such file"):
        ServingChild(
            ["/nowhere/at/all"], named="the server", health="/", environment={}, folder=folder
        )
    assert not Path(folder.name).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_core_seconds_are_those_of_the_whole_tree() -> None:
    """The parent sleeps and its child works: what counts is both."""
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", program], start_new_session=True) as parent:
        end_s = time.monotonic() + 30
        while (tree_cpu_s(parent.pid) or 0.0) < 0.3 and time.monotonic() < end_s:
            time.sleep(0.05)
        used_s = tree_cpu_s(parent.pid)
        own = Path(f"/proc/{parent.pid}/stat").read_text().rpartition(") ")[2].split()
        os.killpg(parent.pid, 9)
    assert used_s is not None and used_s >= 0.3
    own_s = (int(own[11]) + int(own[12])) / os.sysconf("SC_CLK_TCK")
    assert used_s > own_s
    assert tree_cpu_s(parent.pid) is None
