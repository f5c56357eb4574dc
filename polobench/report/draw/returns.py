"""Learning curves: the held-out return over samples and over seconds, with a band over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from polobench.analysis.curves import mean_curve
from polobench.report.draw.panels import Drawn, Panel
from polobench.report.draw.style import (
    GREY,
    LARGEST_DRAWN,
    Look,
    draw_mean,
    grid_of_axes,
    legend,
    name_panel,
    save,
    thousands,
)
from polobench.report.text import decimals_for, number, plain
from polobench.store.identity import age

_AXES = {"samples": "samples", "wall_seconds": "wall seconds of training", "cpu_seconds": "CPU seconds of training"}
_COLUMNS = 3


def draw_returns(
    page: Sequence[Panel], number_of_page: int, over_seconds: bool, look: Mapping[str, Look], folder: Path
) -> Drawn:
    """One page of panels over samples or over seconds."""
    figure, axes = grid_of_axes(len(page), _COLUMNS, (4.6, 3.5))
    for ax, panel in zip(axes, page, strict=True):
        axis = panel.seconds if over_seconds else "samples"
        curves = [(look[arm.label], mean_curve(runs, axis)) for arm, runs in panel.arms]
        for drawn, curve in curves:
            draw_mean(ax, curve, drawn, len(curves))
        _draw_references(ax, panel)
        _finish(ax, panel, axis, max(float(curve.x[-1]) for _, curve in curves))
    labels = sorted({arm.label for panel in page for arm, _ in panel.arms})
    legend(figure, labels, look)
    what = "seconds" if over_seconds else "samples"
    path = save(figure, folder / f"returns_over_{what}_{number_of_page}.png")
    return Drawn(path, "returns", f"Held-out return over {what}")


def _finish(ax: Axes, panel: Panel, axis: str, end: float) -> None:
    unit = plain(panel.arms[0][1][0].unit)
    name_panel(ax, panel.title)
    ax.set_xlim(0, 1.01 * end or 1)
    ax.set_xlabel(_AXES[axis])
    ax.set_ylabel(_y_name(unit))
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if axis == "samples":
        thousands(ax.xaxis)


def _y_name(unit: str) -> str:
    """The unit alone where it says what it is; a long one would be longer than the axis."""
    if unit.startswith("held-out ") and len(unit) <= 36:
        return unit
    return "held-out return" if len(unit) > 24 or not unit else f"held-out return [{unit}]"


def _draw_references(ax: Axes, panel: Panel) -> None:
    """Target and floor as thin lines, named beside the panel where no curve runs."""
    newest = max((run for _, runs in panel.arms for run in runs), key=age)
    decimals = decimals_for(newest.floor, newest.target, [newest.floor])
    for name, value in (("target", newest.target), ("floor", newest.floor)):
        if value is not None and abs(value) < LARGEST_DRAWN:
            ax.axhline(value, color=GREY, linewidth=0.9, zorder=1)
            shown = number(value, decimals)
            text = f"{name}\n{shown.rstrip('0').rstrip('.') if '.' in shown else shown}"
            ax.annotate(
                text, (1.01, value), xycoords=("axes fraction", "data"), color=GREY, fontsize=9.5, va="center",
                annotation_clip=False,
            )  # fmt: skip
