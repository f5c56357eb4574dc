"""A task: what is to be learned, in its own unit, and the only place where samples come from.

A `Task` is a description and may be shared. `bind` makes the metered copy that one run uses.
"""

from __future__ import annotations

import copy
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import torch

from polobench.core.budget import Ledger
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import Policy
from polobench.core.provenance import modules_of
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes

UNRANKED_BATCHES = 1000


@dataclass(frozen=True)
class Evaluation:
    """A held-out evaluation: mean and sample standard deviation over `episodes`, in the task's own unit.

    `measures` are further numbers by name, such as `heldout_kl` [nats]; each becomes a column of the curve. `pairs` are
    fixed preference pairs under the policy, by the name of their set; see `snapshots` in docs/results-format.md.
    `returns` are those of the episodes, in their order, where they are known.
    """

    mean: float
    std: float
    episodes: int
    measures: Mapping[str, float] = field(default_factory=dict)
    pairs: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    returns: tuple[float, ...] = ()

    def with_more(self, other: Evaluation) -> Evaluation:
        """Mean and standard deviation over the episodes of both; the rest is this one's."""
        counts, means = (self.episodes, other.episodes), (self.mean, other.mean)
        total = sum(counts)
        mean = sum(count * each for count, each in zip(counts, means)) / total
        spreads = zip(counts, means, (self.std, other.std))
        squares = sum((count - 1) * std**2 + count * (each - mean) ** 2 for count, each, std in spreads)
        return replace(self, mean=mean, std=math.sqrt(squares / (total - 1)), episodes=total)


