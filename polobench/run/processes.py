"""What runs the cells of a sweep: here one process per cell, so that a cell that dies takes nothing with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Protocol

import psutil

from polobench.cells.job import Watch
from polobench.cells.runner import PreparedCell, blank_result, prepare, run_cell
from polobench.core.errors import PoloError
from polobench.core.outcome import outcome_into
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.run.signals import deferred

SHOW_EVERY_SECONDS = 0.2
ENDING_SECONDS = 2.0  # that a worker has to end by itself after its last word
SOURCES_CHANGED = "the sources changed while the sweep ran; run it again"
OTHER_TASK = "the task describes itself otherwise in a worker process (its floor, its target, its data or its model)"


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


@dataclass
class _Worker:
    process: Any
    prepared: PreparedCell
    messages: Connection

    def hear(self) -> Progress | RunResult:
        """One message; where the worker is gone, perhaps in the middle of one, how it died."""
        try:
            message = self.messages.recv()
        except (EOFError, OSError):
            self.process.join()
            return blank_result(self.prepared, "crashed", _how_it_died(self.process.exitcode))
        if isinstance(message, str):
            raise SweepStopped(message)
        return message  # type: ignore[no-any-return]

    def end(self, patience: float) -> None:
        """Wait for the process to end, and then no longer: a thread that a library has left would never end."""
        self.process.join(patience)
        if self.process.is_alive():
            _kill_children(self.process.pid)
            self.process.kill()
            self.process.join()
        self.messages.close()


class Processes(Executor):
    """Runs each cell in a worker process of its own.

    Args:
        cells: what is to run; the workers' server loads the libraries of their tasks.
    """

    def __init__(self, cells: Sequence[PreparedCell]) -> None:
        self._cells, self._workers = cells, list[_Worker]()

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end(patience=0)

    @cached_property
    def _context(self) -> BaseContext:
        """Workers forked from a clean server that has loaded what they need, where the platform can; else started anew.

        A process has one such server: what the first sweep of it asked for stays.
        """
        if "forkserver" not in multiprocessing.get_all_start_methods():
            return multiprocessing.get_context("spawn")
        from multiprocessing import forkserver, resource_tracker

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(preloaded(self._cells))
        resource_tracker.ensure_running()  # which would let the signal through
        # the server would print where it was, were it interrupted in the middle of its imports
        with deferred(signal.SIGINT):
            forkserver.ensure_running()
        return context

    def start(self, prepared: PreparedCell, beside_others: bool) -> None:
        receiving, sending = self._context.Pipe(duplex=False)
        arguments = (prepared.cell, prepared.cell_id, prepared.code, beside_others, sending)
        process = self._context.Process(target=_work, args=arguments)  # type: ignore[attr-defined]
        process.start()  # no daemon, which could not start the processes that an environment may need
        sending.close()
        self._workers.append(_Worker(process, prepared, receiving))

    def words(self) -> Iterator[tuple[PreparedCell, Progress | RunResult]]:
        heard = wait([worker.messages for worker in self._workers], timeout=1.0)
        for worker in [worker for worker in self._workers if worker.messages in heard]:
            word = worker.hear()
            if isinstance(word, RunResult):
                self._workers.remove(worker)
                worker.end(ENDING_SECONDS)
            yield worker.prepared, word


def preloaded(cells: Sequence[PreparedCell]) -> list[str]:
    """What workers need that takes a second or more to load: torch and, for a first optimizer step, its compiler; the
    libraries of the cells' tasks.
    """
    libraries = {name for item in cells if item.method is not None for name in item.method.task.libraries}
    return ["polobench.run.processes", "torch._dynamo", *sorted(libraries)]


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (the system may be short of memory)" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{hint}"
    return f"the worker process ended with exit code {exitcode}"


def _kill_children(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _work(cell: Cell, cell_id: str, code: str, beside_others: bool, messages: Connection) -> None:
    """A worker's whole life."""
    warnings.simplefilter("ignore")  # those of hundreds of cells: `Method.run` in Python shows one's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and decides
    if "fork" in multiprocessing.get_all_start_methods():
        # a library's lock then has no name in the system that would be left, with a warning, when the worker is killed
        multiprocessing.set_start_method("fork", force=True)
    result = blank_result(PreparedCell(cell, cell_id), "ok", "")
    word: RunResult | str = result
    with outcome_into(result):
        word = _run(cell, cell_id, code, beside_others, messages)
    messages.send(word)
    _kill_children(os.getpid())


def _run(cell: Cell, cell_id: str, code: str, beside_others: bool, messages: Connection) -> RunResult | str:
    """The cell's result, or why the sweep cannot go on."""
    prepared = prepare(cell)
    if prepared.method is None:
        return blank_result(replace(prepared, cell_id=cell_id), "skipped", prepared.unavailable)
    if prepared.code != code:
        return SOURCES_CHANGED
    if prepared.cell_id != cell_id:
        return blank_result(replace(prepared, cell_id=cell_id), "failed", OTHER_TASK)
    result = run_cell(prepared, Watch(on_progress=_sender(messages)), beside_others=beside_others)
    result.policy = None  # parameters stay in the worker
    return result


def _sender(messages: Connection) -> Callable[[Progress], None]:
    latest = 0.0

    def send(progress: Progress) -> None:
        nonlocal latest
        if time.monotonic() - latest > SHOW_EVERY_SECONDS:
            latest = time.monotonic()
            try:
                messages.send(progress)
            except BrokenPipeError:  # the parent is gone, and with it whoever wanted the result
                sys.stderr.flush()
                os._exit(1)

    return send
