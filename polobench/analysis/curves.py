"""Curves of several runs on one grid, so that they can be averaged.

Evaluations fall at the first update on or after fixed shares of the budget, so the runs of an arm differ in where they
were evaluated: each run is interpolated linearly. A run that failed is at the floor from where it ended; what else is
known of it is as before training from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polobench.analysis.columns import columns
from polobench.analysis.statistics.intervals import Array, bootstrap_band
from polobench.core.result import RunResult

GRID_POINTS = 121


@dataclass(frozen=True)
class MeanCurve:
    """The mean over runs with its 95 % percentile bootstrap band, `[G]` each; the band is NaN for one run."""

    x: Array
    mean: Array
    low: Array
    high: Array
    n: int


def return_curve(result: RunResult, axis: str, grid: Array) -> Array:
    """Held-out return of one run at each point of the grid, `[G]`.

    Args:
        axis: "samples", "wall_seconds" or "cpu_seconds", a column of the curve and a count of the ledger.
        grid: `[G]` ascending values on that axis.
    """
    x, y = _points(result, axis, "return_mean")
    values = np.interp(grid, x, y) if len(x) else np.full(len(grid), result.floor)
    if result.status != "ok":
        values[grid >= getattr(result.ledger, axis)] = result.floor
    return values


def _points(result: RunResult, axis: str, name: str) -> tuple[Array, Array]:
    """Where the column is known, and what it is there; the last of what is known of one place."""
    if result.curve.empty:
        return np.empty(0), np.empty(0)
    x, y = columns(result.curve, axis, name)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    last = np.ones(len(x), dtype=bool)
    last[:-1] = x[1:] != x[:-1]
    return x[last], y[last]


def mean_curve(runs: Sequence[RunResult], axis: str) -> MeanCurve:
    """The mean held-out return of an arm's runs over samples or seconds.

    Over samples it goes to the budget, or to the median end where the budget is none of samples; over seconds to the
    median end of the runs that ended ok. Past its own end a run that ended ok keeps its last return.
    """
    grid = np.linspace(0.0, _end(runs, axis), GRID_POINTS)
    curves = np.stack([return_curve(result, axis, grid) for result in runs])
    low, high = bootstrap_band(curves)
    return MeanCurve(grid, curves.mean(axis=0), low, high, len(runs))


def metric_curve(runs: Sequence[RunResult], name: str) -> MeanCurve | None:
    """The mean over samples of another column of the curve; None if no run has a value there.

    Runs without a value have no part; one that failed is as it began from where it ended.
    """
    grid = np.linspace(0.0, _end(runs, "samples"), GRID_POINTS)
    curves = []
    for result in runs:
        x, y = _points(result, "samples", name) if name in result.curve else (np.empty(0), np.empty(0))
        if len(x):
            values = np.interp(grid, x, y)
            if result.status != "ok":
                values[grid >= result.ledger.samples] = y[0]
            curves.append(values)
    if not curves:
        return None
    low, high = bootstrap_band(np.stack(curves))
    return MeanCurve(grid, np.mean(curves, axis=0), low, high, len(curves))


def _end(runs: Sequence[RunResult], axis: str) -> float:
    budget = runs[0].budget.get("samples")
    if axis == "samples" and budget:
        return float(budget)
    ended_ok = [result for result in runs if result.status == "ok"] or list(runs)
    return float(np.median([getattr(result.ledger, axis) for result in ended_ok]))
