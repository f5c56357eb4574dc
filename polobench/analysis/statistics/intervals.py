"""Intervals over seeds or prompts: each says how it was made and from how many, and is the same each time.

The mean over seeds has Student's t interval: in simulation its worst coverage was the best of three methods at every
number of seeds (docs/statistics.md). No method can see a collapse that is in no run; `coverage.py` words the warning.

Sources: Student 1908, "The Probable Error of a Mean"; Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
chapter 13 (percentile interval); Davison and Hinkley 1997, "Bootstrap Methods and Their
Application", section 3.8 (whole clusters resampled); Wilson 1927, "Probable Inference, the Law of Succession, and
Statistical Inference"; Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

Array = NDArray[np.float64]
CONFIDENCE = 0.95
TAILS = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2  # the shares below the two ends of an interval
RESAMPLES = 10_000
BAND_RESAMPLES = 2_000
CONCLUSIVE_SEEDS = 5
STUDENT = "Student's t"
BOOTSTRAP = "percentile bootstrap"
CLUSTERED = "percentile bootstrap over prompts"
WILSON = "Wilson"
_BLOCK = 2_000_000  # counts in memory at once


@dataclass(frozen=True)
class Interval:
    """A confidence interval, ends included; NaN ends where there is too little data."""

    low: float
    high: float
    method: str  # how it was made, in words
    n: int  # the runs or prompts that it is made from


def mean_interval(values: Sequence[float] | Array) -> Interval:
    """Student's t interval of the mean. Its ends may lie beyond what the task allows, such as CartPole's 500.

    Args:
        values: `[n]` one number per run; the ends are NaN below two runs, and where a number is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2 or not np.isfinite(data).all():
        return Interval(math.nan, math.nan, STUDENT, len(data))
    low, high = student_ends(data)
    return Interval(float(low), float(high), STUDENT, len(data))


def student_ends(data: Array) -> tuple[Array, Array]:
    """Ends of Student's t interval of the mean over the last axis, at least two long; `[..., n]` to `[...]` each."""
    n = data.shape[-1]
    middle, half = data.mean(axis=-1), student.ppf(TAILS[1], n - 1) * data.std(axis=-1, ddof=1) / math.sqrt(n)
    return middle - half, middle + half


def bootstrap_band(curves: Array, *, resamples: int = BAND_RESAMPLES, seed: int = 0) -> tuple[Array, Array]:
    """Percentile bootstrap ends of the mean curve, whole runs resampled; each resample once where there are few.

    Args:
        curves: `[n, G]`, one row per run, on a common grid.

    Returns:
        Low and high ends, `[G]` each; NaN below two runs.
    """
    n = len(curves)
    if n < 2:
        nothing = np.full(curves.shape[1], np.nan)
        return nothing, nothing
    weights = resample_counts(n, resamples, seed) / n
    low, high = np.quantile(weights @ curves, TAILS, axis=0)
    return low, high


@lru_cache(maxsize=2)  # arms of as many seeds share them: counting 500 takes longer than multiplying with the counts
def resample_counts(n: int, resamples: int, seed: int) -> Array:
    """`[R, n]` how often each of n runs is in each resample, read-only: all resamples if at most R, else R drawn."""
    if n**n <= resamples:
        indices = np.indices((n,) * n).reshape(n, -1).T
    else:
        indices = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    places = indices + n * np.arange(len(indices))[:, None]
    counts = np.bincount(places.ravel(), minlength=indices.size).reshape(indices.shape).astype(np.float64)
    counts.flags.writeable = False
    return counts


def clustered_intervals(values: Array, clusters: Array, rng: np.random.Generator | None = None) -> list[Interval]:
    """The percentile bootstrap intervals of the mean of each column, whole clusters of rows resampled.

    Rows of one cluster are alike (the pairs of a prompt, all seeds of a pair), so they say less than as many clusters
    would. Each mean is over the rows that were drawn: a large cluster weighs more, as it does in the mean itself.

    Args:
        values: `[N, K]` one row per observation, finite.
        clusters: `[N]` which cluster each row belongs to; below two clusters the ends are NaN.
        rng: of the resamples, the same for all columns; by default seeded with 0.
    """
    names, places = np.unique(clusters, return_inverse=True)
    n = len(names)
    if n < 2 or not np.isfinite(values).all():
        return [Interval(math.nan, math.nan, CLUSTERED, n) for _ in range(values.shape[1])]
    totals = np.zeros((n, values.shape[1]))
    np.add.at(totals, places, values)
    sizes = np.bincount(places, minlength=n)
    drawn = _cluster_counts(n, rng or np.random.default_rng(0))
    means = np.concatenate([(counts @ totals) / (counts @ sizes)[:, None] for counts in drawn])
    low, high = np.quantile(means, TAILS, axis=0)
    return [Interval(float(a), float(b), CLUSTERED, n) for a, b in zip(low, high, strict=True)]


def _cluster_counts(n: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each cluster is in each resample, `[R, n]` per block; each resample once where n <= 5."""
    if n <= 5:
        yield resample_counts(n, RESAMPLES, 0)
        return
    block = max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, block):
        yield rng.multinomial(n, np.full(n, 1 / n), size=min(block, RESAMPLES - start)).astype(np.float64)


def wilson_interval(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share, without continuity correction; NaN ends at n = 0."""
    if n == 0:
        return Interval(math.nan, math.nan, WILSON, 0)
    found = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(found.low), float(found.high), WILSON, n)


def median_time_to_target(values: Sequence[float | None]) -> float:
    """The median over runs, those that never got there (None or NaN) counted as infinite; NaN without runs.

    It is finite only if more than half of the runs got there: leaving the others out would praise lucky seeds.
    """
    times = [math.inf if value is None or math.isnan(value) else value for value in values]
    return float(np.median(times)) if times else math.nan
