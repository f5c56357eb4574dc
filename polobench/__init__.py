"""polobench: which policy-optimization method should I use, at what cost, and how sure are we?

    import polobench

    result = polobench.make("ppo", task="CartPole-v1").run(seed=0, budget=50_000)
    table = polobench.load("results/quick")

Importing this module imports nothing heavy; torch is loaded when something trains.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polobench.analysis.frame import load
    from polobench.core.budget import Budget
    from polobench.core.errors import PoloError, Unavailable, UsageError
    from polobench.core.method import ForeignMethod, Method
    from polobench.core.recorder import Update
    from polobench.core.result import RunResult
    from polobench.core.rollout import Rollout
    from polobench.core.task import Evaluation, Task
    from polobench.registry import make

_WHERE = {
    "load": "polobench.analysis.frame",
    "Budget": "polobench.core.budget",
    "PoloError": "polobench.core.errors",
    "Unavailable": "polobench.core.errors",
    "UsageError": "polobench.core.errors",
    "ForeignMethod": "polobench.core.method",
    "Method": "polobench.core.method",
    "Update": "polobench.core.recorder",
    "make": "polobench.registry",
    "RunResult": "polobench.core.result",
    "Rollout": "polobench.core.rollout",
    "Evaluation": "polobench.core.task",
    "Task": "polobench.core.task",
}

__all__ = [
    "Budget",
    "Evaluation",
    "ForeignMethod",
    "Method",
    "PoloError",
    "Rollout",
    "RunResult",
    "Task",
    "Unavailable",
    "Update",
    "UsageError",
    "load",
    "make",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'polobench' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
