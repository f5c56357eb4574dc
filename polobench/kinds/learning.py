"""A whole run: training until the budget is spent, and the evaluation of what was learned.

A probe is one whose task has a known answer: the gate asks every run to reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from polobench.core.budget import Budget
from polobench.core.result import RunResult
from polobench.kinds.kind import Kind
from polobench.kinds.parsing import parse_truth

_COUNTED = ("samples", "updates", "gradient_steps", "wall_seconds", "cpu_seconds")
_KEPT = ("status", "final_return", "final_score", "loss_convergence", "time_to_target")


@dataclass(frozen=True)
class Learning(Kind):
    """One cell per method, task, device and seed; asked for by default."""

    name = "learning"
    grid_key = "learning"
    running = "polobench.cells.learning:LearningJob"
    learns = every_seed = True

    @classmethod
    def asked(cls, grid: Mapping[str, Any], folder: Path) -> list[Self]:
        return [cls()] if parse_truth(cls.grid_key, grid.get(cls.grid_key, True)) else []

    def budget(self, asked: Budget) -> Budget:
        return asked

    def title(self, seed: int) -> str:
        return f"seed {seed}"

    def test_id(self, seed: int, budget: Budget) -> list[str]:
        return [f"seed{seed}", str(budget).replace(" ", "_")]

    def expected_samples(self, budget: Budget) -> int:
        return budget.samples or 0

    @classmethod
    def outcome(cls, result: RunResult) -> str:
        score = "" if result.final_score is None else f", score {result.final_score:.2f}"
        seconds = f"{result.ledger.samples:,} samples in {result.ledger.wall_seconds:.1f} s"
        return f"return {result.final_return:.1f}{score}, {seconds}"

    @classmethod
    def extra_info(cls, result: RunResult) -> dict[str, Any]:
        counts = {name: getattr(result.ledger, name) for name in _COUNTED}
        return {name: getattr(result, name) for name in _KEPT} | counts
