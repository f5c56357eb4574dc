"""Reading the tables of ten thousand results without making ten thousand columns of pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from polobench.analysis.statistics.intervals import Array


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
