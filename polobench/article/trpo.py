"""The article's "TRPO": one natural-gradient step of full length on one episode, with nothing that holds it back.

    theta <- theta + sqrt(2 delta / x'F x) x,   F x = g by conjugate gradient
    g = grad mean_t[ pi(a_t | s_t) / pi_old(a_t | s_t) A_t ],   A_t = (G_t - mean(G)) / std(G)

Source: "LLM Optimization: Optimizing AI with GRPO, PPO, and DPO", Analytics Vidhya, 20 March 2025. Its faults are kept
on purpose: this is here to be measured, not to be used.

Departures from Schulman et al. 2015, "Trust Region Policy Optimization", and from the method `trpo`:
- No backtracking line search, and so nothing to restore: the step stands although the KL may be above delta, which
  binds the quadratic model alone, or the surrogate worse. This is our reading; the article does not settle it.
- No value function: advantages are the episode's own standardised discounted returns. The article's text promises
  generalized advantage estimation (Schulman et al. 2016), its loop does not use it.
- One episode per step, which says little about the gradient or the Fisher matrix; a cut by the time limit counts as a
  termination.

What the article leaves open, in the plainest reading: delta 0.01, ten products and damping 0.1, as usual; gamma 0.99,
as in its other methods; polobench's network.
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
from polobench.objectives.returns import masked_mean
from polobench.objectives.surrogates import importance_objective
from polobench.objectives.trust_region import conjugate_gradient

CG_TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True)
class ArticleTRPOHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    max_kl: float = hyperparameter(0.01, "KL delta [nats] to which the step is scaled", low=0)
    cg_steps: int = hyperparameter(10, "most conjugate-gradient steps", low=1)
    cg_damping: float = hyperparameter(0.1, "number added to the diagonal of the Fisher matrix", low=0)
    gamma: float = hyperparameter(0.99, "discount factor", low=0, high=1)


class ArticleTRPO(Method[ArticleTRPOHyperparameters]):
    """The method as the article describes it."""

    name = "article-trpo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        policy = task.make_policy(self.hp, critic=False)
        while True:
            episode = task.episodes(policy, 1, 1)
            advantages = standardized_returns(episode, self.hp.gamma)
            with torch.no_grad():
                old_outputs = policy.outputs(episode)
            policy.set_actor_vector(policy.actor_vector() + self.full_step(policy, episode, advantages))
            policy.ledger.gradient_steps += 1
            with torch.no_grad():
                outputs = policy.outputs(episode)
                surrogate = self.surrogate(policy, episode, advantages, old_outputs, outputs)
                kl = masked_mean(policy.distribution.kl(old_outputs, outputs), episode.mask)
            metrics = {"episode_return": float(episode.returns.mean()), "kl": float(kl)}
            yield Update(-float(surrogate), policy, metrics)

    def full_step(self, policy: Policy, episode: Rollout, advantages: Tensor) -> Tensor:
        """`[n]` the step that is added to the actor's parameters."""
        outputs = policy.outputs(episode)
        objective = self.surrogate(policy, episode, advantages, outputs.detach(), outputs)
        gradient = policy.actor_gradient([objective])
        fisher = policy.fisher_product([episode], self.hp.cg_damping)
        direction, curvature = conjugate_gradient(fisher, gradient, self.hp.cg_steps, CG_TOLERANCE)
        # an episode of one step has no gradient
        return torch.sqrt(2 * self.hp.max_kl / curvature.clamp(min=1e-12)) * direction

    def surrogate(
        self, policy: Policy, episode: Rollout, advantages: Tensor, old_outputs: Tensor, outputs: Tensor
    ) -> Tensor:
        """The mean of ratio times advantage over `[1, T]`, a scalar; 0 at the old policy."""
        log_probs = policy.distribution.log_prob(outputs, episode.actions)
        old_log_probs = policy.distribution.log_prob(old_outputs, episode.actions)
        return importance_objective(log_probs, old_log_probs, advantages, episode.mask)
