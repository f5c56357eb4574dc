"""The gate's test: did a measure of an arm move between base and head, and by more than matters?

    d = mean over head - mean over base

Unpaired permutation test over all ways to share the runs out between the sides (Fisher 1935), one-sided where only one
direction is harm. Seeds are not paired: after a change of the code, equal seeds share nothing but their start.

Cohen 1988, "Statistical Power Analysis", section 2.4, is the smallest detectable difference: (t_(1 - alpha) + t_power)
standard errors, with the freedom of n + m - 2; the permutation test of a mean is near the t-test of Student.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from scipy.stats import t as student

from polobench.analysis.statistics import Array

LARGEST_ENUMERATION = 1_000_000
DRAWS = 200_000
POWER = 0.8
_ROUNDING = 1e-12
Name = TypeVar("Name", bound=Hashable)
# which sign of d is harm; "both" tests |d|
HARM = {"lower": -1.0, "higher": 1.0, "both": 0.0}


@dataclass(frozen=True)
class Shift:
    """d of one measure, and how surely it is not 0.

    Attributes:
        harm: a key of `HARM`.
        difference: d.
        p: the share of arrangements at least as harmful as the one seen.
        smallest_p: that data of these sizes can give.
        spread: the pooled standard deviation of a run.
        n: runs of base and of head.
    """

    harm: str
    difference: float
    p: float
    smallest_p: float
    spread: float
    n: tuple[int, int]

    def detectable(self, level: float, smallest_change: float) -> float:
        """The smallest |d| found with a power of 80 %, were the spread the one seen.

        A test at `level` must reject, and the d that is seen must be at least `smallest_change`.
        """
        freedom = sum(self.n) - 2
        tail = level if self.harm != "both" else level / 2
        power = float(student.ppf(POWER, freedom))
        error = self.spread * math.sqrt(sum(1 / n for n in self.n))
        return max((float(student.ppf(1 - tail, freedom)) + power) * error, smallest_change + power * error)


def shifts(columns: Mapping[Name, tuple[Array, Array]], harm: Mapping[Name, str]) -> dict[Name, Shift]:
    """The shift of each measure, of finite base and head values `[n]` and `[m]`, at least two a side.

    Measures whose sides are equally long share one pass over the arrangements.
    """
    by_size: dict[tuple[int, int], list[Name]] = {}
    for name, (base, head) in columns.items():
        by_size.setdefault((len(base), len(head)), []).append(name)
    found: dict[Name, Shift] = {}
    for (n, _), names in by_size.items():
        pooled = np.stack([np.concatenate(columns[name]) for name in names], axis=1)
        arranged = _arranged(pooled, n)
        for index, name in enumerate(names):
            found[name] = _shift(pooled[:, index], arranged[:, index], n, harm[name])
    return {name: found[name] for name in columns}


def smallest_p(n: int, m: int, harm: str) -> float:
    """The smallest p that sides of these sizes can give, whatever the data."""
    ways = math.comb(n + m, n)
    mirrored = 2 if harm == "both" and n == m else 1
    return mirrored / ways if ways <= LARGEST_ENUMERATION else 1 / (1 + DRAWS)


def runs_needed(level: float, harm: str) -> int:
    """The fewest runs a side with which p can reach `level`."""
    n = 2
    while smallest_p(n, n, harm) > level and math.comb(2 * n, n) <= LARGEST_ENUMERATION:
        n += 1
    return n


def _shift(pooled: Array, arranged: Array, n: int, harm: str) -> Shift:
    base, head = pooled[:n], pooled[n:]
    m = len(head)
    difference = float(head.mean() - base.mean())
    sign = HARM[harm]
    seen = abs(difference) if sign == 0 else sign * difference
    found = np.abs(arranged) if sign == 0 else sign * arranged
    tolerance = _ROUNDING * max(1e-300, float(np.abs(pooled).max()))
    extreme = int((found >= seen - tolerance).sum())
    exact = math.comb(n + m, n) <= LARGEST_ENUMERATION
    p = extreme / len(found) if exact else (1 + extreme) / (1 + len(found))
    squares = float(((base - base.mean()) ** 2).sum() + ((head - head.mean()) ** 2).sum())
    return Shift(harm, difference, p, smallest_p(n, m, harm), math.sqrt(squares / (n + m - 2)), (n, m))


def _arranged(pooled: Array, n: int) -> Array:
    """d of every arrangement, or of `DRAWS` drawn ones, of each column: `[ways, k]` from `[n + m, k]`."""
    total = len(pooled)
    members = _enumerated(total, n) if math.comb(total, n) <= LARGEST_ENUMERATION else _drawn(total, n)
    sums = members @ pooled
    return np.asarray((pooled.sum(0) - sums) / (total - n) - sums / n)


@lru_cache(maxsize=4)
def _enumerated(total: int, n: int) -> Array:
    """`[ways, total]`: 1 where a run belongs to the base."""
    chosen = np.array(list(itertools.combinations(range(total), n)))
    members = np.zeros((len(chosen), total))
    members[np.arange(len(chosen))[:, None], chosen] = 1.0
    return members


@lru_cache(maxsize=4)
def _drawn(total: int, n: int) -> Array:
    """As `_enumerated`, for `DRAWS` arrangements that a fixed generator draws."""
    order = np.random.default_rng(0).random((DRAWS, total)).argsort(axis=1)
    return np.asarray(order < n, dtype=np.float64)
