"""How training moved the log-probabilities of preference pairs, a panel a method; and how its losses are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter1d

from polobench.analysis.collection import Arm
from polobench.analysis.preferences import Pairs, has_after, pooled_pairs
from polobench.analysis.statistics.intervals import Array
from polobench.core.result import RunResult
from polobench.report.draw.panels import Drawn, Panel
from polobench.report.draw.style import (
    GREY,
    Look,
    drawable,
    grid_of_axes,
    label_first_column,
    name_figure,
    save,
    short,
    typical_range,
)

PAIR_SET = "heldout"
_COLUMNS = 4
_SIZE = (3.7, 3.1)
_BINS = (6, 24)
_GRID = 512
_NATS = 1.0  # no axis of log-probabilities is shorter
_INK = 60  # points that may lie on each other before they are drawn fainter
_KINDS = (("chosen", "o", 0), ("rejected", "^", 3))  # name, marker, place in the colour-blind palette
_DASHES: tuple[Any, ...] = ((0, (4, 1.5)), "-")  # before, after
Found = list[tuple[Arm, int, Pairs]]


def draw_shift(panel: Panel, number: str, folder: Path) -> Drawn | None:
    """Each pair's log-probabilities before against after; None if no run knows both."""
    found = _pairs(panel)
    if not found:
        return None
    figure, axes = grid_of_axes(len(found), _COLUMNS, _SIZE)
    for ax, (arm, runs, pairs) in zip(axes, found, strict=True):
        _draw_points(ax, pairs)
        _finish(ax, arm, runs, "log-probability before [nats]", "after [nats]")
    name_figure(figure, panel.title)
    handles = [
        Line2D([], [], color=_colour(place), marker=marker, markersize=7, linestyle="none", label=name)
        for name, marker, place in _KINDS
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=1, label="unchanged"))
    _explain(figure, handles)
    path = save(figure, folder / f"shift_{number}_{panel.file_part}.png")
    return Drawn(path, "preferences", f"Log-probabilities before and after, pair by pair, on {panel.task}")


def draw_distributions(panel: Panel, number: str, folder: Path) -> Drawn | None:
    """How the same log-probabilities are spread before and after; None if no run knows both."""
    found = _pairs(panel)
    if not found:
        return None
    figure, axes = grid_of_axes(len(found), _COLUMNS, _SIZE)
    for ax, (arm, runs, pairs) in zip(axes, found, strict=True):
        _draw_spread(ax, pairs)
        _finish(ax, arm, runs, "log-probability [nats]", "density of the pairs")
    name_figure(figure, panel.title)
    handles = [
        Line2D([], [], color=_colour(place), linestyle=dashes, linewidth=2, label=f"{name} {when}")
        for name, _, place in _KINDS
        for when, dashes in zip(("before", "after"), _DASHES, strict=True)
    ]
    _explain(figure, handles)
    path = save(figure, folder / f"spread_{number}_{panel.file_part}.png")
    return Drawn(path, "preferences", f"How log-probabilities are spread before and after on {panel.task}")


