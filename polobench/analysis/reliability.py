"""How steadily one run learns, and how it may end: measures on its held-out evaluations, in score units.

All follow the held-out score (0 = floor, 1 = target) from evaluation to evaluation; a run that failed is at the floor
from where it ended. A task without a target has no score, so none of these.

Source: Chan et al. 2020, "Measuring the Reliability of Reinforcement Learning Algorithms", section 4: dispersion across
time (the interquartile range of a curve's differences), short-term risk (the conditional value at risk of those
differences), long-term risk (the drawdown: how far the score is below its best so far), risk across runs. They use
training curves of many points in sliding windows; we have about twenty held-out evaluations a run and one window.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from polobench.analysis.columns import columns
from polobench.analysis.statistics.intervals import Array
from polobench.core.result import RunResult

TAIL = 0.25
COLLAPSED_BELOW = 0.5


class Scores(NamedTuple):
    """Where a learning run was evaluated, from 0 to 1 of its budget of samples, and its scores there, `[E]` each."""

    at: Array
    found: Array


def scores(result: RunResult) -> Scores:
    """The scores of a run; empty without a target or a budget of samples."""
    budget = result.budget.get("samples")
    if result.target is None or not budget:
        return Scores(np.empty(0), np.empty(0))
    if result.curve.empty:
        return Scores(np.array([0.0, 1.0]), np.zeros(2))
    samples, returns = columns(result.curve, "samples", "return_mean")
    at, found = samples / budget, (returns - result.floor) / (result.target - result.floor)
    known = np.isfinite(found)
    at, found = at[known], found[known]
    if result.status != "ok":
        at, found = np.append(at, result.ledger.samples / budget), np.append(found, 0.0)
    return Scores(at, found)


def area_under_curve(run: Scores) -> float:
    """The mean score over the budget of samples: the area under the linearly interpolated curve. NaN without scores."""
    at, found = run
    if not len(at):
        return math.nan
    grid = np.append(at, 1.0)
    return float(trapezoid(np.append(found, found[-1]), grid))


def largest_drawdown(run: Scores) -> float:
    """The most that the score is ever below its best so far; 0 of a run that never falls. NaN without scores."""
    found = run.found
    return float((np.maximum.accumulate(found) - found).max()) if len(found) else math.nan


def short_term_risk(run: Scores) -> float:
    """The mean of the worst quarter of changes from one evaluation to the next, as a fall (positive is worse)."""
    found = run.found
    changes = np.sort(np.diff(found))
    return float(-changes[: max(1, math.ceil(TAIL * len(changes)))].mean()) if len(changes) else math.nan


def dispersion_over_time(run: Scores) -> float:
    """The interquartile range of the changes from one evaluation to the next."""
    changes = np.sort(np.diff(run.found))
    if not len(changes):
        return math.nan
    places = np.array([0.25, 0.75]) * (len(changes) - 1)
    low, high = np.interp(places, np.arange(len(changes)), changes)  # np.quantile's, at a tenth of its time
    return float(high - low)


def collapsed(run: Scores) -> float:
    """1 if the score fell below half after it had been at the target, 0 if not; NaN of a run that never was there."""
    found = run.found
    there = np.flatnonzero(found >= 1)
    return float((found[there[0] :] < COLLAPSED_BELOW).any()) if len(there) else math.nan


def share_above_target(run: Scores) -> float:
    """The share of evaluations after the first whose score is at least 1."""
    found = run.found
    return float((found[1:] >= 1).mean()) if len(found) > 1 else math.nan


def sustained(run: Scores) -> float:
    """1 if the target was reached for two evaluations in a row and never lost again, else 0; NaN without scores."""
    found = run.found
    if not len(found):
        return math.nan
    above = found >= 1
    lost = np.flatnonzero(~above)
    return float(len(above) - (lost[-1] + 1 if len(lost) else 0) >= 2)


def tail_mean(values: Array) -> Any:
    """The conditional value at risk over runs: the mean of the worst quarter of them, at least one; `[..., n]`."""
    return np.sort(values, axis=-1)[..., : max(1, math.ceil(TAIL * values.shape[-1]))].mean(axis=-1)
