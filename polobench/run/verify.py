"""Stored learning cells, run again here: which of their digests hold.

A digest is promised for equal code on an equal platform (`provenance.platform_fingerprint`). A difference is a fault
there and where the code alone changed; on another platform it is none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from polobench.cells.runner import PreparedCell, prepare
from polobench.core.budget import Budget
from polobench.core.errors import PoloError, UsageError
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.kinds.table import kind_of
from polobench.run.executor import run_watched
from polobench.run.progress import Display
from polobench.store.identity import newest, threads_of

HOLDS, DIFFERS, UNAVAILABLE = "holds", "differs", "unavailable"
_SHOWN = ("verdict", "beside", "first_difference", "reason", "is_fault")
OTHER_PLATFORM, OTHER_CODE, OTHER_TASK = "other platform", "other code", "other task"


@dataclass(frozen=True)
class Verification:
    """What came of running one stored cell again.

    Attributes:
        verdict: "holds", "differs" or "unavailable".
        beside: what differs between then and now: "other platform", "other code"; or "other task" where both are equal
            and the id is not: the task's data, model, floor or target changed.
        first_difference: the number (from 1) of the first update after which the runs differ; None where none does.
        reason: why the cell is unavailable, or how a run that differs ended.
    """

    stored: RunResult
    verdict: str
    beside: tuple[str, ...] = ()
    first_difference: int | None = None
    reason: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the digest should hold and does not."""
        return self.verdict == DIFFERS and OTHER_PLATFORM not in self.beside

    @property
    def sentence(self) -> str:
        """`differs from update 3 on (other code)`."""
        number = self.first_difference
        first = " in its last evaluation" if number is None else f" from update {number} on"
        where = first if self.verdict == DIFFERS else ""
        beside = f" ({', '.join(self.beside)})" if self.beside else ""
        return f"{self.verdict}{where}{beside}" + (f": {self.reason}" if self.reason else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        names = {"cell_id": self.stored.cell_id, "cell": str(cell_of(self.stored))}
        return names | {name: getattr(self, name) for name in _SHOWN}


def draw(results: Sequence[RunResult], count: int, seed: int) -> list[RunResult]:
    """Draw at most `count` learning cells that ended ok and have a digest, the same ones for the same seed.

    Of cells that differ only by code or platform the newest takes part, as in every report.

    Raises:
        UsageError: there is none.
    """
    sound = [result for result in results if kind_of(result).learns and result.status == "ok" and result.digest]
    if not sound:
        raise UsageError("the store has no learning cell that ended ok and has a digest, so nothing can be verified")
    found = sorted(newest(sound), key=lambda item: item.cell_id)
    return sorted(random.Random(seed).sample(found, min(count, len(found))), key=lambda item: item.cell_id)


def cell_of(result: RunResult) -> Cell:
    """The cell that gives this result, every hyper-parameter set by hand; raises `UsageError` if its budget is none."""
    return Cell(
        method=result.method,
        label=result.label,
        task=result.task,
        seed=result.seed,
        device=result.device,
        budget=Budget.of(result.budget),
        overrides=dict(result.hyperparameters),
        threads=threads_of(result),
        tuned=False,
        environment=result.provenance.get("environment", {}),
        split=result.provenance.get("split", "heldout"),
    )


def reruns(drawn: Sequence[RunResult], display: Display) -> list[Verification]:
    """Run the cells, read with their trails, again, one after the other in this process."""
    return [_rerun(result, display) for result in drawn]


def _rerun(stored: RunResult, display: Display) -> Verification:
    try:
        prepared = prepare(cell_of(stored))
    except PoloError as error:  # a plug-in that is not installed here, a hyper-parameter that is no more
        return Verification(stored, UNAVAILABLE, reason=str(error))
    if prepared.method is None:
        return Verification(stored, UNAVAILABLE, reason=prepared.unavailable)
    display.started(prepared.cell)
    again = run_watched(prepared, partial(display.moved, prepared.cell))
    display.finished(prepared.cell, again)
    beside = _beside(stored, again, prepared)
    if again.status == "skipped":
        return Verification(stored, UNAVAILABLE, beside, reason=again.reason)
    if again.digest == stored.digest:
        return Verification(stored, HOLDS, beside)
    ended = "" if again.status == "ok" else f"it ended {again.status}: {again.reason}"
    return Verification(stored, DIFFERS, beside, stored.first_difference(again), ended)


def _beside(stored: RunResult, again: RunResult, prepared: PreparedCell) -> tuple[str, ...]:
    changed = [
        name
        for name, key in ((OTHER_PLATFORM, "platform_fingerprint"), (OTHER_CODE, "code_hash"))
        if stored.provenance.get(key) != again.provenance.get(key)
    ]
    return tuple(changed) if changed or stored.cell_id == prepared.cell_id else (OTHER_TASK,)


def summary(found: Sequence[Verification]) -> str:
    """`2 of 3 digests hold on this platform, 1 unavailable`."""
    counts = {verdict: sum(item.verdict == verdict for item in found) for verdict in (HOLDS, DIFFERS, UNAVAILABLE)}
    others = [f", {counts[verdict]} {verdict}" for verdict in (DIFFERS, UNAVAILABLE) if counts[verdict]]
    return f"{counts[HOLDS]} of {len(found)} digests hold on this platform" + "".join(others)


def complaint(found: Sequence[Verification]) -> str:
    """How many digests should hold and do not, by what else changed; empty if none."""
    faults = [item for item in found if item.is_fault]
    kinds = [OTHER_CODE if OTHER_CODE in item.beside else (*item.beside, "equal code")[0] for item in faults]
    counted = [f"{kinds.count(kind)} with {kind}" for kind in ("equal code", OTHER_CODE, OTHER_TASK) if kind in kinds]
    return f"digests that differ on the same platform: {', '.join(counted)}" if faults else ""
