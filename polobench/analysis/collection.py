"""What a store holds, sorted for the report: runs by arm, skipped cells, damaged files, and how much was left out."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polobench.analysis.statistics.intervals import Array
from polobench.core.budget import budget_text
from polobench.core.result import RunResult
from polobench.kinds.learning import Learning
from polobench.kinds.table import kind_of, kinds
from polobench.store.folder import Damaged, Reader
from polobench.store.identity import age, newest, within_arm
from polobench.store.pack import VERBATIM, open_store, without_home

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, order=True)
class Arm:
    """One method variant on one task, device and budget; its cells differ by seed."""

    task: str
    budget: str
    label: str
    device: str
    method: str
    kind: str

    @classmethod
    def of(cls, result: RunResult) -> Arm:
        """The arm that this cell belongs to."""
        budget = budget_text(result.budget)
        return cls(result.task, budget, result.label, result.device, result.method, result.kind)

    @property
    def learns(self) -> bool:
        """Whether its cells are whole runs."""
        return self.kind == Learning.name


@dataclass
class Collection:
    """A store as the report sees it."""

    names: list[str]  # of the stores' folders or packs
    cells: list[RunResult] = field(default_factory=list)  # of those that differ only by code or platform the newest
    arms: dict[Arm, list[RunResult]] = field(default_factory=dict)  # the cells that ran, by arm and seed, each once
    trials: list[RunResult] = field(default_factory=list)  # runs that chose settings; neither in `cells` nor in `arms`
    skipped: list[RunResult] = field(default_factory=list)  # the cells that did not run
    damaged: list[Damaged] = field(default_factory=list)  # files that are no result
    older_code: int = 0  # cells left out because a newer one differs from them only by code or platform
    older_settings: int = 0  # left out of `arms`: a newer one has other hyper-parameters, threads, rounds or data
    sources: list[str] = field(default_factory=list)  # the folders and packs it was read from, as relative paths

    def of_kind(self, kind: str) -> dict[Arm, list[RunResult]]:
        """The arms of the kind of this name."""
        return {arm: runs for arm, runs in self.arms.items() if arm.kind == kind}

    @property
    def learning(self) -> dict[Arm, list[RunResult]]:
        """The arms of whole runs."""
        return self.of_kind(Learning.name)

    def final_returns(self, arm: Arm) -> Array:
        """`[n]` of the runs of one arm, failed ones at the floor."""
        return np.array([run.final_return for run in self.arms[arm]], dtype=np.float64)

    @property
    def methods(self) -> dict[str, str]:
        """The method of each label."""
        return {arm.label: arm.method for arm in sorted(self.arms, reverse=True)}

    @property
    def labels(self) -> list[str]:
        """Every label of the store in a fixed order, so that colours do not depend on what a figure shows."""
        return sorted({result.label for result in self.cells})


def collect(
    store: Reader | Path | str, on_progress: OnProgress | None = None, *more: Reader | Path | str
) -> Collection:
    """Read a store, or several as if they were one, and sort it.

    Args:
        store: the store, its folder or its pack; `more` of them.
        on_progress: hears `(what, done, total)` of every file.

    Raises:
        UsageError: there is no such store.
    """
    stores = [item if isinstance(item, Reader) else open_store(item) for item in (store, *more)]
    on_file = partial(on_progress, "reading") if on_progress else None
    was_collecting = gc.isenabled()
    gc.disable()  # Python would look for cycles in all that was read, again and again: a quarter of the time
    try:
        read = [item for found in stores for item in found.each(on_file, _trim)]
    finally:
        if was_collecting:
            gc.enable()
    results = [item for item in read if isinstance(item, RunResult)]
    _name_online(results)
    _complete_floors(results)
    trials = [result for result in results if is_trial(result)]
    results = [result for result in results if not is_trial(result)]
    cells = newest(results)
    runs = sorted(newest(cells, lambda result: (Arm.of(result), within_arm(result))), key=_order)
    arms: dict[Arm, list[RunResult]] = {}
    for result in runs:
        if result.status != "skipped":
            arms.setdefault(Arm.of(result), []).append(result)
    return Collection(
        names=[item.name for item in stores],
        sources=[item.source for item in stores],
        cells=sorted(cells, key=_order),
        arms=arms,
        trials=sorted(newest(trials, lambda result: (Arm.of(result), within_arm(result))), key=_order),
        skipped=[result for result in runs if result.status == "skipped"],
        damaged=[item for item in read if isinstance(item, Damaged)],
        older_code=len(results) - len(cells),
        older_settings=len(cells) - len(runs),
    )


def _trim(plain: dict[str, Any]) -> None:
    """Take out what no report reads of a cell of its kind, and the user's name."""
    if kind := kinds().get(str(plain["kind"])):
        kind.trim(plain)
    plain |= {key: without_home(value) for key, value in plain.items() if key not in VERBATIM}


def looks_of(runs: Iterable[RunResult]) -> int:
    """How often the studies of these runs declare to look at their results."""
    return max((int(run.provenance.get("looks", 1)) for run in runs), default=1)


def more_than_declared(runs: Sequence[RunResult]) -> str:
    """Why the runs of an arm get no verdict: their study declared fewer seeds, and it was run on."""
    declared = min((int(run.provenance["seeds"]) for run in runs if "seeds" in run.provenance), default=len(runs))
    return f"{len(runs)} seeds, {declared} were declared" if len(runs) > declared else ""


def of_several_processors(runs: Iterable[RunResult]) -> bool:
    """Whether their seconds do not compare."""
    return len({run.provenance.get("cpu_model") for run in runs}) > 1


def has_smoke_run(runs: Iterable[RunResult]) -> bool:
    """Whether a run only shows that the parts work together: nothing is concluded from its arm."""
    return any(run.provenance.get("smoke") is True for run in runs)


def is_trial(result: RunResult) -> bool:
    """Whether a run was made to choose settings."""
    return result.provenance.get("trial") is not None


def _name_online(results: Sequence[RunResult]) -> None:
    """DPO on pairs that the policy sampled is labelled so, also in stores that are older than the label."""
    dpo = [result for result in results if result.method == "dpo" and result.label.startswith("dpo")]
    sampled = {result.task for result in dpo if result.ledger.samples_generated}
    for result in dpo:
        if result.task in sampled and not result.ledger.samples_read:
            result.label = f"online {result.label}"


def _complete_floors(results: Sequence[RunResult]) -> None:
    """Score every run that failed at its task's floor, also where it failed too early to know it.

    A cell that does not learn evaluates nothing, so it has no return.
    """
    known = {result.task: result for result in sorted(results, key=age) if math.isfinite(result.floor)}
    for result in results:
        if math.isnan(result.floor) and (other := known.get(result.task)):
            result.floor, result.target, result.unit = other.floor, other.target, other.unit
        if not kind_of(result).learns:
            result.final_return, result.final_score = math.nan, None
        elif result.status != "ok":
            result.score_as_failed()


def _order(result: RunResult) -> tuple[Arm, tuple[int, str], str]:
    return Arm.of(result), within_arm(result), result.cell_id
