"""Reading the tables of ten thousand results without making ten thousand columns of pandas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from polobench.analysis.statistics.intervals import Array
from polobench.core.result import RunResult


def column(table: pd.DataFrame, name: str) -> Array:
    """A column of `curve` or `updates` as floats, `[rows]`, only to be read.

    Raises:
        KeyError: there is no such column.
    """
    return columns(table, name)[0]


def columns(table: pd.DataFrame, *names: str) -> list[Array]:
    """Columns of `curve` or `updates` as floats, `[rows]` each, only to be read.

    Where all columns are floats, as in a store they are, it costs a tenth of `table[name].to_numpy()`.

    Raises:
        KeyError: there is no such column.
    """
    values = table.to_numpy()
    if values.dtype != np.float64:
        return [table[name].to_numpy(dtype=np.float64) for name in names]
    return [values[:, table.columns.get_loc(name)] for name in names]


def last_of(run: RunResult, name: str) -> float:
    """The last known number of a column of a run's curve; NaN without one."""
    return _known_of(run, name, -1)


def first_of(run: RunResult, name: str) -> float:
    """The first known number of a column of a run's curve; NaN without one."""
    return _known_of(run, name, 0)


def _known_of(run: RunResult, name: str, place: int) -> float:
    if name not in run.curve:
        return math.nan
    values = column(run.curve, name)
    known = values[~np.isnan(values)]
    return float(known[place]) if len(known) else math.nan
