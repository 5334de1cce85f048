"""What else ran on this machine: other processes, and what its host took away.

A load of milliseconds on a machine of few cores shows whatever else runs there. Neither is a
property of what is tried, and both are counted by the system (Linux; elsewhere nothing is known).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from advisor.trial.child import tree_cpu_s

PERCENT_DISTURBED = 5.0
"""Of the cores' time: kernels and agents take a percent or two of an idle machine."""

LOOK_S = 0.5
PATIENCE_S = 10.0
"""How long a measurement waits for a calm machine before it goes on regardless."""


@dataclass(frozen=True)
class CoreTime:
    """Core-seconds until now: of the whole machine, and of this process and its children."""

    whole_s: float
    idle_s: float
    own_s: float

    @classmethod
    def now(cls) -> CoreTime | None:
        """None where the system does not say."""
        own_s = tree_cpu_s(os.getpid())
        try:
            import resource

            line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
        except (ImportError, OSError):
            return None
        if own_s is None:
            return None
        # user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of these.
        ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in line.split()[1:9]]
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(sum(ticks), ticks[3] + ticks[4], own_s + ended.ru_utime + ended.ru_stime)

    def taken_since(self, before: CoreTime) -> float:
        """Percent of the cores' time that neither idled nor went to this process's tree."""
        whole_s = self.whole_s - before.whole_s
        return 100 * min(self._others_s(before) / whole_s, 1.0) if whole_s > 0 else 0.0

    def pace_since(self, before: CoreTime) -> float:
        """Of the core time that this process's tree wanted, the share that it got, as if all that
        others took had been taken from it; 1: they took none."""
        own_s, others_s = self.own_s - before.own_s, self._others_s(before)
        return own_s / (own_s + others_s) if own_s > 0 else 1.0

    def _others_s(self, before: CoreTime) -> float:
        whole_s, idle_s = self.whole_s - before.whole_s, self.idle_s - before.idle_s
        return max(whole_s - idle_s - (self.own_s - before.own_s), 0.0)


def wait_for_calm(patience_s: float = PATIENCE_S) -> float | None:
    """Return once nothing else runs here, or when patience ends.

    Returns:
        Percent of the cores' time that others took at the last look; None: not known.
    """
    give_up_s = time.monotonic() + patience_s
    before = CoreTime.now()
    while before is not None:
        time.sleep(LOOK_S)
        after = CoreTime.now()
        if after is None:
            return None
        taken = after.taken_since(before)
        if taken <= PERCENT_DISTURBED or time.monotonic() >= give_up_s:
            return taken
        before = after
    return None
