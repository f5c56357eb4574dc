"""Policy-gradient objectives over `[B, T]`. All are to be maximised; a method minimises their negative."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from torch import Tensor

from polobench.core.arrays import Array, Values
from polobench.objectives.returns import masked_mean


def score_function_objective(log_probs: Tensor, advantages: Tensor, mask: Tensor, n_episodes: int) -> Tensor:
    """(1/N) sum over episodes and steps of log pi(a|s) A; its gradient is REINFORCE's (Williams 1992, section 5)."""
    return (log_probs * advantages * mask).sum() / n_episodes


def importance_objective(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Mean of pi / pi_old times A (Schulman et al. 2015, equation 14)."""
    return masked_mean((log_probs - old_log_probs).exp() * advantages, mask)


def clipped_objective(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip_eps: float
) -> Tensor:
    """Mean of `clipped_terms`, with the same clip on both sides."""
    return masked_mean(clipped_terms(log_probs, old_log_probs, advantages, clip_eps, clip_eps), mask)


def clipped_terms(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """`[B, T]`: min(r A, clip(r, 1 - low, 1 + high) A), r = pi / pi_old.

    Source: Schulman et al. 2017, equation 7, where both are eps; Yu et al. 2025, "DAPO", equation 10, with two.
    """
    if isinstance(log_probs, Array):
        return cast(Tensor, _clipped_arrays(log_probs, old_log_probs.numpy(), advantages.numpy(), low, high))
    ratio = (log_probs - old_log_probs).exp()
    return (ratio * advantages).minimum(ratio.clamp(1 - low, 1 + high) * advantages)


def _clipped_arrays(log_probs: Array, old: Values, advantages: Values, low: float, high: float) -> Array:
    """The same; the derivative is r A where that is the smaller one, else 0."""
    ratio = np.exp(log_probs.value - old)
    free = ratio * advantages
    held = np.minimum(np.maximum(ratio, 1 - low), 1 + high) * advantages
    return log_probs.known(np.minimum(free, held), lambda: free * (free <= held))


def clip_fraction(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """The share of steps whose ratio is out of the clip range."""
    log_ratio = log_probs.detach() - old_log_probs
    lowest = math.log1p(-low) if low < 1 else -math.inf
    return masked_mean((log_ratio > math.log1p(high)) | (log_ratio < lowest), mask)


def k3_kl(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """The mean k3 estimate of KL(old || new) [nats] from the old policy's samples."""
    return masked_mean(k3_terms(old_log_probs, log_probs), mask)


def k3_terms(sampler_log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """`[B, T]`: r - 1 - log r, r = other / sampler: an unbiased, non-negative estimate of KL(sampler || other) [nats].

    Source: Schulman 2020, "Approximating KL Divergence", estimator k3.
    """
    log_ratio = other_log_probs - sampler_log_probs
    return log_ratio.expm1() - log_ratio
