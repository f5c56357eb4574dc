"""The article's "PPO": the clipped surrogate on one episode per update, without a critic.

    L(theta) = -mean[ min(r A, clip(r, 1 - eps, 1 + eps) A) ],   r = pi_theta(a | s) / pi_old(a | s)
    A = standardised over the episode:  sum_l (gamma lambda)^l r_(t+l),   gamma = 0.99, lambda = 0.95

Source: "LLM Optimization: Optimizing AI with GRPO, PPO, and DPO", Analytics Vidhya, 20 March 2025. Its faults are kept
on purpose: this is here to be measured, not to be used.

Departures from Schulman et al. 2017, "Proximal Policy Optimization Algorithms", and from the method `ppo`:
- What the article calls generalized advantage estimation has every value fixed at 0, so it is a reward-to-go with
  discount gamma lambda: it looks about 17 steps ahead and has no baseline but the standardisation.
- There is no value function to learn, no value loss and no entropy bonus.
- One episode per update, its advantages standardised over itself; a cut by the time limit counts as a termination.

What the article leaves open, in the plainest reading: Adam with its usual learning rate of 1e-3, no clipping of the
gradient, shuffled minibatches as in `ppo`, gamma 0.99 as in its other methods, polobench's network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from polobench.article.episode import standardized_returns
from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.reference import kl_since
from polobench.objectives.surrogates import clipped_objective


@dataclass(frozen=True, kw_only=True)
class ArticlePPOHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    epochs: int = hyperparameter(5, "passes over each episode", low=1)
    minibatch_size: int = hyperparameter(32, "transitions per gradient step", low=1)
    learning_rate: float = hyperparameter(1e-3, "Adam learning rate", low=0)
    clip_eps: float = hyperparameter(0.2, "largest distance of the probability ratio from 1", low=0)
    gamma: float = hyperparameter(0.99, "discount factor", low=0, high=1)
    gae_lambda: float = hyperparameter(0.95, "lambda of the advantage estimator", low=0, high=1)


class ArticlePPO(Method[ArticlePPOHyperparameters]):
    """The method as the article describes it."""

    name = "article-ppo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        optimizer = torch.optim.Adam(policy.actor_parameters, lr=hp.learning_rate)
        shuffle = rng.numpy("minibatches")
        while True:
            episode = task.episodes(policy, 1, 1)
            rows = self.with_advantages(policy, episode).rows()
            losses = []
            for batch in rows.minibatches(hp.minibatch_size, shuffle, hp.epochs):
                loss = self.loss(policy, batch)
                policy.gradient_step(optimizer, [loss])
                losses.append(loss.item())
            metrics = {"episode_return": float(episode.returns.mean()), "kl": kl_since(policy, [rows])}
            yield Update(sum(losses) / len(losses), policy, metrics)

    def with_advantages(self, policy: Policy, episode: Rollout) -> Rollout:
        """Attach standardised advantages and the sampling policy's log-probabilities, `[1, T]` each."""
        with torch.no_grad():
            old_log_probs = policy.distribution.log_prob(policy.outputs(episode), episode.actions)
        advantages = standardized_returns(episode, self.hp.gamma, self.hp.gae_lambda)
        return episode.attach(advantages=advantages, old_log_probs=old_log_probs)

    def loss(self, policy: Policy, batch: Rollout) -> Tensor:
        """The loss of one minibatch, a scalar."""
        assert batch.advantages is not None
        assert batch.old_log_probs is not None
        log_probs = policy.distribution.log_prob(policy.outputs(batch), batch.actions)
        return -clipped_objective(log_probs, batch.old_log_probs, batch.advantages, batch.mask, self.hp.clip_eps)
