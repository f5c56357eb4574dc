"""`polobench ab`: iterations of two commits, timed in pairs and in random order on one machine.

A cell is measured in blocks: in each, both commits open it in processes of their own and take pairs of iterations, so
that whatever slows the machine slows both. `polobench/ab/speed.py` says who is faster, and how sure that is.

On the cpu, where CPU seconds are counted, the two iterations of a pair share a core, drawn anew for each block: the
kernel gives each a few milliseconds in turn. On other devices, and where a process cannot be bound to a core, whole
iterations take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from polobench.ab.processes import OpenBoth, Timing, Worker, WorkerFailed, Workers, cores_for
from polobench.ab.sides import Side
from polobench.core.errors import UsageError, unknown
from polobench.kinds.cell import Cell
from polobench.kinds.throughput import Throughput
from polobench.run.library import find
from polobench.run.study import load_study

BLOCKS = 3
LEAST_PAIRS, MOST_PAIRS = 2, 40  # per block
WARMUP_PAIRS = 1
PARTS = ("iteration", "rollout", "update")


TimedPair = tuple[Timing, Timing]  # base, head


@dataclass
class TimedCell:
    """A cell's pairs by block and, if a side could not run it, one line that says why (base, head)."""

    cell: Cell
    blocks: list[list[TimedPair]] = field(default_factory=list)
    problems: list[str] = field(default_factory=lambda: ["", ""])

    @property
    def clock(self) -> str:
        return "CPU" if self.cell.device == "cpu" else "wall"

    def seconds(self, part: str) -> list[list[list[float]]]:
        """`[blocks][pairs][2]` the base's and the head's seconds of one of `PARTS`."""
        return [[[getattr(timing, part) for timing in pair] for pair in block] for block in self.blocks]


def load_cells(path: Path, head: Side, methods: Sequence[str] = (), tasks: Sequence[str] = ()) -> list[Cell]:
    """The throughput cells of the head's study, for all or for the named methods (or labels) and tasks.

    Raises:
        UsageError: no such study, no such name in its throughput cells, or none of them is left.
    """
    own = find(path, head.root, head.root / "polobench" / "studies")
    cells = [cell for cell in load_study(own or path).cells if isinstance(cell.plan, Throughput)]
    for kind, wanted, allowed in (
        ("method", methods, {name for cell in cells for name in (cell.label, cell.method)}),
        ("task", tasks, {cell.task for cell in cells}),
    ):
        for name in wanted:
            if name not in allowed:
                raise unknown(f"{kind} of the throughput cells of study {str(path)!r}:", name, allowed)
    if methods:
        cells = [cell for cell in cells if {cell.label, cell.method} & set(methods)]
    if tasks:
        cells = [cell for cell in cells if cell.task in tasks]
    if not cells:
        raise UsageError(f"study {str(path)!r} has no such throughput cells (a [[grid]] asks: throughput_rounds = 20)")
    return cells


def time_cells(
    open_both: OpenBoth, cells: Sequence[Cell], seconds: float, seed: int, moved: Callable[[float], object]
) -> list[TimedCell]:
    """Time every cell on both sides, for so many seconds each, including the start of its processes.

    Args:
        open_both: opens a cell on the base and on the head, as `servers` gives it.
        seed: of the order in which the two take their iterations.
        moved: called with the share of all cells that is done.
    """
    order = np.random.default_rng(seed)
    found: list[TimedCell] = []

    def show(share: float) -> None:
        moved((len(found) + min(1.0, share)) / len(cells))

    for cell in cells:
        found.append(time_cell(cell, partial(open_both, cell), seconds, order, show))
    return found


def time_cell(
    cell: Cell,
    open_both: Callable[[np.random.Generator], Workers],
    seconds: float,
    order: np.random.Generator,
    moved: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
) -> TimedCell:
    """Time one cell in up to `BLOCKS` blocks, or in two or more if the time does not hold another."""
    found, began, shortest = TimedCell(cell), clock(), 0.0
    end = began + seconds
    with ExitStack() as stack:
        following = open_both(order)
        for left in range(BLOCKS, 0, -1):
            started, workers = clock(), tuple(stack.enter_context(closing(worker)) for worker in following)
            if any(found.problems) or (len(found.blocks) > 1 and started + shortest > end):
                break
            if left > 1:
                following = open_both(order)  # they get ready meanwhile
            block: list[TimedPair] = []
            for pair in _pairs(workers, order, bool(cores_for(cell)), found.problems):
                block.append(pair)
                moved((clock() - began) / seconds)
                if len(block) == LEAST_PAIRS:
                    shortest = clock() - started
                late = clock() >= started + (end - started) / left
                if len(block) >= MOST_PAIRS or (late and len(block) >= LEAST_PAIRS):
                    break
            found.blocks.append(block)
            for worker in workers:
                worker.close()
    return found


def _pairs(
    workers: Sequence[Worker], order: np.random.Generator, at_once: bool, problems: list[str]
) -> Iterator[TimedPair]:
    """Pairs of iterations, until a worker fails; then its reason stands in `problems`."""
    for side, worker in enumerate(workers):
        try:
            worker.ready()
        except WorkerFailed as error:
            problems[side] = str(error)
    for taken in count():
        if any(problems):
            return
        timings: dict[int, Timing] = {}
        turns = order.permutation(2).tolist()
        for group in [turns] if at_once else [[side] for side in turns]:
            for side in group:
                workers[side].begin()
            for side in group:
                try:
                    timings[side] = workers[side].timing()
                except WorkerFailed as error:  # the other still takes its turn: it may fail alike
                    problems[side] = str(error)
        if taken >= WARMUP_PAIRS and len(timings) == 2:
            yield timings[0], timings[1]
