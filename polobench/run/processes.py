"""One process per cell, so that a cell that dies or goes beyond its limits takes nothing with it but its children."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import psutil

from polobench.cells.runner import PreparedCell, blank_result, prepare
from polobench.core.outcome import outcome_into
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.run.executor import Ended, Executor, Moved, OnProgress, Outcome, SweepStopped, run_watched
from polobench.run.scratch import scratch
from polobench.run.signals import deferred

SHOW_EVERY_SECONDS = 0.2
POLL_SECONDS = 0.25  # between two looks at the limits
GRACE_SECONDS = 10.0  # in which a cell past its time can say so itself, with the curve so far
ENDING_SECONDS = 2.0  # that a worker has to end by itself after its last word
SOURCES_CHANGED = "the sources changed meanwhile, or they or tuned values differ on a worker's machine; run it again"
OTHER_TASK = "the task describes itself otherwise in a worker process (its floor, its target, its data or its model)"


@dataclass
class _Worker:
    process: Any
    prepared: PreparedCell
    messages: Connection
    started: float = field(default_factory=time.monotonic)

    def hear(self) -> Progress | Outcome:
        """One message; where the worker is gone, perhaps in the middle of one, how it died."""
        try:
            message = self.messages.recv()
        except (EOFError, OSError):
            self.process.join()
            return Ended("crashed", _how_it_died(self.process.exitcode))
        if isinstance(message, str):
            raise SweepStopped(message)
        return message  # type: ignore[no-any-return]

    def beyond_limits(self) -> Ended | None:
        """The end of a cell that has taken more time or memory than its study allows."""
        seconds, limit = time.monotonic() - self.started, self.prepared.cell.timeout_seconds
        if limit is not None and seconds > limit + GRACE_SECONDS:
            return Ended("timeout", f"stopped after {seconds:.0f} s without a sign of its own (limit: {limit:g} s)")
        most = self.prepared.cell.memory_mib
        if most is not None and (held := resident_mib(self.process.pid)) > most:
            return Ended("out_of_memory", f"its processes held {held:,.0f} MiB (limit: {most:,g} MiB)")
        return None

    def end(self, patience: float) -> None:
        """Wait for the process to end, and then no longer: a thread that a library has left would never end."""
        self.process.join(patience)
        kill_tree(self.process.pid)
        self.process.join()
        self.messages.close()


class Processes(Executor):
    """Runs each cell in a worker process of its own.

    Args:
        jobs: how many side by side.
        cells: what is to run; the workers' server loads the libraries of their tasks.
    """

    def __init__(self, jobs: int, cells: Sequence[PreparedCell]) -> None:
        self.capacity = jobs
        self._cells, self._workers, self._polled = cells, list[_Worker](), 0.0

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

        # where its sockets lie: Python's own folder would stay if this process were killed
        multiprocessing.current_process()._config.setdefault("tempdir", scratch())  # type: ignore[attr-defined]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(preloaded(self._cells))
        resource_tracker.ensure_running()  # which would let the signal through
        # the server would print where it was, were it interrupted in the middle of its imports
        with deferred(signal.SIGINT):
            forkserver.ensure_running()
        return context

    def start(self, prepared: PreparedCell) -> None:
        receiving, sending = self._context.Pipe(duplex=False)
        arguments = (prepared.cell, prepared.cell_id, prepared.code, sending)
        process = self._context.Process(target=_work, args=arguments)  # type: ignore[attr-defined]
        process.start()  # no daemon, which could not start the processes that an environment may need
        sending.close()
        self._workers.append(_Worker(process, prepared, receiving))

    def outcomes(self, moved: Moved) -> Sequence[tuple[PreparedCell, Outcome]]:
        heard = wait([worker.messages for worker in self._workers], timeout=POLL_SECONDS)
        look = time.monotonic() - self._polled >= POLL_SECONDS
        self._polled = time.monotonic() if look else self._polled
        ended = []
        for worker in list(self._workers):
            word = worker.hear() if worker.messages in heard else None
            if isinstance(word, Progress):
                moved(worker.prepared, word)
                word = None
            if word is None and look:
                word = worker.beyond_limits()
            if word is not None:
                self._workers.remove(worker)
                worker.end(ENDING_SECONDS if isinstance(word, RunResult) else 0)
                ended.append((worker.prepared, word))
        return ended


def preloaded(cells: Sequence[PreparedCell]) -> list[str]:
    """What workers need that takes long to load: torch, the libraries of the cells' runs and, in a worker of Ray, Ray,
    which each child of it loads.
    """
    libraries = {name for item in cells if item.method is not None for name in item.method.libraries}
    return ["polobench.run.server", "polobench.run.processes", *sorted(libraries | {"ray"} & set(sys.modules))]


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (the system may be short of memory)" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{hint}"
    return f"the worker process ended with exit code {exitcode}"


def _tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants, as far as they are there."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def resident_mib(pid: int) -> float:
    """The resident sets of a process and its descendants; what they share counts each time."""
    held = 0
    for process in _tree(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            held += process.memory_info().rss
    return held / 2**20


def kill_tree(pid: int) -> None:
    """Kill a worker with its descendants, those included that it left to others, in reverse order of descent."""
    found = _tree(pid)
    for process in reversed(found[1:]):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # it leads a group, whose members may have lost their parent
    for process in found[:1]:  # last, since it may be this one
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _end_with_parent() -> None:
    """Wait until the sweep's process is gone, and with it whoever wanted the result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        kill_tree(os.getpid())


def _work(cell: Cell, cell_id: str, code: str, messages: Connection) -> None:
    """A worker's whole life."""
    gc.freeze()  # what the server has loaded stays
    gc.enable()
    warnings.simplefilter("ignore")  # those of hundreds of cells: `Method.run` in Python shows one's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and decides
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if "fork" in multiprocessing.get_all_start_methods():
        # a library's lock then has no name in the system that would be left, with a warning, when the worker is killed
        multiprocessing.set_start_method("fork", force=True)
    result = blank_result(PreparedCell(cell, cell_id), "ok", "")
    word: RunResult | str = result
    with outcome_into(result):
        word = _run(cell, cell_id, code, messages)
    messages.send(word)
    for process in reversed(_tree(os.getpid())[1:]):  # else this process would wait for them
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _run(cell: Cell, cell_id: str, code: str, messages: Connection) -> RunResult | str:
    """The cell's result, or why the sweep cannot go on."""
    prepared = prepare(cell)
    if prepared.method is None:
        return blank_result(replace(prepared, cell_id=cell_id), "skipped", prepared.unavailable)
    if prepared.code != code:
        return SOURCES_CHANGED
    if prepared.cell_id != cell_id:
        return blank_result(replace(prepared, cell_id=cell_id), "failed", OTHER_TASK)
    return run_watched(prepared, _sender(messages))


def _sender(messages: Connection) -> OnProgress:
    latest = 0.0

    def send(progress: Progress) -> None:
        nonlocal latest
        if time.monotonic() - latest > SHOW_EVERY_SECONDS:
            latest = time.monotonic()
            with suppress(BrokenPipeError):  # the parent is gone, and so will be this process
                messages.send(progress)

    return send
