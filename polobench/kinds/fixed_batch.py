"""One update of a method on a stored batch, from a stored policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from polobench.core.budget import Budget
from polobench.core.result import RunResult
from polobench.kinds.checks import COUNT, NUMBER, NUMBERS, OBJECT, TEXT, wrong
from polobench.kinds.kind import Kind
from polobench.kinds.parsing import parse_truth

COUNTS = ("batch_counts", "rollout_counts")


@dataclass(frozen=True)
class FixedBatch(Kind):
    """One cell per method, task and device; `folder` is where the study's `batches` lie."""

    folder: str = field(default=".", compare=False)

    name = "fixed_batch"
    grid_key = "fixed_batch"
    running = "polobench.cells.fixed_batch:FixedBatchJob"
    defining: ClassVar[Mapping[str, str]] = {"stored batch": "batch_sha256", "stored policy": "policy_sha256"}

    @classmethod
    def asked(cls, grid: Mapping[str, Any], folder: Path) -> list[Self]:
        return [cls(str(folder))] if parse_truth(cls.grid_key, grid.get(cls.grid_key, False)) else []

    def budget(self, asked: Budget) -> Budget:
        return Budget(updates=1)

    def title(self, seed: int) -> str:
        return "fixed batch"

    def describe(self, result: RunResult, hashes: Mapping[str, str]) -> None:
        result.fixed_batch = {f"{name}_sha256": hashes.get(name, "") for name in ("batch", "policy")}

    @classmethod
    def problems(cls, result: RunResult) -> Iterator[str]:
        """Which files were read; and, where the update was made, what came of it."""
        found, section = result.fixed_batch, "fixed_batch."
        if not found:
            return
        files = [name for name in ("batch_sha256", "policy_sha256") if name == "batch_sha256" or name in found]
        yield from wrong(found, files, TEXT, section)
        if result.status != "ok":
            return
        yield from wrong(found, ("metrics", "changes", *COUNTS), OBJECT, section)
        yield from wrong(found["metrics"], found["metrics"], NUMBER, f"{section}metrics.")
        yield from wrong(found["changes"], found["changes"], NUMBERS, f"{section}changes.")
        for name in COUNTS:
            yield from wrong(found[name], found[name], COUNT, f"{section}{name}.")

    @classmethod
    def outcome(cls, result: RunResult) -> str:
        return f"an update on {result.fixed_batch['batch_counts']['samples_generated']:,} stored samples"
