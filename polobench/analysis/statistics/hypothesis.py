"""Is one method's measure larger than another's, over several tasks? Tests that say when they cannot know.

    d = mean over tasks of (mean of x on the task - mean of y on the task)

A task is a stratum: runs of different tasks are never exchanged for one another.

Sources: Fisher 1935, "The Design of Experiments" (permutation); Edgington 1969 and Phipson and Smyth 2010, "Permutation
P-values Should Never Be Zero" (p = (1 + count) / (1 + draws) where permutations are drawn); Hoeffding 1951, "A
Combinatorial Central Limit Theorem" (many observations); Holm 1979, "A Simple Sequentially Rejective Multiple Test
Procedure"; Welch 1947 and Satterthwaite 1946 (degrees of freedom); Cohen 1988, "Statistical Power Analysis", section
2.4 (smallest detectable difference); Schuirmann 1987 (two one-sided tests of equivalence); Page 1963 (trend).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import page_trend_test
from scipy.stats import t as student

from polobench.analysis.statistics.intervals import CONFIDENCE, Array, Interval

Strata = Sequence[tuple[Array, Array]]  # x and y on each task, `[n]` and `[m]`
LARGEST_ENUMERATION = 200_000  # ten runs against ten on one task among them
DRAWS = 19_999
POWER = 0.8
LEVEL = 0.05
LEAST_EQUAL = 5  # runs per side that may be called equivalent although none of them differs from another
MARGIN = 0.05  # of the way from floor to target: a smaller difference of scores is of no use to anybody
SEPARATED, EQUIVALENT, CEILING, OPEN = "separated", "equivalent", "ceiling, no room", "open"
Who = TypeVar("Who")
WELCH = "Welch, stratified by task"
STUDENT = "Student, stratified by task"
_ROUNDING = 1e-12


def difference(strata: Strata) -> float:
    """d: the difference of means, averaged over tasks."""
    return float(np.mean([x.mean() - y.mean() for x, y in strata]))


def permutation_p(strata: Strata, *, draws: int = DRAWS) -> float:
    """The two-sided p of d = 0: the share of arrangements whose |d| is at least the one seen.

    Runs are exchanged between x and y within each task: every way once if these are few enough, else `draws` ways.

    Args:
        strata: at least one task, at least one finite value on each side. The same data give the same p.
    """
    observed = difference(strata)
    tolerance = _ROUNDING * max(1e-300, *(float(np.abs(np.concatenate(pair)).max()) for pair in strata))
    exact = _arrangements(strata) <= LARGEST_ENUMERATION
    found = _enumerated(strata) if exact else _drawn(strata, draws)
    extreme = int((np.abs(found) >= abs(observed) - tolerance).sum())
    return extreme / len(found) if exact else (1 + extreme) / (1 + draws)


def permutation_p_of(strata: Strata, statistic: Callable[[Sequence[Array]], Any]) -> float:
    """The p of `permutation_p` for the difference of another statistic over tasks, by drawn arrangements.

    Args:
        statistic: of tasks `[..., n]`, arrangements first, to `[...]`.
    """
    orders = _drawn_orders(tuple((len(x), len(y)) for x, y in strata), DRAWS)
    drawn = [np.concatenate(pair)[order] for pair, order in zip(strata, orders, strict=True)]
    mine, theirs = zip(*(np.split(values, [len(x)], axis=1) for values, (x, _) in zip(drawn, strata, strict=True)))
    observed = abs(float(statistic([x for x, _ in strata]) - statistic([y for _, y in strata])))
    found = np.abs(statistic(mine) - statistic(theirs))
    return float(1 + (found >= observed - _ROUNDING * max(1.0, observed)).sum()) / (1 + DRAWS)


def _arrangements(strata: Strata) -> int:
    return math.prod(math.comb(len(x) + len(y), len(x)) for x, y in strata)


def smallest_p(strata: Strata, *, draws: int = DRAWS) -> float:
    """The smallest two-sided p that a test of data of these sizes can give, whatever the data.

    An arrangement and the one that exchanges all of x and y have the same |d| where sizes are equal on every task.
    """
    mirrored = 2 if all(len(x) == len(y) for x, y in strata) else 1
    ways = _arrangements(strata)
    return mirrored / ways if ways <= LARGEST_ENUMERATION else 1 / (1 + draws)


def seeds_needed(alpha: float, tasks: int) -> int:
    """The fewest seeds per side and task with which a test on so many tasks can give p <= alpha."""
    n = 2
    while 2 / math.comb(2 * n, n) ** tasks > alpha:
        n += 1
    return n


def pairs_needed(alpha: float, tasks: int) -> int:
    """The fewest pairs per task with which a test of paired runs on so many tasks can give p <= alpha."""
    return math.ceil(math.log2(2 / alpha) / tasks)


def as_pairs(strata: Strata) -> list[tuple[Array, Array]]:
    """Each pair of runs, x[i] and y[i], as a stratum of its own: a permutation exchanges the two of a pair."""
    return [(x[i : i + 1], y[i : i + 1]) for x, y in strata for i in range(len(x))]


def as_differences(strata: Strata) -> list[tuple[Array, Array]]:
    """Paired runs as their differences beside 0, with the same d: Welch's interval is then Student's of the pairs."""
    return [(x - y, np.zeros(len(x))) for x, y in strata]


def _enumerated(strata: Strata) -> Array:
    """d of every arrangement: those of the tasks are independent, so their sums are combined one task at a time."""
    total = np.zeros(1)
    for x, y in strata:
        ways = _ways(len(x) + len(y), len(x))
        total = np.add.outer(total, _differences(x, y, ways)).ravel()
    return total / len(strata)


@lru_cache(maxsize=2)
def _ways(runs: int, taken: int) -> NDArray[Any]:
    """`[W, taken]` every way to take so many of the runs."""
    return np.array(list(itertools.combinations(range(runs), taken)))


def _drawn(strata: Strata, draws: int) -> Array:
    """d of drawn arrangements, `[draws]`."""
    drawn = _drawn_orders(tuple((len(x), len(y)) for x, y in strata), draws)
    found = [_differences(x, y, order[:, : len(x)]) for (x, y), order in zip(strata, drawn, strict=True)]
    return np.asarray(sum(found, np.zeros(draws)) / len(strata))


def _differences(x: Array, y: Array, ways: NDArray[Any]) -> Array:
    """The difference of means on one task where x has the observations of each row of `ways`, `[W, n]` to `[W]`."""
    pooled = np.concatenate((x, y))
    sums = pooled[ways].sum(axis=1)
    return np.asarray(sums / len(x) - (pooled.sum() - sums) / len(y))


@lru_cache(maxsize=2)
def _drawn_orders(sizes: tuple[tuple[int, int], ...], draws: int) -> list[NDArray[np.int32]]:
    """`[draws, n + m]` for each task, whose first n observations become x: the same for all tests of these sizes."""
    rng = np.random.default_rng(0)
    return [rng.random((draws, n + m)).argsort(axis=1).astype(np.int32) for n, m in sizes]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: all of them are at most alpha together exactly where Holm's procedure rejects at alpha."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.arange(len(order), 0, -1) * np.asarray(p_values, dtype=np.float64)[order]
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, scaled))
    return adjusted.tolist()


def adjusted(p_values: Sequence[float], looks: int = 1, unseen: int = 0) -> list[float]:
    """Holm's, times the looks that the study declares; a test that was skipped is one of them and stays NaN.

    Args:
        unseen: further tests of the same family that nobody reads, taken to have p = 1.
    """
    scaled = holm([*(1.0 if math.isnan(p) else p for p in p_values), *[1.0] * unseen])
    return [p if math.isnan(p) else min(1.0, looks * q) for p, q in zip(p_values, scaled)]


def below_p(strata: Strata, bound: float) -> float:
    """Welch's one-sided p, small where d is surely below a bound; NaN below two runs per side, and below
    `LEAST_EQUAL` runs that are all equal.
    """
    size, freedom = _error([side for pair in strata for side in pair], len(strata))
    beyond = difference(strata) - bound
    if size == 0 and not math.isnan(bound):
        return float(beyond >= 0) if min(len(side) for pair in strata for side in pair) >= LEAST_EQUAL else math.nan
    return float(student.cdf(beyond / size, freedom)) if size > 0 else math.nan


def equivalence_p(strata: Strata, margin: float = MARGIN) -> float:
    """Welch's two one-sided tests: the p of |d| being at least the margin."""
    return float(np.maximum(below_p(strata, margin), below_p([(y, x) for x, y in strata], margin)))


