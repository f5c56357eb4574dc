"""What happened inside the updates: loss and KL of the runs, a panel a method.

Losses of different methods mean different things, so each has its own axis; KL shares one, in nats. Each run is a line;
of more than `_MOST_LINES` none could be followed, and a band holds the middle 90 % of the runs still going.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from polobench.analysis.columns import columns
from polobench.analysis.curves import GRID_POINTS
from polobench.analysis.statistics.intervals import Array
from polobench.core.result import RunResult
from polobench.report.draw.panels import Drawn, Panel
from polobench.report.draw.style import (
    Look,
    drawable,
    grid_of_axes,
    is_first_column,
    label_first_column,
    name_figure,
    save,
    short,
    thousands,
)

_COLUMNS = 4
_NAMES = {"loss": "loss", "kl": "KL(old, new) [nats]"}
_INK = 8  # thin lines that may lie on each other before they are drawn fainter
_MOST_LINES = 40
_LEVELS = (0.05, 0.5, 0.95)
Lines = list[tuple[RunResult, Array, Array]]  # a run, its samples and its metric


def draw_updates(panel: Panel, number: str, metric: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """One metric of one task, a small panel a method that has it; None if none has."""
    found = [(arm, lines) for arm, runs in panel.arms if (lines := _lines(runs, metric))]
    if not found:
        return None
    every = [values for _, lines in found for _, _, values in lines]
    logarithmic = metric == "kl" and min(values.min() for values in every) >= 0
    figure, axes = grid_of_axes(len(found), _COLUMNS, (3.7, 2.9))
    for ax, (arm, lines) in zip(axes, found, strict=True):
        _draw_runs(ax, lines, look[arm.label], logarithmic)
        _finish(ax, short(arm.label))
        label_first_column(ax, _NAMES[metric])
    if metric == "kl":
        _share_scale(axes, every, logarithmic)
    name_figure(figure, panel.title)
    _explain(figure, [lines for _, lines in found])
    path = save(figure, folder / f"{metric}_{number}_{panel.file_part}.png")
    return Drawn(path, "updates", f"{'Loss' if metric == 'loss' else 'KL'} over samples on {panel.task}")


def _lines(runs: Sequence[RunResult], metric: str) -> Lines:
    """The runs that have the metric; none if it never moves, as the loss of a method that learns nothing."""
    found: Lines = []
    for run in runs:
        if metric in run.updates:
            samples, values = map(drawable, columns(run.updates, "samples", metric))
            known = np.isfinite(samples) & np.isfinite(values)
            if known.sum() > 1:
                found.append((run, samples[known], values[known]))
    ends = {end for _, _, values in found for end in (values.min(), values.max())}
    return found if len(ends) > 1 else []


def _draw_runs(ax: Axes, lines: Lines, look: Look, logarithmic: bool) -> None:
    """Each run or their band, a cross where one failed, and the median of the runs still going."""
    shown = [(run, x[y > 0], y[y > 0]) for run, x, y in lines] if logarithmic else lines
    if len(lines) <= _MOST_LINES:
        ink = float(np.clip(_INK / len(lines), 0.05, 0.4))
        thin = [np.column_stack(line) for _, *line in shown]
        ax.add_collection(LineCollection(thin, colors=[look.colour], linewidths=0.9, alpha=ink))
        ax.autoscale_view()
    for run, samples, values in shown:
        if run.status != "ok" and len(values):
            ax.plot(samples[-1], values[-1], marker="X", color="black", markersize=7, linestyle="none", zorder=5)
    if len(lines) > 2:
        grid, (low, middle, high) = _quantiles(*_going(lines), _LEVELS)
        if len(lines) > _MOST_LINES:
            ax.fill_between(grid, low, high, color=look.colour, alpha=0.25, linewidth=0)
        ax.plot(grid, np.where(middle > 0, middle, np.nan) if logarithmic else middle, color=look.colour, linewidth=2.2)


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


def _finish(ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.set_xlim(left=0)
    ax.set_xlabel("samples")
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    thousands(ax.xaxis)


def _share_scale(axes: Sequence[Axes], every: Sequence[Array], logarithmic: bool) -> None:
    """One scale for all KL panels of a task, so that steps of different methods can be compared."""
    drawn = np.concatenate([values[values > 0] if logarithmic else values for values in every])
    low, high = float(drawn.min()), float(drawn.max())
    for ax in axes:
        if logarithmic:
            ax.set_yscale("log")
            ax.set_ylim(low / 1.5, high * 1.5)
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_locator(NullLocator())
        else:
            margin = 0.05 * (high - low)
            ax.set_ylim(low - margin, high + margin)
        ax.tick_params(labelleft=is_first_column(ax))


def _explain(figure: Figure, panels: Sequence[Lines]) -> None:
    """A legend of what was drawn."""
    sizes = [len(lines) for lines in panels]
    marks: list[Artist] = []
    if min(sizes) <= _MOST_LINES:
        marks.append(Line2D([], [], color="black", linewidth=0.9, alpha=0.5, label="a run"))
    if max(sizes) > _MOST_LINES:
        marks.append(Patch(color="black", alpha=0.25, linewidth=0, label="nine in ten of the runs still going"))
    marks.append(Line2D([], [], color="black", linewidth=2.2, label="median of the runs still going"))
    if any(run.status != "ok" for lines in panels for run, *_ in lines):
        marks.append(Line2D([], [], color="black", marker="X", markersize=7, linestyle="none", label="the run failed"))
    width = max(1, int(figure.get_figwidth() // 2.6))
    figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), width), frameon=False)
