"""The floor: act at random and learn nothing.

    pi(a | s) = 1 / |A|   (control);   pi = the starting checkpoint   (language)

It yields one `Update` per rollout and leaves the policy as it is. Every table so has a row that the other methods must
beat, at the same cost in samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.recorder import Update
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.returns import masked_mean


@dataclass(frozen=True, kw_only=True)
class RandomHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    n_envs: int = hyperparameter(8, "number of environments stepped together", low=1)
    n_steps: int = hyperparameter(128, "steps per environment in each rollout", low=1)


class Random(Method[RandomHyperparameters]):
    """The floor of every table."""

    name = "random"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        policy = task.floor_policy()
        while True:
            rollout = task.fragments(policy, self.hp.n_envs, self.hp.n_steps)
            reward = float(masked_mean(rollout.rewards, rollout.mask))
            yield Update(loss=0.0, policy=policy, metrics={"mean_reward": reward})
