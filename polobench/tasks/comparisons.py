"""Pairs of a checkpoint's completions, each with a label that says which of the two is preferred.

A gold reward g judges a completion; labels are drawn from a Bradley-Terry model of it,

    P(y_1 is preferred to y_2) = sigmoid( scale (g(y_1) - g(y_2)) ),

whose scale makes them agree with the gold order as often as wanted. Pairs of equal gold are left out.

Source: Bradley and Terry 1952, "Rank Analysis of Incomplete Block Designs"; Gao et al. 2023, "Scaling Laws for Reward
Model Overoptimization", section 2, whose labels are a gold reward's, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import bisect
from scipy.special import expit

from polobench.core.rollout import Rollout

AGREEMENT = 0.8  # of labels with the gold order, in expectation
STEEPEST = 1e6


@dataclass(frozen=True)
class Comparisons:
    """N pairs.

    Attributes:
        responses: `[2N, T]` rows 2i and 2i + 1 are pair i, which is group i; the return of the preferred one is 1, of
            the other one 0.
        gold: `[N, 2]` the gold reward of both, which differ.
    """

    responses: Rollout
    gold: np.ndarray

    @classmethod
    def drawn(cls, responses: Rollout, gold: np.ndarray, scale: float, generator: np.random.Generator) -> Comparisons:
        """The pairs with labels, whose gold reward `[N, 2]` is known; as many draws as pairs, in their order."""
        first = generator.random(len(gold)) < expit(scale * (gold[:, 0] - gold[:, 1]))
        preferred = torch.from_numpy(np.stack([first, ~first], 1).ravel()).to(responses.mask.device)
        rewards = responses.terminated * preferred.float().unsqueeze(1)
        groups = torch.arange(len(gold), device=responses.mask.device).repeat_interleave(2)
        return cls(responses.attach(rewards=rewards, groups=groups), gold)

    @property
    def first_preferred(self) -> np.ndarray:
        """`[N]` bool."""
        return np.asarray(self.responses.returns.reshape(-1, 2)[:, 0].cpu() == 1)

    def __len__(self) -> int:
        return len(self.gold)

    def pairs(self, numbers: list[int]) -> Rollout:
        """The responses to some of the pairs, as groups 0, 1, 2, ..."""
        device = self.responses.mask.device
        rows = torch.tensor([row for number in numbers for row in (2 * number, 2 * number + 1)], device=device)
        return self.responses.select(rows).attach(groups=torch.arange(len(numbers), device=device).repeat_interleave(2))


def scale_for(gold: np.ndarray, agreement: float = AGREEMENT) -> float:
    """The scale at which labels agree with the gold order of pairs `[N, 2]`, none equal, as often as wanted."""
    gaps = np.abs(gold[:, 0] - gold[:, 1])
    return float(bisect(lambda scale: expit(scale * gaps).mean() - agreement, 0.0, STEEPEST))
