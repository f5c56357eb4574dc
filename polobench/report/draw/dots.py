"""Dots with their intervals: gradient noise, and in named rows pairs of responses and pass@k."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polobench.analysis.language import Pairs, Sharpening, has_after, pooled_pairs
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.summary import NoiseSummary
from polobench.report.draw import style
from polobench.report.draw.lines import Line, name_ends
from polobench.report.draw.panels import Panel
from polobench.report.formatting import counted

_PLACES = -0.17, 0.17  # of the dots before and after training, from the middle of their row
_DOT: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 6.5, "markeredgewidth": 1.6}
_STAGE: dict[str, Any] = {"marker": "o", "markersize": 5, "linewidth": 1}
_NOISE_SIZE = (5.2, 3.0)
_ASIDE = 0.025  # of the budget: between two methods at one stage
_PAIR_SET = "heldout"
_THICKNESS = 1.5
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST = 0.1  # nats; no axis is shorter
_SHOWN: dict[str, Callable[[Pairs], Array]] = {  # `[N, 2]`, before and after
    "margin: chosen minus rejected [nats]": lambda pairs: pairs.chosen - pairs.rejected,
    "log-probability of chosen [nats]": lambda pairs: pairs.chosen,
    "log-probability of rejected [nats]": lambda pairs: pairs.rejected,
}


def draw_noise(page: Sequence[tuple[str, Sequence[NoiseSummary]]], look: style.Looks) -> Figure:
    """A panel per title and its cells, on one scale: each method over the stages of the runs.

    What is 0 or less, where noise hides the signal, lies on the lower edge.
    """
    labels = sorted({item.arm.label for _, found in page for item in found}, key=style.natural)
    figure, axes = style.grid_of_axes(len(page), 2, _NOISE_SIZE)
    low, high = _noise_scale([item for _, found in page for item in found])
    for ax, (title, found) in zip(axes, page, strict=True):
        stages = sorted({item.stage for item in found})
        named = []
        for place, label in enumerate(labels):
            mine = [item for item in found if item.arm.label == label and math.isfinite(item.snr)]
            at = np.array([item.stage for item in mine]) + _ASIDE * (place - (len(labels) - 1) / 2)
            if mine:
                named.append(_draw_stages(ax, at, mine, look[label], low))
        ax.axhline(1, color=style.GREY, linewidth=1, zorder=1)
        ax.set_yscale("log")
        ax.set_ylim(low, high)
        style.log_ticks(ax.yaxis, low, high)
        ax.set_xticks(stages, [f"{stage:g}" for stage in stages])
        samples = sorted({item.samples for item in found})
        ax.set_xlabel(f"share of the run's budget (batches of {' or '.join(f'{count:,}' for count in samples)})")
        style.label_first_column(ax, "signal-to-noise ratio")
        style.name_panel(ax, title)
        name_ends(ax, named, _NOISE_SIZE, {"signal = noise": 1.0})
    return figure


def _draw_stages(ax: Axes, at: Array, items: Sequence[NoiseSummary], look: style.Look, least: float) -> Line:
    """Means, with the intervals that are known; an arrow where one goes on beyond the axis."""
    found = np.array([(item.snr, item.interval.low, item.interval.high) for item in items]).reshape(-1, 3)
    mean, low, high = np.maximum(least, found).T
    ax.errorbar(at, mean, (mean - low, high - mean), color=look.colour, linestyle=look.dashes, **_STAGE)
    hidden = at[(mean <= least) | (low <= least)]
    ax.scatter(hidden, np.full(len(hidden), least), marker="v", s=24, clip_on=False, zorder=5, color=look.colour)
    return Line(style.short(items[0].arm.label), look, at, mean, low, high)


def _noise_scale(items: Sequence[NoiseSummary]) -> tuple[float, float]:
    """From a third of the smallest estimate above 0; an interval may end further down."""
    estimates = [item.snr for item in items if 0 < item.snr < math.inf] or [1.0]
    highs = [item.interval.high for item in items if 0 < item.interval.high < math.inf]
    return min(1.0, *estimates) / 3, 1.3 * max(1.0, *estimates, *highs)


def draw_pairs(panel: Panel, look: style.Looks) -> Figure | None:
    """How margins and log-probabilities of pairs are spread before and after; None if no run knows both."""
    pooled = [(arm, runs, pooled_pairs(runs, _PAIR_SET)) for arm, runs in panel.arms]
    found = [(arm, runs, pairs) for arm, runs, pairs in pooled if pairs is not None]
    if not found:
        return None
    counts = [sum(has_after(run, _PAIR_SET) for run in runs) for _, runs, _ in found]
    names = [f"{style.short(arm.label)} ({counted(n, 'run')})" for (arm, _, _), n in zip(found, counts, strict=True)]
    figure, axes = style.grid_of_axes(len(_SHOWN), len(_SHOWN), (4.6, 0.4 * len(found) + 1.1))
    for ax, (name, values) in zip(axes, _SHOWN.items(), strict=True):
        ends = [0.0, 0.0]
        for row, (arm, _, pairs) in enumerate(found):
            ends += _draw_moments(ax, row, values(pairs), look[arm.label].colour)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        ax.tick_params(labelleft=style.label_first_column(ax, ""))
        ax.axvline(0, color=style.GREY, linewidth=1, zorder=1)
        low, high = style.typical_range(np.array(ends), _LEAST)
        ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        style.round_ticks(ax.xaxis, 6)
        ax.set_xlabel(name)
    style.name_figure(figure, panel.title)
    dots = [style.key("before", markerfacecolor="white", **_DOT), style.key("after", **_DOT)]
    thick = style.key("middle half of pairs", linewidth=2.5 * _THICKNESS)
    style.explain(figure, [*dots, thick, style.key("middle 90 %", linewidth=_THICKNESS)])
    return figure


def _draw_moments(ax: Axes, row: int, values: Array, colour: tuple[float, float, float]) -> list[float]:
    """Before and after, `[N, 2]`: the median, the middle half and the middle 90 %, whose ends it gives."""
    ends = []
    for place, moment, face in zip(_PLACES, style.drawable(values).T, ("white", colour), strict=True):
        low, first, middle, third, high = map(float, np.quantile(moment, _LEVELS))
        if math.isfinite(low + high):
            ax.hlines(row + place, low, high, colors=[colour], linewidth=_THICKNESS)
            ax.hlines(row + place, first, third, colors=[colour], linewidth=2.5 * _THICKNESS)
            ax.plot(middle, row + place, color=colour, markerfacecolor=face, zorder=4, **_DOT)
            ends += [low, high]
    return ends


def draw_passes(tasks: Sequence[Sequence[Sharpening]], look: style.Looks) -> Figure:
    """A row of two panels per task, pass@1 and pass@8: each method's way from before to after."""
    height = 0.32 * max(len(found) for found in tasks) + 1.2
    figure, axes = style.grid_of_axes(2 * len(tasks), 2, (5.2, height))
    panels = [(found, title, name) for found in tasks for title, name in (("pass@1", "pass_1"), ("pass@8", "pass_8"))]
    for ax, (found, title, name) in zip(axes, panels, strict=True):
        for row, item in enumerate(found):
            ends, colour = getattr(item, name), look[item.arm.label].colour
            ax.plot(ends, [row, row], color=colour, linewidth=_THICKNESS)
            for value, face in zip(ends, ("white", colour), strict=True):
                ax.plot(value, row, color=colour, markerfacecolor=face, zorder=4, clip_on=False, **_DOT)
        ax.set_yticks(range(len(found)), [style.short(item.arm.label) for item in found])
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.grid(visible=False, axis="y")
        ax.tick_params(labelleft=style.label_first_column(ax, ""))
        ax.set_xlabel("share of prompts")
        style.name_panel(ax, f"{style.short(found[0].arm.task)}: {title}")
    style.explain(figure, [style.key("before", markerfacecolor="white", **_DOT), style.key("after", **_DOT)])
    return figure
