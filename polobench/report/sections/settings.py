"""Hyper-parameters, and what it cost to find them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from polobench.report.blocks import Block, Bullets, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, number, runs_of
from polobench.report.words import note

Variants = dict[tuple[str, str, tuple[tuple[str, str], ...]], dict[str, str]]  # by label, task and the values


def sections(findings: Findings) -> list[Section]:
    """For each method: the values that all its arms share, and a table of those that differ."""
    found: dict[str, Variants] = {}
    for arm, runs in findings.collection.arms.items():
        for values in map(_values, (run.hyperparameters for run in runs)):
            found.setdefault(arm.method, {})[arm.label, arm.task, tuple(values.items())] = values
    blocks = [block for method, variants in sorted(found.items()) for block in _method(method, variants)]
    return [Section("Hyper-parameters", blocks)] if blocks else []


def _method(method: str, variants: Variants) -> list[Block]:
    names = sorted({name for values in variants.values() for name in values})
    known = {name: {values.get(name, NOTHING) for values in variants.values()} for name in names}
    shared = ", ".join(f"{name} = {next(iter(known[name]))}" for name in names if len(known[name]) == 1)
    said = Paragraph([Strong(method), f": {shared or 'no value in common'}."])
    differing = [name for name in names if len(known[name]) > 1]
    if not differing:
        return [said]
    rows = [
        [label, task, *(values.get(name, NOTHING) for name in differing)]
        for (label, task, _), values in sorted(variants.items())
    ]
    return [said, Table(["label", "task", *differing], rows, "ll" + "r" * len(differing))]


def settings_blocks(findings: Findings, task: str) -> list[Block]:
    """The values of every method on one task, a row each."""
    rows = {
        (arm.label, ", ".join(f"{name} = {value}" for name, value in _values(run.hyperparameters).items()))
        for arm, runs in findings.collection.of_kind("learning").items()
        if arm.task == task
        for run in runs
    }
    return [Bullets([[Strong(label), f": {values}"] for label, values in sorted(rows)])]


def _values(hyperparameters: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, default=str) for name, value in sorted(hyperparameters.items())}


def tuning_sections(findings: Findings) -> list[Section]:
    """A row per method and task with the objective of each of its trials; empty where nothing is known."""
    trials = findings.trials
    if trials.empty:
        return []
    arms = trials.groupby(["task", "method"], sort=True)
    said = note(
        "tuning",
        trials=runs_of(arms.size()),
        seeds=runs_of(trials["seed"]),
        budget=" or ".join(number(budget) for budget in sorted(trials["budget_samples"].unique())),
    )
    most = int(trials["trial"].max()) + 1
    table = Table.of([_row(group, most) for _, group in arms], "ll" + "r" * (3 + most))
    return [Section("Tuning", [Paragraph(said), *compact(table, 2)], {"tuning": trials})]


def _row(trials: pd.DataFrame, most: int) -> dict[str, Text]:
    first = trials.iloc[0]
    row: dict[str, Text] = {
        "task": str(first["task"]),
        "method": str(first["method"]),
        "trials": str(len(trials)),
        "samples": number(trials["samples"].sum()),
        "CPU s": number(trials["cpu_seconds"].sum(), 1),
    }
    row |= {f"trial {index}": "" for index in range(most)}
    for trial in trials.to_dict("records"):
        said = number(trial["objective"], 2) if trial["status"] == "ok" else str(trial["status"])
        row[f"trial {trial['trial']}"] = Strong(said) if trial["chosen"] else said
    return row
