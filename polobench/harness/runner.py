"""One cell, run: the function behind both doors, `pytest benchmarks` and `polobench run`."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass

from polobench.core.budget import Stopwatch
from polobench.core.errors import Unavailable, first_line
from polobench.core.method import Method
from polobench.core.recorder import Progress
from polobench.core.registry import make
from polobench.core.result import SCHEMA_VERSION, RunResult, utc_now
from polobench.harness.store import ID_DIGITS
from polobench.harness.study import WARMUP_ROUNDS, Cell
from polobench.harness.throughput import ThroughputProbe


@dataclass(frozen=True)
class PreparedCell:
    """A cell that is known to be possible, with its id; or, where it is not available here, the reason."""

    cell: Cell
    cell_id: str
    method: Method | None
    unavailable: str = ""


def prepare(cell: Cell) -> PreparedCell:
    """Resolve names and hyper-parameters.

    Raises:
        UsageError: the cell cannot exist: an unknown name or an impossible value.
    """
    try:
        method = make(
            cell.method,
            cell.task,
            cell.device,
            label=cell.label,
            threads=cell.threads,
            tuned=cell.tuned,
            **cell.overrides,
        )
    except Unavailable as error:
        return PreparedCell(cell, _identify(cell, dict(cell.overrides)), None, str(error))
    origin = method.provenance()
    known = {name: origin[name] for name in ("code_hash", "platform_fingerprint")}
    try:
        identity = method.task.identity()
    except Unavailable as error:
        return PreparedCell(cell, _identify(cell, asdict(method.hp), **known), None, str(error))
    known |= {"floor": str(method.task.floor), "target": method.task.target} | identity
    return PreparedCell(cell, _identify(cell, asdict(method.hp), **known), method)


def _identify(cell: Cell, hyperparameters: dict[str, object], **known: object) -> str:
    """The hash of everything that decides what a cell computes."""
    parts = {
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
        "rounds": cell.rounds,
    } | known
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]


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
        result.final_return, result.final_score = task.floor, None if task.target is None else 0.0
        result.provenance = prepared.method.provenance()
    return _of_study(result, cell)


def _of_study(result: RunResult, cell: Cell) -> RunResult:
    """The result, with what its study says of it."""
    result.provenance["study"] = cell.study
    if cell.smoke:
        result.provenance["smoke"] = True
    return result


def run_cell(
    prepared: PreparedCell,
    *,
    clock: Stopwatch | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    beside_others: bool = False,
) -> RunResult:
    """Run a learning or a throughput cell; a failure is a result, too."""
    if prepared.method is None:
        return blank_result(prepared, "skipped", prepared.unavailable)
    if prepared.cell.rounds:
        return run_throughput(prepared, lambda probe: _rounds(probe, prepared.cell.rounds), beside_others)
    cell = prepared.cell
    result = prepared.method.run(
        cell.seed, cell.budget, clock=clock, on_progress=on_progress, timeout_seconds=cell.timeout_seconds
    )
    result.cell_id, result.ran_beside_others = prepared.cell_id, beside_others
    return _of_study(result, cell)


def _rounds(probe: ThroughputProbe, rounds: int) -> None:
    for _ in range(WARMUP_ROUNDS + rounds):
        probe.step()


def run_throughput(
    prepared: PreparedCell, drive: Callable[[ThroughputProbe], object], beside_others: bool = False
) -> RunResult:
    """A throughput cell; `drive` takes the probe's steps (pytest-benchmark, or a plain loop)."""
    result = blank_result(prepared, "ok", "all rounds were timed")
    result.ran_beside_others = beside_others
    method, cell = prepared.method, prepared.cell
    assert method is not None
    try:
        with ThroughputProbe(method, cell.seed, WARMUP_ROUNDS + cell.rounds) as probe:
            drive(probe)
            result.throughput = probe.summary(cell.rounds)
            result.ledger = probe.ledger.totals()
            result.peak_memory_mib = probe.memory.mib
    except Unavailable as error:
        result.status, result.reason = "skipped", str(error)
    except Exception as error:
        result.status, result.reason, result.traceback = "failed", first_line(error), traceback.format_exc(limit=-8)
    return result
