"""Each arm against the best one: how far apart they are, how sure that is, and what could have been seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from polobench.analysis.statistics.hypothesis import (
    Comparison,
    compare,
    holm,
    permutation_p,
    permutation_test,
    seeds_needed,
    smallest_p,
)
from polobench.analysis.statistics.intervals import CONFIDENCE, Array

LEVEL = 0.05
Who = TypeVar("Who")


@dataclass(frozen=True)
class Contrast(Generic[Who]):
    """The best arm less another, on the tasks that they share."""

    best: Who
    other: Who
    compared: Comparison  # means, with a 95 % interval that is not adjusted; detectable at `LEVEL` over the arms
    p: float  # permutation test, adjusted by Holm over the arms; NaN where the test was skipped
    reason: str = ""  # why it was skipped

    @property
    def is_separated(self) -> bool:
        """Whether the test tells the two apart."""
        return self.p <= LEVEL


def against_best(
    arms: Sequence[tuple[Who, Sequence[Array]]], statistic: Callable[[Sequence[Array]], Any] | None = None
) -> list[Contrast[Who]]:
    """Every other arm against the first.

    Args:
        arms: the best first, each with its numbers on each task; one with a number that is not finite is left out.
        statistic: over the tasks, whose difference is tested; the mean by default.
    """
    known = [(arm, tasks) for arm, tasks in arms if all(np.isfinite(values).all() for values in tasks)]
    if len(known) < 2:
        return []
    (best, top), *others = known
    alpha = LEVEL / len(others)
    strata = [list(zip(top, tasks, strict=True)) for _, tasks in others]
    least = [smallest_p(pairs) for pairs in strata]
    raw = [
        1.0 if p > alpha else permutation_p(pairs, statistic) if statistic else permutation_test(pairs).p
        for pairs, p in zip(strata, least, strict=True)
    ]
    found = []
    for (other, _), pairs, at_least, p in zip(others, strata, least, holm(raw), strict=True):
        compared = compare(pairs, alpha=alpha, confidence=CONFIDENCE)
        if at_least > alpha:
            needed = seeds_needed(alpha, len(pairs))
            reason = f"{compared.n} seeds cannot reach p = {alpha:.2g}; the test needs {needed}"
            found.append(Contrast(best, other, compared, math.nan, reason))
        else:
            found.append(Contrast(best, other, compared, p))
    return found
