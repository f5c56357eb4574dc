"""Which results are of one cell, and which of two is newer; the one place that knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable

from polobench.core.budget import budget_text
from polobench.core.result import RunResult
from polobench.kinds.table import kind_of


def definition(result: RunResult) -> Hashable:
    """What defines a cell, code and platform left out; two results of one definition differ by these alone.

    Older files do not say what data and arguments their task had.
    """
    arm = result.kind, result.method, result.label, result.task, result.device, budget_text(result.budget)
    settings = json.dumps(result.hyperparameters, sort_keys=True, default=str), threads_of(result)
    own = json.dumps(kind_of(result).definition(result), sort_keys=True, default=str)
    return arm, settings, own, result.provenance.get("task_hash"), within_arm(result)


def within_arm(result: RunResult) -> tuple[int, str]:
    """What tells the cells of one arm apart: the seed, and what the kind adds, such as a policy."""
    return result.seed, kind_of(result).variant(result)


def threads_of(result: RunResult) -> int:
    """The threads of the run; 1 where a file does not say."""
    threads = result.provenance.get("threads", 1)
    return threads if isinstance(threads, int) else 1


def age(result: RunResult) -> tuple[bool, str, str]:
    """The larger, the newer; a result that ran counts as newer than one that was skipped."""
    return result.status != "skipped", result.started_at, result.cell_id


def newest(results: Iterable[RunResult], key: Callable[[RunResult], Hashable] = definition) -> list[RunResult]:
    """The newest result of each key, in the order in which the keys come first."""
    found: dict[Hashable, RunResult] = {}
    for result in results:
        name = key(result)
        if name not in found or age(found[name]) < age(result):
            found[name] = result
    return list(found.values())
