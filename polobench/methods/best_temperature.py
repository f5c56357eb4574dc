"""The starting checkpoint at its best temperature: what a method must beat that claims more than a sharper policy.

    pi_T(y_t | x, y_<t) ~ pi_0(y_t | x, y_<t)^(1 / T),   T = argmax of the mean reward on training prompts

The first half of the budget goes round the temperatures, the second half samples at the best of them. Nothing is
learned: greedy answers are the checkpoint's, so that its score is 0. What its sampled answers earn is the column
`heldout_own_return` of the curve.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle

from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.recorder import Update
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task

TRIED = 0.5  # of the budget


@dataclass(frozen=True, kw_only=True)
class BestTemperatureHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    n_episodes: int = hyperparameter(64, "episodes per update", low=1)
    temperatures: tuple[float, ...] = hyperparameter((0.1, 0.3, 0.5, 0.7, 1.0, 1.3), "tried temperatures", low=0.01)


class BestTemperature(Method[BestTemperatureHyperparameters]):
    """Chooses a temperature, and learns nothing."""

    name = "best-temperature"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policies = {t: task.make_policy(replace(hp, temperature=t), critic=False) for t in hp.temperatures}
        rewards: dict[float, list[float]] = defaultdict(list)
        for tried in cycle(hp.temperatures):
            best = max(rewards or policies, key=lambda t: math.fsum(rewards[t]) / max(1, len(rewards[t])))
            temperature = tried if task.progress() < TRIED else best
            rollout = task.episodes(policies[temperature], hp.n_episodes, 1)
            rewards[temperature] += rollout.returns.tolist()
            metrics = {"reward": float(rollout.returns.mean()), "temperature": temperature}
            yield Update(loss=0.0, policy=policies[best], metrics=metrics)
