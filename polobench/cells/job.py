"""The running half of a kind of cell: what is made of a cell's plan on this machine, and how it is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from polobench.core.budget import Ledger, Stopwatch
from polobench.core.device import TORCH_COMPILER, warm_up
from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.core.seeding import SeedAxes, isolated
from polobench.core.task import Task
from polobench.kinds.cell import Cell
from polobench.kinds.kind import Kind

Step = Callable[[], object]
Plan = TypeVar("Plan", bound=Kind)


class Enough(Exception):
    """What a cell wants of a method's run is there."""


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


@contextmanager
def bound(
    method: Method, seed: int, ledger: Ledger, on_policy: Callable[[Policy], None] = lambda policy: None
) -> Iterator[Task]:
    """The method's task, bound to a run of this seed, with generators and threads as `Method.run` sets them."""
    rng = SeedAxes(seed)
    with isolated(rng, method.threads):
        if TORCH_COMPILER in method.libraries:
            warm_up(method.device)
        with closing(method.task.bind(rng, ledger, method.device, on_policy)) as task:
            yield task


class Job(ABC, Generic[Plan]):
    """A cell's plan with the stored files that it reads; the kind names its subclass.

    Attributes:
        hyperparameters: that every method of such a cell is built with.
        hashes: SHA-256 of each stored file, by "policy" or "batch"; part of the cell's id.
        code: the hash of the code that measures, beside that of the method and the task; part of the id, too.
    """

    hyperparameters: Mapping[str, Any] = {}
    hashes: Mapping[str, str] = {}
    code = ""

    def __init__(self, plan: Plan, task: Task) -> None:
        self.plan = plan

    @abstractmethod
    def measure(self, method: Method, cell: Cell, result: RunResult, watch: Watch) -> RunResult:
        """The result, filled in; what this raises decides its status.

        Args:
            method, cell: to run.
            result: that of a run that has not begun; it counts where this raises.
            watch: follows the run.
        """