def is_at_ceiling(strata: Strata, target: float = 1.0, margin: float = MARGIN) -> bool:
    """Whether both sides reach the target on average and all runs end within the margin of the best, on every task."""
    return all(min(x.mean(), y.mean()) >= target and np.ptp(np.concatenate((x, y))) <= margin for x, y in strata)


def trend_p(places: Sequence[Sequence[Array]]) -> float:
    """Page's one-sided p of values that rise from each arm to the next, runs of one seed and task as blocks.

    Args:
        places: for each task the runs of three arms or more, `[n]` each, in the order of the claim and of seeds.
    """
    return float(page_trend_test(np.concatenate([np.column_stack(arms) for arms in places])).pvalue)


@dataclass(frozen=True)
class Comparison:
    """What two sides say of d before any verdict."""

    difference: float  # d
    interval: Interval  # of d, by Welch
    detectable: float  # the smallest |d| that a test at the asked level would have found with a power of 80 %
    margin: float  # within which equal sides of this spread would be called equivalent with a power of 80 %
    n: int  # observations of the side with the fewest, on the task with the fewest


def compare(strata: Strata, *, alpha: float, confidence: float = CONFIDENCE) -> Comparison:
    """d with its interval at `confidence`, and what a test at `alpha` could have detected, given this data's spread.

    A difference is detected from (t_(1 - alpha / 2) + t_POWER) standard errors on; below two runs per side all but d is
    NaN.
    """
    sides = [side for pair in strata for side in pair]
    size, freedom = error = _error(sides, len(strata))
    interval = _around(difference(strata), error, confidence, WELCH, min(map(len, sides)))
    detected = student.ppf(1 - alpha / 2, freedom) + student.ppf(POWER, freedom)
    equal = student.ppf(1 - alpha, freedom) + student.ppf((1 + POWER) / 2, freedom)
    return Comparison(difference(strata), interval, float(detected) * size, float(equal) * size, interval.n)


