"""The seam between a sweep and what runs its cells: an executor starts cells and hands back how they ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from polobench.cells.job import Watch
from polobench.cells.runner import PreparedCell, prepare, run_cell
from polobench.core.errors import PoloError
from polobench.core.recorder import Progress
from polobench.core.result import RunResult


class SweepStopped(PoloError):
    """The sweep cannot go on: a result could not be written, or the sources changed; the text says which."""


@dataclass(frozen=True)
class Ended:
    """How a cell ended that left no result of its own, such as one whose process died."""

    status: str
    reason: str


Outcome = RunResult | Ended
Moved = Callable[[PreparedCell, Progress], None]
OnProgress = Callable[[Progress], None]
RunHere = Callable[[PreparedCell, OnProgress], RunResult]


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs prepared cells somewhere. A context manager, which stops what still runs when it is left.

    Attributes:
        capacity: how many cells it takes at the same time.
    """

    capacity: int

    def start(self, prepared: PreparedCell) -> None:
        """Let the cell run."""

    def outcomes(self, moved: Moved) -> Sequence[tuple[PreparedCell, Outcome]]:
        """Wait a moment; give the cells that have ended since, whatever ended them.

        Args:
            moved: hears how far running cells have come.

        Raises:
            SweepStopped: a worker's sources are not those that the cells were prepared with.
        """


OpenExecutor = Callable[[Sequence[PreparedCell]], Executor]


def run_watched(prepared: PreparedCell, on_progress: OnProgress) -> RunResult:
    """Run the cell in this process; gives its result without the policy."""
    result = run_cell(prepared, Watch(on_progress=on_progress))
    result.policy = None
    return result


def run_anew(prepared: PreparedCell, on_progress: OnProgress) -> RunResult:
    """As `run_watched`, with a method that no other cell shares."""
    return run_watched(prepare(prepared.cell), on_progress)


class Serial(Executor):
    """Runs cells in this process, one after the other."""

    capacity = 1

    def __init__(self, run: RunHere = run_anew) -> None:
        self._run, self._waiting = run, list[PreparedCell]()

    def __exit__(self, *error: object) -> None:
        """Nothing is left running."""

    def start(self, prepared: PreparedCell) -> None:
        self._waiting.append(prepared)

    def outcomes(self, moved: Moved) -> Sequence[tuple[PreparedCell, Outcome]]:
        prepared = self._waiting.pop()
        return [(prepared, self._run(prepared, partial(moved, prepared)))]
