"""One test per cell, from the table of kinds: `test_learning[...]`, `test_throughput[...]`, and so on.

Where a kind has rounds, pytest-benchmark times each, the device synchronised inside it; any other cell is one round. A
learning cell's time is its ledger's wall seconds, evaluation excluded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from polobench.cells.job import Step, Watch
from polobench.cells.runner import PreparedCell, run_cell
from polobench.core.budget import Stopwatch
from polobench.core.result import RunResult
from polobench.kinds.table import kinds
from polobench.run.executor import OnProgress, RunHere


def _timed(clock: Stopwatch, benchmark: Any) -> RunHere:
    def drive(step: Step, rounds: int, warmup_rounds: int) -> None:
        benchmark.pedantic(step, rounds=rounds, warmup_rounds=warmup_rounds)

    def run(prepared: PreparedCell, on_progress: OnProgress) -> RunResult:
        watch = Watch(clock, on_progress, drive)
        if prepared.cell.plan.timed_rounds:
            return run_cell(prepared, watch)
        result: RunResult = benchmark.pedantic(run_cell, args=(prepared, watch), rounds=1, iterations=1)
        return result

    return run


def _test_of(kind: str) -> Callable[..., None]:
    def test(prepared: PreparedCell, clock: Stopwatch, benchmark: Any, door: Any) -> None:
        if prepared.cell.plan.timed_rounds and benchmark.disabled:
            pytest.skip("--benchmark-disable takes no rounds")
        result = door.run(prepared, benchmark, _timed(clock, benchmark))
        if result.status == "skipped":
            pytest.skip(result.reason)
        benchmark.extra_info.update({"cell_id": result.cell_id, "status": result.status})
        assert result.status == "ok", f"{result.status}: {result.reason}"
        benchmark.extra_info.update(kinds()[kind].extra_info(result))

    test.__name__ = f"test_{kind}"
    return test


globals().update({f"test_{kind}": _test_of(kind) for kind in kinds()})
