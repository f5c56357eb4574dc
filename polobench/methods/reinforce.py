"""REINFORCE: the score-function policy gradient on whole episodes.

    grad J = E[ sum_t grad log pi(a_t | s_t) (G_t - b(s_t)) ],   G_t = sum_(k >= t) gamma^(k - t) r_k

Source: Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
sections 4 and 5; the return-to-go and state-value form is Sutton et al. 2000, theorem 1.

Departures from the paper:
- Each update uses a batch of episodes, and Adam in place of plain ascent.
- The factor gamma^t of the discounted objective's gradient is dropped, as is usual (Nota and Thomas 2020).
- Baseline "batch_mean" is the mean return-to-go of the whole batch, each action's own episode included: that biases
  the gradient by a factor of order 1 / (episodes in the batch).
- Baseline "leave_one_out" is RLOO (Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"; Ahmadian et
  al. 2024, "Back to Basics", section 3.3): every step of an episode gets the episode's whole discounted return minus
  the mean return of the other episodes from the same start state or prompt. The `n_episodes` of an update are divided
  into such groups of `group_size`.
- Baseline "value" fits a state-value network to the returns after each policy step, so that a return is never
  subtracted from itself. An episode that a time limit cut goes on with that network's value of its last state;
  the other baselines have none to offer, and their return-to-go ends at the cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.policy import Optimizer, Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.regression import fit_critic
from polobench.objectives.returns import (
    RewardScaler,
    explained_variance,
    generalized_advantages,
    leave_one_out_means,
    masked_mean,
)
from polobench.objectives.surrogates import score_function_objective

BASELINES = ("none", "batch_mean", "leave_one_out", "value")


@dataclass(frozen=True, kw_only=True)
class ReinforceHyperparameters(Hyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    n_episodes: int = hyperparameter(8, "episodes per update", low=1)
    learning_rate: float = hyperparameter(3e-3, "Adam learning rate of the policy", low=0)
    gamma: float = hyperparameter(0.99, "discount factor", low=0, high=1)
    baseline: str = hyperparameter("value", "baseline subtracted from the return", choices=BASELINES)
    group_size: int = hyperparameter(4, "episodes per start state, for the baseline leave_one_out", low=2)
    critic_learning_rate: float = hyperparameter(3e-3, "Adam learning rate of the value network", low=0)
    critic_epochs: int = hyperparameter(5, "passes over the batch when the value network is fitted", low=1)
    critic_minibatch_size: int = hyperparameter(256, "transitions per gradient step of the value network", low=1)
    entropy_coef: float = hyperparameter(0.0, "weight of the mean entropy, beside a sum over each episode", low=0)
    max_gradient_norm: float | None = hyperparameter(None, "largest norm of the policy's gradient", low=0)
    normalize_rewards: bool = hyperparameter(False, "whether rewards are divided by the running deviation of returns")


class Reinforce(Method[ReinforceHyperparameters]):
    """Williams' estimator with the return-to-go and a choice of baselines."""

    name = "reinforce"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=hp.baseline == "value")
        actor_optimizer = policy.adam(policy.actor_parameters, lr=hp.learning_rate)
        critic_optimizer = None
        if policy.critic_parameters:
            critic_optimizer = policy.adam(policy.critic_parameters, lr=hp.critic_learning_rate)
        scale = RewardScaler(hp.gamma) if hp.normalize_rewards else None
        shuffle = rng.numpy("minibatches")
        size = hp.group_size if hp.baseline == "leave_one_out" else 1
        groups_and_size = max(1, hp.n_episodes // size), size
        while True:
            rollout = task.episodes(policy, *groups_and_size)
            rewards = scale(rollout) if scale else rollout.rewards
            returns, baseline = self.returns_and_baseline(policy, rollout, rewards)
            advantages = (returns - baseline) * rollout.mask
            loss, metrics = self.improve(policy, actor_optimizer, rollout, advantages)
            if critic_optimizer:
                metrics["explained_variance"] = explained_variance(baseline, returns, rollout.mask)
                rows = policy.prepare(rollout.attach(value_targets=returns)).rows()
                metrics["value_loss"] = fit_critic(
                    policy, critic_optimizer, rows, hp.critic_epochs, hp.critic_minibatch_size, shuffle
                )
            yield Update(loss=loss, policy=policy, metrics=metrics)

    def returns_and_baseline(self, policy: Policy, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Discounted returns `[B, T]` and the baseline to be subtracted from them, `[B, T]`."""
        values = torch.zeros(rollout.mask.shape[0], rollout.mask.shape[1] + 1, device=rewards.device)
        if self.hp.baseline == "value":
            with torch.no_grad():
                values = policy.values(rollout)
        # with lambda = 1 the advantage is the whole return, bootstrapped at a cut, minus the value
        returns = generalized_advantages(rollout, values, self.hp.gamma, 1.0, rewards) + values[:, :-1]
        if self.hp.baseline == "batch_mean":
            return returns, masked_mean(returns, rollout.mask).expand_as(returns)
        if self.hp.baseline == "leave_one_out":
            whole = returns[:, 0]
            others = leave_one_out_means(whole, rollout.groups)
            return whole.unsqueeze(1).expand_as(returns), others.unsqueeze(1).expand_as(returns)
        return returns, values[:, :-1]

    def improve(
        self, policy: Policy, optimizer: Optimizer, rollout: Rollout, advantages: Tensor
    ) -> tuple[float, dict[str, float]]:
        """One step up the estimated gradient; gives the loss and the metrics."""
        rollout = policy.prepare(rollout.attach(advantages=advantages))
        assert rollout.advantages is not None
        outputs = policy.outputs(rollout)
        log_probs = policy.distribution.log_prob(outputs, rollout.actions)
        entropy = masked_mean(policy.distribution.entropy(outputs), rollout.mask)
        n_episodes = rollout.mask.shape[0]
        objective = score_function_objective(log_probs, rollout.advantages, rollout.mask, n_episodes)
        loss = -objective - self.hp.entropy_coef * entropy
        step = policy.gradient_step(optimizer, [loss], rollout.n_rows, self.hp.max_gradient_norm)
        with torch.no_grad():
            moved = policy.distribution.kl(outputs, policy.outputs(rollout))
        kl = masked_mean(moved, rollout.mask)
        metrics = {"entropy": entropy.item(), "kl": kl.item(), "episode_length": rollout.mean_length}
        if self.hp.max_gradient_norm is not None:
            metrics["gradient_norm"] = float(step.gradient_norm)
        return loss.item(), metrics
