"""A reward model: a scalar head on a language model's transformer, fitted to pairs of responses.

    L = -E[ log sigmoid( r(x, y_w) - r(x, y_l) ) ],   r = w' h + b,   h the hidden state after the response's last token

y_w was preferred to y_l for the prompt x (the Bradley-Terry model).

Sources: Stiennon et al. 2020, "Learning to summarize from human feedback", section 3.4; the calibration error is
that of Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from polobench.core.policy import unmetered
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.objectives.preference import logistic_losses
from polobench.policies.causal_lm import CausalLM
from polobench.policies.layers import blank_linear
from polobench.tasks.comparisons import Comparisons

BINS = 10


@dataclass(frozen=True)
class Course:
    """How a reward model is trained: Adam, whose learning rate falls linearly to 0."""

    learning_rate: float = 1e-3
    epochs: int = 3
    pairs_per_step: int = 32


class RewardModel:
    """Scores of responses; those of `standardise` have mean 0 and deviation 1.

    Args:
        checkpoint: a copy of its transformer is trained, and counts into the checkpoint's ledger. It is of float32
            where the checkpoint is of bfloat16, in which small steps would round away.
    """

    def __init__(self, checkpoint: CausalLM) -> None:
        self.body = checkpoint.frozen_copy().requires_grad_(True)
        if self.body.model.dtype == torch.bfloat16:
            self.body.model.float()
        self.head = blank_linear(self.body.reading.width, 1, next(self.body.model.parameters()).device)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self._mean, self._deviation = 0.0, 1.0

    def __call__(self, rollout: Rollout) -> Tensor:
        """`[B]` rewards; read, and counted, in parts as large as the transformer's `generation_batch`."""
        self.body.ledger.reward_tokens += _tokens(rollout)
        with torch.no_grad():
            scores = torch.cat([self._scores(part) for part in rollout.split(self.body.generation_batch)])
        return (scores - self._mean) / self._deviation

    def _scores(self, rollout: Rollout) -> Tensor:
        scores: Tensor = self.head(self.body.last_states(rollout).to(self.head.weight.dtype))
        return scores.squeeze(-1)

    def fit(self, data: Comparisons, course: Course, rng: SeedAxes) -> None:
        """Train on all pairs, `course.epochs` times.

        Raises:
            BudgetExhausted: the next pairs do not fit into the ledger's samples.
        """
        ledger = self.body.ledger
        parameters = [*self.body.model.parameters(), *self.head.parameters()]
        optimizer = self.body.adam(parameters, lr=course.learning_rate)
        orders = (rng.numpy("reward model", epoch).permutation(len(data)) for epoch in range(course.epochs))
        ends = range(course.pairs_per_step, len(data), course.pairs_per_step)
        steps = [numbers.tolist() for order in orders for numbers in np.split(order, ends)]
        for index, numbers in enumerate(steps):
            optimizer.param_groups[0]["lr"] = course.learning_rate * (1 - index / len(steps))
            part = data.pairs(numbers)
            ledger.charge_read(part.n_samples)
            ledger.reward_tokens += _tokens(part)
            scores = self._scores(part).reshape(-1, 2)
            signs = torch.where(part.returns.reshape(-1, 2)[:, 0] == 1, 1.0, -1.0)
            loss = logistic_losses(signs * (scores[:, 0] - scores[:, 1])).mean()
            self.body.gradient_step(optimizer, [loss])

    def standardise(self, rollout: Rollout) -> None:
        """Shift and scale the rewards, so that those of these responses have mean 0 and deviation 1."""
        self._mean, self._deviation = 0.0, 1.0
        with unmetered(self.body):
            scores = self(rollout).cpu().double()
        self._mean, self._deviation = float(scores.mean()), max(float(scores.std()), 1e-6)

    def checked(self, data: Comparisons) -> Calibration:
        """How well it predicts the labels of these pairs."""
        with unmetered(self.body):
            scores = self(data.responses).cpu().double() * self._deviation
        gaps = scores.reshape(-1, 2).diff(dim=1).squeeze(1).neg().numpy()
        return calibration(gaps, data.first_preferred, data.gold[:, 0] > data.gold[:, 1])


@dataclass(frozen=True)
class Calibration:
    """A reward model on pairs that it has not seen.

    Attributes:
        pairs: how many.
        accuracy: the share of labels that it predicts.
        gold_accuracy: the share of pairs that it orders as the gold reward does.
        calibration_error: mean distance of the predicted from the observed share, weighted by the pairs of each bin.
        predicted, observed, counts: for each bin of equal width that holds a pair: mean predicted probability that the
            first response is preferred, share of pairs in which it is, and pairs.
    """

    pairs: int
    accuracy: float
    gold_accuracy: float
    calibration_error: float
    predicted: list[float]
    observed: list[float]
    counts: list[int]


def calibration(gaps: np.ndarray, first_preferred: np.ndarray, first_better: np.ndarray) -> Calibration:
    """Of predictions sigmoid(gap), `[N]`, of what was observed, and beside the order in which they truly are."""
    chances = expit(gaps)
    bins = np.minimum((chances * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    held = counts > 0
    predicted, observed = (
        np.bincount(bins, weights=values, minlength=BINS)[held] / counts[held] for values in (chances, first_preferred)
    )
    return Calibration(
        pairs=len(gaps),
        accuracy=_agreement(gaps, first_preferred),
        gold_accuracy=_agreement(gaps, first_better),
        calibration_error=float(np.abs(predicted - observed) @ counts[held] / len(gaps)),
        predicted=predicted.tolist(),
        observed=observed.tolist(),
        counts=counts[held].tolist(),
    )


def _agreement(gaps: np.ndarray, first: np.ndarray) -> float:
    """The share of pairs in which the sign of the gap tells the first one; a tie counts one half."""
    return float(np.where(gaps == 0, 0.5, (gaps > 0) == first).mean())


def _tokens(rollout: Rollout) -> int:
    return rollout.n_samples + (0 if rollout.prompt_mask is None else int(rollout.prompt_mask.sum()))
