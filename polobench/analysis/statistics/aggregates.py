"""Statistics over the normalised scores of one method on several tasks, with stratified bootstrap intervals.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", section 4. Point
estimates equal those of its library rliable where all tasks have the same number of runs. Elsewhere the interquartile
mean gives each run the same weight, and the others each task. The interquartile mean drops the worst quarter of the
runs, so it says nothing of how they fail.

Shapes: a method's scores are a sequence of arrays, `[n]` for each task (`[..., n]` of resamples), n runs of at least
one; score 0 is the task's floor and 1 its target. Failed runs are in, at the floor. R: resamples. T: thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polobench.analysis.statistics.intervals import BAND_RESAMPLES, CONFIDENCE, TAILS, Array, Interval

STRATIFIED = "stratified bootstrap"
TAIL = 0.25

Scores = Sequence[Array]
Statistic = Callable[[Scores], Any]  # of tasks `[..., n]`, resamples first, to `[...]`


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, whose `n` is the smallest number of runs of a task."""

    value: float
    interval: Interval


def iqm(scores: Scores) -> Any:
    """The interquartile mean of the N runs of all tasks together: without a quarter, rounded down, at each end.

    It equals `scipy.stats.trim_mean`, which takes ten times as long. NaN if one run is.
    """
    ordered = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    cut = ordered.shape[-1] // 4
    kept = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    return np.where(np.isnan(ordered[..., -1]), np.nan, kept)[()]  # NaN sorts last, and would be cut off


def mean_score(scores: Scores) -> Any:
    """The mean over tasks of the mean over runs."""
    return np.mean([task.mean(axis=-1) for task in scores], axis=0)


def tail_score(scores: Scores) -> Any:
    """The conditional value at risk: the mean over tasks of that of the worst quarter of its runs, at least one."""
    sizes = [max(1, math.ceil(TAIL * task.shape[-1])) for task in scores]
    return np.mean([np.sort(task, axis=-1)[..., :size].mean(axis=-1) for task, size in zip(scores, sizes)], axis=0)


def aggregate(
    scores: Scores, statistic: Statistic, *, confidence: float = CONFIDENCE, resamples: int = BAND_RESAMPLES
) -> Estimate:
    """A statistic with its percentile interval under the stratified bootstrap; the same scores give the same ends.

    Each resample draws, for each task, as many of its runs as it has. The interval says what other seeds would do on
    these tasks, not what this method would do on others. Ends are NaN where a task has one run, or a score is not
    finite.
    """
    rng = np.random.default_rng(0)
    drawn = [task[rng.integers(0, len(task), (resamples, len(task)))] for task in scores]
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = np.quantile(statistic(drawn), tails) if _has_interval(scores) else (math.nan, math.nan)
    interval = Interval(float(low), float(high), STRATIFIED, min(map(len, scores)))
    return Estimate(float(statistic(scores)), interval)


def performance_profile(
    scores: Scores, thresholds: Array, *, resamples: int = BAND_RESAMPLES
) -> tuple[Array, Array, Array]:
    """The run-score distribution: the share of runs whose score is above each threshold, averaged over tasks.

    Source: Agarwal et al. 2021, section 4.2, equation 1.

    Args:
        thresholds: `[T]`.

    Returns:
        The share with its low and high ends, `[T]` each; ends are NaN as those of `aggregate`.
    """
    above = [(task[:, None] > thresholds).astype(np.float64) for task in scores]
    share = np.mean([task.mean(axis=0) for task in above], axis=0)
    if not _has_interval(scores):
        return share, np.full_like(share, math.nan), np.full_like(share, math.nan)
    rng, found = np.random.default_rng(0), np.zeros((resamples, len(thresholds)))
    for task in above:
        drawn = rng.integers(0, len(task), (resamples, len(task)))
        counts = (drawn[:, :, None] == np.arange(len(task))).sum(axis=1)
        found += counts @ task / (len(task) * len(above))
    low, high = np.quantile(found, TAILS, axis=0)
    return share, low, high


def _has_interval(scores: Scores) -> bool:
    return all(len(task) > 1 and bool(np.isfinite(task).all()) for task in scores)
