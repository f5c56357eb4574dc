"""Numbers of results: tables read without making ten thousand columns of pandas, and means of what is known."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from polobench.analysis.statistics.intervals import Array
from polobench.core.result import RunResult

_OF_LANGUAGE = ("heldout_entropy", "heldout_accuracy")  # in curves of language models alone


def columns(table: pd.DataFrame, *names: str) -> list[Array]:
    """Columns of `curve` or `updates` as floats, `[rows]` each, read-only.

    Where all columns are floats, as they are in a store, this costs a tenth of `table[name].to_numpy()`.

    Raises:
        KeyError: there is no such column.
    """
    values = table.to_numpy()
    if values.dtype != np.float64:
        return [table[name].to_numpy(dtype=np.float64) for name in names]
    return [values[:, table.columns.get_loc(name)] for name in names]


def column(table: pd.DataFrame, name: str) -> Array:
    """One of `columns`."""
    return columns(table, name)[0]


def value_of(run: RunResult, name: str, place: int = -1) -> float:
    """A known number of a column of a run's curve, by default the last; NaN without one."""
    if name not in run.curve:
        return math.nan
    values = column(run.curve, name)
    known = values[~np.isnan(values)]
    return float(known[place]) if len(known) else math.nan


def finite(values: Iterable[float | None]) -> Array:
    """Those of some numbers that are finite; None is not."""
    found = np.array(list(values), dtype=np.float64)
    return found[np.isfinite(found)]


def mean_of(values: Iterable[float | None]) -> float:
    """The mean; NaN without numbers, and where one is None."""
    found = np.array(list(values), dtype=np.float64)
    return float(found.mean()) if len(found) else math.nan


def speaks(run: RunResult) -> bool:
    """Whether its policy is a language model; of a slim pack, which has no answers, its measures say so."""
    return bool(run.snapshots) or any(name in run.curve for name in _OF_LANGUAGE)


def on_the_curve(run: RunResult, returns: Array) -> Array:
    """Scores of values of the run's curve, of the first of the final episodes; NaN without a target.

    Of a language model 0 is the checkpoint's own greedy return on just these prompts, so what does not learn scores
    exactly 0; elsewhere it is the floor.
    """
    if run.target is None:
        return np.full_like(returns, math.nan)
    floor = value_of(run, "return_mean", 0) if speaks(run) else math.nan
    floor = run.floor if math.isnan(floor) else floor
    return (returns - floor) / (run.target - floor)
