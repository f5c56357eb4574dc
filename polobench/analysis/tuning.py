"""What it cost to find the tuned values that a store's arms ran with: the trials, which ship with the package.

`methods/tuning_trials.csv` is the tuning.csv of `polobench tune`, one row per trial; `table` in run/tuning.py names
its columns.
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
    """Every trial behind `methods/tuned.toml` that was made by `polobench tune`."""
    with resources.files("polobench.methods").joinpath("tuning_trials.csv").open(encoding="utf-8") as text:
        return pd.read_csv(text)


def tuning_frame(collection: Collection) -> pd.DataFrame:
    """The shipped trials of those methods and tasks whose every run had the chosen values, in the shipped order."""
    trials = shipped_trials()
    ran: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for arm, runs in collection.of_kind("learning").items():
        if arm.label == arm.method:
            ran.setdefault((arm.method, arm.task), []).extend(run.hyperparameters for run in runs)
    chosen = trials[trials["chosen"]]
    kept = {
        (method, task)
        for method, task, values in zip(chosen["method"], chosen["task"], chosen["values"], strict=True)
        if (found := ran.get((method, task))) and all(json.loads(values).items() <= item.items() for item in found)
    }
    return trials[[pair in kept for pair in zip(trials["method"], trials["task"], strict=True)]]
