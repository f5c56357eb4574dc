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

Departures from the paper:
- Adam without warm-up or weight decay; the gradient's norm is clipped.
- The reference stays the starting policy (the paper's iterative variant moves it with the reward model).
- The standard deviation is the population's, with 1e-4 added.
- Each of the `epochs` (the paper's mu) is one gradient step on the whole batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from polobench.core.hyperparameters import GroupHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.policy import Optimizer, Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.preference import group_advantages, with_reference
from polobench.objectives.surrogates import clipped_terms, k3_terms


@dataclass(frozen=True, kw_only=True)
class GRPOHyperparameters(GroupHyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    epochs: int = hyperparameter(1, "gradient steps per batch (the paper's mu)", low=1)
    clip_eps: float = hyperparameter(0.2, "largest distance of the probability ratio from 1", low=0)
    beta: float = hyperparameter(0.0, "weight of the KL to the reference policy", low=0)
    normalization: str = hyperparameter("grpo", "normalisation of a token's term", choices=("grpo", "dapo", "dr_grpo"))
    divide_by_std: bool = hyperparameter(True, "whether advantages are divided by their group's standard deviation")


class GRPO(Method[GRPOHyperparameters]):
    """One reward per completion, and no critic."""

    name = "grpo"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        reference = task.reference_policy() if hp.beta > 0 else None
        optimizer = policy.adam(policy.actor_parameters, lr=hp.learning_rate)
        while True:
            rollout = task.episodes(policy, hp.n_groups, hp.group_size)
            advantages = group_advantages(rollout.returns, rollout.groups, hp.divide_by_std)
            batch = rollout.attach(
                advantages=advantages.unsqueeze(1).expand_as(rollout.mask),
                weights=token_weights(rollout.mask, hp.normalization, task.horizon),
            )
            metrics = self.improve(policy, reference, optimizer, policy.prepare(batch))
            metrics |= {"reward": float(rollout.returns.mean()), "completion_length": rollout.mean_length}
            metrics["tied_groups"] = _tied_groups(advantages, rollout.groups)
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def improve(
        self, policy: Policy, reference: Policy | None, optimizer: Optimizer, batch: Rollout
    ) -> dict[str, float]:
        """The gradient steps on one batch; gives the mean of every metric over those that have it."""
        parts = batch.rows().split(self.hp.micro_batch)
        rows = sum(part.n_rows for part in parts)
        seen: dict[str, list[float]] = defaultdict(list)
        for _ in range(self.hp.epochs):
            sums: dict[str, float | Tensor] = defaultdict(float)
            losses = self.losses(policy, reference, parts, sums)
            step = policy.gradient_step(optimizer, losses, rows, self.hp.max_gradient_norm)
            for name, value in ({"loss": step.loss, "gradient_norm": step.gradient_norm} | sums).items():
                seen[name].append(float(value))
        return {name: sum(values) / len(values) for name, values in seen.items()}

    def losses(
        self, policy: Policy, reference: Policy | None, parts: list[Rollout], sums: dict[str, float | Tensor]
    ) -> Iterator[Tensor]:
        """The loss of each part, scalars that add up to the batch's; adds the parts' metrics to `sums`."""
        total = sum(part.n_samples for part in parts)
        for index, part in enumerate(parts):
            outputs = policy.outputs(part)
            log_probs = policy.distribution.log_prob(outputs, part.actions)
            is_first_epoch = part.old_log_probs is None  # the policy is still the one that sampled
            if is_first_epoch:
                part = parts[index] = self.with_fixed_log_probs(reference, part, log_probs.detach())
            assert part.old_log_probs is not None
            assert part.advantages is not None
            assert part.weights is not None
            terms = clipped_terms(log_probs, part.old_log_probs, part.advantages, self.hp.clip_eps)
            if part.reference_log_probs is not None:
                kl = k3_terms(log_probs, part.reference_log_probs)
                sums["kl_to_reference"] += (kl.detach() * part.mask).sum() / total
                terms = terms - self.hp.beta * kl
            with torch.no_grad():
                sums["entropy"] += (policy.distribution.entropy(outputs) * part.mask).sum() / total
                if not is_first_epoch:
                    outside = ((log_probs - part.old_log_probs).exp() - 1).abs() > self.hp.clip_eps
                    sums["clip_fraction"] += (outside & part.mask).sum() / total
                    sums["kl"] += (k3_terms(part.old_log_probs, log_probs) * part.mask).sum() / total
            yield -(terms * part.weights * part.mask).sum()

    def with_fixed_log_probs(self, reference: Policy | None, part: Rollout, log_probs: Tensor) -> Rollout:
        """Attach what stays the same over the epochs: the log-probabilities of the sampler and of the reference."""
        part = part.attach(old_log_probs=log_probs)
        return part if reference is None else with_reference(reference, part)


def _tied_groups(advantages: Tensor, groups: Tensor) -> float:
    """The share of groups whose returns are all equal, from which nothing is learned."""
    sums = advantages.new_zeros(int(groups.max()) + 1).index_add(0, groups, advantages.abs())
    return 1 - float((sums > 0).float().mean())


def token_weights(mask: Tensor, normalization: str, horizon: int) -> Tensor:
    """`[B, T]` the weight of each token's term; `horizon` is the largest length of a row."""
    rows, counts = mask.shape[0], mask.sum(1, keepdim=True)
    divisor = {"grpo": rows * counts, "dapo": counts.sum(), "dr_grpo": torch.tensor(rows * horizon, device=mask.device)}
    return mask / divisor[normalization]
