"""Hyper-parameters, and what it cost to find them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from polobench.report.blocks import Block, Bullets, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, number, runs_of

TUNING_NOTE = (
    "Before these runs, each method was tuned on each task: {trials} trials on seed {seeds}, which is no evaluation "
    "seed, with {budget} samples each. The objective is the mean score over the second half of a trial's budget. Trial "
    "0 is the given start, and the bold trial was chosen. tables/tuning.csv has every value."
)
Variants = dict[tuple[str, str, str], dict[str, str]]  # by label, task and the values as text


def sections(findings: Findings) -> list[Section]:
    """For each method: the values that all its arms share, and a table of those that differ."""
    blocks: list[Block] = []
    for method, variants in sorted(_variants(findings).items()):
        blocks += _method(method, variants)
    return [Section("Hyper-parameters", blocks)] if blocks else []


def _variants(findings: Findings) -> dict[str, Variants]:
    found: dict[str, Variants] = {}
    for arm, runs in findings.collection.arms.items():
        rows = found.setdefault(arm.method, {})
        for item in {_key(run.hyperparameters): run.hyperparameters for run in runs}.values():
            values = {name: _value(value) for name, value in item.items()}
            rows.setdefault((arm.label, arm.task, _key(values)), values)
    return found


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
        (arm.label, ", ".join(f"{name} = {_value(value)}" for name, value in sorted(run.hyperparameters.items())))
        for arm, runs in findings.collection.of_kind("learning").items()
        if arm.task == task
        for run in runs
    }
    return [Bullets([[Strong(label), f": {values}"] for label, values in sorted(rows)])]


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _value(value: Any) -> str:
    return json.dumps(value, default=str)


def tuning_sections(findings: Findings) -> list[Section]:
    """A row per method and task with the objective of each of its trials; empty where nothing is known."""
    trials = findings.trials
    if trials.empty:
        return []
    counts = runs_of(trials.groupby(["task", "method"]).size().tolist())
    budgets = " or ".join(number(budget) for budget in sorted(set(trials["budget_samples"].tolist())))
    note = TUNING_NOTE.format(trials=counts, seeds=runs_of(trials["seed"].tolist()), budget=budgets)
    most = int(trials["trial"].max()) + 1
    rows: Sequence[list[Text]] = [_row(group, most) for _, group in trials.groupby(["task", "method"], sort=True)]
    headers = ["task", "method", "trials", "samples", "CPU s", *(f"trial {index}" for index in range(most))]
    table = Table(headers, rows, "ll" + "r" * (len(headers) - 2))
    return [Section("Tuning", [Paragraph(note), *compact(table, 2)], {"tuning": trials})]


def _row(trials: pd.DataFrame, most: int) -> list[Text]:
    first = trials.iloc[0]
    outcomes: list[Text] = [""] * most
    for trial in trials.to_dict("records"):
        said = number(trial["objective"], 2) if trial["status"] == "ok" else str(trial["status"])
        outcomes[trial["trial"]] = Strong(said) if trial["chosen"] else said
    sums = [number(trials["samples"].sum()), number(trials["cpu_seconds"].sum(), 1)]
    return [str(first["task"]), str(first["method"]), str(len(trials)), *sums, *outcomes]
