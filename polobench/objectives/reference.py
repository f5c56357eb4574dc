"""Log-probabilities of what was sampled: under its sampler, under the policy that is trained, and under a reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polobench.core.errors import UsageError
from polobench.core.policy import Policy
from polobench.core.rollout import Rollout, joined
from polobench.core.task import Task
from polobench.objectives.returns import masked_mean
from polobench.objectives.surrogates import k3_kl


def log_probs_of(policy: Policy, rollout: Rollout, size: int | None) -> Tensor:
    """`[B, T]` of the actions, without gradients, at most `size` rows in a pass."""
    with torch.no_grad():
        found = [policy.distribution.log_prob(policy.outputs(part), part.actions) for part in rollout.split(size)]
    return joined(found, rollout.mask.shape[1])


def with_reference(reference: Policy, rollout: Rollout, size: int | None) -> Rollout:
    """Attach the reference's log-probabilities `[B, T]`, at most `size` rows in a pass."""
    return rollout.attach(reference_log_probs=log_probs_of(reference, rollout, size))


def kl_since(policy: Policy, parts: Sequence[Rollout]) -> float:
    """KL(old || now) [nats] since the `old_log_probs` of these parts of a rollout, by k3."""
    total, found = sum(part.n_samples for part in parts), 0.0
    for part in parts:
        assert part.old_log_probs is not None
        found += part.n_samples / total * float(k3_kl(log_probs_of(policy, part, None), part.old_log_probs, part.mask))
    return found


def require_checkpoint(method: str, task: Task, kl_coef: float) -> None:
    """Refuse a KL in the reward where the policy begins as nothing that was trained before."""
    if kl_coef > 0 and not task.has_checkpoint:
        raise UsageError(
            f"{method}: kl_coef is {kl_coef}, but task {task.name!r} has no reference policy "
            "(allowed: 0, or a task that starts from a checkpoint)"
        )


def with_kl_in_rewards(
    policy: Policy, reference: Policy, rollout: Rollout, kl_coef: float, size: int | None
) -> tuple[Rollout, float]:
    """The rollout with rewards r_t - kl_coef (log pi(a_t | s_t) - log pi_ref(a_t | s_t)), pi being its sampler.

    The expected return is then that of the rewards minus kl_coef KL(pi || pi_ref) of whole responses.

    Source: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", equation 2, token by token.

    Returns:
        The rollout, and the mean log-ratio over its tokens, an unbiased estimate of the KL [nats per token].
    """
    log_ratios = log_probs_of(policy, rollout, size) - log_probs_of(reference, rollout, size)
    rewards = rollout.rewards - kl_coef * log_ratios * rollout.mask
    return rollout.attach(rewards=rewards), float(masked_mean(log_ratios, rollout.mask))
