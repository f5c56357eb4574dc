"""What a gradient-noise cell is to measure. Read without torch, as a study is."""

from __future__ import annotations

from dataclasses import dataclass, field

from polobench.core.budget import Budget

FIXED_POLICIES = ("initial", "trained")
WARMUP_BATCHES = 4
LEAST_BATCHES = 5
LONGEST_UPDATE = 20


@dataclass(frozen=True)
class NoisePlan:
    """Batches of a method's gradient at a policy that stays as it is.

    Attributes:
        policy: one of `FIXED_POLICIES`.
        batches: of how many the gradients are compared.
        samples: of each, about; `WARMUP_BATCHES` times as many come before, for the critic.
        folder: where the policies lie.
    """

    policy: str
    batches: int = 32
    samples: int = 4096
    folder: str = field(default="studies/policies", compare=False)

    @property
    def planned_samples(self) -> int:
        return (WARMUP_BATCHES + self.batches) * self.samples

    @property
    def budget(self) -> Budget:
        """Room for updates of up to `LONGEST_UPDATE` batches; a measurement ends when it has its batches."""
        return Budget(samples=LONGEST_UPDATE * self.planned_samples)
