"""Curves of several runs on one grid, so that they can be averaged.

Evaluations fall at the first update on or after fixed shares of the budget, so the runs of an arm differ in where they
were evaluated: each run is interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polobench.analysis.columns import columns
from polobench.analysis.statistics.intervals import Array, bootstrap_band
from polobench.core.result import RunResult

GRID_POINTS = 121
Points = tuple[Array, Array]  # x and y


@dataclass(frozen=True)
class MeanCurve:
    """The mean over n runs with its 95 % percentile bootstrap band, `[G]` each; the band is NaN for one run."""

    x: Array
    mean: Array
    low: Array
    high: Array
    n: int


def return_curve(result: RunResult, axis: str, grid: Array) -> Array:
    """Held-out return of one run at each point of the grid, `[G]`; a failed one falls to its failed score at its end.

    Args:
        axis: "samples", "wall_seconds" or "cpu_seconds", a column of the curve and a count of the ledger.
        grid: `[G]` ascending values on that axis.
    """
    x, y = _points(result, axis, "return_mean")
    if not len(x):
        return np.full(len(grid), result.floor)
    return _interpolated(result, axis, grid, (x, y), result.final_return)


def _points(result: RunResult, axis: str, name: str) -> Points:
    """Where the column is known, and what it is there: the last value of each place."""
    if name not in result.curve:
        return np.empty(0), np.empty(0)
    x, y = columns(result.curve, axis, name)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    last = np.ones(len(x), dtype=bool)
    last[:-1] = x[1:] != x[:-1]
    return x[last], y[last]


def _interpolated(result: RunResult, axis: str, grid: Array, points: Points, once_failed: float) -> Array:
    values = np.interp(grid, *points)
    if result.status != "ok":
        values[grid >= getattr(result.ledger, axis)] = once_failed
    return values


def mean_curve(runs: Sequence[RunResult], axis: str) -> MeanCurve:
    """The mean held-out return of an arm's runs over samples or seconds.

    Over samples it goes to the budget; over seconds, and where the budget does not count samples, to the median end of
    the runs that ended ok. Past its own end a run that ended ok keeps its last return.
    """
    grid = np.linspace(0.0, _end(runs, axis), GRID_POINTS)
    return _mean(grid, [return_curve(result, axis, grid) for result in runs])


def metric_curve(runs: Sequence[RunResult], name: str) -> MeanCurve | None:
    """The mean over samples of another column of the curve, over the runs that have it; None if there are none.

    A run that failed is as it began from its end on.
    """
    grid = np.linspace(0.0, _end(runs, "samples"), GRID_POINTS)
    known = [(result, points) for result in runs if len((points := _points(result, "samples", name))[0])]
    curves = [_interpolated(result, "samples", grid, points, points[1][0]) for result, points in known]
    return _mean(grid, curves) if curves else None


def _mean(grid: Array, curves: Sequence[Array]) -> MeanCurve:
    every = np.stack(curves)
    return MeanCurve(grid, every.mean(axis=0), *bootstrap_band(every), len(every))


def _end(runs: Sequence[RunResult], axis: str) -> float:
    budget = runs[0].budget.get("samples")
    if axis == "samples" and budget:
        return float(budget)
    ended_ok = [result for result in runs if result.status == "ok"] or runs
    return float(np.median([getattr(result.ledger, axis) for result in ended_ok]))
