"""Group Relative Policy Optimization: a return is compared with its group instead of with a critic.

    J(theta) = E[ 1/G sum_i 1/|o_i| sum_t ( min(r A_i, clip(r, 1 - eps, 1 + eps) A_i) - beta k3(pi || pi_ref) ) ]
    A_i = (R_i - mean(R_1..R_G)) / std(R_1..R_G),   r = pi(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)

G completions o_1..o_G of one prompt q (episodes from one start state), each with its return R_i.

Source: Shao et al. 2024, "DeepSeekMath", section 4.1, equations 3 and 4, algorithm 1 (outcome supervision).

Variants:
- Normalisation "grpo" is the formula above; "dapo" divides by the tokens of the whole batch (Yu et al. 2025, "DAPO",
  equation 8); "dr_grpo" by the longest length that a completion can have (Liu et al. 2025, "Understanding R1-Zero-Like
  Training", section 3.2), so that neither favours short completions.
- Without `divide_by_std` the advantage is R_i - mean (the same paper): groups of little spread do not weigh more.
- With `clip_eps_high` the ratio is clipped to [1 - clip_eps, 1 + clip_eps_high] (DAPO, equation 10, "clip-higher").
- With `drop_tied_groups` a group whose returns are all equal enters neither the loss nor what it is divided by (DAPO,
  equation 11, "dynamic sampling"); no group is sampled in its place, and a batch of tied groups makes no step.

Departures from the paper:
- Adam without warm-up or weight decay; the gradient's norm is clipped.
- The reference stays the starting policy (the paper's iterative variant moves it with the reward model).
- The standard deviation is the population's, with 1e-4 added.
- Each of the `epochs` (the paper's mu) may be divided into minibatches. A minibatch's loss is scaled by the rows of
  the batch over its own, so that its mean is the batch's loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from polobench.core.hyperparameters import GroupHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.optimization import Descent, Tally
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.preference import group_advantages, is_tied
from polobench.objectives.reference import kl_since, log_probs_of, with_reference
from polobench.objectives.returns import masked_mean
from polobench.objectives.surrogates import clip_fraction, clipped_terms, k3_terms


@dataclass(frozen=True, kw_only=True)
class GRPOHyperparameters(GroupHyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    minibatch_size: int | None = hyperparameter(None, "steps per gradient step; None: the whole batch", low=1)
    clip_eps: float = hyperparameter(0.2, "largest distance of the probability ratio from 1", low=0)
    clip_eps_high: float | None = hyperparameter(None, "the same above 1; None: clip_eps", low=0)
    beta: float = hyperparameter(0.0, "weight of the KL to the reference policy", low=0)
    normalization: str = hyperparameter("grpo", "normalisation of a token's term", choices=("grpo", "dapo", "dr_grpo"))
    divide_by_std: bool = hyperparameter(True, "whether advantages are divided by their group's standard deviation")
    drop_tied_groups: bool = hyperparameter(False, "whether groups of equal returns are left out of the loss")


class GRPO(Method[GRPOHyperparameters]):
    """One reward per completion, and no critic."""

    name = "grpo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        reference = task.reference_policy() if hp.beta > 0 else None
        descent = Descent(policy, policy.actor_parameters, hp.learning_rate, hp)
        shuffle = rng.numpy("minibatches")
        while True:
            descent.schedule(task.progress())
            rollout = task.episodes(policy, hp.n_groups, hp.group_size)
            batch = self.with_advantages(rollout, task.horizon)
            metrics = {"loss": 0.0} if batch is None else self.improve(policy, reference, descent, batch, shuffle)
            metrics |= {"reward": float(rollout.returns.mean()), "completion_length": rollout.mean_length}
            metrics["tied_groups"] = _tied_groups(rollout)
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def with_advantages(self, rollout: Rollout, horizon: int) -> Rollout | None:
        """The rows that enter the loss, with their advantages and weights `[B, T]`; None if there are none."""
        if self.hp.drop_tied_groups:
            kept = ~is_tied(rollout.returns, rollout.groups)
            if not kept.any():
                return None
            rollout = rollout.select(kept)
        advantages = group_advantages(rollout.returns, rollout.groups, self.hp.divide_by_std)
        return rollout.attach(
            advantages=advantages.unsqueeze(1).expand_as(rollout.mask),
            weights=token_weights(rollout.mask, self.hp.normalization, horizon),
        )

    def improve(
        self,
        policy: Policy,
        reference: Policy | None,
        descent: Descent,
        batch: Rollout,
        shuffle: np.random.Generator,
    ) -> dict[str, float]:
        """The gradient steps on one batch; gives each metric's mean over them, and the KL at the end."""
        hp = self.hp
        rows = self.with_fixed_log_probs(policy, reference, policy.prepare(batch).rows())
        minibatches = rows.minibatches(hp.minibatch_size, shuffle, hp.epochs)
        parts = (minibatch.split(hp.micro_batch) for minibatch in minibatches)
        metrics = descent.fit(parts, partial(self.losses, policy, rows.mask.shape[0]))
        return metrics | ({} if rows.old_log_probs is None else {"kl": kl_since(policy, rows.split(hp.micro_batch))})

    def with_fixed_log_probs(self, policy: Policy, reference: Policy | None, rows: Rollout) -> Rollout:
        """Attach what stays as it is: the log-probabilities of the reference, and of the sampler if it moves."""
        hp = self.hp
        if hp.epochs > 1 or len(rows.minibatch_bounds(hp.minibatch_size)) > 2:
            rows = rows.attach(old_log_probs=log_probs_of(policy, rows, hp.micro_batch))
        return rows if reference is None else with_reference(reference, rows, hp.micro_batch)

    def losses(self, policy: Policy, n_rows: int, parts: list[Rollout], tally: Tally) -> Iterator[Tensor]:
        """The loss of each part of a minibatch of a batch of so many rows, scalars that add up to the minibatch's."""
        hp, n_steps = self.hp, sum(part.n_samples for part in parts)
        scale = n_rows / sum(part.mask.shape[0] for part in parts)
        high = hp.clip_eps if hp.clip_eps_high is None else hp.clip_eps_high
        for part in parts:
            assert part.advantages is not None
            assert part.weights is not None
            outputs, share = policy.outputs(part), part.n_samples / n_steps
            log_probs = policy.distribution.log_prob(outputs, part.actions)
            old = log_probs.detach() if part.old_log_probs is None else part.old_log_probs
            terms = clipped_terms(log_probs, old, part.advantages, hp.clip_eps, high)
            if part.reference_log_probs is not None:
                kl = k3_terms(log_probs, part.reference_log_probs)
                tally.add(share, kl_to_reference=masked_mean(kl.detach(), part.mask))
                terms = terms - hp.beta * kl
            with torch.no_grad():
                tally.add(share, entropy=masked_mean(policy.distribution.entropy(outputs), part.mask))
                if part.old_log_probs is not None:
                    outside = clip_fraction(log_probs, old, part.mask, hp.clip_eps, high)
                    tally.add(share, clip_fraction=outside)
            yield -scale * (terms * part.weights * part.mask).sum()


def _tied_groups(rollout: Rollout) -> float:
    """The share of groups whose returns are all equal, from which nothing is learned."""
    tied = is_tied(rollout.returns, rollout.groups)
    return len(set(rollout.groups[tied].tolist())) / len(set(rollout.groups.tolist()))


def token_weights(mask: Tensor, normalization: str, horizon: int) -> Tensor:
    """`[B, T]` the weight of each token's term; `horizon` is the largest length of a row."""
    rows, counts = mask.shape[0], mask.sum(1, keepdim=True)
    divisor = {"grpo": rows * counts, "dapo": counts.sum(), "dr_grpo": torch.tensor(rows * horizon, device=mask.device)}
    return mask / divisor[normalization]