def _error(sides: Sequence[Array], tasks: int) -> tuple[float, float]:
    """The standard error of d and its degrees of freedom, by Welch and Satterthwaite; NaN below two runs per side."""
    if any(len(side) < 2 for side in sides):
        return math.nan, math.nan
    # equal numbers have no variance, and their mean, which rounds, gives them one
    parts = np.array([side.var(ddof=1) / len(side) if np.ptp(side) > 0 else 0.0 for side in sides]) / tasks**2
    total = float(parts.sum())
    if total == 0:
        return 0.0, math.inf
    freedom = total**2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    return math.sqrt(total), float(freedom)


def stratified_mean_interval(tasks: Sequence[Array], *, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the mean over tasks of each task's mean, by Student's t with Satterthwaite's freedom."""
    centre = float(np.mean([values.mean() for values in tasks]))
    return _around(centre, _error(tasks, len(tasks)), confidence, STUDENT, min(map(len, tasks)))


def _around(centre: float, error: tuple[float, float], confidence: float, method: str, n: int) -> Interval:
    size, freedom = error
    half = float(student.ppf((1 + confidence) / 2, freedom)) * size
    return Interval(centre - half, centre + half, method, n)


@dataclass(frozen=True)
class Contrast(Generic[Who]):
    """The best arm less another, on the tasks that they share; every p is adjusted by Holm and by the looks."""

    best: Who
    other: Who
    compared: Comparison  # means, with a 95 % interval that is not adjusted; detectable at `LEVEL` over the arms
    p: float  # permutation test; NaN where the test was skipped
    equal_p: float  # two one-sided tests; NaN where they were skipped
    word: str  # what these tests say of the two
    reason: str = ""  # why they were skipped


def against_best(
    arms: Sequence[tuple[Who, Sequence[Array]]],
    statistic: Callable[[Sequence[Array]], Any] | None = None,
    *,
    scale: tuple[float, float] = (0.0, 1.0),
    looks: int = 1,
    refused: str = "",
) -> list[Contrast[Who]]:
    """Every other arm against the first.

    The same runs chose the first, so the family of tests is that of all pairs, whichever arm had come first.

    Args:
        arms: the best first, each with its numbers on each task; one with a number that is not finite is left out.
        statistic: over the tasks, whose difference is tested; the mean by default, which alone has equivalence.
        scale: floor and target of the numbers; NaN where there is no equivalence.
        looks: how often the study declares to look at its results.
        refused: why there is no verdict at all.
    """
    known = [(arm, tasks) for arm, tasks in arms if all(np.isfinite(values).all() for values in tasks)]
    if len(known) < 2:
        return []
    (best, top), *others = known
    pairs_of_arms = math.comb(len(known), 2)
    alpha = LEVEL / (looks * pairs_of_arms)
    margin = math.nan if statistic else MARGIN * (scale[1] - scale[0])
    strata = [list(zip(top, tasks, strict=True)) for _, tasks in others]
    reasons = [refused or _too_few(pairs, alpha) for pairs in strata]
    raw = [
        math.nan if why else permutation_p_of(pairs, statistic) if statistic else permutation_p(pairs)
        for pairs, why in zip(strata, reasons, strict=True)
    ]
    raw_equal = [math.nan if refused else equivalence_p(pairs, margin) for pairs in strata]
    found, unseen = [], pairs_of_arms - len(others)
    p_values, equal_p_values = (adjusted(each, looks, unseen) for each in (raw, raw_equal))
    tested = zip(others, strata, reasons, p_values, equal_p_values, strict=True)
    for (other, _), pairs, why, p, equal_p in tested:
        compared = compare(pairs, alpha=alpha)
        full = not refused and compared.n > 1 and is_at_ceiling(pairs, scale[1], margin)
        word = CEILING if full else EQUIVALENT if equal_p <= LEVEL else SEPARATED if p <= LEVEL else OPEN
        found.append(Contrast(best, other, compared, p, equal_p, word, why))
    return found


def _too_few(pairs: Strata, alpha: float) -> str:
    """Why data of these sizes cannot pass a test at `alpha`; empty where they can."""
    if smallest_p(pairs) <= alpha:
        return ""
    n = min(len(side) for pair in pairs for side in pair)
    return f"{n} seeds cannot reach p = {alpha:.2g}; the test needs {seeds_needed(alpha, len(pairs))}"
