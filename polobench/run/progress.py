"""What a sweep shows: a table of the running cells on a terminal, a plain line per finished cell everywhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from polobench.core.printable import printable
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.kinds.table import kind_of

REFRESH_SECONDS = 0.1
_OTHER_LINES = 4  # the table's head, the line on cells that have no room, the sweep's line, and one for the cursor
_NOTHING = "–"
_NOTHING_YET = Progress(0.0, 0, None)


@dataclass
class _Running:
    """A cell under way: its first and latest word, and the seconds from the one to the other.

    Both rates count from the first word, so that neither a worker's start nor its first evaluation counts.
    """

    began: float = math.nan
    first: Progress = _NOTHING_YET
    latest: Progress | None = None
    seconds: float = 0.0

    def hear(self, now: float, progress: Progress) -> None:
        if self.latest is None:
            self.began, self.first = now, progress
        self.latest, self.seconds = progress, now - self.began

    @property
    def fraction(self) -> float:
        return self.latest.fraction if self.latest else 0.0

    @property
    def samples_per_second(self) -> float:
        return (self.latest.samples - self.first.samples) / self.seconds if self.latest and self.seconds else math.nan

    @property
    def seconds_left(self) -> float:
        """As if the rest went on at the pace so far; NaN before there is one."""
        gone = self.fraction - self.first.fraction
        return self.seconds * (1 - self.fraction) / gone if gone > 0 else math.nan


class Display:
    """Shows cells as they start, move and end. A context manager.

    Args:
        total: the number of cells to come.
        console: where to.
        visible: a context in which writing reaches the terminal (pytest captures output outside of it).
        clock: seconds from any start.
    """

    def __init__(
        self,
        total: int,
        console: Console | None = None,
        visible: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._visible, self._total, self._clock = visible, total, clock
        self._running: dict[Cell, _Running] = {}
        self._ended: Counter[str] = Counter()
        self._began, self._drawn = clock(), -math.inf
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._began = self._clock()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            with self._visible():
                self._live.update(self._table(), refresh=True)
                self._live.stop()

    def started(self, cell: Cell) -> None:
        self._running[cell] = _Running()
        self._refresh()

    def moved(self, cell: Cell, progress: Progress) -> None:
        self._running[cell].hear(self._clock(), progress)
        self._refresh()

    def finished(self, cell: Cell, result: RunResult) -> None:
        self._running.pop(cell, None)  # a cell that cannot run here never started
        self._ended[result.status] += 1
        line = printable(f"[{self._ended.total()}/{self._total}] {cell}: {outcome(result)}")
        self.note(line)
        self._refresh()

    def note(self, line: str) -> None:
        """Print a line above the table."""
        with self._visible():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _refresh(self) -> None:
        """Draw anew, but not for every word of many workers."""
        if self._console.is_terminal and self._clock() - self._drawn >= REFRESH_SECONDS:
            self._drawn = self._clock()
            with self._visible():
                self._live.update(self._table(), refresh=True)

    def _table(self) -> Group:
        """A line each of the running cells that the terminal has room for, and a line on the sweep."""
        room = max(0, self._console.size.height - _OTHER_LINES)
        shown = list(self._running.items())[:room]
        parts: list[Table | Text] = [_cells(shown)] if shown else []
        if shown and len(shown) < len(self._running):
            parts.append(Text(f"… and {len(self._running) - len(shown)} more", style="dim"))
        return Group(*parts, Text(self._sweep(), no_wrap=True, overflow="ellipsis"))

    def _sweep(self) -> str:
        """`3/20 cells, ok 2, failed 1, about 12:03 left`."""
        said = [f"{self._ended.total()}/{self._total} cells", *(f"{name} {n}" for name, n in self._ended.items())]
        skipped = self._ended["skipped"]  # which take no time; the others to come take as long as those so far
        work = self._ended.total() - skipped + sum(cell.fraction for cell in self._running.values())
        if work > 0:
            left = (self._clock() - self._began) * (self._total - skipped - work) / work
            said.append(f"about {clock_text(left)} left")
        return ", ".join(said)


def _cells(running: list[tuple[Cell, _Running]]) -> Table:
    """The running cells, a line each whatever the width."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", no_wrap=True, overflow="ellipsis")
    for name in ("status", "samples/s", "return", "left"):
        table.add_column(name, no_wrap=True, justify="right")
    for cell, state in running:
        status = f"{100 * state.fraction:.0f} %" if state.latest else "starting"
        returned = state.latest.latest_return if state.latest else None
        rate, left = state.samples_per_second, state.seconds_left
        table.add_row(
            Text(printable(cell)),
            status,
            _NOTHING if math.isnan(rate) else f"{rate:,.0f}",
            _NOTHING if returned is None else f"{returned:.4g}",
            _NOTHING if math.isnan(left) else clock_text(left),
        )
    return table


def clock_text(seconds: float) -> str:
    """`0:42`, `12:03`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def outcome(result: RunResult) -> str:
    """One line on how a cell ended."""
    if result.status != "ok":
        return f"{result.status}: {result.reason}"
    return kind_of(result).outcome(result)
