"""The seam between a sweep and whatever runs its cells; processes.py is the executor of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from polobench.cells.runner import PreparedCell
from polobench.core.errors import PoloError
from polobench.core.recorder import Progress
from polobench.core.result import RunResult


class SweepStopped(PoloError):
    """The sweep cannot go on: a result could not be written, or the sources changed; the text says which."""


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs prepared cells somewhere. A context manager, which stops what still runs when it is left."""

    def start(self, prepared: PreparedCell, beside_others: bool) -> None:
        """Let the cell run; `beside_others` says whether others may run on the same machine meanwhile."""

    def words(self) -> Iterator[tuple[PreparedCell, Progress | RunResult]]:
        """Wait a moment for words of running cells; a result is the last word of its cell.

        Whatever ends a cell, its worker's death included, is a result.

        Raises:
            SweepStopped: the sources changed since the cells were prepared.
        """
