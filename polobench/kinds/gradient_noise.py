"""How noisy a method's gradient is at policies of trained runs, over equal batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from polobench.core.budget import Budget
from polobench.core.errors import UsageError, unknown
from polobench.core.result import RunResult
from polobench.kinds.checks import AMOUNT, COUNT, FINITE, FINITE_NUMBERS, NUMBER, TEXT, Rule, wrong
from polobench.kinds.kind import Kind
from polobench.kinds.parsing import check_keys, parse, parse_count, parse_list

STAGES = (0.0, 0.5, 1.0)
WARMUP_BATCHES = 4
LEAST_BATCHES = 5
LONGEST_UPDATE = 20
_ALLOWED = "{methods = [...], stages = [0, 0.5, 1], batches = 32, samples = 4096}"
_COLUMNS = ("batch_samples", "squared_norms", "products")
_POSITIVE_COUNT = Rule("a positive count", lambda value: COUNT.holds(value) and value > 0)
_SHARE = Rule("a share of the budget, from 0 to 1", lambda value: FINITE.holds(value) and 0 <= value <= 1)
_MEASURES = ("signal", "trace", "snr", "noise_scale")


@dataclass(frozen=True)
class GradientNoise(Kind):
    """One cell per method, task, device and policy: batches of gradients at a policy that stays as it is.

    The policies are those of the runs of each trainer with each of the grid's seeds, at each stage; the cell's seed is
    its trainer's.

    Attributes:
        trainer: the method that makes the policy.
        stage: the share of its budget after which the policy is taken.
        batches: of how many the gradients are compared.
        samples: of each, about; `WARMUP_BATCHES` times as many come before, for the critic.
        training, stages: the trainer's budget, and all stages at which a policy of its run is wanted. The budget is
            part of the hash of the policy.
    """

    trainer: str
    stage: float
    batches: int = 32
    samples: int = 4096
    training: Budget = field(default=Budget(samples=1), compare=False)
    stages: tuple[float, ...] = field(default=(), compare=False)

    name = "gradient_noise"
    grid_key = "gradient_noise"
    running = "polobench.cells.gradient_noise:GradientNoiseJob"
    every_seed = True
    defining: ClassVar[Mapping[str, str]] = {
        "policy": "policy", "budget of the trainer": "training", "samples per gradient batch": "samples"
    }  # fmt: skip

    @classmethod
    def asked(cls, grid: Mapping[str, Any], folder: Path) -> list[Self]:
        """Every stage of all trainers in turn, so that workers that begin together begin with other trainers."""
        if cls.grid_key not in grid:
            return []
        value = grid[cls.grid_key]
        if not isinstance(value, dict):
            raise UsageError(f"gradient_noise: {value!r} (allowed: {_ALLOWED})")
        check_keys("key of gradient_noise", value, ("methods", "stages", "batches", "samples"))
        stages = [float(parse("stages", item, _SHARE)) for item in parse_list("stages", value.get("stages", [*STAGES]))]
        batches = parse_count("batches", value.get("batches", cls.batches), LEAST_BATCHES)
        samples = parse_count("samples", value.get("samples", cls.samples))
        training, trainers = _training(grid), _trainers(grid, value)
        return [
            cls(trainer, stage, batches, samples, training, tuple(stages)) for stage in stages for trainer in trainers
        ]

    def policy(self, seed: int) -> str:
        """At which the gradients are taken, in words."""
        return f"{self.trainer} seed {seed}, stage {self.stage:g}"

    @property
    def planned_samples(self) -> int:
        return (WARMUP_BATCHES + self.batches) * self.samples

    def budget(self, asked: Budget) -> Budget:
        """Room for updates of up to `LONGEST_UPDATE` batches; a measurement ends when it has its batches."""
        return Budget(samples=LONGEST_UPDATE * self.planned_samples)

    def title(self, seed: int) -> str:
        return f"gradient noise, {self.policy(seed)}"

    def test_id(self, seed: int, budget: Budget) -> list[str]:
        return [self.trainer, f"seed{seed}", f"stage{self.stage:g}"]

    def expected_samples(self, budget: Budget) -> int:
        return self.planned_samples

    def describe(self, result: RunResult, hashes: Mapping[str, str]) -> None:
        result.gradient_noise = {
            "policy": self.policy(result.seed),
            "trainer": self.trainer,
            "stage": self.stage,
            "training": str(self.training),
            "samples": self.samples,
        }

    @classmethod
    def problems(cls, result: RunResult) -> Iterator[str]:
        """What was asked for; and, where it was measured, the batches, at least three."""
        noise, section = result.gradient_noise, "gradient_noise."
        if not noise:
            return
        yield from wrong(noise, ("policy",), TEXT, section)
        if "stage" in noise:  # a cell at a policy of no run has none
            yield from wrong(noise, ("trainer",), TEXT, section)
            yield from wrong(noise, ("stage",), AMOUNT, section)
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
        measures = {name: result.gradient_noise[name] for name in ("batches", "snr", "noise_scale")}
        return measures | {"samples": result.ledger.samples}


def _training(grid: Mapping[str, Any]) -> Budget:
    """The budget of the trainers' runs, which is the grid's."""
    if "budget" not in grid:
        raise UsageError("gradient_noise: its [[grid]] has no 'budget' (needed: that of the trainers' runs)")
    budget = Budget.of(grid["budget"])
    if budget.seconds is not None:
        raise UsageError(f"gradient_noise: budget {budget} (allowed: samples, updates; seconds give no policy twice)")
    return budget


def _trainers(grid: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    """Names of the methods that make the policies: some of the grid's, by default all."""
    entries = grid.get("methods", ())
    names = [item.get("method") if isinstance(item, Mapping) else item for item in entries]
    of_grid = list(dict.fromkeys(name for name in names if isinstance(name, str)))
    chosen = parse_list("methods", value["methods"]) if "methods" in value else of_grid
    for name in chosen:
        if name not in of_grid:
            raise unknown("method of gradient_noise", name, of_grid)
    return chosen
