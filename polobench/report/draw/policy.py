"""What held-out evaluations say of a language model besides its return, over samples: a panel per number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from polobench.analysis.curves import metric_curve
from polobench.report.draw.lines import Line, draw_lines, name_ends
from polobench.report.draw.panels import Drawn, Panel, parts_of
from polobench.report.draw.style import (
    Look,
    count_axis,
    grid_of_axes,
    name_figure,
    name_panel,
    round_ticks,
    save,
    share_y,
)

_COLUMNS = 3
_SIZE = (4.9, 3.1)
_ACCURACIES = {
    "heldout_accuracy": "held-out pairs", "train_accuracy": "training pairs",
    "heldout_accuracy_normalised": "held-out pairs, per token",
    "train_accuracy_normalised": "training pairs, per token",
}  # fmt: skip
_OTHERS = {
    "heldout_margin": "implicit reward margin [nats]", "heldout_kl": "KL to the reference [nats per token]",
    "heldout_entropy": "entropy [nats per token]", "heldout_completion_length": "tokens per completion",
    "heldout_greedy_return": "greedy return",
}  # fmt: skip
_CHANCE = {"chance": 0.5}
_NEAR_CHANCE = 0.6  # from an accuracy up to it, the panel shows chance
_SAME = 1e-9
Numbers = dict[str, list[Line]]  # lines by the name of what they show


def draw_accuracies(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """Preference accuracy on held-out and training pairs on one scale; None if no run has it."""
    found = metric_lines(panel, _ACCURACIES, look)
    for name in ("held-out pairs", "training pairs"):
        if name in found and _same(found[name], found.get(f"{name}, per token", [])):
            del found[f"{name}, per token"]
    if not found:
        return None
    lowest = min(float(np.nanmin(line.y, initial=1.0)) for lines in found.values() for line in lines)
    levels = _CHANCE if lowest <= _NEAR_CHANCE else {}
    path = _draw(panel, found, folder / f"accuracy_{number}_{panel.file_part}.png", levels, "preference accuracy")
    return Drawn(path, "preferences", f"Preference accuracy over samples on {panel.task}")


def draw_policy(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """Margin, KL, entropy, length and greedy return, those that the runs have; None if they have none."""
    found = metric_lines(panel, _OTHERS, look)
    if not found:
        return None
    path = _draw(panel, found, folder / f"policy_{number}_{panel.file_part}.png", {}, "")
    return Drawn(path, "policy", f"The policy over samples on {panel.task}")


def metric_lines(panel: Panel, names: Mapping[str, str], look: Mapping[str, Look]) -> Numbers:
    """What the figure shows; a metric that no run has is left out."""
    found = {
        name: [
            Line.of(panel.name(arm), look[arm.label], curve)
            for arm, runs in panel.arms
            if (curve := metric_curve(runs, column)) is not None
        ]
        for column, name in names.items()
    }
    return {name: lines for name, lines in found.items() if lines}


def _same(one: list[Line], two: list[Line]) -> bool:
    """Whether responses have one length, so that numbers per token order the pairs as the others do."""
    return len(one) == len(two) and all(
        np.allclose(line.y, other.y, 0, _SAME, equal_nan=True) for line, other in zip(one, two, strict=True)
    )


def _draw(panel: Panel, found: Numbers, path: Path, levels: Mapping[str, float], y_name: str) -> Path:
    """One scale for all panels if the axis has a name, else for the parts of each number."""
    parts = [
        (name, part, shown)
        for name, lines in found.items()
        for part, shown in parts_of(lines, lambda line: (line.name, line.look.family))
    ]
    figure, axes = grid_of_axes(len(parts), _COLUMNS, _SIZE)
    for ax, (name, part, lines) in zip(axes, parts, strict=True):
        draw_lines(ax, lines, levels)
        name_panel(ax, f"{name} ({part})" if part else name)
        count_axis(ax, max(float(line.x[-1]) for line in lines))
        ax.set_ylabel(y_name)
        round_ticks(ax.yaxis, 6)
    share_y([(ax, y_name or name) for ax, (name, _, _) in zip(axes, parts, strict=True)])
    for ax, (_, _, lines) in zip(axes, parts, strict=True):
        name_ends(ax, lines, _SIZE, levels)
    name_figure(figure, panel.title)
    return save(figure, path)
