"""Proximal Policy Optimization: several epochs on one rollout, held back by a clipped ratio.

    L(theta) = E[ min(r A, clip(r, 1 - eps, 1 + eps) A) ] - c_v E[(V - V_target)^2] + c_e E[entropy]
    r = pi_theta(a | s) / pi_old(a | s),   A by generalized advantage estimation,   V_target = A + V_old

Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equations 7 and 9, algorithm 1.

Actor and critic share no layers (section 6.1), or the value head of a language model reads its last hidden states
without a gradient, so the value loss does not move the policy; one Adam steps both.

Departures from the paper:
- Advantages are standardised over each minibatch, and the gradient's norm is clipped, that of actor and critic together
  (Engstrom et al. 2020), so that a large value loss shrinks the policy's part.
- `normalize_rewards` divides rewards by a running deviation of their discounted sum (Engstrom et al. 2020).
- With `kl_coef` each token's reward is lowered by kl_coef (log pi - log pi_ref), the reference being the checkpoint
  (Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", equation 2).
- Learning rate and clip range may fall linearly to 0 over the budget (the paper does so on Atari).
- With `target_kl` the epochs stop once a minibatch's estimated KL is above 1.5 times it (Stable-Baselines3's rule).
- The value of the next state is bootstrapped where a time limit cut an episode; the paper does not say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from polobench.core.hyperparameters import GradientHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.optimization import Descent, FarEnough, Tally
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout, joined
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.reference import kl_since, require_checkpoint, with_kl_in_rewards
from polobench.objectives.regression import value_loss
from polobench.objectives.returns import (
    RewardScaler,
    explained_variance,
    generalized_advantages,
    masked_mean,
    standardized,
)
from polobench.objectives.surrogates import clip_fraction, clipped_objective, k3_kl


@dataclass(frozen=True, kw_only=True)
class PPOHyperparameters(GradientHyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    n_envs: int = hyperparameter(8, "number of environments stepped together", low=1)
    n_steps: int = hyperparameter(128, "steps per environment in each rollout", low=1)
    epochs: int = hyperparameter(10, "passes over each rollout", low=1)
    minibatch_size: int = hyperparameter(256, "transitions per gradient step", low=1)
    learning_rate: float = hyperparameter(3e-4, "Adam learning rate of policy and critic", low=0)
    clip_eps: float = hyperparameter(0.2, "largest distance of the probability ratio from 1", low=0)
    clip_schedule: str = hyperparameter("constant", "clip range over time", choices=("constant", "linear"))
    gamma: float = hyperparameter(0.99, "discount factor", low=0, high=1)
    gae_lambda: float = hyperparameter(0.95, "lambda of the advantage estimator", low=0, high=1)
    value_coef: float = hyperparameter(0.5, "weight of the value loss", low=0)
    entropy_coef: float = hyperparameter(0.0, "weight of the entropy bonus", low=0)
    kl_coef: float = hyperparameter(0.0, "weight of the KL to the checkpoint in each token's reward (language)", low=0)
    standardize_advantages: bool = hyperparameter(True, "whether advantages are standardised within each minibatch")
    target_kl: float | None = hyperparameter(None, "target KL [nats]; the epochs stop at 1.5 times it", low=1e-6)
    normalize_rewards: bool = hyperparameter(False, "whether rewards are divided by the running deviation of returns")


class PPO(Method[PPOHyperparameters]):
    """The clipped variant, with a learned value function."""

    name = "ppo"

    def check(self) -> None:
        require_checkpoint(self.name, self.task, self.hp.kl_coef)

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=True)
        descent = Descent(policy, policy.actor_parameters + policy.critic_parameters, hp.learning_rate, hp)
        scale = RewardScaler(hp.gamma) if hp.normalize_rewards else None
        shuffle = rng.numpy("minibatches")
        while True:
            descent.schedule(task.progress())
            clip_eps = hp.clip_eps * (1.0 - task.progress() if hp.clip_schedule == "linear" else 1)
            rollout, more = policy.prepare(task.fragments(policy, hp.n_envs, hp.n_steps)), {}
            if hp.kl_coef > 0:
                rollout, more["kl_to_reference"] = with_kl_in_rewards(
                    policy, task.reference_policy(), rollout, hp.kl_coef, hp.micro_batch
                )
            rollout = self.with_targets(policy, rollout, scale(rollout) if scale else rollout.rewards)
            metrics = self.improve(policy, descent, rollout.rows(), clip_eps, shuffle) | more
            metrics["explained_variance"] = self.explained_variance(rollout)
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def with_targets(self, policy: Policy, rollout: Rollout, rewards: Tensor) -> Rollout:
        """Attach advantages, value targets and the sampling policy's log-probabilities, `[B, T]` each."""
        log_probs, values, width = [], [], rollout.mask.shape[1]
        for part in rollout.split(self.hp.micro_batch):
            outputs, of_part = policy.outputs_and_all_values(part)
            log_probs.append(policy.distribution.log_prob(outputs, part.actions))
            values.append(of_part)
        old = joined(values, width + 1)
        advantages = generalized_advantages(rollout, old, self.hp.gamma, self.hp.gae_lambda, rewards)
        return rollout.attach(
            advantages=advantages, value_targets=advantages + old[:, :-1], old_log_probs=joined(log_probs, width)
        )

    def improve(
        self, policy: Policy, descent: Descent, rows: Rollout, clip_eps: float, shuffle: np.random.Generator
    ) -> dict[str, float]:
        """The epochs over one rollout; gives each metric's mean over the minibatches, and the KL at the end."""
        losses = partial(self.losses, policy, clip_eps)
        metrics = descent.fit(self.minibatches(rows, shuffle), losses)
        return metrics | {"kl": kl_since(policy, rows.split(self.hp.micro_batch))}

    def minibatches(self, rows: Rollout, shuffle: np.random.Generator) -> Iterator[list[Rollout]]:
        """Those of all epochs, in parts."""
        before, parts = None, list[Rollout]()
        for batch in rows.minibatches(self.hp.minibatch_size, shuffle, self.hp.epochs):
            if batch is not before:  # every epoch of a single minibatch gives the same one
                before, parts = batch, self.in_parts(batch)
            yield parts

    def in_parts(self, batch: Rollout) -> list[Rollout]:
        """A minibatch in the parts of a pass, its advantages standardised before it is split."""
        if self.hp.standardize_advantages:
            assert batch.advantages is not None
            batch = batch.attach(advantages=standardized(batch.advantages, batch.mask))
        return batch.split(self.hp.micro_batch)

    def losses(self, policy: Policy, clip_eps: float, parts: list[Rollout], tally: Tally) -> Iterator[Tensor]:
        """The loss of each part of a minibatch: its share of the steps times the mean over its own."""
        hp, n_steps, kl = self.hp, sum(part.n_samples for part in parts), 0.0
        for part in parts:
            assert part.advantages is not None
            assert part.old_log_probs is not None
            outputs, values = policy.outputs_and_values(part)
            log_probs, share = policy.distribution.log_prob(outputs, part.actions), part.n_samples / n_steps
            policy_loss = -clipped_objective(log_probs, part.old_log_probs, part.advantages, part.mask, clip_eps)
            critic_loss = value_loss(values, part)
            entropy = masked_mean(policy.distribution.entropy(outputs), part.mask)
            if hp.target_kl is not None:
                kl += share * float(k3_kl(log_probs.detach(), part.old_log_probs, part.mask))
                if part is parts[-1] and kl > 1.5 * hp.target_kl:
                    raise FarEnough
            outside = clip_fraction(log_probs, part.old_log_probs, part.mask, clip_eps, clip_eps)
            tally.add(share, policy_loss=policy_loss, value_loss=critic_loss, entropy=entropy, clip_fraction=outside)
            yield share * (policy_loss + hp.value_coef * critic_loss - hp.entropy_coef * entropy)

    def explained_variance(self, rollout: Rollout) -> float:
        """The share of the targets' variance that the critic explained before it was fitted to them."""
        assert rollout.value_targets is not None
        assert rollout.advantages is not None
        old_values = rollout.value_targets - rollout.advantages
        return explained_variance(old_values, rollout.value_targets, rollout.mask)
