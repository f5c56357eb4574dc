"""Time to target with censoring: a run that never got there says only that it takes longer than the run lasted.

Censoring must say nothing about the run. One that reached its budget was merely not watched for longer; one that
*failed* will never get there, so the caller gives it the time at which its budget would have ended.

Sources: Kaplan and Meier 1958, "Nonparametric Estimation from Incomplete Observations"; Rothman 1978, "Estimation of
Confidence Limits for the Cumulative Probability of Survival in Life Table Analysis" (Wilson's interval with an
effective number of observations); Peto et al. 1977, "Design and Analysis of Randomized Clinical Trials Requiring
Prolonged Observation of Each Patient", part II (that number); Gill 1980, "Censoring and Stochastic Integrals" (the
curve stays level after its last observation); Irwin 1949, "The Standard Error of an Estimate of Expectation of Life"
(the restricted mean); Efron 1981, "Censored Data and the Bootstrap".

Shapes: n runs, G times, R resamples. Times are in the caller's unit: samples or seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import CensoredData, ecdf, norm

from polobench.analysis.statistics import intervals
from polobench.analysis.statistics.aggregates import Estimate
from polobench.analysis.statistics.intervals import Array, Interval


@dataclass(frozen=True)
class TimeToTarget:
    """Which share of the runs has reached the target by when: a step function that jumps at its times."""

    times: Array  # `[G]` ascending, from 0 to where the last run reached the target or ended
    reached_share: Array  # `[G]` 1 minus the Kaplan-Meier estimate, from each time until the next
    low: Array  # `[G]` ends of its 95 % interval, for each time by itself
    high: Array


def time_to_target(times: Sequence[float], reached: Sequence[bool]) -> TimeToTarget:
    """The share of runs that has reached the target over time.

    The band is Wilson's interval of a share, of as many runs as are at risk over the share that survives until then.
    Where no run was censored before, that is all n, and the band is Wilson's of the runs that got there.

    Args:
        times: `[n]` when each run first reached the target, or else when it ended; at least 0.
        reached: `[n]` whether it did.

    Raises:
        ValueError: there is no run, or a time is NaN.
    """
    ends, events = np.asarray(times, dtype=np.float64), np.asarray(reached, dtype=bool)
    if not len(ends):
        raise ValueError("a time to target needs at least one run")
    estimate = ecdf(CensoredData.right_censored(ends, ~events))
    grid = np.union1d(0.0, ends)
    share = np.asarray(estimate.cdf.evaluate(grid), dtype=np.float64)
    survival_before = 1 - np.concatenate([[0.0], share[:-1]])
    at_risk = len(ends) - np.searchsorted(np.sort(ends), grid, side="left")
    low, high = _wilson_ends(share, at_risk / survival_before)
    return TimeToTarget(grid, share, low, high)


def _wilson_ends(share: Array, n: Array) -> tuple[Array, Array]:
    """Wilson's score interval for numbers of runs that need not be whole."""
    z = float(norm.ppf(intervals.TAILS[1]))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(np.maximum(share * (1 - share), 0) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def restricted_mean(times: Sequence[float], reached: Sequence[bool], horizon: float) -> Estimate:
    """The mean time to target, capped at the horizon: the area under the Kaplan-Meier curve.

    Where no run is censored before the horizon it is the mean of `min(time, horizon)`. A curve that ends before the
    horizon stays level, as if no further run would get there. The interval is the percentile bootstrap's over runs.

    Args:
        times, reached: as of `time_to_target`.
        horizon: in the unit of the times, above 0.

    Returns:
        In the unit of the times, at most the horizon; NaN without runs, its ends below two.
    """
    n = len(times)
    value = float(_restricted_means(times, reached, horizon, np.ones((1, n)))[0]) if n else math.nan
    low = high = math.nan
    if n > 1:
        counts = intervals.resample_counts(n, intervals.BAND_RESAMPLES, 0)
        low, high = np.quantile(_restricted_means(times, reached, horizon, counts), intervals.TAILS).tolist()
    return Estimate(value, Interval(low, high, intervals.BOOTSTRAP, n))


def _restricted_means(times: Sequence[float], reached: Sequence[bool], horizon: float, counts: Array) -> Array:
    """`[R]` areas under the curves of resamples that hold each run so many times, `[R, n]`."""
    ends, events = np.asarray(times, dtype=np.float64), np.asarray(reached, dtype=bool)
    order = np.lexsort((~events, ends))  # a run censored when another gets there was still at risk
    counts = counts[:, order]
    at_risk = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    hazard = np.divide(counts * events[order], at_risk, out=np.zeros_like(counts), where=at_risk > 0)
    survival = np.hstack([np.ones((len(counts), 1)), np.cumprod(1 - hazard, axis=1)])  # `[R, n + 1]` from the start on
    edges = np.concatenate([[0.0], np.minimum(ends[order], horizon), [horizon]])
    return np.asarray(survival @ np.diff(edges), dtype=np.float64)
