"""A child process that ends with its parent, however the parent ends."""

from __future__ import annotations

import os
import threading
import time

PERIOD_S = 0.25
"""How often a child looks whether its parent is still there."""


def end_with_parent(parent: int) -> None:
    """End this process at once when process `parent` is no longer its parent.

    Linux' PR_SET_PDEATHSIG would do it sooner, but it follows the *thread* that started the child:
    a child started from a worker thread would die with the thread. An orphan has another parent on
    every POSIX system, so that is what is looked at.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PERIOD_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
