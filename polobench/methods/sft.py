"""Supervised fine-tuning on the preferred responses: what a preference method must beat, since it ignores the others.

    L(theta) = -E[ 1/|y_w| sum_t log pi(y_wt | x, y_w<t) ]

y_w is the best response of its group. Source: Rafailov et al. 2023, "Direct Preference Optimization", section 6
("Preferred-FT").

Departures from the paper: the mean is over the tokens of a batch; responses that tie for the best count alike. All
responses of a group are charged, as they are for every method that reads the data.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from polobench.core.hyperparameters import GroupHyperparameters
from polobench.core.method import Method
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.returns import masked_mean


class SFT(Method[GroupHyperparameters]):
    """Trains on the best response of each group of a data set."""

    name = "sft"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        optimizer = policy.adam(policy.actor_parameters, lr=hp.learning_rate)
        while True:
            batch = best_of_each_group(task.preferences(hp.n_groups))
            outputs = policy.outputs(batch)
            loss = -masked_mean(policy.distribution.log_prob(outputs, batch.actions), batch.mask)
            step = policy.gradient_step(optimizer, [loss], batch.n_rows, hp.max_gradient_norm)
            yield Update(loss=loss.item(), policy=policy, metrics={"gradient_norm": float(step.gradient_norm)})


def best_of_each_group(batch: Rollout) -> Rollout:
    """The rows whose return is the highest of their group."""
    highest = torch.full_like(batch.returns, -torch.inf)
    highest = highest.scatter_reduce(0, batch.groups, batch.returns, "amax")
    return batch.select((batch.returns == highest[batch.groups]).nonzero().squeeze(1))
