"""The article's "policy gradient": REINFORCE on one episode per update, its returns standardised over that episode.

    L(theta) = -sum_t log pi(a_t | s_t) A_t,   A_t = (G_t - mean(G)) / std(G),   gamma = 0.99

Source: "LLM Optimization: Optimizing AI with GRPO, PPO, and DPO", Analytics Vidhya, 20 March 2025. Its faults are kept
on purpose: this is here to be measured, not to be used.

Departures from Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning", and from the method `reinforce`:
- The baseline is the mean of the episode's own returns, which depends on the action that it judges; dividing by their
  deviation gives every episode, good or bad, the same weight.
- One episode per update.
- The loop, as printed, ends an episode at termination alone: where the time limit of CartPole-v1 would cut, it goes on,
  and the episode of a perfect policy never ends. `episode_end = "termination"` is that; the ledger ends it. The
  article's curve has peaks of exactly 500, which the time limit gives, so what it ran seems to differ from what it
  prints. Unresolved: `episode_end = "time_limit"` is the other reading, and the cut counts as a termination.

What the article leaves open, in the plainest reading: Adam with its usual learning rate of 1e-3, polobench's network.
Much hangs on that rate: the study `article` shows 1e-2 beside it.
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
from polobench.objectives.surrogates import score_function_objective

EPISODE_ENDS = ("termination", "time_limit")


@dataclass(frozen=True, kw_only=True)
class ArticlePGHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    episode_end: str = hyperparameter("termination", "what ends an episode, beside the budget", choices=EPISODE_ENDS)
    learning_rate: float = hyperparameter(1e-3, "Adam learning rate", low=0)
    gamma: float = hyperparameter(0.99, "discount factor", low=0, high=1)


class ArticlePG(Method[ArticlePGHyperparameters]):
    """The method as the article describes it."""

    name = "article-pg"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        optimizer = torch.optim.Adam(policy.actor_parameters, lr=hp.learning_rate)
        until_terminated = hp.episode_end == "termination"
        while True:
            episode = task.untruncated_episode(policy) if until_terminated else task.episodes(policy, 1, 1)
            loss = self.loss(policy, episode)
            policy.gradient_step(optimizer, [loss])
            yield Update(loss.item(), policy, {"episode_return": float(episode.returns.mean())})

    def loss(self, policy: Policy, episode: Rollout) -> Tensor:
        """The sum over the steps of `[1, T]`, a scalar."""
        log_probs = policy.distribution.log_prob(policy.outputs(episode), episode.actions)
        advantages = standardized_returns(episode, self.hp.gamma)
        return -score_function_objective(log_probs, advantages, episode.mask, n_episodes=1)
