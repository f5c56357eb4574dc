"""The article's "GRPO": a pairwise ranking loss on ranked responses, with a KL that is none. No GRPO in it.

    L(theta) = -mean over y_i better than y_j of log sigmoid( beta (s_i - s_j) )  +  0.02 K
    s_i = clamp(log pi(y_i | x), -10, 10),   K = mean over t and v of log pi(v) ( log pi(v) - log pi_base(v) )

beta = 1. v runs over the vocabulary at each of the responses' tokens; pi_base is the policy that the run began with.

Source: "LLM Optimization: Optimizing AI with GRPO, PPO, and DPO", Analytics Vidhya, 20 March 2025. Its faults are kept
on purpose: this is here to be measured, not to be used.

Departures from Shao et al. 2024, "DeepSeekMath", equations 3 and 4, and from the method `grpo`: nothing is sampled,
there is no reward, no advantage and no ratio, so hardly anything is left. Departures from a sound ranking loss, the
method `ranking`:
- Log-probabilities are never above 0, so the upper end of the clamp is idle; a response of some length is below the
  lower one, where its gradient is 0. `clamp = "response"` clamps the sums over whole responses: where all of them are
  that unlikely, the ranking is not learned at all, and the loss is log 2 + 0.02 K. `clamp = "token"` clamps each token
  before the sum, where it rarely binds. Which of the two the article means is not settled.
- K has log-probabilities where probabilities belong. It is no divergence: it can be negative, and minimising it raises
  what the policy finds unlikely. (The article's faults include a second form, clamped at a positive number, which no
  log-probability reaches: that term would be constant. Ours is the first.)

What the article leaves open, in the plainest reading: K is a mean over all its entries; one ranked group per update, so
that an epoch over two groups is two updates; AdamW at 5e-5, as for its other language method; the scheduler takes the
learning rate to 0 linearly over the budget.
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
from polobench.objectives.preference import better_pairs, logistic_losses
from polobench.objectives.returns import masked_mean

CLAMP = 10.0


@dataclass(frozen=True, kw_only=True)
class ArticleGRPOHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    clamp: str = hyperparameter("response", "what is clamped", choices=("response", "token"))
    beta: float = hyperparameter(1.0, "factor on the difference of log-probabilities", low=1e-6)
    kl_coef: float = hyperparameter(0.02, "weight of the term that stands in for a KL", low=0)
    learning_rate: float = hyperparameter(5e-5, "AdamW learning rate at the start", low=0)
    max_gradient_norm: float = hyperparameter(1.0, "largest gradient norm; longer ones are scaled down", low=0)


class ArticleGRPO(Method[ArticleGRPOHyperparameters]):
    """The method as the article describes it."""

    name = "article-grpo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        base = task.reference_policy()
        optimizer = torch.optim.AdamW(policy.actor_parameters, lr=hp.learning_rate, fused=True)
        while True:
            optimizer.param_groups[0]["lr"] = hp.learning_rate * (1 - task.progress())
            group = task.preferences(1)
            loss = self.loss(policy, base, group)
            step = policy.gradient_step(optimizer, [loss], hp.max_gradient_norm)
            yield Update(float(step.loss), policy, {"gradient_norm": float(step.gradient_norm)})

    def loss(self, policy: Policy, base: Policy, group: Rollout) -> Tensor:
        """The loss of the ranked responses `[M, T]` to one prompt, a scalar."""
        outputs = policy.outputs(group)
        with torch.no_grad():
            base_outputs = base.outputs(group)
        scores = self.scores(policy.distribution.log_prob(outputs, group.actions), group.mask)
        better, worse = better_pairs(group.returns, group.groups)
        ranking = logistic_losses(self.hp.beta * (scores[better] - scores[worse])).mean()
        penalty: Tensor = self.hp.kl_coef * self.would_be_kl(outputs, base_outputs, group.mask)
        return ranking + penalty

    def scores(self, log_probs: Tensor, mask: Tensor) -> Tensor:
        """`[M]` the clamped log-probabilities of the responses, from their tokens' `[M, T]`."""
        if self.hp.clamp == "token":
            return (log_probs.clamp(-CLAMP, CLAMP) * mask).sum(1)
        return (log_probs * mask).sum(1).clamp(-CLAMP, CLAMP)

    def would_be_kl(self, outputs: Tensor, base_outputs: Tensor, mask: Tensor) -> Tensor:
        """K of logits `[M, T, V]`, a scalar."""
        log_probs, base_log_probs = outputs.log_softmax(-1), base_outputs.log_softmax(-1)
        return masked_mean((log_probs * (log_probs - base_log_probs)).mean(-1), mask)
