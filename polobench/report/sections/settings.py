"""Hyper-parameters."""

from __future__ import annotations

import json
from typing import Any

from polobench.report.blocks import Block, Bullets, Paragraph, Section, Strong, Table
from polobench.report.findings import Findings
from polobench.report.text import NOTHING

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
