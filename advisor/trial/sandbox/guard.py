"""Run a command that ends with its parent: for servers that do not watch for themselves.

    python -m advisor.trial.sandbox.guard PARENT_PID COMMAND [ARGUMENT ...]

vLLM starts processes of its own; a guard puts them all into one group and ends the group when the
parent is gone or the guard is told to stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from advisor.trial.sandbox.parent import PERIOD_S

GRACE_S = 5.0
"""Between asking a group to end and ending it."""


def guard(parent: int, command: list[str]) -> int:
    """Run a command; returns its exit status (1: parent gone; 128 + signal: told to stop)."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Before the command starts: told to stop in between, the guard would leave it behind.
        signal.signal(number, lambda number, frame: told.append(number))
    # A group and no session: Linux schedules sessions as groups (autogroup), and vLLM's processes,
    # which wait for each other with sched_yield, would hold up clients in another one for seconds.
    child = subprocess.Popen(command, process_group=0)
    while not told and os.getppid() == parent:
        try:
            status = child.wait(PERIOD_S)
        except subprocess.TimeoutExpired:
            continue
        # One that was killed has ended none of the processes that it started.
        end_group(child)
        return status
    end_group(child)
    return 128 + told[0] if told else 1


def end_group(leader: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
    """End a process and all of its group: asked first, then without asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(leader.pid, number)
        except ProcessLookupError:
            return
        give_up_s = time.monotonic() + grace_s
        while time.monotonic() < give_up_s:
            if leader.poll() is not None and not group_alive(leader.pid):
                return
            time.sleep(0.05)


def group_alive(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
