"""The gate's test: did a measure of an arm move between base and head, and by more than matters?

    d = mean over head - mean over base

Unpaired permutation test over all ways to share the runs out between the sides (Fisher 1935), one-sided where only one
direction is harm. Seeds are not paired: after a change of the code, equal seeds share nothing but their start.

All ways are counted without listing them: d grows with the sum of the head's runs, and the subsets of each half of the
runs, sorted by their sum, say how many whole ones lie below a limit (Horowitz and Sahni 1974, "Computing Partitions
with Applications to the Knapsack Problem"). Ten runs per side have 184,756 ways and 2 x 1,024 subsets.

The smallest detectable difference is what the next comparison as large finds with a power of 80 %, the true spread
known from these runs alone (O'Hagan, Stevens and Campbell 2005, "Assurance in Clinical Trial Design"). For normal runs
of spread sigma and e = sqrt(1 / n + 1 / m), this comparison sees the spread s sigma and the next one s' sigma, both s^2
chi-squared over n + m - 2 degrees of freedom, and d / (sigma e) + z. The test is near Student's, so it rejects where

    z + d / (sigma e) >= t s',   so   d / (s sigma e) = the 80 % quantile of (t s' - z) / s
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import t as student

from polobench.analysis.statistics.intervals import Array

MOST_COUNTED = 36  # runs of both sides together; of more, `DRAWS` ways are drawn
DRAWS = 200_000
POWER = 0.8
_ROUNDING = 1e-12
_CHUNKS = 20
# which sign of d is harm; "both" tests |d|
HARM = {"lower": -1.0, "higher": 1.0, "both": 0.0}


@dataclass(frozen=True)
class Shift:
    """d of one measure, and how surely it is not 0."""

    harm: str  # a key of `HARM`
    difference: float  # d
    p: float  # the share of arrangements at least as harmful as the one seen
    spread: float  # the pooled standard deviation of a run
    n: tuple[int, int]  # runs of base and of head

    @property
    def harmful(self) -> float:
        """d towards harm, negative where it is towards the better; either way is harm of a measure without a better."""
        return HARM[self.harm] * self.difference if HARM[self.harm] else abs(self.difference)

    def detectable(self, level: float, smallest_change: float) -> float:
        """The smallest |d| that the next comparison as large finds 4 times in 5; see the module's first lines.

        A test at `level` must reject, and the d that is seen must be at least `smallest_change`.
        """
        freedom = sum(self.n) - 2
        error = self.spread * math.sqrt(sum(1 / n for n in self.n))
        if error == 0:
            return smallest_change
        limit = float(student.ppf(1 - (level if self.harm != "both" else level / 2), freedom))
        spreads, noise = _next_and_this(freedom)
        needed = np.maximum(limit * spreads, smallest_change / error) - noise
        return error * float(np.quantile(needed, POWER))


@lru_cache(maxsize=8)
def _next_and_this(freedom: int) -> tuple[Array, Array]:
    """Draws of s' / s and z / s."""
    rng = np.random.default_rng(0)
    now, later = np.sqrt(rng.chisquare(freedom, size=(2, DRAWS)) / freedom)
    return later / now, rng.normal(size=DRAWS) / now


def shift_of(base: Array, head: Array, harm: str) -> Shift:
    """The shift of finite values, `[n]` of the base and `[m]` of the head, at least two per side."""
    n, m = len(base), len(head)
    pooled = np.concatenate((base, head))
    difference = float(head.mean() - base.mean())
    squares = float(((base - base.mean()) ** 2).sum() + ((head - head.mean()) ** 2).sum())
    spread = math.sqrt(squares / (n + m - 2))
    slack = _ROUNDING * max(1e-300, float(np.abs(pooled).max()))
    return Shift(harm, difference, _p(pooled, m, difference, slack, harm), spread, (n, m))


def smallest_p(n: int, m: int, harm: str) -> float:
    """The smallest p that sides of these sizes can give, whatever the data."""
    mirrored = 2 if harm == "both" and n == m else 1
    return mirrored / math.comb(n + m, n) if n + m <= MOST_COUNTED else 1 / (1 + DRAWS)


def runs_needed(level: float, harm: str) -> int:
    """The fewest runs per side with which p can reach `level`."""
    n = 2
    while smallest_p(n, n, harm) > level and 2 * n < MOST_COUNTED:
        n += 1
    return n


def _p(pooled: Array, m: int, difference: float, slack: float, harm: str) -> float:
    """The share of ways to choose the head's m runs whose d is at least as harmful."""
    if harm == "both" and abs(difference) <= slack:
        return 1.0
    if harm == "both":
        return sum(_share_from(sign * pooled, m, abs(difference) - slack) for sign in (1.0, -1.0))
    sign = HARM[harm]  # so that a large d is the harmful one
    return _share_from(sign * pooled, m, sign * difference - slack)


def _share_from(values: Array, m: int, least: float) -> float:
    """The share of ways to choose m values as the head whose d is at least `least`; drawn ones count the one seen."""
    n = len(values) - m
    # d = sum (1 / m + 1 / n) - total / n
    limit = (least + values.sum() / n) / (1 / m + 1 / n)
    if len(values) <= MOST_COUNTED:
        return _ways_from(values, m, float(limit)) / math.comb(n + m, m)
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(_CHUNKS):
        order = rng.random((DRAWS // _CHUNKS, len(values))).argsort(axis=1)
        count += int((values[order[:, :m]].sum(axis=1) >= limit).sum())
    return (1 + count) / (1 + DRAWS)


def _ways_from(values: Array, m: int, limit: float) -> int:
    """How many subsets of m values have a sum of at least `limit`."""
    half = len(values) // 2
    left, right = _sums_by_size(values[:half]), _sums_by_size(values[half:])
    count = 0
    for size, sums in enumerate(left):
        if 0 <= m - size < len(right):
            others = np.sort(right[m - size])
            count += int((len(others) - np.searchsorted(others, limit - sums, side="left")).sum())
    return count


def _sums_by_size(values: Array) -> list[Array]:
    """The sums of all subsets, by the number of their members."""
    sums, sizes = np.zeros(1), np.zeros(1, dtype=np.int64)
    for value in values:
        sums, sizes = np.concatenate((sums, sums + value)), np.concatenate((sizes, sizes + 1))
    return [sums[sizes == size] for size in range(len(values) + 1)]
