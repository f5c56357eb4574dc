"""Proximal Policy Optimization: several epochs on one rollout, held back by a clipped ratio.

    L(theta) = E[ min(r A, clip(r, 1 - eps, 1 + eps) A) ] - c_v E[(V - V_target)^2] + c_e E[entropy]
    r = pi_theta(a | s) / pi_old(a | s),   A by generalized advantage estimation,   V_target = A + V_old

Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equations 7 and 9, algorithm 1.

Actor and critic share no layers (section 6.1), so the value loss cannot move the policy; one Adam steps both.

Departures from the paper:
- Advantages are standardised over each minibatch, and the gradient's norm is clipped (Engstrom et al. 2020).
- Learning rate and clip range may fall linearly to 0 over the budget (the paper does so on Atari).
- With `target_kl` the epochs stop once a minibatch's estimated KL is above 1.5 times it (Stable-Baselines3's rule).
- The value of the next state is bootstrapped where a time limit cut an episode; the paper does not say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from polobench.core.arrays import stack
from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.policy import Optimizer, Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.regression import value_loss
from polobench.objectives.returns import (
    RewardScaler,
    explained_variance,
    generalized_advantages,
    masked_mean,
    standardized,
)
from polobench.objectives.surrogates import clipped_objective, k3_kl, kl_since


@dataclass(frozen=True, kw_only=True)
class PPOHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    n_envs: int = hyperparameter(8, "number of environments stepped together", low=1)
    n_steps: int = hyperparameter(128, "steps per environment in each rollout", low=1)
    epochs: int = hyperparameter(10, "passes over each rollout", low=1)
    minibatch_size: int = hyperparameter(256, "transitions per gradient step", low=1)
    learning_rate: float = hyperparameter(3e-4, "Adam learning rate of policy and critic", low=0)
    learning_rate_schedule: str = hyperparameter("constant", "learning rate over time", choices=("constant", "linear"))
    clip_eps: float = hyperparameter(0.2, "largest distance of the probability ratio from 1", low=0)
    clip_schedule: str = hyperparameter("constant", "clip range over time", choices=("constant", "linear"))
    gamma: float = hyperparameter(0.99, "discount factor", low=0, high=1)
    gae_lambda: float = hyperparameter(0.95, "lambda of the advantage estimator", low=0, high=1)
    value_coef: float = hyperparameter(0.5, "weight of the value loss", low=0)
    entropy_coef: float = hyperparameter(0.0, "weight of the entropy bonus", low=0)
    max_gradient_norm: float | None = hyperparameter(0.5, "largest gradient norm; longer ones are scaled down", low=0)
    standardize_advantages: bool = hyperparameter(True, "whether advantages are standardised within each minibatch")
    target_kl: float | None = hyperparameter(None, "target KL [nats]; the epochs stop at 1.5 times it", low=1e-6)
    normalize_rewards: bool = hyperparameter(False, "whether rewards are divided by the running deviation of returns")


class PPO(Method[PPOHyperparameters]):
    """The clipped variant, with a learned value function."""

    name = "ppo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=True)
        parameters = policy.actor_parameters + policy.critic_parameters
        optimizer = policy.adam(parameters, lr=hp.learning_rate, eps=1e-5)
        scale = RewardScaler(hp.gamma) if hp.normalize_rewards else None
        shuffle = rng.numpy("minibatches")
        while True:
            left = 1.0 - task.progress()
            optimizer.param_groups[0]["lr"] = hp.learning_rate * (left if hp.learning_rate_schedule == "linear" else 1)
            clip_eps = hp.clip_eps * (left if hp.clip_schedule == "linear" else 1)
            rollout = policy.prepare(task.fragments(policy, hp.n_envs, hp.n_steps))
            rollout = self.with_targets(policy, rollout, scale(rollout) if scale else rollout.rewards)
            metrics = self.improve(policy, optimizer, rollout.rows(), clip_eps, shuffle)
            metrics["explained_variance"] = self.explained_variance(rollout)
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def with_targets(self, policy: Policy, rollout: Rollout, rewards: Tensor) -> Rollout:
        """Attach advantages, value targets and the sampling policy's log-probabilities, `[B, T]` each."""
        outputs, values = policy.outputs_and_all_values(rollout)
        advantages = generalized_advantages(rollout, values, self.hp.gamma, self.hp.gae_lambda, rewards)
        old_log_probs = policy.distribution.log_prob(outputs, rollout.actions)
        targets = advantages + values[:, :-1]
        return rollout.attach(advantages=advantages, value_targets=targets, old_log_probs=old_log_probs)

    def improve(
        self,
        policy: Policy,
        optimizer: Optimizer,
        rows: Rollout,
        clip_eps: float,
        shuffle: np.random.Generator,
    ) -> dict[str, float]:
        """The epochs over one rollout; gives each metric's mean over the minibatches, and the KL at the end."""
        seen: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(self.hp.epochs):
            for batch in rows.minibatches(self.hp.minibatch_size, shuffle):
                loss, metrics = self.loss(policy, batch, clip_eps)
                if self.hp.target_kl is not None and metrics["kl"] > 1.5 * self.hp.target_kl:
                    return _means(seen) | {"kl": kl_since(policy, rows)}
                policy.gradient_step(optimizer, [loss], 2 * batch.n_rows, self.hp.max_gradient_norm)
                for name, value in ({"loss": loss} | metrics).items():
                    seen[name].append(value.detach())
        return _means(seen) | {"kl": kl_since(policy, rows)}

    def loss(self, policy: Policy, batch: Rollout, clip_eps: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one minibatch and its parts, scalars."""
        assert batch.advantages is not None
        assert batch.old_log_probs is not None
        hp = self.hp
        outputs, values = policy.outputs_and_values(batch)
        log_probs = policy.distribution.log_prob(outputs, batch.actions)
        advantages = batch.advantages
        if hp.standardize_advantages:
            advantages = standardized(advantages, batch.mask)
        policy_loss = -clipped_objective(log_probs, batch.old_log_probs, advantages, batch.mask, clip_eps)
        critic_loss = value_loss(values, batch)
        entropy = masked_mean(policy.distribution.entropy(outputs), batch.mask)
        loss = policy_loss + hp.value_coef * critic_loss - hp.entropy_coef * entropy
        now, old = log_probs.detach(), batch.old_log_probs
        clip_fraction = masked_mean(((now - old).exp() - 1).abs() > clip_eps, batch.mask)
        parts = {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy}
        parts["clip_fraction"] = clip_fraction
        return loss, parts if hp.target_kl is None else parts | {"kl": k3_kl(now, old, batch.mask)}

    def explained_variance(self, rollout: Rollout) -> float:
        """The share of the targets' variance that the critic explained before it was fitted to them."""
        assert rollout.value_targets is not None
        assert rollout.advantages is not None
        old_values = rollout.value_targets - rollout.advantages
        return explained_variance(old_values, rollout.value_targets, rollout.mask)


def _means(seen: dict[str, list[Tensor]]) -> dict[str, float]:
    means = {name: float(stack(values).mean()) for name, values in seen.items()}
    return {"loss": float("nan")} | means
