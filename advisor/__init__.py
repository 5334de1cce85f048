"""Small language model, large one, or a hybrid: what a task needs, with projected quality,
latency and cost.

    from advisor import TaskProfile, recommend

    task = TaskProfile.load("profiles/tasks/intent-classification.yaml")
    print(recommend(task).summary)

Names are imported when they are first used, so that `import advisor` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.decide import recommend as recommend
    from advisor.predict import predict as predict
    from advisor.quality.threshold import certify as certify
    from advisor.simulation import simulate as simulate
    from advisor.task import TaskProfile as TaskProfile
    from advisor.trial.run import run_trial as run_trial

__all__ = ["TaskProfile", "certify", "predict", "recommend", "run_trial", "simulate"]

_HOMES = {
    "TaskProfile": "advisor.task",
    "certify": "advisor.quality.threshold",
    "predict": "advisor.predict",
    "recommend": "advisor.decide",
    "run_trial": "advisor.trial.run",
    "simulate": "advisor.simulation",
}
"""Module that each public name comes from."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'advisor' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `advisor.predict` the function once the module of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
