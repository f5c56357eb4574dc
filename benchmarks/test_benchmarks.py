"""Learning cells, timed by the ledger's clock; throughput and gradient-noise cells, by pytest-benchmark's."""

from __future__ import annotations

from typing import Any

import pytest

from polobench.cells.runner import WARMUP_ROUNDS, PreparedCell, run_cell, run_throughput
from polobench.core.budget import Stopwatch
from polobench.core.result import RunResult


def test_learning(prepared: PreparedCell, clock: Stopwatch, benchmark: Any, door: Any) -> None:
    """One whole run: one round, whose time is the ledger's wall seconds, evaluation excluded."""
    _skip_if_unavailable(prepared, door)
    door.display.started(prepared.cell)
    watch = {"clock": clock, "on_progress": lambda progress: door.display.moved(prepared.cell, progress)}
    with door.interruptible(benchmark):
        result = benchmark.pedantic(run_cell, args=(prepared,), kwargs=watch, rounds=1, iterations=1)
    door.keep(prepared, result)
    benchmark.extra_info.update(_learning_info(result))
    assert result.status == "ok", f"{result.status}: {result.reason}"


def test_throughput(prepared: PreparedCell, clock: Stopwatch, benchmark: Any, door: Any) -> None:
    """Warmed-up iterations; the device is synchronised inside the timed call."""
    _skip_if_unavailable(prepared, door)
    door.display.started(prepared.cell)
    if benchmark.disabled:
        pytest.skip("--benchmark-disable takes no rounds")
    rounds = prepared.cell.rounds
    with door.interruptible(benchmark):
        result = run_throughput(
            prepared, lambda probe: benchmark.pedantic(probe.step, rounds=rounds, warmup_rounds=WARMUP_ROUNDS)
        )
    door.keep(prepared, result)
    if result.status == "skipped":
        pytest.skip(result.reason)
    assert result.status == "ok", f"{result.status}: {result.reason}"
    rates = {key: value for key, value in result.throughput.items() if key.endswith("_per_second")}
    benchmark.extra_info.update(rates | {"cell_id": result.cell_id, "peak_memory_mib": result.peak_memory_mib})


def test_gradient_noise(prepared: PreparedCell, clock: Stopwatch, benchmark: Any, door: Any) -> None:
    """All batches at one fixed policy: one round."""
    _skip_if_unavailable(prepared, door)
    door.display.started(prepared.cell)
    watch = {"on_progress": lambda progress: door.display.moved(prepared.cell, progress)}
    with door.interruptible(benchmark):
        result = benchmark.pedantic(run_cell, args=(prepared,), kwargs=watch, rounds=1, iterations=1)
    door.keep(prepared, result)
    if result.status == "skipped":
        pytest.skip(result.reason)
    assert result.status == "ok", f"{result.status}: {result.reason}"
    measures = {name: result.gradient_noise[name] for name in ("batches", "snr", "noise_scale", "mean_cosine")}
    benchmark.extra_info.update(measures | {"cell_id": result.cell_id, "samples": result.ledger.samples})


def _skip_if_unavailable(prepared: PreparedCell, door: Any) -> None:
    if prepared.unavailable:
        door.display.started(prepared.cell)
        door.keep(prepared, run_cell(prepared))
        pytest.skip(prepared.unavailable)


def _learning_info(result: RunResult) -> dict[str, Any]:
    """What pytest-benchmark's file carries of a run; the store holds the rest."""
    ledger = result.ledger
    return {
        "cell_id": result.cell_id,
        "status": result.status,
        "final_return": result.final_return,
        "final_score": result.final_score,
        "loss_convergence": result.loss_convergence,
        "time_to_target": result.time_to_target,
        "samples": ledger.samples,
        "updates": ledger.updates,
        "gradient_steps": ledger.gradient_steps,
        "wall_seconds": ledger.wall_seconds,
        "cpu_seconds": ledger.cpu_seconds,
    }
