"""The running half of a kind of cell: what is made of a cell's plan on this machine, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polobench.core.budget import Stopwatch
from polobench.core.method import Method
from polobench.core.outcome import outcome_into
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.core.task import Task
from polobench.kinds.cell import Cell
from polobench.kinds.kind import Kind

Step = Callable[[], object]


def step_through(step: Step, rounds: int, warmup_rounds: int) -> None:
    """Take every step, one after the other."""
    for _ in range(warmup_rounds + rounds):
        step()


@dataclass(frozen=True)
class Watch:
    """Who follows a run.

    Attributes:
        clock: the stopwatch of the ledger, if the caller wants to read it.
        on_progress: called after every update.
        drive: takes the steps of a cell whose rounds are timed one by one: `drive(step, rounds, warmup_rounds)`.
    """

    clock: Stopwatch | None = None
    on_progress: Callable[[Progress], None] = lambda progress: None
    drive: Callable[[Step, int, int], object] = step_through


class Job:
    """A cell's plan with the stored files that it reads; the kind names its subclass.

    Attributes:
        hyperparameters: that every method of such a cell is built with.
        hashes: SHA-256 of each stored file, by "policy" or "batch".
        code: the hash of the code that measures, beside that of the method and the task.
    """

    def __init__(self, plan: Kind, task: Task) -> None:
        self.hyperparameters: Mapping[str, Any] = {}
        self.hashes: Mapping[str, str] = {}
        self.code = ""

    def defined_by(self) -> dict[str, object]:
        """What of this decides the cell's id, code included."""
        return {}

    def run(self, method: Method, cell: Cell, result: RunResult, watch: Watch) -> RunResult:
        """The result, whatever happens; `result` is that of a run that has not begun."""
        with outcome_into(result):
            self.measure(method, cell, result, watch)
        return result

    def measure(self, method: Method, cell: Cell, result: RunResult, watch: Watch) -> None:
        """Fill in the numbers, and the reason of a run that ends ok; what this raises decides another status."""
        raise NotImplementedError
