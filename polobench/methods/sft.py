"""Supervised fine-tuning on the preferred responses: what a preference method must beat, since it ignores the others.

    L(theta) = -E[ 1/|y_w| sum_t log pi(y_wt | x, y_w<t) ]

y_w is the best response of its group. Source: Rafailov et al. 2023, "Direct Preference Optimization", section 6
("Preferred-FT").

Departures from the paper: the mean is over the tokens of a batch; responses that tie for the best count alike. All
responses of a group are charged, as they are for every method that reads the data. Adam, and the gradient's norm is
clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from polobench.core.hyperparameters import GroupHyperparameters
from polobench.core.method import Method
from polobench.core.optimization import Descent, Tally
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task


class SFT(Method[GroupHyperparameters]):
    """Trains on the best response of each group of a data set."""

    name = "sft"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        descent = Descent(policy, policy.actor_parameters, hp.learning_rate, hp)
        while True:
            descent.schedule(task.progress())
            parts = best_of_each_group(task.preferences(hp.n_groups)).split(hp.micro_batch)
            metrics = descent.fit([parts] * hp.epochs, partial(self.losses, policy))
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def losses(self, policy: Policy, parts: list[Rollout], tally: Tally) -> Iterator[Tensor]:
        """The loss of each part, scalars that add up to the batch's mean over tokens."""
        n_tokens = sum(part.n_samples for part in parts)
        for part in parts:
            log_probs = policy.distribution.log_prob(policy.outputs(part), part.actions)
            yield -(log_probs * part.mask).sum() / n_tokens


def best_of_each_group(batch: Rollout) -> Rollout:
    """The rows whose return is the highest of their group."""
    highest = torch.full_like(batch.returns, -torch.inf)
    highest = highest.scatter_reduce(0, batch.groups, batch.returns, "amax")
    return batch.select((batch.returns == highest[batch.groups]).nonzero().squeeze(1))
