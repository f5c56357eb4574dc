"""Trust Region Policy Optimization: the largest natural-gradient step that keeps the policy close.

    maximise  E[ pi_theta(a | s) / pi_old(a | s) A ]   subject to   E[ KL(pi_old || pi_theta) ] <= delta
    step s = sqrt(2 delta / x'F x) x,   F x = g by conjugate gradient,   then backtracking on surrogate and KL

Source: Schulman et al. 2015, "Trust Region Policy Optimization", equation 14, section 6 and appendix C. Advantages are
those of Schulman et al. 2016 (generalized advantage estimation), the value function is fitted to A + V_old.

Departures from the paper:
- The critic is fitted by Adam on minibatches, not by its own trust region, its gradient's norm clipped.
- F carries a damping term, F + damping I, as in the authors' code; the step length is computed with it.
- F is the analytic Fisher matrix of the action distribution between two Jacobian products, J' F_dist J, which equals
  the Hessian of the KL at the old policy; `fisher_rows` may take it on a random part of the rollout (appendix C.1).
- The value of the next state is bootstrapped where a time limit cut an episode, and `normalize_rewards` divides
  rewards by a running deviation of their discounted sum, as in PPO.
- Advantages are standardised over the rollout; those that are all within the rounding of the values are taken as 0,
  since the step's length does not depend on the gradient's: it would follow the rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polobench.core.arrays import like, numbers
from polobench.core.hyperparameters import GradientHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.optimization import Descent
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.regression import fit_critic
from polobench.objectives.returns import (
    RewardScaler,
    explained_variance,
    generalized_advantages,
    masked_mean,
    standardized,
)
from polobench.objectives.surrogates import importance_objective
from polobench.objectives.trust_region import LineSearch, backtracking_line_search, conjugate_gradient


@dataclass(frozen=True, kw_only=True)
class TRPOHyperparameters(GradientHyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    n_envs: int = hyperparameter(8, "number of environments stepped together", low=1)
    n_steps: int = hyperparameter(128, "steps per environment in each rollout", low=1)
    max_kl: float = hyperparameter(0.01, "bound delta on the mean KL(old || new) [nats]", low=0)
    cg_steps: int = hyperparameter(10, "most conjugate-gradient steps", low=1)
    cg_damping: float = hyperparameter(0.1, "number added to the diagonal of the Fisher matrix", low=0)
    cg_tolerance: float = hyperparameter(1e-10, "squared residual at which the conjugate gradient stops", low=0)
    fisher_rows: float = hyperparameter(1.0, "share of the rollout used for the Fisher matrix", low=0.01, high=1)
    backtracks: int = hyperparameter(10, "most times that the line search shortens the step", low=0)
    backtrack_shrink: float = hyperparameter(0.8, "factor by which the step is shortened", low=0.01, high=0.99)
    gamma: float = hyperparameter(0.99, "discount factor", low=0, high=1)
    gae_lambda: float = hyperparameter(0.95, "lambda of the advantage estimator", low=0, high=1)
    critic_learning_rate: float = hyperparameter(1e-3, "Adam learning rate of the value network", low=0)
    critic_epochs: int = hyperparameter(10, "passes over the rollout when the value network is fitted", low=1)
    critic_minibatch_size: int = hyperparameter(128, "transitions per gradient step of the value network", low=1)
    normalize_rewards: bool = hyperparameter(False, "whether rewards are divided by the running deviation of returns")


class TRPO(Method[TRPOHyperparameters]):
    """Natural gradient, trust region, line search, and a fitted value function."""

    name = "trpo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=True)
        critic = Descent(policy, policy.critic_parameters, hp.critic_learning_rate, hp)
        scale = RewardScaler(hp.gamma) if hp.normalize_rewards else None
        shuffle = rng.numpy("minibatches")
        while True:
            critic.schedule(task.progress())
            rollout = policy.prepare(task.fragments(policy, hp.n_envs, hp.n_steps))
            rewards = scale(rollout) if scale else rollout.rewards
            with torch.no_grad():
                values = policy.values(rollout)
            advantages = generalized_advantages(rollout, values, hp.gamma, hp.gae_lambda, rewards)
            targets = advantages + values[:, :-1]
            advantages = standardized(beyond_rounding(advantages, values), rollout.mask)
            rows = rollout.attach(advantages=advantages, value_targets=targets).rows()
            found, metrics = self.improve(policy, rows, shuffle)
            metrics["explained_variance"] = explained_variance(values[:, :-1], targets, rollout.mask)
            metrics["value_loss"] = fit_critic(
                policy, critic, rows, hp.critic_epochs, hp.critic_minibatch_size, shuffle
            )
            yield Update(loss=-found.surrogate, policy=policy, metrics=metrics)

    def improve(
        self, policy: Policy, rows: Rollout, shuffle: np.random.Generator
    ) -> tuple[LineSearch, dict[str, float]]:
        """One trust-region step of the actor; gives where the line search ended, and the metrics."""
        hp, distribution = self.hp, policy.distribution
        parts = rows.split(hp.micro_batch)
        shares = [part.n_samples / rows.n_samples for part in parts]
        gradient, old_outputs = self.surrogate_gradient(policy, parts)
        fisher = self.fisher_product(policy, rows, shuffle)
        direction, curvature = conjugate_gradient(fisher, gradient, hp.cg_steps, hp.cg_tolerance)
        step = direction * torch.sqrt(2 * hp.max_kl / curvature.clamp(min=1e-12))

        def move(parameters: Tensor) -> tuple[float, float]:
            policy.set_actor_vector(parameters)
            found = [self.gain_and_kl(policy, part, old) for part, old in zip(parts, old_outputs, strict=True)]
            gain, kl = (sum(share * each[i] for share, each in zip(shares, found, strict=True)) for i in (0, 1))
            return gain, kl

        found = backtracking_line_search(
            move, policy.actor_vector(), step,
            max_kl=hp.max_kl, backtracks=hp.backtracks, shrink=hp.backtrack_shrink,
        )  # fmt: skip
        policy.ledger.gradient_steps += found.accepted
        entropies = (masked_mean(distribution.entropy(old), part.mask) for part, old in zip(parts, old_outputs))
        entropy = sum(share * float(each) for share, each in zip(shares, entropies, strict=True))
        metrics = {"kl": found.kl, "entropy": entropy, "gradient_norm": float(gradient.norm())}
        return found, metrics | {"step_fraction": found.fraction, "step_accepted": float(found.accepted)}

    def surrogate_gradient(self, policy: Policy, parts: list[Rollout]) -> tuple[Tensor, list[Tensor]]:
        """The gradient `[n]` of the surrogate in the actor's parameters at the old policy, and that policy's outputs
        `[B, T, P]` for each part of the rollout, detached: one pass gives both.
        """
        n_steps, outputs = sum(part.n_samples for part in parts), list[Tensor]()

        def objectives() -> Iterator[Tensor]:
            for part in parts:
                assert part.advantages is not None
                found = policy.outputs(part)
                outputs.append(found.detach())
                log_probs = policy.distribution.log_prob(found, part.actions)
                mean = importance_objective(log_probs, log_probs.detach(), part.advantages, part.mask)
                yield part.n_samples / n_steps * mean

        return policy.actor_gradient(objectives()), outputs

    def gain_and_kl(self, policy: Policy, part: Rollout, old_outputs: Tensor) -> tuple[float, float]:
        """How much the surrogate's mean over a part is above the old policy's, where the ratio is 1, and KL(old || new)
        [nats].
        """
        assert part.advantages is not None
        distribution = policy.distribution
        with torch.no_grad():
            outputs = policy.outputs(part)
            new, old = (distribution.log_prob(each, part.actions) for each in (outputs, old_outputs))
            gain = importance_objective(new, old, part.advantages, part.mask) - masked_mean(part.advantages, part.mask)
            return float(gain), float(masked_mean(distribution.kl(old_outputs, outputs), part.mask))

    def fisher_product(self, policy: Policy, rows: Rollout, shuffle: np.random.Generator) -> Callable[[Tensor], Tensor]:
        """v -> (F + damping I) v on `[n]`; F is the mean Fisher matrix of a share of the rows."""
        count = rows.mask.shape[0]
        part = max(1, round(self.hp.fisher_rows * count))
        if part < count:
            rows = rows.select(like(rows.mask, shuffle.permutation(count)[:part]))
        return policy.fisher_product(rows.split(self.hp.micro_batch), self.hp.cg_damping)


def beyond_rounding(advantages: Tensor, values: Tensor) -> Tensor:
    """The advantages, or zeros if the largest is within 16 units of rounding of the largest value."""
    largest, value = (np.abs(numbers(column)).max() for column in (advantages, values))
    return advantages * float(largest > 16 * np.finfo(numbers(values).dtype).eps * value)
