"""One cell, run: the function behind both doors, `pytest benchmarks` and `polobench run`."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from polobench.cells import fixed_batch, gradient_noise
from polobench.cells.stored_batches import FixedBatch, find_batch
from polobench.cells.stored_policies import FixedPolicy, find_policy
from polobench.cells.throughput import ThroughputProbe
from polobench.core.budget import Ledger, RunTimeout, Stopwatch
from polobench.core.device import PeakMemory
from polobench.core.errors import Unavailable, first_line
from polobench.core.method import Method
from polobench.core.provenance import code_hash
from polobench.core.recorder import Diverged, Progress
from polobench.core.result import SCHEMA_VERSION, RunResult, utc_now
from polobench.registry import find_task, make
from polobench.run.study import WARMUP_ROUNDS, Cell
from polobench.store.folder import ID_DIGITS


@dataclass(frozen=True)
class PreparedCell:
    """A cell that is known to be possible, with its id; or, where it is not available here, the reason.

    A gradient-noise cell has its `fixed` policy, a fixed-batch cell that and its `batch`.
    """

    cell: Cell
    cell_id: str
    method: Method | None
    fixed: FixedPolicy | None = None
    batch: FixedBatch | None = None
    unavailable: str = ""


def prepare(cell: Cell) -> PreparedCell:
    """Resolve names and hyper-parameters.

    Raises:
        UsageError: the cell cannot exist: an unknown name, an impossible value, or a fixed policy or batch that is not
            there.
    """
    fixed, batch, overrides = None, None, dict(cell.overrides)
    try:
        task = find_task(cell.task)
        if cell.noise:
            fixed = find_policy(cell.noise.folder, task, cell.noise.policy)
        elif cell.batches:
            fixed = find_policy(Path(cell.batches).with_name("policies"), task, "initial")
            batch = find_batch(cell.batches, cell.task)
        if fixed:
            overrides |= fixed.network  # so that every method measures the same policy
        method = make(
            cell.method, task, cell.device, label=cell.label, threads=cell.threads, tuned=cell.tuned, **overrides
        )
    except Unavailable as error:
        return PreparedCell(cell, _identify(cell, dict(cell.overrides)), None, unavailable=str(error))
    origin = method.provenance()
    known = {name: origin[name] for name in ("code_hash", "platform_fingerprint")}
    try:
        identity = method.task.identity()
    except Unavailable as error:
        return PreparedCell(cell, _identify(cell, asdict(method.hp), **known), None, unavailable=str(error))
    known |= {"floor": str(method.task.floor), "target": method.task.target} | identity
    if cell.noise and fixed:
        plan = {"policy": fixed.name, "sha256": fixed.sha256, "batches": cell.noise.batches}
        known |= {"gradient_noise": plan | {"samples": cell.noise.samples, "code": code_hash(gradient_noise.__name__)}}
    if batch and fixed:
        plan = {"policy": fixed.sha256, "batch": batch.sha256}
        known |= {"fixed_batch": plan | {"code": code_hash(fixed_batch.__name__)}}
    return PreparedCell(cell, _identify(cell, asdict(method.hp), **known), method, fixed, batch)


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
    if cell.noise:
        sha256 = prepared.fixed.sha256 if prepared.fixed else ""
        result.gradient_noise = {"policy": cell.noise.policy, "policy_sha256": sha256, "samples": cell.noise.samples}
    return _of_study(result, cell)


def _of_study(result: RunResult, cell: Cell) -> RunResult:
    """The result, with what its study says of it."""
    result.provenance |= {"study": cell.study, "overrides": dict(cell.overrides)}
    result.provenance |= {name: True for name in ("probe", "smoke") if getattr(cell, name)}
    return result


def run_cell(
    prepared: PreparedCell,
    *,
    clock: Stopwatch | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    beside_others: bool = False,
) -> RunResult:
    """Run a cell of any kind; a failure is a result, too."""
    if prepared.method is None:
        return blank_result(prepared, "skipped", prepared.unavailable)
    if prepared.cell.rounds:
        return run_throughput(prepared, lambda probe: _rounds(probe, prepared.cell.rounds), beside_others)
    if prepared.cell.noise:
        return run_gradient_noise(prepared, on_progress, beside_others)
    if prepared.batch:
        return run_fixed_batch(prepared)
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
    with _failing_into(result), ThroughputProbe(method, cell.seed, WARMUP_ROUNDS + cell.rounds) as probe:
        drive(probe)
        result.throughput = probe.summary(cell.rounds)
        if not any(probe.samples[-cell.rounds :]):
            result.reason = f"the {cell.rounds} timed rounds took no new samples: more throughput_rounds are needed"
        result.ledger = probe.ledger.totals()
        result.peak_memory_mib = probe.memory.mib
    return result


def run_gradient_noise(
    prepared: PreparedCell, on_progress: Callable[[Progress], None] | None = None, beside_others: bool = False
) -> RunResult:
    """A gradient-noise cell."""
    result = blank_result(prepared, "ok", "all batches were measured")
    result.ran_beside_others = beside_others
    method, cell = prepared.method, prepared.cell
    assert method is not None
    assert cell.noise is not None
    assert prepared.fixed is not None
    deadline = None if cell.timeout_seconds is None else time.perf_counter() + cell.timeout_seconds
    ledger, memory = Ledger(cell.budget, deadline=deadline), PeakMemory(method.device)
    show = on_progress or (lambda progress: None)
    with _failing_into(result):
        found = gradient_noise.measure(method, prepared.fixed, cell.noise, cell.seed, ledger, memory, show)
        result.gradient_noise |= found
        if found["batches"] < cell.noise.batches:
            result.reason = f"the budget held {found['batches']} of {cell.noise.batches} batches"
    result.ledger, result.peak_memory_mib = ledger.totals(), memory.mib
    return result


def run_fixed_batch(prepared: PreparedCell) -> RunResult:
    """A fixed-batch cell; it is timed by nobody."""
    result = blank_result(prepared, "ok", "the update was made")
    assert prepared.method is not None
    assert prepared.fixed is not None
    assert prepared.batch is not None
    with _failing_into(result):
        result.fixed_batch = fixed_batch.measure(prepared.method, prepared.fixed, prepared.batch, prepared.cell.seed)
    return result


@contextmanager
def _failing_into(result: RunResult) -> Iterator[None]:
    """What goes wrong inside becomes the result's status, with its reason."""
    try:
        yield
    except RunTimeout as end:
        result.status, result.reason = "timeout", str(end)
    except Diverged as end:
        result.status, result.reason = "diverged", str(end)
    except Unavailable as error:
        result.status, result.reason = "skipped", str(error)
    except Exception as error:
        result.status, result.reason, result.traceback = "failed", first_line(error), traceback.format_exc(limit=-8)
