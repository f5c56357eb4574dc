"""Each arm of one task against the one with the best mean: how far apart, how sure, and what could have been seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polobench.analysis.collection import Arm
from polobench.analysis.statistics.hypothesis import (
    Comparison,
    compare,
    holm,
    permutation_test,
    seeds_needed,
    smallest_p,
)
from polobench.analysis.statistics.intervals import CONFIDENCE
from polobench.core.result import RunResult

LEVEL = 0.05


@dataclass(frozen=True)
class Contrast:
    """The mean final return of the best arm less that of another, on one task.

    Attributes:
        compared: its interval at 95 %, not adjusted; detectable at `LEVEL` over the number of arms.
        p: permutation test, adjusted by Holm over the arms; NaN where the test was refused, and `reason` says why.
    """

    best: Arm
    other: Arm
    compared: Comparison
    p: float
    reason: str = ""


def against_best(arms: Sequence[tuple[Arm, Sequence[RunResult]]]) -> list[Contrast]:
    """Every other arm against the first.

    Args:
        arms: of one task and budget, the best mean final return first; a return that is not finite leaves its arm out.
    """
    known = [(arm, np.array([run.final_return for run in runs], np.float64)) for arm, runs in arms]
    known = [(arm, returns) for arm, returns in known if np.isfinite(returns).all()]
    if len(known) < 2:
        return []
    (best, top), *others = known
    alpha = LEVEL / len(others)
    refusals = [_refusal(len(top), len(returns), alpha) for _, returns in others]
    raw = [
        1.0 if refusal else permutation_test([(top, returns)]).p
        for (_, returns), refusal in zip(others, refusals, strict=True)
    ]
    return [
        Contrast(
            best=best,
            other=arm,
            compared=compare([(top, returns)], alpha=alpha, confidence=CONFIDENCE),
            p=math.nan if refusal else p,
            reason=refusal,
        )
        for (arm, returns), refusal, p in zip(others, refusals, holm(raw), strict=True)
    ]


def _refusal(n: int, m: int, alpha: float) -> str:
    """Why runs of these numbers could not be told apart; empty where they could."""
    if smallest_p([(np.zeros(n), np.zeros(m))]) <= alpha:
        return ""
    return f"{min(n, m)} seeds cannot reach p = {alpha:.2g}; {seeds_needed(alpha, 1)} are needed"
