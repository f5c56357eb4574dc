"""What held-out evaluations say of a language model besides its return, over samples: a panel a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from polobench.analysis.collection import Arm
from polobench.analysis.curves import MeanCurve, metric_curve
from polobench.report.draw.panels import Drawn, Panel
from polobench.report.draw.style import (
    GREY,
    Look,
    draw_mean,
    grid_of_axes,
    label_first_column,
    legend,
    name_figure,
    save,
    thousands,
)

_COLUMNS = 3
_ACCURACIES = {
    "heldout_accuracy": "held-out pairs", "train_accuracy": "training pairs",
    "heldout_accuracy_normalised": "held-out pairs, by token",
    "train_accuracy_normalised": "training pairs, by token",
}  # fmt: skip
_OTHERS = {
    "heldout_margin": "implicit reward margin [nats]", "heldout_kl": "KL to the reference [nats/token]",
    "heldout_entropy": "entropy [nats/token]", "heldout_completion_length": "tokens of a completion",
    "heldout_greedy_return": "greedy return",
}  # fmt: skip
Lines = list[tuple[Arm, MeanCurve]]


def draw_accuracies(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """Preference accuracy on held-out and training pairs on one scale; None if no run has it."""
    found = _lines(panel, _ACCURACIES)
    if not found:
        return None
    path = _draw(panel, found, look, folder / f"accuracy_{number}_{panel.file_part}.png", accuracy=True)
    return Drawn(path, "preferences", f"Preference accuracy over samples on {panel.task}")


def draw_policy(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """Margin, KL, entropy, length and greedy return, those that the runs have; None if they have none."""
    found = _lines(panel, _OTHERS)
    if not found:
        return None
    path = _draw(panel, found, look, folder / f"policy_{number}_{panel.file_part}.png", accuracy=False)
    return Drawn(path, "policy", f"The policy over samples on {panel.task}")


def _lines(panel: Panel, names: Mapping[str, str]) -> dict[str, Lines]:
    """The curves by the name of their panel."""
    found = {}
    for column, name in names.items():
        lines = [(arm, curve) for arm, runs in panel.arms if (curve := metric_curve(runs, column)) is not None]
        if lines:
            found[name] = lines
    return found


def _draw(panel: Panel, found: dict[str, Lines], look: Mapping[str, Look], path: Path, accuracy: bool) -> Path:
    figure, axes = grid_of_axes(len(found), _COLUMNS, (4.4, 3.1))
    for ax, (name, lines) in zip(axes, found.items(), strict=True):
        for arm, curve in lines:
            draw_mean(ax, curve, look[arm.label], len(lines))
        if accuracy:
            ax.axhline(0.5, color=GREY, linewidth=0.9, zorder=1)
        _finish(ax, name, max(float(curve.x[-1]) for _, curve in lines))
    if accuracy:
        _share_scale(axes)
    name_figure(figure, panel.title)
    legend(figure, sorted({arm.label for lines in found.values() for arm, _ in lines}), look)
    return save(figure, path)


def _finish(ax: Axes, name: str, end: float) -> None:
    ax.set_title(name)
    ax.set_xlim(0, 1.01 * end or 1)
    ax.set_xlabel("samples")
    ax.set_ylabel("")
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    thousands(ax.xaxis)


def _share_scale(axes: Sequence[Axes]) -> None:
    ends = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(float(ends[:, 0].min()), float(ends[:, 1].max()))
        label_first_column(ax, "preference accuracy")
