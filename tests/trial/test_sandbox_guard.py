"""A guarded command and everything it started end with the process that asked for it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from advisor.trial.sandbox.guard import group_alive

pytestmark = pytest.mark.live

DEADLINE_S = 20.0

PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-m", "advisor.trial.sandbox.guard", str(os.getpid()), "sh", "-c",
           "sleep 60 & echo $$; sleep 60"]
subprocess.Popen(command)
time.sleep(60)
"""


def gone(group: int) -> bool:
    end_s = time.monotonic() + DEADLINE_S
    while group_alive(group) and time.monotonic() < end_s:
        time.sleep(0.05)
    return not group_alive(group)


def test_a_killed_parent_takes_the_whole_group_along() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        assert group_alive(group)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()

        assert gone(group)


def test_a_guard_told_to_stop_takes_the_whole_group_along() -> None:
    command = [sys.executable, "-m", "advisor.trial.sandbox.guard", str(os.getpid())]
    command += ["sh", "-c", "sleep 60 & echo $$; sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as guard:
        assert guard.stdout is not None
        group = int(guard.stdout.readline())
        guard.terminate()

        assert guard.wait(DEADLINE_S) == 128 + signal.SIGTERM
        assert gone(group)


def test_a_guard_returns_what_its_command_returned() -> None:
    command = [sys.executable, "-m", "advisor.trial.sandbox.guard", str(os.getpid())]

    assert subprocess.run([*command, "sh", "-c", "exit 7"]).returncode == 7
