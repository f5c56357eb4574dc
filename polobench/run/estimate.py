"""How long cells will take, from what the store has measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from polobench.cells.runner import PreparedCell
from polobench.core.result import RunResult
from polobench.core.task import Task
from polobench.kinds.kind import ASSUMED_SAMPLES_PER_SECOND
from polobench.kinds.table import kind_of

ASSUMED_EVALUATION_STEPS_PER_SECOND = 100_000  # of many environments side by side


def estimate(cells: Sequence[PreparedCell], stored: Iterable[RunResult], jobs: int) -> str:
    """`about 3.1 minutes with 2 jobs (...)`, and where the rates come from; evaluations and floors included."""
    rates = _measured_rates(stored)
    seconds, measured = 0.0, 0
    tasks = {item.cell: item.method.task for item in cells if item.method is not None}
    unmeasured = {task.name: task for task in tasks.values() if math.isnan(task.floor)}
    seconds += sum(_evaluation_seconds(task, task.floor_episodes) for task in unmeasured.values())
    for cell, task in tasks.items():
        rate = rates.get((cell.method, cell.task, cell.device))
        measured += rate is not None and not cell.plan.timed_rounds
        episodes = (1 + task.evaluations) * task.evaluation_episodes + task.final_episodes if cell.plan.learns else 0
        wanted = cell.plan.seconds(cell.budget, rate) + _evaluation_seconds(task, episodes)
        seconds += wanted / (1 if cell.plan.runs_alone else jobs)
    source = f"rates of {measured} from this store, else {ASSUMED_SAMPLES_PER_SECOND:,} samples/s assumed"
    return f"about {seconds / 60:.1f} minutes with {jobs} job{'s' if jobs > 1 else ''} ({source})"


def _evaluation_seconds(task: Task, episodes: int) -> float:
    """At most: every episode as long as it can be."""
    return episodes * task.evaluation_steps / ASSUMED_EVALUATION_STEPS_PER_SECOND


def _measured_rates(stored: Iterable[RunResult]) -> dict[tuple[str, str, str], float]:
    """Samples per CPU second of stored learning cells: the median of each method, task and device."""
    found = defaultdict(list)
    for result in stored:
        if result.status == "ok" and kind_of(result).learns and result.ledger.cpu_seconds > 0:
            rate = result.ledger.samples / result.ledger.cpu_seconds
            found[result.method, result.task, result.device].append(rate)
    return {key: median(rates) for key, rates in found.items()}
