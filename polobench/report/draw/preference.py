"""How training moved the log-probabilities of preference pairs, a row per method; and how its losses are spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from polobench.analysis.collection import Arm
from polobench.analysis.preferences import Pairs, has_after, pooled_pairs
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.summary import moves
from polobench.core.result import RunResult
from polobench.report.draw.panels import Drawn, Panel
from polobench.report.draw.rows import FIRST, SECOND, Mark, draw_marks, keys
from polobench.report.draw.style import (
    GREY,
    Look,
    drawable,
    grid_of_axes,
    is_first_column,
    label_first_column,
    name_figure,
    name_panel,
    round_ticks,
    save,
    short,
    typical_range,
)

PAIR_SET = "heldout"
_THICKNESS = 1.5
_BINS = (6, 24)
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST = 0.1  # nats; no axis is shorter
Shown = dict[str, Callable[[Pairs], Array]]  # `[N, 2]`, before and after, by what it is


def draw_shift(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """How the margins between the responses of the pairs are spread before and after; None if no run knows both."""
    shown: Shown = {
        "margin: log-probability of chosen minus rejected [nats]": lambda pairs: pairs.chosen - pairs.rejected
    }
    return _draw_pairs(panel, "Margins", shown, look, folder / f"shift_{number}_{panel.file_part}.png")


def draw_distributions(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """How the log-probabilities of both responses are spread before and after; None if no run knows both."""
    shown: Shown = {
        "log-probability of chosen [nats]": lambda pairs: pairs.chosen,
        "log-probability of rejected [nats]": lambda pairs: pairs.rejected,
    }
    return _draw_pairs(panel, "Log-probabilities", shown, look, folder / f"spread_{number}_{panel.file_part}.png")


def draw_losses(panel: Panel, number: str, look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """How the losses of the updates are spread, all seeds pooled; None where no loss moves by more than noise."""
    every = [(arm, len(runs), _losses(runs)) for arm, runs in panel.arms]
    found = [(arm, runs, losses) for arm, runs, losses in every if len(losses) and moves(losses)]
    if not found:
        return None
    figure, axes = grid_of_axes(len(found), 4, (3.7, 2.9))
    for ax, (arm, runs, losses) in zip(axes, found, strict=True):
        edges = _edges(losses)
        ax.stairs(_shares(losses, edges), edges, fill=True, color=look[arm.label].colour, alpha=0.55, edgecolor="white")
        name_panel(ax, _counted(panel.name(arm), runs))
        ax.set_xlabel("loss")
        label_first_column(ax, "share of updates")
        ax.set_ylim(bottom=0)
        # few labels, for they may be long, and none at an end of x, where it would touch the next panel's
        round_ticks(ax.xaxis, 4, prune="both")
        round_ticks(ax.yaxis, 5)
    name_figure(figure, panel.title)
    path = save(figure, folder / f"losses_{number}_{panel.file_part}.png")
    return Drawn(path, "losses", f"Distribution of the losses of the updates on {panel.task}")


def _draw_pairs(panel: Panel, what: str, shown: Shown, look: Mapping[str, Look], path: Path) -> Drawn | None:
    found = _pairs(panel)
    if not found:
        return None
    names = [_counted(short(arm.label), runs) for arm, runs, _ in found]
    figure, axes = grid_of_axes(len(shown), len(shown), (8.0 / len(shown) ** 0.5, 0.4 * len(found) + 1.1))
    for ax, (name, values) in zip(axes, shown.items(), strict=True):
        marks = [mark for row, item in enumerate(found) for mark in _marks(row, values(item[2]), look[item[0].label])]
        draw_marks(ax, names, marks, thickness=_THICKNESS)
        ax.tick_params(labelleft=is_first_column(ax))
        ax.axvline(0, color=GREY, linewidth=1, zorder=1)
        low, high = typical_range(np.array([mark.outer for mark in marks] + [(0.0, 0.0)]).ravel(), _LEAST)
        ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        round_ticks(ax.xaxis, 6)
        ax.set_xlabel(name)
    name_figure(figure, panel.title)
    handles = [
        *keys("before", "after"),
        Line2D([], [], color=GREY, linewidth=2.5 * _THICKNESS, label="middle half of pairs"),
        Line2D([], [], color=GREY, linewidth=_THICKNESS, label="middle 90 %"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    subject = f"{what} of held-out pairs before and after on {panel.task}"
    return Drawn(save(figure, path), "preferences", subject)


def _marks(row: int, values: Array, look: Look) -> list[Mark]:
    """Before and after, `[N, 2]`: the median, the middle half and the middle 90 %."""
    return [
        Mark(row + place, middle, look.colour, (low, high), (first, third), filled=place == SECOND)
        for place, moment in zip((FIRST, SECOND), drawable(values).T, strict=True)
        for low, first, middle, third, high in [map(float, np.quantile(moment, _LEVELS))]
        if math.isfinite(low + high)
    ]


def _counted(name: str, runs: int) -> str:
    return f"{name} ({runs} run{'s' if runs != 1 else ''})"


def _pairs(panel: Panel) -> list[tuple[Arm, int, Pairs]]:
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


def _edges(values: Array) -> Array:
    """Of equally wide bins, more for more values."""
    count = int(np.clip(np.sqrt(len(values)), *_BINS))
    return np.linspace(*typical_range(values, 0.0), count + 1)


def _shares(values: Array, edges: Array) -> Array:
    """Of all values; those far out are in the outermost bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(1, len(values))
