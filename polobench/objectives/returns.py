"""Returns and advantages over a rollout `[B, T]`, with truncation told apart from termination.

Sources: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation",
equations 11 to 16; Pardo et al. 2018, "Time Limits in Reinforcement Learning", section 3 (bootstrap where a time limit
cut the episode).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from polobench.core.arrays import Array, like, numbers
from polobench.core.rollout import Rollout


def generalized_advantages(
    rollout: Rollout, values: Tensor, gamma: float, gae_lambda: float, rewards: Tensor | None = None
) -> Tensor:
    """A_t = sum over l of (gamma lambda)^l delta_(t+l), delta_t = r_t + gamma V_(t+1) (1 - terminated_t) - V_t.

    The sum stops at the end of the episode. At a truncation the value of the cut episode's last state, which stands in
    column t + 1, goes on counting; at a termination nothing does.

    Args:
        rollout: `[B, T]`.
        values: `[B, T + 1]`, the last column at the final observations. All zero and lambda = 1 give the discounted
            return-to-go.
        gamma, gae_lambda: in [0, 1].
        rewards: `[B, T]` in place of the rollout's own, if they were scaled.

    Returns:
        `[B, T]`; 0 where the mask is False.
    """
    columns = (rewards if rewards is not None else rollout.rewards, values, rollout.terminated, rollout.truncated)
    paid, value, terminated, truncated, mask = (numbers(column).T for column in (*columns, rollout.mask))
    goes_on = ~(terminated | truncated) & mask
    decays = (gamma * gae_lambda * goes_on).astype(value.dtype)
    advantages = np.ascontiguousarray((paid + gamma * value[1:] * ~terminated - value[:-1]) * mask)
    for column in range(len(advantages) - 2, -1, -1):
        advantages[column] += decays[column] * advantages[column + 1]
    found: Tensor = like(values, np.ascontiguousarray(advantages.T))
    return found


def masked_mean(values: Tensor, mask: Any) -> Tensor:
    """The mean of `values` `[B, T]` where `mask` `[B, T]` is True."""
    if isinstance(values, Array):
        return cast(Tensor, values.mean_where(mask))
    return cast(Tensor, (values * mask).sum() / mask.sum())


def leave_one_out_means(returns: Tensor, groups: Tensor) -> Tensor:
    """`[B]`: the mean return of the other rows of each row's group, a baseline that the row's own actions cannot move.

    Source: Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!", equation 8.

    Args:
        returns, groups: `[B]`, groups numbered from 0, of two rows at least.
    """
    counts = torch.bincount(groups).to(returns.dtype)
    sums = torch.zeros_like(counts).index_add(0, groups, returns)
    return (sums[groups] - returns) / (counts[groups] - 1)


def standardized(values: Tensor, mask: Any) -> Tensor:
    """`values` `[B, T]` minus their mean, over their standard deviation, both over the whole batch."""
    if isinstance(values, Array):
        return cast(Tensor, values.standardized_where(mask))
    chosen = values[mask]
    return (values - chosen.mean()) / (chosen.std(correction=0) + 1e-8)


def explained_variance(values: Tensor, targets: Tensor, mask: Tensor) -> float:
    """1 - var(targets - values) / var(targets), over `[B, T]`; NaN where the targets do not vary."""
    chosen = targets[mask]
    variance = float(chosen.var(correction=0))
    return 1 - float((chosen - values[mask]).var(correction=0)) / variance if variance > 0 else float("nan")


class RewardScaler:
    """Divides rewards by the running deviation of the discounted return, so that value targets are of order one.

    The mean is left in: subtracting it would change which policy is best. State goes on from rollout to rollout.
    """

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._running: np.ndarray | None = None
        self._count, self._mean, self._sum_of_squares = 0, 0.0, 0.0

    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards `[B, T]`, scaled by what has been seen up to and including this rollout."""
        rewards, mask = rollout.rewards.cpu().numpy(), rollout.mask.cpu().numpy()
        ended = (rollout.terminated | rollout.truncated).cpu().numpy()
        if self._running is None or len(self._running) != len(rewards):
            self._running = np.zeros(len(rewards))
        seen = []
        for column in range(rewards.shape[1]):
            self._running = self._gamma * self._running + rewards[:, column]
            seen.append(self._running[mask[:, column]])
            self._running = np.where(ended[:, column] | ~mask[:, column], 0.0, self._running)
        self._absorb(np.concatenate(seen))
        deviation = float((self._sum_of_squares / max(1, self._count) + 1e-8) ** 0.5)
        return rollout.rewards / deviation

    def _absorb(self, returns: np.ndarray) -> None:
        """Chan et al. 1983: merge the moments of two samples."""
        if not len(returns):
            return
        total, shift = self._count + len(returns), float(returns.mean()) - self._mean
        self._sum_of_squares += float(((returns - returns.mean()) ** 2).sum())
        self._sum_of_squares += shift**2 * self._count * len(returns) / total
        self._mean += shift * len(returns) / total
        self._count = total
