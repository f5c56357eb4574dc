"""A task: what is to be learned, in its own unit, and the only place where samples come from.

A `Task` is a description and may be shared. `bind` makes the metered copy that one run uses.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch

from polobench.core.budget import Ledger
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import Policy
from polobench.core.provenance import modules_of
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes


@dataclass(frozen=True)
class Evaluation:
    """A held-out evaluation: mean and sample standard deviation over `episodes`, in the task's own unit."""

    mean: float
    std: float
    episodes: int


class Task(ABC):
    """A named task with its unit, target and floor.

    Attributes:
        name: unique among the tasks.
        unit: of an evaluation, in words.
        floor: what the random policy reaches in control, the starting checkpoint in language; score 0. NaN where it
            is not known before `begin` has measured it.
        target: what counts as solved, score 1; None where nobody has defined one.
        evaluation_episodes, final_episodes: episodes of an evaluation on the way, and of the last one.
    """

    name: str
    unit: str
    floor: float
    target: float | None
    evaluation_episodes = 20
    final_episodes = 100

    rng: SeedAxes
    ledger: Ledger
    device: torch.device
    _on_policy: Callable[[Policy], None]

    def bind(self, rng: SeedAxes, ledger: Ledger, device: torch.device, on_policy: Callable[[Policy], None]) -> Self:
        """A copy for one run, with its own streams and ledger; `on_policy` is called with each policy it makes."""
        bound = copy.copy(self)
        bound.rng, bound.ledger, bound.device, bound._on_policy = rng, ledger, device, on_policy
        bound.begin()
        return bound

    def modules(self) -> set[str]:
        """The modules whose code decides what this task does, for the code hash."""
        return modules_of(type(self))

    def score(self, value: float) -> float | None:
        """`value` on the scale where the floor is 0 and the target is 1, or None without a target."""
        return None if self.target is None else (value - self.floor) / (self.target - self.floor)

    def progress(self) -> float:
        """The fraction of the budget that is used, for schedules."""
        return self.ledger.progress()

    def make_policy(self, hyperparameters: Hyperparameters, *, critic: bool) -> Policy:
        """A fresh policy for this task, on the run's device."""
        return self.adopt(self.build_policy(hyperparameters, critic=critic))

    def floor_policy(self) -> Policy:
        """The policy whose score is 0."""
        return self.adopt(self.build_floor_policy())

    def adopt(self, policy: Policy) -> Policy:
        """Attach the ledger and announce the policy, so that it is evaluated before its first update."""
        policy = policy.to(self.device)
        policy.ledger = self.ledger
        self._on_policy(policy)
        return policy

    @abstractmethod
    def begin(self) -> None:
        """Reset what belongs to one run."""

    @abstractmethod
    def build_policy(self, hyperparameters: Hyperparameters, *, critic: bool) -> Policy:
        """A policy with initial parameters from the axis `policy`."""

    @abstractmethod
    def build_floor_policy(self) -> Policy:
        """The random policy in control, the starting checkpoint in language."""

    @abstractmethod
    def fragments(self, policy: Policy, batch: int, n_steps: int) -> Rollout:
        """`[batch, n_steps]` of experience that may cross episodes and goes on where the last call stopped.

        Longer only where so few steps would hold no sample at all (an autoreset step is none).

        Raises:
            BudgetExhausted: the next step does not fit; what was taken stays charged.
        """

    @abstractmethod
    def episodes(self, policy: Policy, groups: int, size: int) -> Rollout:
        """`[groups * size, T]`: `size` whole episodes from each of `groups` start states, padded to the longest.

        Raises:
            BudgetExhausted: as `fragments`.
        """

    @abstractmethod
    def evaluate(self, policy: Policy, seed: int, episodes: int) -> Evaluation:
        """A held-out evaluation on streams of its own; neither charged nor timed."""

    @abstractmethod
    def drain_episode_returns(self) -> list[float]:
        """The undiscounted returns of the training episodes that ended since the last call."""

    @abstractmethod
    def close(self) -> None:
        """Free what `begin` and the verbs opened."""
