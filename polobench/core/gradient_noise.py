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
from typing import Any

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
        """|G|^2 and tr(S)."""
        signal, trace = _signal_and_trace(self.squared_norms.sum(), self.products.sum(), len(self.taken))
        return float(signal), float(trace)

    @property
    def snr(self) -> float:
        """The signal-to-noise: negative with |G|^2, infinite without noise, NaN if every gradient is 0."""
        n = len(self.taken)
        return float(self._snr(self.squared_norms.sum(), self.products.sum(), self.taken.sum(), n))

    @property
    def noise_scale(self) -> float:
        """B; infinite where no signal was seen."""
        return noise_scale(self.snr, self.samples)

    def _snr(self, norms: Any, products: Any, taken: Any, n: int) -> Array:
        signal, trace = _signal_and_trace(norms, products, n)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.samples * signal / (taken / n * trace), dtype=np.float64)


def noise_scale(snr: float, samples: int) -> float:
    """B in samples, from the signal-to-noise of a batch of `samples`."""
    if math.isnan(snr):
        return math.nan
    return samples / snr if snr > 0 else math.inf


def _signal_and_trace(norms: Any, products: Any, n: int) -> tuple[Array, Array]:
    """From the sums over n batches; the trace's tiny negative values, where all gradients are equal, are rounding."""
    signal = np.asarray(products / (n * (n - 1)), dtype=np.float64)
    return signal, np.maximum(0.0, norms / n - signal)
