"""The process of `polobench ab` that takes timed iterations, inside the environment of one commit or of both.

    python -P worker.py FD

It loads what the commits share (torch, gymnasium, pandas) and then forks one child for each order that comes over the
Unix socket FD. An order is one JSON object with the child's own socket beside it. The child puts the commit's folders
first on its path, makes the method by name and answers each request with one line of JSON:

    {"ready": true}                            once the cell is open
    {"iteration": 0.31, "rollout": 0.12}       [seconds] after each line that it reads
    {"error": "ValueError: ..."}               instead, and the child ends

Forked from one process, both commits have their libraries at the same addresses and the same hash seed, and a restart
costs no import of torch. Nothing of polobench is imported before the fork: an old commit need not have this file.

On the cpu, seconds are CPU seconds of the process, since waiting for a busy core is not the commit's doing; on other
devices they are wall seconds.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

MOST_ITERATIONS = 10_000_000  # the budget; so large that a schedule over it stands still
MOST_BYTES = 2**16


def preload() -> None:
    """Import what takes long and belongs to no commit; the first optimizer loads eight hundred modules of torch."""
    import gymnasium  # noqa: F401
    import pandas  # noqa: F401
    import torch

    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])


def serve(control: socket.socket) -> None:
    """Send a byte; then, until the other end closes, fork a child for each order and send another byte."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it shares
    control.send(b".")
    while True:
        message, files, *_ = socket.recv_fds(control, MOST_BYTES, 1)
        if not message:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            with socket.socket(fileno=files[0]) as channel, channel.makefile("rw", encoding="utf-8") as lines:
                answer_all(json.loads(message), lines)
            os._exit(0)
        os.close(files[0])
        control.send(b".")


def answer_all(order: dict[str, Any], lines: TextIO) -> None:
    """Answer every line with one iteration's seconds; whatever goes wrong is one line, too."""
    try:
        for answer in iterations(order, lines):
            print(json.dumps(answer), file=lines, flush=True)
    except BrokenPipeError:  # the other end has what it wanted
        return
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        print(json.dumps({"error": text}), file=lines, flush=True)


def iterations(order: dict[str, Any], requests: Iterable[str]) -> Iterator[dict[str, Any]]:
    """`ready`, then the seconds of one iteration for each request.

    Args:
        order: `home` (where polobench must lie), `paths` (put first on `sys.path`), `seed`, and the cell's `method`,
            `label`, `task`, `device`, `threads`, `tuned` and `overrides`, and `cores` (that it is bound to, or none).

    Raises:
        ImportError: polobench comes from elsewhere.
    """
    sys.path[:0] = order["paths"]
    importlib.invalidate_caches()
    found = Path(str(importlib.import_module("polobench").__file__)).resolve()  # the commit's own
    if not found.is_relative_to(order["home"]):
        raise ImportError(f"polobench comes from {found.parents[0]}, not from {order['home']}")
    with _timed_method(order) as timed:
        yield {"ready": True}
        for number, _ in enumerate(requests):
            if number == 0 and order["cores"]:  # not before: opening may use every core
                os.sched_setaffinity(0, order["cores"])
            timed.step()
            yield {"iteration": timed.iteration_seconds[-1], "rollout": timed.rollout_seconds[-1]}


def _timed_method(order: dict[str, Any]) -> Any:
    from polobench.core.budget import Stopwatch

    names = ("method", "task", "device", "label", "threads", "tuned")
    method = importlib.import_module("polobench").make(**{name: order[name] for name in names}, **order["overrides"])
    clock = time.process_time if order["device"] == "cpu" else time.perf_counter
    timed = _throughput_module().ThroughputProbe(method, order["seed"], MOST_ITERATIONS, clock=clock)
    timed.ledger.clock = Stopwatch(wall=clock)  # rollout seconds come from the ledger
    return timed


def _throughput_module() -> ModuleType:
    """The commit's module of timed iterations, wherever it keeps it."""
    folder = Path(str(importlib.import_module("polobench").__file__)).parent
    for room in ("cells", "harness"):
        if (folder / room / "throughput.py").exists():  # a finder of an editable install would find another commit's
            return importlib.import_module(f"polobench.{room}.throughput")
    raise ImportError("this commit times no iterations")


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as control:
        preload()
        serve(control)
