"""One cell, run: the function behind both doors, `pytest benchmarks` and `polobench run`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import chdir
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from polobench.cells.job import Job, Watch
from polobench.core.errors import Unavailable
from polobench.core.method import Method
from polobench.core.outcome import outcome_into
from polobench.core.result import SCHEMA_VERSION, RunResult, utc_now
from polobench.kinds.cell import Cell
from polobench.registry import find_task, make
from polobench.store.folder import ID_DIGITS


@dataclass(frozen=True)
class PreparedCell:
    """A cell that is known to be possible, with its id; or, where it is not available here, the reason.

    Attributes:
        code: hashes of the code that decides the numbers.
        task_hash: of the task's data, model and arguments.
        job: the running half of the cell's kind, with the stored files that it reads.
        defined_by: what decides what the cell computes; the id is its hash.
    """

    cell: Cell
    cell_id: str
    method: Method | None = None
    job: Job[Any] | None = None
    code: str = ""
    task_hash: str = ""
    unavailable: str = ""
    defined_by: Mapping[str, object] = field(default_factory=dict)


def prepare(cell: Cell) -> PreparedCell:
    """Resolve names, hyper-parameters and stored files; raises `UsageError` if one of these cannot be found or used."""
    hyperparameters: dict[str, object] = dict(cell.overrides)
    known: dict[str, object] = {}
    with chdir("."):  # wherever an environment goes meanwhile
        try:
            task = find_task(cell.task, cell.environment)
            task = task.for_tuning() if cell.split == "tuning" else task
            job: Job[Any] = cell.plan.job(task)
            given = {**cell.overrides, **job.hyperparameters}
            method = make(
                cell.method, task, cell.device, label=cell.label, threads=cell.threads, tuned=cell.tuned, **given
            )
            cell = replace(cell, label=method.label)
            origin = method.provenance()
            hyperparameters = asdict(method.hp)
            known = {name: origin[name] for name in ("code_hash", "platform_fingerprint")}
            identity = method.task.identity()
        except Unavailable as error:
            missing = PreparedCell(cell, "", unavailable=str(error))
            return _identified(missing, cell, _definition(cell, hyperparameters, **known))
    known |= {"floor": str(method.task.floor), "target": method.task.target, "files": job.hashes, "measuring": job.code}
    prepared = PreparedCell(cell, "", method, job, f"{origin['code_hash']} {job.code}", _hash(identity))
    return _identified(prepared, cell, _definition(cell, hyperparameters, **known, **identity))


def prepare_all(cells: Iterable[Cell]) -> list[PreparedCell]:
    """As `prepare`, but cells that differ by their seed alone share a method, which must not be run in this process.

    It prepares a hundred thousand cells in seconds.
    """
    arms: dict[Cell, PreparedCell] = {}
    found = []
    for cell in cells:
        arm = replace(cell, seed=0)
        if arm not in arms:
            arms[arm] = prepare(cell)
        cell = replace(cell, label=arms[arm].cell.label)
        found.append(_identified(arms[arm], cell, dict(arms[arm].defined_by) | {"seed": cell.seed}))
    return found


def _identified(prepared: PreparedCell, cell: Cell, parts: dict[str, object]) -> PreparedCell:
    return replace(prepared, cell=cell, cell_id=_hash(parts), defined_by=parts)


def _hash(parts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]


def _definition(cell: Cell, hyperparameters: dict[str, object], **known: object) -> dict[str, object]:
    """Everything that decides what a cell computes."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": cell.kind,
        "method": cell.method,
        "label": cell.label,
        "hyperparameters": hyperparameters,
        "task": cell.task,
        "seed": cell.seed,
        "device": cell.device,
        "budget": cell.budget.as_dict(),
        "threads": cell.threads,
        "plan": {item.name: getattr(cell.plan, item.name) for item in fields(cell.plan) if item.compare},
    } | known


def blank_result(prepared: PreparedCell, status: str, reason: str) -> RunResult:
    """A result for a cell that did not run to its end, or not at all."""
    cell = prepared.cell
    result = RunResult(
        method=cell.method,
        label=cell.label,
        task=cell.task,
        seed=cell.seed,
        device=cell.device,
        budget=cell.budget.as_dict(),
        kind=cell.kind,
        hyperparameters=dict(cell.overrides),
        cell_id=prepared.cell_id,
        status=status,
        reason=reason,
        started_at=utc_now(),
    )
    if prepared.method is not None:
        task = prepared.method.task
        result.hyperparameters = asdict(prepared.method.hp)
        result.unit, result.floor, result.target = task.unit, task.floor, task.target
        result.score_as_failed()
        result.provenance = prepared.method.provenance()
    cell.plan.describe(result, prepared.job.hashes if prepared.job else {})
    return _of_study(result, prepared)


def _of_study(result: RunResult, prepared: PreparedCell) -> RunResult:
    """The result, with what its study says of it and what its task is made of."""
    cell = prepared.cell
    result.provenance |= {"study": cell.study, "overrides": dict(cell.overrides), **cell.facts}
    if prepared.task_hash:
        result.provenance["task_hash"] = prepared.task_hash
    if cell.environment:
        result.provenance["environment"] = dict(cell.environment)
    result.provenance |= {name: True for name in ("probe", "smoke") if getattr(cell, name)}
    return result


def run_cell(prepared: PreparedCell, watch: Watch | None = None) -> RunResult:
    """Run a cell of any kind; a failure is a result, too."""
    if prepared.method is None or prepared.job is None:
        return blank_result(prepared, "skipped", prepared.unavailable)
    result = blank_result(prepared, "ok", "")
    with chdir("."), outcome_into(result):
        result = prepared.job.measure(prepared.method, prepared.cell, result, watch or Watch())
    result.cell_id = prepared.cell_id
    return _of_study(result, prepared)
