"""What it cost to find the tuned values that a store's arms ran with: the trials, which ship with the package.

`methods/tuning_trials.csv` is the tuning.csv of `polobench tune`, a row a trial; `table` in run/tuning.py names its
columns.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from polobench.analysis.collection import Collection


@cache
def shipped_trials() -> pd.DataFrame:
    """Every trial behind `methods/tuned.toml` that was made by `polobench tune`; empty if there are none."""
    file = resources.files("polobench.methods").joinpath("tuning_trials.csv")
    if not file.is_file():
        return pd.DataFrame()
    with file.open(encoding="utf-8") as text:
        return pd.read_csv(text)


def tuning_frame(collection: Collection) -> pd.DataFrame:
    """The shipped trials of those methods and tasks whose arm ran with the chosen values, in the shipped order."""
    trials = shipped_trials()
    if trials.empty:
        return trials
    kept = {
        (row["method"], row["task"])
        for row in trials[trials["chosen"]].to_dict("records")
        if _ran_with(collection, row["method"], row["task"], json.loads(row["values"]))
    }
    return trials[[pair in kept for pair in zip(trials["method"], trials["task"], strict=True)]]


def _ran_with(collection: Collection, method: str, task: str, values: dict[str, Any]) -> bool:
    """Whether every run of the method under its own name on the task had these values."""
    runs = [
        run
        for arm, cells in collection.of_kind("learning").items()
        if (arm.method, arm.label, arm.task) == (method, method, task)
        for run in cells
    ]
    return bool(runs) and all(run.hyperparameters.get(name) == value for run in runs for name, value in values.items())
