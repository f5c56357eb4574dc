"""How whatever ends a run is called, decided once for every kind of cell."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from polobench.core.budget import RunTimeout
from polobench.core.errors import Unavailable, first_line
from polobench.core.recorder import Diverged
from polobench.core.result import RunResult

_BY_NAME = {RunTimeout: "timeout", Diverged: "diverged", Unavailable: "skipped"}


@contextmanager
def outcome_into(result: RunResult, where: str = "") -> Iterator[None]:
    """What goes wrong inside becomes the result's status and reason; the user's interrupt goes through.

    Args:
        result: keeps the outcome that it has, if it did not end ok already.
        where: stands before the reason of a failure.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if result.status != "ok":
            return
        status = next((name for kind, name in _BY_NAME.items() if isinstance(error, kind)), None)
        if status:
            result.status, result.reason = status, str(error)
            return
        result.status = "out_of_memory" if _is_out_of_memory(error) else "failed"
        result.reason, result.traceback = f"{where}{first_line(error)}", traceback.format_exc(limit=-8)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
