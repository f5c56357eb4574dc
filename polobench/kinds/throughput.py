"""How fast a method iterates: timed rounds, each a rollout and its update, after some that warm up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from polobench.core.budget import Budget
from polobench.core.result import RunResult
from polobench.kinds.checks import AMOUNT, FINITE_NUMBERS, wrong
from polobench.kinds.kind import Kind
from polobench.kinds.parsing import parse_count

WARMUP_ROUNDS = 3
ASSUMED_SECONDS = 10.0
ROUND_SECONDS = ("iteration_seconds", "rollout_seconds", "update_seconds")
_ROUNDS = ("rounds", "warmup_rounds")
_RATES = ("samples_per_second", "updates_per_second", "rollout_samples_per_second", "update_samples_per_second")


@dataclass(frozen=True)
class Throughput(Kind):
    """One cell per method, task and device, of so many timed rounds: `throughput_rounds = 20`."""

    rounds: int

    name = "throughput"
    grid_key = "throughput_rounds"
    running = "polobench.cells.throughput:ThroughputJob"
    defining: ClassVar[Mapping[str, str]] = {"timed rounds": "rounds"}
    runs_alone = True

    @classmethod
    def asked(cls, grid: Mapping[str, Any], folder: Path) -> list[Self]:
        return [cls(parse_count(cls.grid_key, grid[cls.grid_key]))] if cls.grid_key in grid else []

    def budget(self, asked: Budget) -> Budget:
        return Budget(updates=self.rounds + WARMUP_ROUNDS)

    def title(self, seed: int) -> str:
        return "throughput"

    @property
    def timed_rounds(self) -> int:
        return self.rounds

    def seconds(self, budget: Budget, samples_per_second: float | None) -> float:
        return ASSUMED_SECONDS

    @classmethod
    def problems(cls, result: RunResult) -> Iterator[str]:
        found, section = result.throughput, "throughput."
        if not found:
            return
        yield from wrong(found, _ROUNDS, AMOUNT, section)
        yield from wrong(found, _RATES, AMOUNT.or_null(), section)
        yield from wrong(found, ROUND_SECONDS, FINITE_NUMBERS, section)
        if len({len(found[name]) for name in ROUND_SECONDS}) > 1:
            yield f"throughput: {', '.join(ROUND_SECONDS)} are not equally long"

    @classmethod
    def outcome(cls, result: RunResult) -> str:
        speed = result.throughput["samples_per_second"]
        return result.reason if speed is None else f"{speed:,.0f} samples/s"

    @classmethod
    def extra_info(cls, result: RunResult) -> dict[str, Any]:
        rates = {name: result.throughput[name] for name in _RATES}
        return rates | {"peak_memory_mib": result.peak_memory_mib}
