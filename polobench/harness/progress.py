"""What a sweep shows while it runs: a bar a running cell on a terminal, a plain line a finished cell elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from polobench.core.recorder import Progress as RunProgress
from polobench.core.result import RunResult
from polobench.harness.study import Cell


class Display:
    """Shows cells as they start, move and end. A context manager.

    Args:
        total: the number of cells to come.
        console: where to.
        visible: a context in which writing reaches the terminal (pytest captures output outside of it).
    """

    def __init__(
        self,
        total: int,
        console: Console | None = None,
        visible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._visible, self._total, self._done = visible, total, 0
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self._progress = Progress(
            *columns, MofNCompleteColumn(), TimeElapsedColumn(), console=self._console, auto_refresh=False
        )
        self._all = self._progress.add_task("cells", total=total, note="")
        self._bars: dict[Cell, TaskID] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            with self._visible():
                self._progress.stop()

    def started(self, cell: Cell) -> None:
        self._bars[cell] = self._progress.add_task(escape(str(cell)), total=100, note="")
        self._refresh()

    def moved(self, cell: Cell, progress: RunProgress) -> None:
        latest = "" if progress.latest_return is None else f"return {progress.latest_return:.1f}"
        self._progress.update(self._bars[cell], completed=int(100 * progress.fraction), note=latest)
        self._refresh()

    def finished(self, cell: Cell, result: RunResult) -> None:
        self._done += 1
        self._progress.remove_task(self._bars.pop(cell))
        self._progress.advance(self._all)
        with self._visible():
            line = f"[{self._done}/{self._total}] {cell}: {outcome(result)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._refresh()

    def _refresh(self) -> None:
        if self._console.is_terminal:
            with self._visible():
                self._progress.refresh()


def outcome(result: RunResult) -> str:
    """One line on how a cell ended."""
    if result.status != "ok":
        return f"{result.status}: {result.reason}"
    if result.kind == "throughput":
        return f"{result.throughput['samples_per_second'] or math.nan:,.0f} samples/s"
    if result.kind == "gradient_noise":
        noise = result.gradient_noise
        return f"signal-to-noise {noise['snr']:.3g} over {noise['batches']} batches"
    score = "" if result.final_score is None else f", score {result.final_score:.2f}"
    seconds = f"{result.ledger.samples:,} samples in {result.ledger.wall_seconds:.1f} s"
    return f"return {result.final_return:.1f}{score}, {seconds}"
