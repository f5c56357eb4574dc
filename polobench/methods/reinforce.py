"""REINFORCE: the score-function policy gradient on whole episodes.

    grad J = E[ sum_t grad log pi(a_t | s_t) (G_t - b(s_t)) ],   G_t = sum_(k >= t) gamma^(k - t) r_k

Source: Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
sections 4 and 5; the return-to-go and state-value form is Sutton et al. 2000, theorem 1.

Departures from the paper:
- Each update uses a batch of episodes, and Adam in place of plain ascent.
- The factor gamma^t of the discounted objective's gradient is dropped, as is usual (Nota and Thomas 2020).
- With `kl_coef` each token's reward is lowered by kl_coef (log pi - log pi_ref), the reference being the checkpoint
  (Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", equation 2).
- The gradient's norm is clipped; an entropy bonus (`entropy_coef`, Williams and Peng 1991) and rewards divided by a
  running deviation of their discounted sum (`normalize_rewards`) may be added.
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
from functools import partial

import torch
from torch import Tensor

from polobench.core.hyperparameters import GradientHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.optimization import Descent, Tally
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.reference import kl_since, require_checkpoint, with_kl_in_rewards
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
class ReinforceHyperparameters(GradientHyperparameters):
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
    kl_coef: float = hyperparameter(0.0, "weight of the KL to the checkpoint in each token's reward (language)", low=0)
    normalize_rewards: bool = hyperparameter(False, "whether rewards are divided by the running deviation of returns")


class Reinforce(Method[ReinforceHyperparameters]):
    """Williams' estimator with the return-to-go and a choice of baselines."""

    name = "reinforce"

    def check(self) -> None:
        require_checkpoint(self.name, self.task, self.hp.kl_coef)

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=hp.baseline == "value")
        actor = Descent(policy, policy.actor_parameters, hp.learning_rate, hp)
        critic = None
        if policy.critic_parameters:
            critic = Descent(policy, policy.critic_parameters, hp.critic_learning_rate, hp)
        scale = RewardScaler(hp.gamma) if hp.normalize_rewards else None
        shuffle = rng.numpy("minibatches")
        size = hp.group_size if hp.baseline == "leave_one_out" else 1
        groups_and_size = max(1, hp.n_episodes // size), size
        while True:
            for descent in filter(None, (actor, critic)):
                descent.schedule(task.progress())
            rollout, metrics = task.episodes(policy, *groups_and_size), {}
            if hp.kl_coef > 0:
                rollout, metrics["kl_to_reference"] = with_kl_in_rewards(
                    policy, task.reference_policy(), rollout, hp.kl_coef, hp.micro_batch
                )
            rewards = scale(rollout) if scale else rollout.rewards
            returns, baseline = self.returns_and_baseline(policy, rollout, rewards)
            metrics |= self.improve(policy, actor, rollout.attach(advantages=(returns - baseline) * rollout.mask))
            if critic:
                metrics["explained_variance"] = explained_variance(baseline, returns, rollout.mask)
                rows = policy.prepare(rollout.attach(value_targets=returns)).rows()
                metrics["value_loss"] = fit_critic(
                    policy, critic, rows, hp.critic_epochs, hp.critic_minibatch_size, shuffle
                )
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

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

    def improve(self, policy: Policy, descent: Descent, rollout: Rollout) -> dict[str, float]:
        """One step up the estimated gradient; gives the metrics."""
        parts = policy.prepare(rollout).split(self.hp.micro_batch)
        metrics = descent.fit([parts], partial(self.losses, policy))
        return metrics | {"kl": kl_since(policy, parts), "episode_length": rollout.mean_length}

    def losses(self, policy: Policy, parts: list[Rollout], tally: Tally) -> Iterator[Tensor]:
        """The loss of each part, whose log-probabilities are left with it: the sampler's, before the step."""
        n_steps, n_episodes = sum(part.n_samples for part in parts), sum(part.mask.shape[0] for part in parts)
        for index, part in enumerate(parts):
            assert part.advantages is not None
            outputs, share = policy.outputs(part), part.n_samples / n_steps
            log_probs = policy.distribution.log_prob(outputs, part.actions)
            parts[index] = part.attach(old_log_probs=log_probs.detach())
            entropy = masked_mean(policy.distribution.entropy(outputs), part.mask)
            tally.add(share, entropy=entropy)
            objective = score_function_objective(log_probs, part.advantages, part.mask, n_episodes)
            yield -objective - self.hp.entropy_coef * share * entropy
