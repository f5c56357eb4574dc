"""How noisy a gradient estimate is: gradients g_1 ... g_n of equal batches at one policy, by their products alone.

    |G|^2    = mean over i != j of g_i . g_j                     signal, unbiased; below 0 where noise hides it
    tr(S)    = mean of |g_i|^2 - |G|^2                           trace of the covariance of g_i, unbiased (n - 1)
    noise scale     B = b tr(S) / |G|^2                          in samples, b the mean samples of a batch
    signal-to-noise   = m / B = m |G|^2 / (b tr(S))              of a batch of exactly m samples

A batch of B samples has a signal-to-noise of 1, and one of m samples m / B, since the variance of a mean of independent
samples falls as 1 / m.

Source: McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", section 2.2 (B is their simple noise
scale) and appendix A.1; their estimates with a small batch of b and a big one of n b samples are these.

The signal-to-noise and the noise scale do not change when an objective is multiplied by a number, so they may be
compared between methods; |G|^2 and tr(S) may not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Batches:
    """What is known of n batches' gradients.

    Attributes:
        squared_norms: `[n]` |g_i|^2, n at least 3.
        products: `[n]` g_i . (sum of the other gradients).
        taken: `[n]` the samples of each batch.
        samples: m, the samples that a batch was to have.
    """

    squared_norms: Array
    products: Array
    taken: Array
    samples: int

    @property
    def signal_and_trace(self) -> tuple[float, float]:
        """|G|^2 and tr(S), whose tiny negative values, where all gradients are equal, are rounding."""
        n = len(self.taken)
        signal = self.products.sum() / (n * (n - 1))
        return float(signal), float(np.maximum(0.0, self.squared_norms.sum() / n - signal))

    @property
    def snr(self) -> float:
        """The signal-to-noise: negative with |G|^2, infinite without noise, NaN if every gradient is 0."""
        signal, trace = self.signal_and_trace
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.divide(self.samples * signal, self.taken.sum() / len(self.taken) * trace))

    @property
    def noise_scale(self) -> float:
        """B; infinite where no signal was seen."""
        if math.isnan(self.snr):
            return math.nan
        return self.samples / self.snr if self.snr > 0 else math.inf
