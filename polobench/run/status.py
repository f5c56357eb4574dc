"""How far a study has come in a store, per arm; and the mark by which a sweep says which cells it is running."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Self

from polobench.cells.runner import PreparedCell
from polobench.core.budget import budget_text
from polobench.core.result import RunResult
from polobench.run.estimate import estimate
from polobench.store.folder import Damaged, Reader, Store, outcome_only

STATES = ("done", "running", "failed", "missing")
FRESH_SECONDS = 60.0  # after which a mark that nobody touched is that of a sweep that died
_TOUCH_SECONDS = 5.0
_MARKS, _LEFT_OVER = ".sweep-*.tmp", (".sweep-*", ".writing-*", ".slurm-*", ".probe-*")


class Mark:
    """A file in the store that names the cells that a sweep is running. A context manager, which removes it."""

    def __init__(self, store: Store) -> None:
        self._path = store.folder / f".sweep-{os.getpid()}-{secrets.token_hex(4)}.tmp"
        self._written, self._running = 0.0, list[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def show(self, running: Iterable[str]) -> None:
        """Name the cells that run now; a store that cannot be written to is the sweep's business."""
        names, now = list(running), time.monotonic()
        if names != self._running or now - self._written > _TOUCH_SECONDS:
            self._running, self._written = names, now
            with suppress(OSError):
                self._path.write_text(json.dumps(names), encoding="utf-8")


def running(store: Reader) -> set[str]:
    """The ids of the cells that sweeps are running into the store."""
    found: set[str] = set()
    for path in store.place.glob(_MARKS) if store.place.is_dir() else ():
        with suppress(OSError, ValueError):  # gone, or being written
            if time.time() - path.stat().st_mtime < FRESH_SECONDS:
                found.update(map(str, json.loads(path.read_bytes())))
    return found


def tidy(store: Store) -> None:
    """Remove what sweeps that were killed left in the store, unless a sweep is at work there."""
    left = [path for pattern in _LEFT_OVER for path in store.folder.glob(pattern)]
    with suppress(OSError):
        if left and max(path.stat().st_mtime for path in left) < time.time() - FRESH_SECONDS:
            for path in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def status(store: Reader, cells: Sequence[PreparedCell], jobs: int = 1) -> dict[str, Any]:
    """Counts of a study's cells by state, in all and per arm, `damaged` files and, in words, what is `left`; for JSON.

    Without cells the arms are those of the store, and nothing is missing. Raises `UsageError` if there is no store.
    """
    now = running(store)
    read = list(store.each(trim=outcome_only))
    found = {item.cell_id: item for item in read if isinstance(item, RunResult)}
    asked = {item.cell_id: _arm(item.cell, item.cell.budget.as_dict()) for item in cells}
    asked = asked or {cell_id: _arm(result, result.budget) for cell_id, result in found.items()}
    states = {cell_id: _state(cell_id, found, now) for cell_id in asked}
    arms: dict[tuple[str, ...], Counter[str]] = {}
    for cell_id, arm in asked.items():
        arms.setdefault(arm, Counter())[states[cell_id]] += 1
    names = ("label", "task", "budget", "device", "kind")
    sums = Counter(states.values())
    missing = [item for item in cells if states[item.cell_id] in ("missing", "running") and item.method is not None]
    return {
        **{state: sums[state] for state in STATES},
        "damaged": sum(isinstance(item, Damaged) for item in read),
        "left": estimate(missing, found.values(), jobs) if missing else "",
        "arms": [dict(zip(names, arm)) | {state: counts[state] for state in STATES} for arm, counts in arms.items()],
    }


def _state(cell_id: str, found: dict[str, RunResult], now: set[str]) -> str:
    if cell_id in now:
        return "running"
    if cell_id not in found:
        return "missing"
    return {"ok": "done", "skipped": "missing"}.get(found[cell_id].status, "failed")


def _arm(item: Any, budget: dict[str, float]) -> tuple[str, ...]:
    return item.label, item.task, budget_text(budget), item.device, item.kind
