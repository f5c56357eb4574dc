"""Runs cells in worker processes, one process a cell, so that a cell that dies takes nothing with it.

Learning cells run `jobs` at a time; throughput cells run alone, at the end. A worker writes its own result, so that
nothing finished is lost when the parent is interrupted.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

from polobench.cells.runner import PreparedCell, blank_result, prepare, run_cell
from polobench.core.errors import PoloError
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.run.progress import Display
from polobench.run.signals import handled
from polobench.run.study import Cell
from polobench.store.folder import Store
from polobench.store.reader import Reader

SHOW_EVERY_SECONDS = 0.2
TRIED_AGAIN = ("skipped", "timeout", "out_of_memory")
WORKER = "the worker process"


class SweepStopped(PoloError):
    """The sweep cannot go on: a result could not be written, or the sources changed; the text says which."""


@dataclass
class _Worker:
    process: Any
    prepared: PreparedCell
    messages: Connection


@dataclass
class Sweep:
    """What a sweep did: the results that it made, in the order in which they came."""

    results: list[RunResult] = field(default_factory=list)

    @property
    def not_ok(self) -> list[RunResult]:
        return [result for result in self.results if result.status not in ("ok", "skipped")]


def pending(prepared: Sequence[PreparedCell], store: Reader) -> list[PreparedCell]:
    """The cells whose result is not in the store yet; damaged ones and those that only the machine ended included."""
    return [item for item in prepared if not _is_finished(store, item.cell_id)]


def _is_finished(store: Reader, cell_id: str) -> bool:
    found = store.load(cell_id)
    return isinstance(found, RunResult) and found.status not in TRIED_AGAIN and not found.reason.startswith(WORKER)


def run_sweep(cells: Sequence[PreparedCell], store: Store, jobs: int, display: Display) -> Sweep:
    """Run the cells and fill the store.

    Args:
        cells: what to run.
        store: must be prepared.
        jobs: worker processes side by side.
        display: hears of everything.

    Raises:
        SweepStopped: a result could not be written, or the sources changed; the workers are stopped.
        KeyboardInterrupt: the workers are stopped; what was finished is in the store.
    """
    sweep = Sweep()
    for item in cells:
        if item.method is None:
            _skip(item, store, display, sweep)
    cells = [item for item in cells if item.method is not None]
    learning = [item for item in cells if not item.cell.rounds]
    timed = [item for item in cells if item.cell.rounds]
    beside_others = jobs > 1 and len(learning) > 1
    context = _context(cells)
    _run_batch(context, learning, store, jobs, beside_others, display, sweep)
    _run_batch(context, timed, store, 1, False, display, sweep)
    return sweep


def _skip(item: PreparedCell, store: Store, display: Display, sweep: Sweep) -> None:
    display.started(item.cell)
    result = run_cell(item)
    _save(store, result)
    sweep.results.append(result)
    display.finished(item.cell, result)


def _run_batch(
    context: BaseContext,
    cells: Sequence[PreparedCell],
    store: Store,
    jobs: int,
    beside_others: bool,
    display: Display,
    sweep: Sweep,
) -> None:
    waiting, workers = list(cells), list[_Worker]()
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                item = waiting.pop(0)
                display.started(item.cell)
                workers.append(_start(context, item, store, beside_others))
            for messages in wait([worker.messages for worker in workers], timeout=1.0):
                worker = next(worker for worker in workers if worker.messages is messages)
                result = _receive(worker, store, display)
                if result is not None:
                    workers.remove(worker)
                    worker.process.join()
                    sweep.results.append(result)
                    display.finished(worker.prepared.cell, result)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _context(cells: Sequence[PreparedCell]) -> BaseContext:
    """Workers forked from a clean server that has loaded what they need, where the platform can; else started anew.

    A process has one such server: what the first sweep of it asked for stays.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded(cells))
    # the server would print where it was, were it interrupted in the middle of its imports
    with handled(signal.SIGINT, signal.SIG_IGN):
        forkserver.ensure_running()
    return context


def preloaded(cells: Sequence[PreparedCell]) -> list[str]:
    """What workers need that takes a second or more to load: torch and, for a first optimizer step, its compiler; the
    libraries of the cells' tasks.
    """
    libraries = {name for item in cells if item.method is not None for name in item.method.task.libraries}
    return ["polobench.run.executor", "torch._dynamo", *sorted(libraries)]


def _start(context: BaseContext, prepared: PreparedCell, store: Store, beside_others: bool) -> _Worker:
    receiving, sending = context.Pipe(duplex=False)
    arguments = (prepared.cell, prepared.cell_id, str(store.folder), beside_others, sending)
    process = context.Process(target=_work, args=arguments, daemon=True)  # type: ignore[attr-defined]
    process.start()
    sending.close()
    return _Worker(process, prepared, receiving)


def _receive(worker: _Worker, store: Store, display: Display) -> RunResult | None:
    """Take one message of a worker; its result if it has ended."""
    try:
        message = worker.messages.recv()
    except (EOFError, OSError):  # the worker is gone, perhaps in the middle of a message
        worker.process.join()
        result = blank_result(worker.prepared, "failed", _how_it_died(worker.process.exitcode))
        _save(store, result)
        return result
    if isinstance(message, Progress):
        display.moved(worker.prepared.cell, message)
        return None
    if isinstance(message, RunResult):
        return message
    raise SweepStopped(str(message))


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (the system may be short of memory)" if name == "SIGKILL" else ""
        return f"{WORKER} was ended by {name}{hint}"
    return f"{WORKER} ended with exit code {exitcode}"


def _save(store: Store, result: RunResult) -> None:
    try:
        store.save(result)
    except OSError as error:
        raise SweepStopped(f"store {str(store.folder)!r} cannot be written to: {error.strerror or error}") from error


def _work(cell: Cell, cell_id: str, folder: str, beside_others: bool, messages: Connection) -> None:
    """A worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and decides
    if "fork" in multiprocessing.get_all_start_methods():
        # a library's lock then has no name in the system that would be left, with a warning, when the worker is killed
        multiprocessing.set_start_method("fork", force=True)
    prepared = prepare(cell)
    if prepared.cell_id != cell_id:
        messages.send("the sources changed while the sweep ran; run it again")
        return
    result = run_cell(prepared, on_progress=_sender(messages), beside_others=beside_others)
    result.policy = None  # parameters stay in the worker
    try:
        _save(Store(folder), result)
    except SweepStopped as error:
        messages.send(str(error))
    else:
        messages.send(result)


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
