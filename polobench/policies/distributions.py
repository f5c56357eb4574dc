"""Action distributions as functions of their parameters `[..., P]`; shapes as in `core.policy.Distribution`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polobench.core.arrays import Array, Values, cat, spread


class Categorical:
    """Over A actions; the parameters are A logits, an action is an integer."""

    def log_prob(self, outputs: Any, actions: Any) -> Any:
        if isinstance(outputs, Array):
            return outputs.log_softmax_at(actions)
        return outputs.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, outputs: Any) -> Any:
        if isinstance(outputs, Array):
            return outputs.softmax_entropy()
        log_probs = outputs.log_softmax(-1)
        return -torch.einsum("...a,...a->...", log_probs.exp(), log_probs)  # without an array of the products

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        log_old = old.log_softmax(-1)
        return (log_old.exp() * (log_old - new.log_softmax(-1))).sum(-1)

    def fisher(self, outputs: Tensor, tangent: Tensor) -> Tensor:
        """(diag(p) - p p') v."""
        probs = outputs.softmax(-1)
        return probs * (tangent - (probs * tangent).sum(-1, keepdim=True))

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return generator.random(shape, dtype=np.float32)

    def sample(self, outputs: Any, noise: Any) -> Any:
        """Inverse CDF: the first action whose cumulative probability exceeds the uniform `[...]`."""
        if isinstance(outputs, Array):
            logits = outputs.value.T  # numpy's ways along a first axis are the short ones
            if len(logits) == 2:  # the same in half the time
                odds = np.exp(logits - np.maximum(logits[0], logits[1]))
                return Array((odds[0] <= noise.value.T * (odds[0] + odds[1])).astype(int).T)
            odds = np.add.accumulate(np.exp(logits - np.maximum.reduce(logits)))
            return Array(np.add.reduce(odds[:-1] <= noise.value.T * odds[-1]).T)
        cumulative = outputs.softmax(-1).cumsum(-1)
        return (cumulative <= noise.unsqueeze(-1)).sum(-1).clamp(max=outputs.shape[-1] - 1)

    def mode(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)


class DiagonalGaussian:
    """Over D real numbers; the parameters are D means, then D log standard deviations; an action is `[..., D]`."""

    def __init__(self, size: int) -> None:
        self.size = size

    def log_prob(self, outputs: Any, actions: Any) -> Any:
        if isinstance(outputs, Array):
            return self._log_prob_of_arrays(outputs, actions.value)
        mean, log_std = outputs.chunk(2, -1)
        standard = (actions - mean) * (-log_std).exp()
        return -(0.5 * standard**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def _log_prob_of_arrays(self, outputs: Array, actions: Values) -> Array:
        """The same; the slopes are z / sigma in a mean and z^2 - 1 in a log deviation, z = (a - mean) / sigma."""
        mean, log_std = outputs.value[..., : self.size], outputs.value[..., self.size :]
        inverse = np.exp(-log_std)
        standard = (actions - mean) * inverse
        squares = standard * standard
        value = np.add.reduce(0.5 * squares + log_std, -1)
        value += 0.5 * math.log(2 * math.pi) * self.size

        def pull(g: Any) -> Values:
            found: Values = np.empty_like(outputs.value)
            np.multiply(standard, inverse, out=found[..., : self.size])
            np.subtract(squares, 1, out=found[..., self.size :])
            found *= spread(g, value)[..., None]
            return found

        return outputs.function(np.negative(value, out=value), pull)

    def entropy(self, outputs: Any) -> Any:
        constant = 0.5 * math.log(2 * math.pi * math.e)
        if not isinstance(outputs, Array):
            return (outputs.chunk(2, -1)[1] + constant).sum(-1)
        value = np.add.reduce(outputs.value[..., self.size :], -1) + constant * self.size

        def pull(g: Any) -> Values:
            found: Values = np.zeros_like(outputs.value)
            found[..., self.size :] = spread(g, value)[..., None]
            return found

        return outputs.function(value, pull)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        (old_mean, old_log_std), (new_mean, new_log_std) = old.chunk(2, -1), new.chunk(2, -1)
        squares = (2 * old_log_std).exp() + (old_mean - new_mean) ** 2
        return (new_log_std - old_log_std + 0.5 * squares * (-2 * new_log_std).exp() - 0.5).sum(-1)

    def fisher(self, outputs: Tensor, tangent: Tensor) -> Tensor:
        """1 / variance for a mean, 2 for a log standard deviation; no cross terms."""
        log_std = outputs.chunk(2, -1)[1]
        information: Tensor = cat([(-2 * log_std).exp(), 0 * log_std + 2.0], -1)
        return information * tangent

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return generator.standard_normal((*shape, self.size), dtype=np.float32)

    def sample(self, outputs: Any, noise: Any) -> Any:
        if isinstance(outputs, Array):
            mean, log_std = outputs.value[..., : self.size], outputs.value[..., self.size :]
            return Array(mean + np.exp(log_std) * noise.value)
        mean, log_std = outputs.chunk(2, -1)
        return mean + log_std.exp() * noise

    def mode(self, outputs: Tensor) -> Tensor:
        return outputs.chunk(2, -1)[0]
