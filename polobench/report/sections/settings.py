"""Hyper-parameters."""

from __future__ import annotations

import json
from typing import Any

from polobench.report.blocks import Block, Bullets, Strong
from polobench.report.findings import Findings


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
