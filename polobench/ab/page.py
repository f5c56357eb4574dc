"""What `polobench ab` prints: a page of Markdown, or JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from polobench.ab.sides import Side
from polobench.ab.speed import CONFIDENCE, SLOWER, SMALLEST_SLOWDOWN, CellSpeed, Ratio
from polobench.core.printable import printable

_COLUMNS = ("cell", "part", "seconds, base", "seconds, head", f"head / base [{CONFIDENCE:.1%}]", "seen from", "verdict")
_NOTHING = "–"


def headline(cells: Sequence[CellSpeed]) -> str:
    """The answer in one line."""
    bad = [cell for cell in cells if cell.regression]
    if not bad:
        compared = sum(bool(cell.parts) for cell in cells)
        return f"No regression of speed seen in {compared} of {len(cells)} cells."
    return f"Regression: {', '.join(f'{_plain(cell.cell)} is {cell.verdict}' for cell in bad)}."


def page(base: Side, head: Side, cells: Sequence[CellSpeed]) -> str:
    """The whole report."""
    rows = [row for cell in cells for row in _rows(cell)]
    notes = (
        "Seconds are medians of single iterations, taken in turn. A part counts as slower if its whole interval lies "
        f"above {1 + SMALLEST_SLOWDOWN:g}; a true ratio above *seen from* would be called slower at least 8 times in "
        "10. CPU seconds do not count waiting for a core, a disk or a network."
    )
    named = [f"{_plain(side.ref)} ({side.commit[:10]})" for side in (base, head)]
    lines = ["# Speed", "", f"Base {named[0]}, head {named[1]}.", "", f"**{headline(cells)}**", ""]
    return "\n".join([*lines, tabulate(rows, _COLUMNS, "pipe", disable_numparse=True), "", notes, ""])


def as_json(base: Side, head: Side, cells: Sequence[CellSpeed], seconds: Sequence[Any]) -> dict[str, Any]:
    """All numbers as data, with the seconds of each cell by part, `[blocks][pairs][2]`; what is not known is null."""
    parts = [
        {name: {key: _finite(value) for key, value in asdict(part).items()} | {"verdict": part.verdict}
         for name, part in cell.parts.items()}
        for cell in cells
    ]  # fmt: skip
    return {
        **{name: {"ref": side.ref, "commit": side.commit} for name, side in (("base", base), ("head", head))},
        "regression": any(cell.regression for cell in cells),
        "cells": [asdict(cell) | {"parts": part, "seconds": raw} for cell, part, raw in zip(cells, parts, seconds)],
    }


def _rows(cell: CellSpeed) -> list[list[str]]:
    if not cell.parts:
        return [[_plain(cell.cell), "", "", "", "", "", f"{cell.verdict}: {_plain(cell.reason)}"]]
    return [
        [
            _plain(cell.cell) if number == 0 else "",
            f"{name}, {cell.clock}",
            f"{part.base_seconds:.4g}",
            f"{part.head_seconds:.4g}",
            f"{part.value:.3f} {_interval(part)}",
            f"{part.detectable:.3f}" if math.isfinite(part.detectable) else _NOTHING,
            f"**{part.verdict}**" if part.verdict == SLOWER else part.verdict,
        ]
        for number, (name, part) in enumerate(cell.parts.items())
    ]


def _interval(part: Ratio) -> str:
    counts = f"{part.pairs} pairs in {part.blocks} blocks"
    if not math.isfinite(part.high):
        return f"no interval, {counts}: more seconds are needed"
    return f"[{part.low:.3f}, {part.high:.3f}], {counts}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(text: str) -> str:
    """One line that no table breaks on: names come from studies, reasons from plug-ins."""
    return " ".join(printable(text).replace("|", "&#124;").split())
