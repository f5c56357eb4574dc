"""`polobench ab`: single iterations of two commits, a pair at a time in an order drawn anew, on one machine.

A cell is measured in blocks: in each, both commits open it in processes of their own and take pairs of iterations, so
that whatever slows the machine slows both. Who is faster, and how sure that is, says `polobench/gate/speed.py`.

On the cpu, where CPU seconds are counted, the two iterations of a pair share a core, drawn anew each block: the kernel
gives each a few milliseconds in turn, so that both meet the same machine even while others use it. With a load of 7 on
two cores, log ratios of PPO's iterations of half a second differ by 0.01 to 0.03 (standard deviation); where whole
iterations take turns, by 0.10 to 0.15. On other devices, and where a process cannot be bound to a core, whole
iterations take turns.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from polobench.core.errors import PoloError, UsageError, unknown
from polobench.harness.ab_sides import Side
from polobench.harness.study import Cell, load_study

BLOCKS = 3
LEAST_PAIRS, MOST_PAIRS = 2, 100  # a block
WARMUP_PAIRS = 1
ANSWER_SECONDS = 600.0  # a worker that is silent for so long has failed
WORKER = Path(__file__).with_name("ab_worker.py")
PARTS = ("iteration", "rollout", "update")


@dataclass(frozen=True)
class Timing:
    """Seconds of one iteration and of its rollout; the update is the rest."""

    iteration: float
    rollout: float

    @property
    def update(self) -> float:
        return self.iteration - self.rollout


Pair = tuple[Timing, Timing]  # base, head


@dataclass
class Measured:
    """A cell's pairs by block; and, where a side could not run it, why, one line (base, head)."""

    cell: Cell
    blocks: list[list[Pair]] = field(default_factory=list)
    problems: list[str] = field(default_factory=lambda: ["", ""])

    @property
    def clock(self) -> str:
        return "CPU" if self.cell.device == "cpu" else "wall"

    def seconds(self, part: str) -> list[list[list[float]]]:
        """`[blocks][pairs][2]` the base's and the head's seconds of one of `PARTS`."""
        return [[[getattr(timing, part) for timing in pair] for pair in block] for block in self.blocks]


class WorkerFailed(PoloError):
    """A worker could not open its cell, could not go on, or died; the text is the reason."""


class Worker(Protocol):
    """A cell, open in a process of one commit; `ready` and `timing` raise `WorkerFailed`."""

    def ready(self) -> None:
        """Wait until it is open."""

    def begin(self) -> None:
        """Let it start an iteration."""

    def timing(self) -> Timing:
        """Wait for the end of the iteration."""

    def close(self) -> None:
        """Let it go."""


Workers = tuple[Worker, Worker]  # base, head


def load_cells(path: Path, head: Side, methods: Sequence[str] = (), tasks: Sequence[str] = ()) -> list[Cell]:
    """The throughput cells of the head's study; where methods (or labels) or tasks are named, of these alone.

    Raises:
        UsageError: no such study, no such name in its throughput cells, or none of them is left.
    """
    own = head.root / (path if path.suffix else Path("studies") / f"{path}.toml")
    cells = [cell for cell in load_study(own if own.exists() else path).cells if cell.kind == "throughput"]
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


def measure(
    sides: Sequence[Side], cells: Sequence[Cell], seconds: float, seed: int, moved: Callable[[float], object]
) -> list[Measured]:
    """Time every cell on both sides.

    Args:
        sides: base and head.
        seconds: a cell, the start of its processes included.
        seed: of the orders in which the two take their iterations.
        moved: told the share of all cells that is done.

    Raises:
        UsageError: this system cannot fork.
    """
    if not hasattr(os, "fork"):
        raise UsageError("`polobench ab` forks its workers, which this system cannot (allowed: Linux, macOS)")
    order, found = np.random.default_rng(seed), []
    with servers(sides) as open_both:
        for number, cell in enumerate(cells):
            show = partial(_tell, moved, number, len(cells))
            found.append(measure_cell(cell, partial(open_both, cell), seconds, order, show))
    return found


def _tell(moved: Callable[[float], object], before: int, count: int, share: float) -> None:
    moved((before + min(1.0, share)) / count)


