"""What the article's three methods for control share: one episode per update, its returns standardised over itself.

    A_t = (G_t - mean(G)) / std(G),   G_t = sum_(k >= t) gamma^(k - t) r_k,   over the steps of that one episode

The fault is kept on purpose: the mean is taken over the action's own return, and within one episode it is a constant
that has nothing to do with the state, so that the late steps of every episode look bad and its early ones good.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polobench.core.rollout import Rollout
from polobench.objectives.returns import generalized_advantages, standardized


def standardized_returns(episode: Rollout, gamma: float, gae_lambda: float = 1.0) -> Tensor:
    """`[1, T]`: the return-to-go with all values at 0, standardised over the episode.

    Args:
        episode: `[1, T]`; a time limit that cut it counts as a termination, since no value goes on.
        gamma, gae_lambda: in [0, 1]; lambda below 1 is what the article calls generalized advantage estimation.
    """
    rows, columns = episode.mask.shape
    no_values = torch.zeros(rows, columns + 1, device=episode.mask.device)
    return standardized(generalized_advantages(episode, no_values, gamma, gae_lambda), episode.mask)
