"""Losses over ranked responses. A ranked group is a prompt with responses whose scores order them, higher is better.

Shapes: `[B]` one value per response, over several groups; N pairs (better, worse) within these groups.

Sources: Rafailov et al. 2023, "Direct Preference Optimization", equation 7 and appendix A.3 (Plackett-Luce); Mitchell
2023, "A note on DPO with noisy preferences" (cDPO), equation 3; Azar et al. 2024, "A General Theoretical Paradigm to
Understand Learning from Human Preferences" (IPO), equation 17.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from polobench.core.arrays import logsigmoid
from polobench.core.hyperparameters import RankedHyperparameters
from polobench.core.optimization import Tally
from polobench.core.rollout import Rollout


def better_pairs(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """`[N]` indices of the better and of the worse response of every pair in a group; ties make no pair.

    Args:
        scores, groups: `[B]`.
    """
    is_pair = (groups.unsqueeze(1) == groups) & (scores.unsqueeze(1) > scores)
    better, worse = is_pair.nonzero(as_tuple=True)
    return better, worse


def ranked_minibatches(
    batch: Rollout, hp: RankedHyperparameters, shuffle: np.random.Generator
) -> Iterator[list[Rollout]]:
    """Whole groups in the parts of a pass, for all epochs; a minibatch whose groups all tie makes no step."""
    before, parts = None, list[Rollout]()
    for minibatch in batch.group_minibatches(hp.minibatch_groups, shuffle, hp.epochs):
        if minibatch is not before:  # every epoch of a single minibatch gives the same one
            before, parts = minibatch, minibatch.split_groups(hp.micro_batch) if minibatch.has_ranking else []
        if parts:
            yield parts


def tally_pairs(tally: Tally, margins: Tensor, log_probs: Tensor, better: Tensor, worse: Tensor, n_pairs: int) -> None:
    """Of a part with the pairs `[N]` of a minibatch of `n_pairs`: what share is in order, by which margin, and the
    log-probabilities, of all responses `[B]`, of the better and of the worse.
    """
    tally.add(
        accuracy=(margins > 0).sum() / n_pairs,
        margin=margins.sum() / n_pairs,
        chosen_log_prob=log_probs[better].sum() / n_pairs,
        rejected_log_prob=log_probs[worse].sum() / n_pairs,
    )


def logistic_losses(margins: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`[N]`: -(1 - e) log sigmoid(m) - e log sigmoid(-m), where a label is wrong with probability e.

    With m = beta times the difference of log-ratios it is DPO's loss (e = 0) or cDPO's; of scores, Bradley-Terry's.
    """
    losses: Tensor = -(1 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)
    return losses


def ipo_losses(differences: Tensor, beta: float) -> Tensor:
    """`[N]`: (h - 1 / (2 beta))^2 of differences h of log-ratios; beta is the paper's tau."""
    return (differences - 1 / (2 * beta)) ** 2


def plackett_luce_losses(values: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """`[B]`: minus the log-probability that each response is taken first out of itself and all worse ones.

    Summed over a group without ties it is minus the log-likelihood of its order, where the next best is drawn each
    time with odds exp(value) (Plackett 1975). Tied responses do not compete with each other, so the order among them,
    of which the data say nothing, has no gradient.

    Args:
        values: `[B]` of the model.
        scores, groups: `[B]` of the data.
    """
    worse = (groups.unsqueeze(1) == groups) & (scores.unsqueeze(1) > scores)
    rivals = worse | torch.eye(len(values), dtype=torch.bool, device=values.device)
    return values.unsqueeze(0).masked_fill(~rivals, -torch.inf).logsumexp(1) - values


def is_tied(returns: Tensor, groups: Tensor) -> Tensor:
    """`[B]` bool: whether all returns of the row's group are equal, so that nothing can be learned from it."""
    empty = torch.zeros(int(groups.max()) + 1, dtype=returns.dtype, device=returns.device)
    highest = (empty - torch.inf).scatter_reduce(0, groups, returns, "amax")
    lowest = (empty + torch.inf).scatter_reduce(0, groups, returns, "amin")
    return (highest == lowest)[groups]


def group_advantages(returns: Tensor, groups: Tensor, divide_by_std: bool) -> Tensor:
    """`[B]`: the return minus its group's mean, over the group's standard deviation if asked for.

    Source: Shao et al. 2024, "DeepSeekMath", section 4.1.2; without the deviation, Liu et al. 2025, "Understanding
    R1-Zero-Like Training". A group whose returns are all equal has advantages of exactly 0.

    Args:
        returns, groups: `[B]`, groups numbered from 0.
    """
    counts = torch.bincount(groups).to(returns.dtype)

    def group_mean(values: Tensor) -> Tensor:
        return (torch.zeros_like(counts).index_add(0, groups, values) / counts)[groups]

    centred = torch.where(is_tied(returns, groups), 0, returns - group_mean(returns))  # no rounding errors
    return centred / (group_mean(centred**2).sqrt() + 1e-4) if divide_by_std else centred
