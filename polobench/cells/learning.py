"""A whole run, by `Method.run`."""

from __future__ import annotations

from polobench.cells.job import Job, Watch
from polobench.core.method import Method
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.kinds.learning import Learning


class LearningJob(Job[Learning]):
    """The running half of a learning cell."""

    def measure(self, method: Method, cell: Cell, result: RunResult, watch: Watch) -> RunResult:
        return method.run(
            cell.seed,
            cell.budget,
            clock=watch.clock,
            on_progress=watch.on_progress,
            timeout_seconds=cell.timeout_seconds,
        )
