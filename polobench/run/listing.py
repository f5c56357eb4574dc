"""What `polobench list` shows: one row a name, with its source and, if it cannot be used, the reason."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polobench.core.errors import PoloError
from polobench.run.library import BUILT_IN, studies
from polobench.run.study import load_study, read_toml

Row = dict[str, Any]


def rows(kind: str) -> list[Row]:
    """Rows with `name`, `source`, `reason` (empty if usable) and what else is known of the kind.

    Only this loads plug-ins, and with them torch: whether one is broken shows when it is loaded.
    """
    if kind == "studies":
        return [_study(name, path) for name, path in studies().items()]
    if kind == "devices":
        from polobench.core.device import DEVICES, reason_absent

        return [{"name": name, "source": "torch", "reason": reason_absent(name) or ""} for name in DEVICES]
    from polobench.registry import METHODS, TASKS, listings

    group, described = (METHODS, _method) if kind == "methods" else (TASKS, _task)
    return [asdict(row) | ({} if row.reason else described(row.name)) for row in listings(group)]


def _study(name: str, path: Path) -> Row:
    """A study with its title and cells; of a tuning file, which is no study, the title says what runs it."""
    source = "built in" if path.is_relative_to(BUILT_IN) else str(path)
    row: Row = {"name": name, "source": source, "path": str(path), "reason": ""}
    try:
        text = read_toml(path, "study")
        if "space" in text:
            return row | {"about": f"{text.get('title', '')} (`polobench tune {name}`)"}
        study = load_study(path)
    except PoloError as error:
        return row | {"reason": str(error)}
    return row | {"about": study.title, "cells": len(study.cells)}


def _method(name: str) -> Row:
    from polobench.core.hyperparameters import describe
    from polobench.registry import method_class

    found = method_class(name)
    about = (found.__doc__ or "").strip().partition("\n")[0]
    return {"about": about, "hyperparameters": describe(found.Hyperparameters)}


def _task(name: str) -> Row:
    from polobench.registry import find_task

    task = find_task(name)
    floor = None if math.isnan(task.floor) else task.floor  # what no file states is measured when a run begins
    shown = "measured" if floor is None else f"{floor:g}"
    about = f"{task.unit}; floor {shown}, target {'none' if task.target is None else f'{task.target:g}'}"
    return {"about": about, "unit": task.unit, "floor": floor, "target": task.target}