class Task(ABC):
    """A named task with its unit, floor and target.

    Attributes:
        name: unique among the tasks.
        unit: unit of an evaluation, in words.
        floor: return of the random policy in control, of the starting checkpoint in language; score 0. NaN until
            `begin` has measured it, where no constant is known.
        target: return that counts as solved, score 1; None where nobody has defined one.
        evaluations: number of held-out evaluations, at equal fractions of the budget, the last one included.
        evaluation_episodes, final_episodes: the first so many held-out episodes are evaluated during the run, and
            these in the last evaluation. They are the same in every run, whatever its seed and method.
        floor_episodes: a floor that nobody has defined is measured over so many.
        split: which held-out episodes: "tuning" has others than "heldout", on which nothing is chosen.
        has_tuning_split: whether there are such episodes, neither trained on nor reported.
        horizon: largest number of steps in an episode.
        has_preferences: whether it has a data set for `preferences`.
        has_checkpoint: whether a policy begins as a model that was trained before, its reference.
        libraries: slow modules that its runs import late; a sweep loads them once for all workers.
        unscored: why it has no score although it has a target, once `bind` has compared that with the floor.
        made_in: module of the plug-in's function that made it; empty for built-in tasks.
        arguments: what a study gives to the function that makes it; its name may not say so.
    """

    name: str
    unit: str
    floor: float
    target: float | None
    evaluations = 10
    evaluation_episodes = 32
    final_episodes = 500
    floor_episodes = 100
    split = "heldout"
    has_tuning_split = True
    horizon: int
    has_preferences = False
    has_checkpoint = False
    libraries: tuple[str, ...] = ()
    made_in: str = ""
    arguments: Mapping[str, object] = MappingProxyType({})
    unscored: str = ""

    rng: SeedAxes
    ledger: Ledger
    device: torch.device
    _on_policy: Callable[[Policy], None]
    _rows_at_once: int | None
    _initial_policy: Policy

    def bind(
        self,
        rng: SeedAxes,
        ledger: Ledger,
        device: torch.device,
        on_policy: Callable[[Policy], None],
        rows_at_once: int | None = None,
    ) -> Self:
        """A copy for one run, with its own streams and ledger.

        Its floor is known, and a target that is not above it is none: the unit and `unscored` say so.

        Args:
            rng, ledger, device: of the run.
            on_policy: called with each policy that the task makes.
            rows_at_once: the most rows of a pass through a model that the task makes to begin with.
        """
        bound = copy.copy(self)
        bound.rng, bound.ledger, bound.device, bound._on_policy = rng, ledger, device, on_policy
        bound._rows_at_once = rows_at_once
        bound.begin()
        if bound.target is not None and bound.target <= bound.floor:
            bound.unscored = f"no score, as the target {bound.target:g} is not above the floor {bound.floor:g}"
            bound.unit, bound.target = f"{bound.unit}; {bound.unscored}", None
        return bound

    def modules(self) -> set[str]:
        """The modules whose code decides what this task does, for the code hash."""
        return modules_of(type(self)) | ({self.made_in} if self.made_in else set())

    def score(self, value: float) -> float | None:
        """`value` on the scale where the floor is 0 and the target is 1, or None without a target."""
        return None if self.target is None else (value - self.floor) / (self.target - self.floor)

    def memory_advice(self, hyperparameters: Hyperparameters) -> str:
        """What to lower where the memory did not suffice; empty where nobody knows."""
        return ""

    @property
    def evaluation_steps(self) -> int:
        """The most steps of an evaluated episode, for estimates of how long a sweep takes; 0: not known."""
        return 0

    def progress(self) -> float:
        """The fraction of the budget that is used, for schedules."""
        return self.ledger.progress()

    def make_policy(self, hyperparameters: Hyperparameters, *, critic: bool) -> Policy:
        """A fresh policy for this task, on the run's device."""
        return self._introduce(self.build_policy(hyperparameters, critic=critic))

    def reference_policy(self) -> Policy:
        """The policy that the run began with, frozen as it was: the starting checkpoint in language."""
        return self._initial_policy

    def _introduce(self, policy: Policy) -> Policy:
        policy = policy.to(self.device)
        policy.ledger = self.ledger
        self._initial_policy = policy.frozen_copy()
        return self.adopt(policy)

    def floor_policy(self) -> Policy:
        """The policy whose score is 0."""
        return self._introduce(self.build_floor_policy())

    def for_tuning(self) -> Self:
        """The same task, evaluated on the split "tuning", and at both ends of a run alone, since a trial's final score
        is all that is read; raises `UsageError` if it has none.
        """
        if not self.has_tuning_split:
            raise UsageError(f"task {self.name!r} has no tuning split, neither trained on nor reported")
        tuning = copy.copy(self)
        tuning.split, tuning.evaluations = "tuning", 1
        return tuning

    def identity(self) -> dict[str, str]:
        """What defines the task beside its code and name, such as the hash of a data file; part of a cell's id."""
        split = {} if self.split == "heldout" else {"split": self.split}
        return split | ({"arguments": json.dumps(self.arguments, sort_keys=True)} if self.arguments else {})

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

        Longer only where so few steps would hold no sample at all (the step in which gymnasium resets is none).

        Raises:
            BudgetExhausted: the next step does not fit; what was taken stays charged.
        """

    @abstractmethod
    def episodes(self, policy: Policy, groups: int, size: int) -> Rollout:
        """`[groups * size, T]`: `size` whole episodes from each of `groups` start states, padded to the longest.

        Raises:
            BudgetExhausted: as `fragments`.
        """

    def untruncated_episode(self, policy: Policy) -> Rollout:
        """`[1, T]`: one episode that termination alone ends, or the ledger; no time limit cuts it.

        Raises:
            BudgetExhausted: as `fragments`.
            UsageError: the task has no such episode, or the budget limits neither samples nor seconds.
        """
        raise UsageError(f"task {self.name!r} has no episode without a time limit (allowed: gymnasium's tasks)")

    def preferences(self, count: int) -> Rollout:
        """`[M, T]`: the next `count` ranked groups of the task's data set; their returns are the scores.

        Raises:
            BudgetExhausted: as `fragments`.
            UsageError: the task has no preference data.
        """
        raise UsageError(f"task {self.name!r} has no preference data (allowed: pairs sampled from the policy)")

    def ranked_groups(self, policy: Policy, source: str, count: int, size: int) -> Rollout:
        """`[M, T]`: groups of episodes whose returns rank them, with at least one pair that does not tie.

        Args:
            policy: samples the episodes, where the source is not the data.
            source: a member of `SOURCES`; "auto" is the data set of a task that has one, else the policy.
            count: groups.
            size: episodes per group, where the policy samples them.

        Raises:
            BudgetExhausted: as `fragments`.
            UsageError: as `preferences`; or the policy gave no two different returns in many batches.
        """
        if source == "data" or (source == "auto" and self.has_preferences):
            return self.preferences(count)
        for _ in range(UNRANKED_BATCHES):
            rollout = self.episodes(policy, count, size)
            if rollout.has_ranking:
                return rollout
        raise UsageError(f"task {self.name!r}: {UNRANKED_BATCHES} batches in a row had equal returns in every group")

    def snapshot(self, policy: Policy) -> dict[str, Any]:
        """Answers of the policy, for the store, which adds the evaluation's pairs; empty in control."""
        return {}

    @abstractmethod
    def evaluate(self, policy: Policy, seed: int, episodes: range) -> Evaluation:
        """A held-out evaluation of the episodes of these numbers, greedy where the policy has a mode.

        It draws from streams of its own, which the seed and the episodes' numbers decide. Neither charged nor timed.
        """

    def measures_at_ends(self, policy: Policy, seed: int) -> dict[str, float]:
        """Further held-out measures, before the first update and after the last: too costly for every evaluation."""
        return {}

    @abstractmethod
    def drain_episode_returns(self) -> list[float]:
        """The undiscounted returns of the training episodes that ended since the last call."""

    @abstractmethod
    def close(self) -> None:
        """Free what `begin` and the verbs opened."""
