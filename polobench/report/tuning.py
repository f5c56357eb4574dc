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
from polobench.report.tables import TextTable
from polobench.report.text import escape, number, runs_of

NOTE = (
    "Before these runs, each method was tuned on each task: {trials} trials on seed {seeds}, which is no evaluation "
    "seed, with a budget of {budget} samples each. The objective is the mean score over the evaluations in the second "
    "half of a trial's budget; trial 0 is the given start, the **bold** one was chosen, and one that failed is named "
    "by how it ended. CPU seconds are of training. The values of every trial are in tables/tuning.csv."
)


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


def tuning_section(collection: Collection) -> str:
    """What tuning cost, a row a method and task with the objective of each of its trials; empty if nothing is known."""
    trials = tuning_frame(collection)
    if trials.empty:
        return ""
    counts = runs_of(trials.groupby(["task", "method"]).size().tolist())
    budgets = " or ".join(number(budget) for budget in sorted(set(trials["budget_samples"].tolist())))
    note = NOTE.format(trials=counts, seeds=runs_of(trials["seed"].tolist()), budget=budgets)
    most = int(trials["trial"].max()) + 1
    rows = [_row(group, most) for _, group in trials.groupby(["task", "method"], sort=True)]
    headers = ["task", "method", "trials", "samples", "CPU s", *(f"trial {index}" for index in range(most))]
    return f"{note}\n\n{TextTable(headers, rows, 'll' + 'r' * (len(headers) - 2)).markdown()}"


def _row(trials: pd.DataFrame, most: int) -> list[str]:
    first, outcomes = trials.iloc[0], [""] * most
    for trial in trials.to_dict("records"):
        said = number(trial["objective"], 2) if trial["status"] == "ok" else escape(trial["status"])
        outcomes[trial["trial"]] = f"**{said}**" if trial["chosen"] else said
    sums = [number(trials["samples"].sum()), number(trials["cpu_seconds"].sum(), 1)]
    return [escape(first["task"]), escape(first["method"]), str(len(trials)), *sums, *outcomes]
