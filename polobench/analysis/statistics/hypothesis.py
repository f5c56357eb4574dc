"""Is one method's measure larger than another's, over several tasks? Tests that say when they cannot know.

    d = mean over tasks of (mean of x on the task - mean of y on the task)

A task is a stratum: runs of different tasks are never exchanged for one another.

Sources: Fisher 1935, "The Design of Experiments" (permutation); Edgington 1969 and Phipson and Smyth 2010, "Permutation
P-values Should Never Be Zero" (p = (1 + count) / (1 + draws) where permutations are drawn); Hoeffding 1951, "A
Combinatorial Central Limit Theorem" (the limit of many observations); Holm 1979, "A Simple
Sequentially Rejective Multiple Test Procedure"; Welch 1947 and Satterthwaite 1946 (the interval's degrees of freedom);
Cohen 1988, "Statistical Power Analysis", section 2.4 (smallest detectable difference).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from polobench.analysis.statistics.intervals import CONFIDENCE, Array, Interval

Strata = Sequence[tuple[Array, Array]]  # x and y on each task, `[n]` and `[m]`
LARGEST_ENUMERATION = 100_000
DRAWS = 19_999
MANY = 100  # observations per side and task from which the normal limit of the arrangements is taken
POWER = 0.8
WELCH = "Welch, stratified by task"
STUDENT = "Student, stratified by task"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Permutation:
    """A two-sided permutation test of d = 0 within tasks.

    Attributes:
        difference: d.
        p: the share of arrangements whose |d| is at least the one seen.
        smallest_p: that data of these sizes could have given.
        exact: every arrangement was looked at; else some were drawn, or with many observations the normal limit taken.
    """

    difference: float
    p: float
    smallest_p: float
    exact: bool


def difference(strata: Strata) -> float:
    """d: the difference of means, averaged over tasks."""
    return float(np.mean([x.mean() - y.mean() for x, y in strata]))


def permutation_test(strata: Strata, *, draws: int = DRAWS, seed: int = 0) -> Permutation:
    """Exchange runs between x and y within each task: every way once if these are few enough, else `draws` ways.

    With `MANY` observations on every side |d| over all ways is normal to within what `draws` could tell.

    Args:
        strata: at least one task, at least one finite value on each side.
        seed: of the generator of the drawn arrangements; the same data give the same p.
    """
    observed = difference(strata)
    tolerance = _ROUNDING * max(1e-300, *(float(np.abs(np.concatenate(pair)).max()) for pair in strata))
    if _has_many(strata):
        p = float(2 * norm.sf(abs(observed) / spread)) if (spread := _arranged_deviation(strata)) > 0 else 1.0
        return Permutation(observed, p, smallest_p(strata, draws=draws), exact=False)
    exact = _arrangements(strata) <= LARGEST_ENUMERATION
    found = _enumerated(strata) if exact else _drawn(strata, draws, seed)
    extreme = int((np.abs(found) >= abs(observed) - tolerance).sum())
    p = extreme / len(found) if exact else (1 + extreme) / (1 + draws)
    return Permutation(observed, p, smallest_p(strata, draws=draws), exact)


def permutation_p(
    strata: Strata, statistic: Callable[[Sequence[Array]], Any], *, draws: int = DRAWS, seed: int = 0
) -> float:
    """The p of `permutation_test` for the difference of another statistic over tasks, by drawn arrangements.

    Args:
        statistic: of tasks `[..., n]`, arrangements first, to `[...]`.
    """
    ways = _drawn_ways(tuple((len(x), len(y)) for x, y in strata), draws, seed)
    pooled = [np.concatenate(pair) for pair in strata]
    mine = [values[chosen] for values, chosen in zip(pooled, ways, strict=True)]
    theirs = [_others(values, chosen) for values, chosen in zip(pooled, ways, strict=True)]
    observed = abs(float(statistic([x for x, _ in strata]) - statistic([y for _, y in strata])))
    found = np.abs(statistic(mine) - statistic(theirs))
    return float(1 + (found >= observed - _ROUNDING * max(1.0, observed)).sum()) / (1 + draws)


def _others(values: Array, chosen: NDArray[np.int32]) -> Array:
    """`[draws, m]` the values that were not chosen."""
    left = np.ones((len(chosen), len(values)), dtype=bool)
    np.put_along_axis(left, chosen, False, axis=1)
    return np.asarray(np.broadcast_to(values, left.shape)[left].reshape(len(chosen), -1))


def _arrangements(strata: Strata) -> int:
    return math.prod(math.comb(len(x) + len(y), len(x)) for x, y in strata)


def smallest_p(strata: Strata, *, draws: int = DRAWS) -> float:
    """The smallest two-sided p that a test of data of these sizes can give, whatever the data.

    An arrangement and the one that exchanges all of x and y have the same |d| where sizes are equal on every task.
    """
    if _has_many(strata):
        return 0.0  # it has more zeros than a float can hold
    mirrored = 2 if all(len(x) == len(y) for x, y in strata) else 1
    ways = _arrangements(strata)
    return mirrored / ways if ways <= LARGEST_ENUMERATION else 1 / (1 + draws)


def _has_many(strata: Strata) -> bool:
    return min(len(side) for pair in strata for side in pair) >= MANY


def _arranged_deviation(strata: Strata) -> float:
    """The standard deviation of d over all arrangements: on each task that of a sum drawn without replacement."""
    parts = [np.concatenate((x, y)).var(ddof=1) * (len(x) + len(y)) / (len(x) * len(y)) for x, y in strata]
    return math.sqrt(sum(parts)) / len(strata)


def seeds_needed(alpha: float, tasks: int) -> int:
    """The fewest seeds per side and task with which a test on so many tasks can give p <= alpha."""
    n = 2
    while 2 / math.comb(2 * n, n) ** tasks > alpha:
        n += 1
    return n


def _enumerated(strata: Strata) -> Array:
    """d of every arrangement: those of the tasks are independent, so their sums are combined one task at a time."""
    total = np.zeros(1)
    for x, y in strata:
        total = np.add.outer(total, _differences(x, y)).ravel()
    return total / len(strata)


def _differences(x: Array, y: Array) -> Array:
    """The difference of means of every way to share the runs of one task out."""
    pooled = np.concatenate((x, y))
    chosen = np.array(list(itertools.combinations(range(len(pooled)), len(x))))
    sums = pooled[chosen].sum(axis=1)
    return np.asarray(sums / len(x) - (pooled.sum() - sums) / len(y))


def _drawn(strata: Strata, draws: int, seed: int) -> Array:
    total = np.zeros(draws)
    chosen = _drawn_ways(tuple((len(x), len(y)) for x, y in strata), draws, seed)
    for (x, y), places in zip(strata, chosen, strict=True):
        pooled = np.concatenate((x, y))
        sums = pooled[places].sum(axis=1)
        total += sums / len(x) - (pooled.sum() - sums) / len(y)
    return total / len(strata)


@lru_cache(maxsize=2)
def _drawn_ways(sizes: tuple[tuple[int, int], ...], draws: int, seed: int) -> list[NDArray[np.int32]]:
    """`[draws, n]` for each task, which observations become x: the same for all tests of these sizes."""
    rng = np.random.default_rng(seed)
    return [rng.random((draws, n + m)).argsort(axis=1)[:, :n].astype(np.int32) for n, m in sizes]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: all of them are at most alpha together exactly where Holm's procedure rejects at alpha."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """What two sides say of d before any verdict.

    Attributes:
        difference: d.
        interval: of d, by Welch.
        detectable: the smallest |d| that a test at the asked level would have found with a power of 80 %.
        n: observations of the side with the fewest, on the task with the fewest.
    """

    difference: float
    interval: Interval
    detectable: float
    n: int


def compare(strata: Strata, *, alpha: float, confidence: float) -> Comparison:
    """d with its interval at `confidence`, and what a test at `alpha` could have detected."""
    interval = difference_interval(strata, confidence=confidence)
    return Comparison(difference(strata), interval, detectable_difference(strata, alpha=alpha), interval.n)


@dataclass(frozen=True)
class _Error:
    """The standard error of d and the degrees of freedom of its estimate."""

    size: float
    freedom: float


def _error(sides: Sequence[Array], tasks: int) -> _Error:
    """Welch and Satterthwaite, the variance of each side and task estimated on its own; NaN below two runs per side."""
    if any(len(side) < 2 for side in sides):
        return _Error(math.nan, math.nan)
    parts = np.array([side.var(ddof=1) / len(side) for side in sides]) / tasks**2
    total = float(parts.sum())
    if total == 0:
        return _Error(0.0, math.inf)
    freedom = total**2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    return _Error(math.sqrt(total), float(freedom))


def difference_interval(strata: Strata, *, confidence: float = CONFIDENCE) -> Interval:
    """The interval of d by Welch; NaN ends below two runs a side. `n` is the smallest number of runs of a side."""
    error = _error([side for pair in strata for side in pair], len(strata))
    n = min(len(side) for pair in strata for side in pair)
    return _around(difference(strata), error, confidence, WELCH, n)


def stratified_mean_interval(tasks: Sequence[Array], *, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the mean over tasks of each task's mean, by Student's t with Satterthwaite's freedom."""
    centre = float(np.mean([values.mean() for values in tasks]))
    return _around(centre, _error(tasks, len(tasks)), confidence, STUDENT, min(map(len, tasks)))


def _around(centre: float, error: _Error, confidence: float, method: str, n: int) -> Interval:
    if math.isnan(error.size):
        return Interval(math.nan, math.nan, method, n)
    half = float(student.ppf((1 + confidence) / 2, error.freedom)) * error.size
    return Interval(centre - half, centre + half, method, n)


def detectable_difference(strata: Strata, *, alpha: float, power: float = POWER) -> float:
    """The smallest |d| that a two-sided test at `alpha` would have found with this power, given this data's spread.

    (t_(1 - alpha / 2) + t_power) standard errors, with the freedom of the interval; NaN below two runs per side.
    """
    error = _error([side for pair in strata for side in pair], len(strata))
    return float(student.ppf(1 - alpha / 2, error.freedom) + student.ppf(power, error.freedom)) * error.size
