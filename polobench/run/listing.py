"""What `polobench list` shows: one row a name, with its source and, if it cannot be used, the reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from polobench.core.errors import PoloError
from polobench.run.study import load_study

Row = dict[str, Any]


def rows(kind: str, folder: Path = Path("studies")) -> list[Row]:
    """Rows with `name`, `source`, `reason` (empty if usable) and what else is known of the kind.

    Only this loads plug-ins, and with them torch: whether one is broken shows when it is loaded.
    """
    if kind == "studies":
        return [_study(path) for path in sorted(folder.glob("*.toml"))]
    if kind == "devices":
        from polobench.core.device import DEVICES, reason_absent

        return [{"name": name, "source": "torch", "reason": reason_absent(name) or ""} for name in DEVICES]
    from polobench.registry import METHODS, TASKS, listings

    if kind == "methods":
        return [_method(row) for row in listings(METHODS)]
    return [_task(row) for row in listings(TASKS)]


def _study(path: Path) -> Row:
    row: Row = {"name": path.stem, "source": str(path), "reason": ""}
    try:
        study = load_study(path)
    except PoloError as error:
        return row | {"reason": str(error)}
    return row | {"about": study.title, "cells": len(study.cells)}


def _method(listing: Any) -> Row:
    from polobench.core.hyperparameters import describe
    from polobench.registry import method_class

    row: Row = {"name": listing.name, "source": listing.source, "reason": listing.reason}
    if listing.reason:
        return row
    found = method_class(listing.name)
    about = (found.__doc__ or "").strip().partition("\n")[0]
    return row | {"about": about, "hyperparameters": describe(found.Hyperparameters)}


def _task(listing: Any) -> Row:
    from polobench.registry import find_task

    row: Row = {"name": listing.name, "source": listing.source, "reason": listing.reason}
    if listing.reason:
        return row
    task = find_task(listing.name)
    floor = None if math.isnan(task.floor) else task.floor  # what no file states is measured when a run begins
    shown = "measured" if floor is None else f"{floor:g}"
    about = f"{task.unit}; floor {shown}, target {'none' if task.target is None else f'{task.target:g}'}"
    return row | {"about": about, "unit": task.unit, "floor": floor, "target": task.target}
