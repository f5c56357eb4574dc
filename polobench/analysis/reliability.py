"""How steadily one run learns, and how it may go wrong, by its held-out scores (0 = floor, 1 = target).

A run that failed is at its final score from where it ended. A task without a target has no score, so none of these.

Source: Chan et al. 2020, "Measuring the Reliability of Reinforcement Learning Algorithms", section 4: long-term risk
(the drawdown: how far the score is below its best so far), here over about ten held-out evaluations per run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.columns import columns, finite, on_the_curve, value_of
from polobench.analysis.statistics.intervals import Array
from polobench.core.result import RunResult

COLLAPSED_BELOW = 0.5
LEARNT_NOTHING = 0.1


class Scores(NamedTuple):
    """The scores of a run's E evaluations, and where they were; measures of a run without scores are NaN."""

    at: Array  # `[E]` from 0 to 1 of its budget of samples
    found: Array  # `[E]`, the first before any update

    @property
    def after_updates(self) -> Array:
        """`[E - 1]`: what a run can lose that it has learned."""
        return self.found[1:]


def scores(result: RunResult) -> Scores:
    """The scores of a run; empty without a target or a budget of samples."""
    budget = result.budget.get("samples")
    if result.target is None or not budget:
        return Scores(np.empty(0), np.empty(0))
    if result.curve.empty:
        return Scores(np.array([0.0, 1.0]), np.zeros(2))
    samples, returns = columns(result.curve, "samples", "return_mean")
    known = np.isfinite(returns)
    samples, returns = samples[known], returns[known]
    if result.status != "ok":
        samples, returns = np.append(samples, result.ledger.samples), np.append(returns, result.final_return)
    return Scores(samples / budget, on_the_curve(result, returns))


def area_under_curve(run: Scores) -> float:
    """The mean score over the budget of samples: the area under the linearly interpolated curve.

    A run that ended ok before, as one whose updates are limited too, keeps its last policy, and so its last score.
    """
    at, found = run
    return float(trapezoid(np.append(found, found[-1]), np.append(at, 1.0))) if len(at) else math.nan


def fell_below_start(result: RunResult) -> bool:
    """Whether the last evaluation is below the first by more than their noise: two standard errors of the change."""
    found = scores(result).found
    # files of before `start_error` have the error of the change since the evaluation before
    error = value_of(result, "start_error" if "start_error" in result.curve else "change_error")
    known = 0.0 if math.isnan(error) or result.target is None else 2 * error / (result.target - result.floor)
    return len(found) > 1 and bool(found[-1] < found[0] - known)


def largest_drawdown(run: Scores) -> float:
    """The most that the score is ever below its best since the first update; 0 of a run that never falls."""
    found = run.after_updates
    return float((np.maximum.accumulate(found) - found).max()) if len(found) else math.nan


def drawdown_of_noise(result: RunResult) -> float:
    """The largest drawdown to expect of policies of equal return, from the noise of the evaluations alone.

    All evaluations are of the same held-out episodes, so the noise is that of a change between two of them. An upper
    bound: it is of ever new policies, and those that come again, such as two in turns, fall less far.
    NaN without a target, or where the noise is not known.
    """
    errors = finite(result.curve["change_error"]) if "change_error" in result.curve else np.empty(0)
    if result.target is None or not len(errors):
        return math.nan
    spread = math.sqrt(float(np.mean(errors**2)) / 2) / (result.target - result.floor)
    return spread * _expected_drawdown(len(result.curve) - 1)


@cache
def _expected_drawdown(evaluations: int) -> float:
    """The mean largest drawdown of so many independent normal numbers of variance 1, by simulation."""
    drawn = np.random.default_rng(0).standard_normal((20_000, evaluations))
    return float((np.maximum.accumulate(drawn, axis=1) - drawn).max(axis=1).mean())


def collapsed(run: Scores) -> float:
    """1 if the score fell below half after it had been at the target, 0 if not; NaN if it never was there."""
    there = np.flatnonzero(run.after_updates >= 1)
    return float((run.after_updates[there[0] :] < COLLAPSED_BELOW).any()) if len(there) else math.nan


@dataclass(frozen=True)
class Troubled:
    """A learning run that failed, learnt nothing, or lost what it had."""

    arm: Arm
    run: RunResult
    what: str  # in a few words
    reason: str  # in more, where there is one
    badness: float  # the larger the worse, to order them


def troubled(collection: Collection) -> list[Troubled]:
    """Such runs of all learning arms, the worst first; a policy that learns nothing by design is none."""
    arms = collection.learning
    found = [Troubled(arm, run, *trouble) for arm, runs in arms.items() for run in runs if (trouble := _trouble(run))]
    return sorted(found, key=lambda item: (-item.badness, item.arm, item.run.seed))


def _trouble(run: RunResult) -> tuple[str, str, float] | None:
    """What went wrong, why, and how badly; None where nothing did."""
    if run.status != "ok":
        return run.status.replace("_", " "), run.reason, 10.0
    known = scores(run).found
    if run.final_score is None or len(known) < 2 or not run.ledger.gradient_steps:
        return None
    start, best, end = float(known[0]), float(known[1:].max()), float(known[-1])  # of the same held-out episodes
    if fell_below_start(run):
        return "fell below its start", f"score {start:.2f} at first, {end:.2f} at last", 5 + start - end
    if best < LEARNT_NOTHING:
        return "did not learn", f"its best score is {best:.2f}", 3 - best
    if best >= 1 and end < COLLAPSED_BELOW:
        return "collapsed", f"score {best:.2f} at best, {end:.2f} at last", 1 + best - end
    return None
