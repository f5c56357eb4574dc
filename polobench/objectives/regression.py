"""Fitting a critic: mean squared error to value targets, by minibatches over epochs."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from polobench.core.optimization import Descent
from polobench.core.policy import Policy
from polobench.core.rollout import Rollout
from polobench.objectives.returns import masked_mean


def value_loss(values: Tensor, batch: Rollout) -> Tensor:
    """Mean of (V - target)^2 over the batch's transitions, V `[B, T]`; `batch` carries `value_targets`."""
    assert batch.value_targets is not None
    errors = values - batch.value_targets
    return masked_mean(errors**2, batch.mask)


def fit_critic(
    policy: Policy,
    descent: Descent,
    rows: Rollout,
    epochs: int,
    minibatch_size: int,
    shuffle: np.random.Generator,
) -> float:
    """Gradient steps on `value_loss`; gives its mean over the last epoch."""
    rows = policy.with_critic_inputs(rows)
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for batch in rows.minibatches(minibatch_size, shuffle):
            loss = value_loss(policy.state_values(batch), batch)
            descent.step([loss])
            losses.append(loss.item())
    return sum(losses) / len(losses)