def measure_cell(
    cell: Cell,
    open_both: Callable[[np.random.Generator], Workers],
    seconds: float,
    order: np.random.Generator,
    moved: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Time one cell in up to `BLOCKS` blocks; from two on, fewer where the time would not hold another.

    Args:
        open_both: starts a worker of the base and one of the head.
        order: draws what is left to chance.
    """
    found, began, shortest = Measured(cell), clock(), 0.0
    end = began + seconds
    for left in range(BLOCKS, 0, -1):
        started = clock()
        if len(found.blocks) > 1 and started + shortest > end:
            break
        base, head = open_both(order)
        with closing(base), closing(head):
            block: list[Pair] = []
            for pair in _pairs((base, head), order, bool(cores_for(cell)), found.problems):
                block.append(pair)
                moved((clock() - began) / seconds)
                if len(block) == LEAST_PAIRS:
                    shortest = clock() - started
                late = clock() >= started + (end - started) / left
                if len(block) >= MOST_PAIRS or (late and len(block) >= LEAST_PAIRS):
                    break
        if any(found.problems):
            break
        found.blocks.append(block)
    return found


def _pairs(workers: Workers, order: np.random.Generator, at_once: bool, problems: list[str]) -> Iterator[Pair]:
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


def cores_for(cell: Cell) -> list[int]:
    """The cores that this process may use; none where iterations must take turns instead of sharing one."""
    if cell.device != "cpu" or not hasattr(os, "sched_setaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


@contextmanager
def servers(sides: Sequence[Side]) -> Iterator[Callable[[Cell, np.random.Generator], Workers]]:
    """Opens a cell on both sides; a process for every interpreter has the libraries loaded and is forked."""
    with ExitStack() as stack:
        running = {python: stack.enter_context(_Server(python)) for python in {side.python for side in sides}}

        def open_both(cell: Cell, order: np.random.Generator) -> Workers:
            drawn = order.permutation(cores_for(cell)).astype(int)[: cell.threads].tolist()
            base, head = (_Forked(running[side.python], _order(side, cell) | {"cores": drawn}) for side in sides)
            return base, head

        yield open_both


def _order(side: Side, cell: Cell) -> dict[str, Any]:
    names = ("method", "label", "task", "device", "threads", "tuned", "seed")
    return {name: getattr(cell, name) for name in names} | {
        "overrides": dict(cell.overrides),
        "home": str(side.home),
        "paths": side.paths,
    }


class _Server:
    """The process that loads the libraries once and is forked for every worker. A context manager."""

    def __init__(self, python: Path) -> None:
        self._python = python

    def __enter__(self) -> _Server:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.control, theirs = socket.socketpair()
        command = [str(self._python), "-P", str(WORKER), str(theirs.fileno())]
        with theirs:  # a session of its own: Ctrl-C is for the parent, which then ends it
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its children, too
        self._process.wait()
        self.control.close()
        self._log.close()

    def last_words(self) -> str:
        """The last line that it or a child of it printed."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""


class _Forked:
    """A worker forked from a server; talks JSON lines over a socket."""

    def __init__(self, server: _Server, order: dict[str, Any]) -> None:
        self._server = server
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_SECONDS)
        with ours, theirs:
            self._lines = ours.makefile("rw", encoding="utf-8")
            with suppress(OSError):  # `ready` finds nobody at the other end, and says so
                socket.send_fds(server.control, [json.dumps(order).encode()], [theirs.fileno()])

    def ready(self) -> None:
        self._answer()

    def begin(self) -> None:
        with suppress(OSError):  # it may have died; its last answer says why
            print("step", file=self._lines, flush=True)

    def timing(self) -> Timing:
        return Timing(**self._answer())

    def close(self) -> None:
        with suppress(OSError):  # what it would not read any more
            self._lines.close()

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise WorkerFailed(f"no answer for {ANSWER_SECONDS:.0f} s") from None
        except OSError:
            line = ""
        answer = json.loads(line) if line.endswith("\n") else {"error": f"its process died{self._server.last_words()}"}
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return dict(answer)
