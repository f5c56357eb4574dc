"""The article's "DPO": a bounded loss on what would come after the responses, against no reference.

    L(theta) = -mean over v of sigmoid( beta ( log pi(v | x, y_w) - log pi(v | x, y_l) ) )

y_w was preferred to y_l for the prompt x, and v runs over the whole vocabulary at the last position of the padded
sequences: neither response's own tokens enter but as a context. beta = 0.5, AdamW at 5e-5.

Source: "LLM Optimization: Optimizing AI with GRPO, PPO, and DPO", Analytics Vidhya, 20 March 2025. Its faults are kept
on purpose: this is here to be measured, not to be used.

Departures from Rafailov et al. 2023, "Direct Preference Optimization", equation 7, and from the method `dpo`:
- No logarithm around the sigmoid, so the loss is bounded and a pair that is badly wrong has no gradient.
- No reference: nothing says where the policy began, and what is compared are no log-ratios.
- The log-probabilities are of every token at one position, not of the response's tokens summed over it. As they are
  normalised, one token's gain is the others' loss, on both sides.
- Nothing is masked: the shorter response is padded with end tokens, and its last position is one of these.

What the article leaves open, in the plainest reading: one pair per update, so that an epoch over five pairs is five
updates, in a random order; no clipping of the gradient, AdamW's usual weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.preference import better_pairs


@dataclass(frozen=True, kw_only=True)
class ArticleDPOHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    beta: float = hyperparameter(0.5, "factor on the difference of log-probabilities", low=1e-6)
    learning_rate: float = hyperparameter(5e-5, "AdamW learning rate", low=0)


class ArticleDPO(Method[ArticleDPOHyperparameters]):
    """The method as the article describes it."""

    name = "article-dpo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        policy = task.make_policy(self.hp, critic=False)
        optimizer = torch.optim.AdamW(policy.actor_parameters, lr=self.hp.learning_rate, fused=True)
        while True:
            batch = task.preferences(1)
            step = policy.gradient_step(optimizer, [self.loss(policy, batch)])
            yield Update(float(step.loss), policy)

    def loss(self, policy: Policy, batch: Rollout) -> Tensor:
        """The mean over the pairs of one prompt, whose responses are `[M, T]`, and over the vocabulary; a scalar."""
        better, worse = better_pairs(batch.returns, batch.groups)
        log_probs = policy.outputs(batch)[:, -1].log_softmax(-1)
        return -torch.sigmoid(self.hp.beta * (log_probs[better] - log_probs[worse])).mean()
