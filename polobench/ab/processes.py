"""The processes of `polobench ab`, as the parent sees them: one server per interpreter, forked for each worker.

What the processes do themselves stands in worker.py.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polobench.ab.sides import Side
from polobench.core.errors import PoloError, UsageError
from polobench.kinds.cell import Cell

ANSWER_SECONDS = 600.0  # a process that is silent for so long has failed
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Timing:
    """Seconds of one iteration and of its rollout; the update is the rest."""

    iteration: float
    rollout: float

    @property
    def update(self) -> float:
        return self.iteration - self.rollout


class WorkerFailed(PoloError):
    """A worker could not open its cell, could not go on, or died; the text is the reason."""


def cores_for(cell: Cell) -> list[int]:
    """The cores that this process may use; none where iterations must take turns."""
    if cell.device != "cpu" or not hasattr(os, "sched_setaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


class _Server:
    """The process that loads the libraries once and is forked for every worker. A context manager."""

    def __init__(self, python: Path) -> None:
        self._python = python

    def __enter__(self) -> _Server:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._control, theirs = socket.socketpair()
        self._control.settimeout(ANSWER_SECONDS)
        command = [str(self._python), "-P", str(WORKER), str(theirs.fileno())]
        with theirs:  # a session of its own: Ctrl-C is for the parent, which then ends it
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(self._process.pid, signal.SIGKILL)  # its children, too
        self._process.wait()
        self._control.close()
        self._log.close()

    def wait(self) -> None:
        """Wait until it has loaded the libraries or forked; if it died, its workers will report it."""
        with suppress(OSError):
            self._control.recv(1)

    def fork(self, order: dict[str, Any], channel: socket.socket) -> None:
        """Fork a child with the order and the socket; if the server has died, the socket closes."""
        with suppress(OSError):
            socket.send_fds(self._control, [json.dumps(order).encode()], [channel.fileno()])
            self.wait()  # two orders at once could be read as one

    def last_words(self) -> str:
        """The last line that it or one of its children printed."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""


class Worker:
    """A cell, open in a process of one commit that talks JSON lines; `ready` and `timing` raise `WorkerFailed`."""

    def __init__(self, server: _Server, side: Side, cell: Cell, cores: list[int]) -> None:
        self._server = server
        names = ("method", "label", "device", "threads", "tuned", "seed")
        task = {**cell.environment, "label": cell.task} if cell.environment else cell.task
        where = {"overrides": dict(cell.overrides), "home": str(side.home), "paths": side.paths, "cores": cores}
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_SECONDS)
        with ours, theirs:
            self._lines = ours.makefile("rw", encoding="utf-8")
            server.fork({name: getattr(cell, name) for name in names} | {"task": task} | where, theirs)

    def ready(self) -> None:
        """Wait until it is open."""
        self._answer()

    def begin(self) -> None:
        """Let it start an iteration."""
        with suppress(OSError):  # it may have died; its last answer says why
            print("step", file=self._lines, flush=True)

    def timing(self) -> Timing:
        """Wait for the end of the iteration."""
        return Timing(**self._answer())

    def close(self) -> None:
        """Let it go."""
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


Workers = tuple[Worker, Worker]  # base, head
OpenBoth = Callable[[Cell, np.random.Generator], Workers]


@contextmanager
def servers(*sides: Side) -> Iterator[Callable[[Side, Side], OpenBoth]]:
    """Load the libraries once per interpreter; gives a function that makes the `OpenBoth` of a base and a head.

    Raises:
        UsageError: this system cannot fork.
    """
    if not hasattr(os, "fork"):
        raise UsageError("`polobench ab` forks its workers, which this system cannot (allowed: Linux, macOS)")
    with ExitStack() as stack:
        running = {python: stack.enter_context(_Server(python)) for python in {side.python for side in sides}}
        for server in running.values():
            server.wait()

        def open_both(base: Side, head: Side, cell: Cell, order: np.random.Generator) -> Workers:
            drawn = order.permutation(cores_for(cell)).astype(int)[: cell.threads].tolist()
            return Worker(running[base.python], base, cell, drawn), Worker(running[head.python], head, cell, drawn)

        yield lambda base, head: partial(open_both, base, head)