def draw_losses(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """How the losses of the updates are spread, all seeds pooled; None where no loss moves."""
    found = [(arm, len(runs), losses) for arm, runs in panel.arms if len(np.unique(losses := _losses(runs))) > 1]
    if not found:
        return None
    figure, axes = grid_of_axes(len(found), _COLUMNS, (3.7, 2.9))
    for ax, (arm, runs, losses) in zip(axes, found, strict=True):
        edges = _edges(losses)
        ax.stairs(_shares(losses, edges), edges, fill=True, color=look[arm.label].colour, alpha=0.55, edgecolor="white")
        _finish(ax, arm, runs, "loss", "share of the updates")
        ax.set_ylim(bottom=0)
    name_figure(figure, panel.title)
    path = save(figure, folder / f"losses_{number}_{panel.file_part}.png")
    return Drawn(path, "losses", f"How the losses of the updates are spread on {panel.task}")


def _pairs(panel: Panel) -> Found:
    """The arms that know held-out pairs before and after, with the number of their runs that do."""
    found = []
    for arm, runs in panel.arms:
        pairs = pooled_pairs(runs, PAIR_SET)
        if pairs is not None:
            found.append((arm, sum(has_after(run, PAIR_SET) for run in runs), pairs))
    return found


def _losses(runs: Sequence[RunResult]) -> Array:
    every = [run.updates["loss"].astype(float) for run in runs if "loss" in run.updates]
    values = drawable(np.concatenate([np.empty(0), *every]))
    return values[np.isfinite(values)]


def _draw_points(ax: Axes, pairs: Pairs) -> None:
    """Far values lie on the edge of the panel; so one lost pair does not hide the others."""
    both = np.concatenate([pairs.chosen, pairs.rejected])
    low, high = typical_range(both[:, 0], _NATS)
    bottom, top = typical_range(both.ravel(), _NATS)
    ax.axline((low, low), slope=1, color=GREY, linewidth=1, zorder=1)
    for (_, marker, place), values in zip(_KINDS, (pairs.chosen, pairs.rejected), strict=True):
        ax.plot(
            np.clip(values[:, 0], low, high), np.clip(values[:, 1], bottom, top), marker=marker, linestyle="none",
            color=_colour(place), markersize=5, alpha=_ink(len(values)), markeredgewidth=0,
        )  # fmt: skip
    for setter, start, end in ((ax.set_xlim, low, high), (ax.set_ylim, bottom, top)):
        setter(start - 0.05 * (end - start), end + 0.05 * (end - start))


def _draw_spread(ax: Axes, pairs: Pairs) -> None:
    low, high = typical_range(np.concatenate([pairs.chosen, pairs.rejected]).ravel(), _NATS)
    for (_, _, place), values in zip(_KINDS, (pairs.chosen, pairs.rejected), strict=True):
        for moment, dashes in enumerate(_DASHES):
            x, density = _density(np.clip(values[:, moment], low, high), low, high)
            ax.plot(x, density, color=_colour(place), linestyle=dashes, linewidth=1.8)
    ax.set_ylim(bottom=0)
    ax.margins(x=0)


def _density(values: Array, low: float, high: float) -> tuple[Array, Array]:
    """A Gaussian kernel estimate on a grid, by Silverman's rule; none of it above 0, where no log-probability is.

    Rows of several seeds repeat a pair, so the rule takes the distinct values; one alone has some width too.
    """
    width = max(0.9 * float(values.std()) * len(np.unique(values)) ** -0.2, 0.02 * (high - low))
    end = high + 3 * width if values.max() > 0 else min(high + 3 * width, 0.0)
    counts, edges = np.histogram(values, _GRID, range=(low - 3 * width, end))
    step = edges[1] - edges[0]
    smooth = gaussian_filter1d(counts / (len(values) * step), width / step, mode="reflect")
    return (edges[:-1] + edges[1:]) / 2, smooth


def _edges(values: Array) -> Array:
    """Of equally wide bins, more for more values."""
    count = int(np.clip(np.sqrt(len(values)), *_BINS))
    return np.linspace(*typical_range(values), count + 1)


def _shares(values: Array, edges: Array) -> Array:
    """Of all values; those far out are in the outermost bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(1, len(values))


def _ink(points: int) -> float:
    return float(np.clip((_INK / points) ** 0.5, 0.15, 0.8))


def _colour(place: int) -> tuple[float, float, float]:
    found: tuple[float, float, float] = seaborn.color_palette("colorblind")[place]
    return found


def _finish(ax: Axes, arm: Arm, runs: int, x_name: str, y_name: str) -> None:
    ax.set_title(f"{short(arm.label, 24)} ({runs} run{'s' if runs != 1 else ''})")
    ax.set_xlabel(x_name)
    label_first_column(ax, y_name)
    steps = [1, 2, 2.5, 5, 10]
    # few labels, for they may be long, and none at an end of x, where it would touch the next panel's
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=steps, prune="both"))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=steps))


def _explain(figure: Figure, handles: Sequence[Line2D]) -> None:
    columns = min(len(handles), max(1, int(figure.get_figwidth() // 1.9)))
    figure.set_figheight(figure.get_figheight() + 0.23 * (-(-len(handles) // columns) - 1))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)
