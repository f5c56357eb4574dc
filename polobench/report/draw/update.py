"""What happened inside the updates: loss and KL of the runs, a panel per arm.

Losses of different methods mean different things, so each has its own axis; KL shares one, in nats. A band holds the
middle 90 % of the runs that are still going.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from polobench.analysis.columns import columns
from polobench.analysis.curves import GRID_POINTS
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.summary import moves
from polobench.core.result import RunResult
from polobench.report.draw.panels import Drawn, Panel
from polobench.report.draw.style import (
    Look,
    count_axis,
    drawable,
    grid_of_axes,
    is_first_column,
    label_first_column,
    log_ticks,
    name_figure,
    name_panel,
    save,
)

_COLUMNS = 4
_NAMES = {"loss": "loss", "kl": "KL(old, new) [nats]"}
_LEVELS = (0.05, 0.5, 0.95)
Lines = list[tuple[RunResult, Array, Array]]  # a run, its samples and its metric


@dataclass(frozen=True)
class Updates:
    """What a panel shows of an arm: the band's ends and the median of its runs `[3, K]` over samples `[K]`."""

    name: str
    look: Look
    runs: Lines
    samples: Array
    levels: Array


def draw_updates(panel: Panel, number: str, metric: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """One metric of one task, a small panel per arm that has it; None if none has."""
    found = updates_of(panel, metric, look)
    if not found:
        return None
    every = np.concatenate([values for item in found for _, _, values in item.runs])
    logarithmic = metric == "kl" and every.min() >= 0 and every.max() > 0
    figure, axes = grid_of_axes(len(found), _COLUMNS, (3.7, 2.9))
    for ax, item in zip(axes, found, strict=True):
        _draw_arm(ax, item, logarithmic)
        name_panel(ax, item.name)
        count_axis(ax, max(float(samples[-1]) for _, samples, _ in item.runs))
        label_first_column(ax, _NAMES[metric])
    if metric == "kl":
        _share_scale(axes, every[every > 0] if logarithmic else every, logarithmic)
    name_figure(figure, panel.title)
    _explain(figure, found)
    path = save(figure, folder / f"{metric}_{number}_{panel.file_part}.png")
    return Drawn(path, "updates", f"{'Loss' if metric == 'loss' else 'KL'} over samples on {panel.task}")


def updates_of(panel: Panel, metric: str, look: Mapping[str, Look]) -> list[Updates]:
    """The arms whose metric moves by more than noise."""
    return [
        Updates(panel.name(arm), look[arm.label], lines, *_quantiles(*_going(lines), _LEVELS))
        for arm, runs in panel.arms
        if (lines := _lines(runs, metric))
    ]


def _lines(runs: Sequence[RunResult], metric: str) -> Lines:
    """The runs that have the metric; none if it never moves, as the loss of a method that learns nothing."""
    found: Lines = []
    for run in runs:
        if metric in run.updates:
            samples, values = map(drawable, columns(run.updates, "samples", metric))
            known = np.isfinite(samples) & np.isfinite(values)
            if known.sum() > 1:
                found.append((run, samples[known], values[known]))
    every = np.concatenate([np.empty(0), *(values for _, _, values in found)])
    return found if len(every) and (moves(every) if metric == "loss" else np.ptp(every) > 0) else []


def _draw_arm(ax: Axes, item: Updates, logarithmic: bool) -> None:
    """The median, the band and a cross where a run failed; a logarithm shows no 0."""
    low, middle, high = np.where(item.levels > 0, item.levels, np.nan) if logarithmic else item.levels
    ax.fill_between(item.samples, low, high, color=item.look.colour, alpha=0.3, linewidth=0)
    ax.plot(item.samples, middle, color=item.look.colour, linewidth=2)
    shown = [(run, y > 0 if logarithmic else np.full(len(y), True), x, y) for run, x, y in item.runs]
    ends = [(x[known][-1], y[known][-1]) for run, known, x, y in shown if run.status != "ok" and known.any()]
    if ends:
        ax.plot(*zip(*ends, strict=True), marker="X", color="black", markersize=7, linestyle="none", zorder=5)


def _going(lines: Lines) -> tuple[Array, Array]:
    """A grid of samples `[G]` and the runs on it `[n, G]`, each NaN where it has not begun or has ended."""
    grid = np.linspace(0, max(samples.max() for _, samples, _ in lines), GRID_POINTS)
    return grid, np.stack([np.interp(grid, samples, values, np.nan, np.nan) for _, samples, values in lines])


def _quantiles(grid: Array, curves: Array, levels: Sequence[float]) -> tuple[Array, Array]:
    """Quantiles over the runs that have a value, where at least half of them do: of one or two they would jump.

    Returns:
        The places that are left, `[K]`, and each level there, `[levels, K]`.
    """
    ordered = np.sort(curves, axis=0)  # NaN last
    counts = len(curves) - np.isnan(ordered).sum(axis=0)
    known = np.flatnonzero(counts >= 0.5 * len(curves))
    places = np.outer(levels, counts[known] - 1)
    low, high = (ordered[np.asarray(end(places), dtype=np.intp), known] for end in (np.floor, np.ceil))
    return grid[known], low + (places - np.floor(places)) * (high - low)


def _share_scale(axes: Sequence[Axes], drawn: Array, logarithmic: bool) -> None:
    """One scale for all KL panels of a task, so that steps of different methods can be compared."""
    low, high = float(drawn.min()), float(drawn.max())
    for ax in axes:
        if logarithmic:
            ax.set_yscale("log")
            ax.set_ylim(low / 1.5, high * 1.5)
            log_ticks(ax.yaxis, low, high)
        else:
            margin = 0.05 * (high - low)
            ax.set_ylim(low - margin, high + margin)
        ax.tick_params(labelleft=is_first_column(ax))


def _explain(figure: Figure, found: Sequence[Updates]) -> None:
    """A legend of what was drawn."""
    several = any(len(item.runs) > 1 for item in found)
    marks: list[Artist] = [Line2D([], [], color="black", linewidth=2, label="median" if several else "one run")]
    if several:
        marks.append(Patch(color="black", alpha=0.3, linewidth=0, label="middle 90 % of runs"))
    if any(run.status != "ok" for item in found for run, *_ in item.runs):
        marks.append(Line2D([], [], color="black", marker="X", markersize=7, linestyle="none", label="run failed"))
    columns = max(1, int(figure.get_figwidth() // 2.1))
    figure.set_figheight(figure.get_figheight() + 0.23 * (-(-len(marks) // columns) - 1))
    figure.legend(handles=marks, loc="outside lower center", ncols=columns, frameon=False)
