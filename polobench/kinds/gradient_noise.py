"""How noisy a method's gradient is at a stored policy, over equal batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from polobench.core.budget import Budget
from polobench.core.errors import UsageError, unknown
from polobench.core.result import RunResult
from polobench.kinds.checks import COUNT, FINITE_NUMBERS, NUMBER, TEXT, Rule, wrong
from polobench.kinds.kind import Kind
from polobench.kinds.parsing import check_keys, parse_count, parse_list, parse_text

STORED_POLICIES = ("initial", "trained")
WARMUP_BATCHES = 4
LEAST_BATCHES = 5
LONGEST_UPDATE = 20
_COLUMNS = ("batch_samples", "squared_norms", "products")
_POSITIVE_COUNT = Rule("a positive count", lambda value: COUNT.holds(value) and value > 0)
_MEASURES = ("signal", "trace", "snr", "noise_scale", "mean_cosine")


@dataclass(frozen=True)
class GradientNoise(Kind):
    """One cell per method, task, device and stored policy: batches of gradients at a policy that stays as it is.

    Attributes:
        policy: one of `STORED_POLICIES`.
        batches: of how many the gradients are compared.
        samples: of each, about; `WARMUP_BATCHES` times as many come before, for the critic.
        folder: where the policies lie.
    """

    policy: str
    batches: int = 32
    samples: int = 4096
    folder: str = field(default="policies", compare=False)

    name = "gradient_noise"
    grid_key = "gradient_noise"
    running = "polobench.cells.gradient_noise:GradientNoiseJob"
    defining: ClassVar[Mapping[str, str]] = {"stored policy": "policy_sha256", "samples per gradient batch": "samples"}

    @classmethod
    def asked(cls, grid: Mapping[str, Any], folder: Path) -> list[Self]:
        if cls.grid_key not in grid:
            return []
        value = grid[cls.grid_key]
        if not isinstance(value, dict):
            raise UsageError(f"gradient_noise: {value!r} (allowed: {{policies = [...], batches = 32, samples = 4096}})")
        check_keys("key of gradient_noise", value, ("policies", "batches", "samples"))
        named = parse_list("policies", value.get("policies", list(STORED_POLICIES)))
        policies = [parse_text("policies", item) for item in named]
        for policy in policies:
            if policy not in STORED_POLICIES:
                raise unknown("stored policy", policy, STORED_POLICIES)
        batches = parse_count("batches", value.get("batches", cls.batches), LEAST_BATCHES)
        samples = parse_count("samples", value.get("samples", cls.samples))
        return [cls(policy, batches, samples, str(folder / "policies")) for policy in policies]

    @property
    def planned_samples(self) -> int:
        return (WARMUP_BATCHES + self.batches) * self.samples

    def budget(self, asked: Budget) -> Budget:
        """Room for updates of up to `LONGEST_UPDATE` batches; a measurement ends when it has its batches."""
        return Budget(samples=LONGEST_UPDATE * self.planned_samples)

    def title(self, seed: int) -> str:
        return f"gradient noise, {self.policy} policy"

    def test_id(self, seed: int, budget: Budget) -> list[str]:
        return [self.policy]

    def expected_samples(self, budget: Budget) -> int:
        return self.planned_samples

    def describe(self, result: RunResult, hashes: Mapping[str, str]) -> None:
        sha256 = hashes.get("policy", "")
        result.gradient_noise = {"policy": self.policy, "policy_sha256": sha256, "samples": self.samples}

    @classmethod
    def problems(cls, result: RunResult) -> Iterator[str]:
        """What was asked for; and, where it was measured, the batches, at least the three that a jackknife needs."""
        noise, section = result.gradient_noise, "gradient_noise."
        if not noise:
            return
        yield from wrong(noise, ("policy", "policy_sha256"), TEXT, section)
        yield from wrong(noise, ("samples",), _POSITIVE_COUNT, section)
        if "batches" not in noise:
            return
        yield from wrong(noise, ("batches", "warmup_samples"), COUNT, section)
        yield from wrong(noise, _MEASURES, NUMBER, section)
        yield from wrong(noise, _COLUMNS, FINITE_NUMBERS, section)
        if {len(noise[name]) for name in _COLUMNS} != {noise["batches"]} or noise["batches"] < 3:
            yield f"{section}batches is not the length, from 3, of {', '.join(_COLUMNS)}"
        if not all(samples > 0 for samples in noise["batch_samples"]):
            yield f"{section}batch_samples is not a list of positive numbers"

    @classmethod
    def variant(cls, result: RunResult) -> str:
        return str(result.gradient_noise.get("policy", ""))

    @classmethod
    def outcome(cls, result: RunResult) -> str:
        noise = result.gradient_noise
        return f"signal-to-noise {noise['snr']:.3g} over {noise['batches']} batches"

    @classmethod
    def extra_info(cls, result: RunResult) -> dict[str, Any]:
        measures = {name: result.gradient_noise[name] for name in ("batches", "snr", "noise_scale", "mean_cosine")}
        return measures | {"samples": result.ledger.samples}
