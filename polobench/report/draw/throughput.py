"""Throughput bars: samples per second of whole iterations, and how rollout and update share their time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from polobench.analysis.summary import ThroughputSummary
from polobench.report.draw.panels import by_task
from polobench.report.draw.style import Look, compact, explain, grid_of_axes, name_panel, natural, percent, short, ticks
from polobench.report.text import number

_UPDATE_ALPHA = 0.45
_BRIGHTNESS = (0.2126, 0.7152, 0.0722)  # weights of red, green and blue (ITU-R BT.709)


def draw_throughput(items: Sequence[ThroughputSummary], look: Mapping[str, Look]) -> Figure:
    """Bars of the arms that were measured, a row of two panels per task and device.

    Args:
        items: arms with at least one cell that counts.
    """
    groups = by_task(sorted(items, key=lambda item: (natural(item.arm.label), item.arm)))
    tallest = max(len(found) for _, found in groups)
    figure, axes = grid_of_axes(2 * len(groups), 2, (5.6, 0.33 * tallest + 0.9))
    for (title, found), speed, share in zip(groups, axes[::2], axes[1::2], strict=True):
        name_panel(speed, title)
        _draw_speeds(speed, found, look)
        _draw_shares(share, found, look)
        for ax, names in ((speed, [short(item.arm.label) for item in found]), (share, [""] * len(found))):
            ax.set_yticks(range(len(found)), names)
            ax.set_ylim(tallest - 0.5, -0.5)
            ax.grid(visible=False, axis="y")
            ax.spines["left"].set_visible(False)
    update = Patch(color="#333333", alpha=_UPDATE_ALPHA, label="update")
    explain(figure, [Patch(color="#333333", label="rollout"), update])
    return figure


def _draw_speeds(ax: Axes, items: Sequence[ThroughputSummary], look: Mapping[str, Look]) -> None:
    """Black: the interval, where there are several cells."""
    speeds = np.nan_to_num([item.samples_per_second for item in items])
    ax.barh(range(len(items)), speeds, height=0.75, color=[look[item.arm.label].colour for item in items])
    highs = []
    for row, (item, speed) in enumerate(zip(items, speeds, strict=True)):
        end = float(speed)
        if not math.isnan(item.interval.low):
            ends = [[end - item.interval.low], [item.interval.high - end]]
            ax.errorbar(end, row, xerr=np.abs(ends), color="black", linewidth=1, capsize=2.5)
            end = item.interval.high
            highs.append(end)
        ax.annotate(
            number(item.samples_per_second), (end, row), (5, 0), textcoords="offset points", va="center", fontsize=10
        )
    ax.set_xlabel("samples per second (mean and 95 % interval)" if highs else "samples per second")
    ax.set_xlim(0, 1.2 * max(*speeds, *highs, 0) or 1)
    ticks(ax.xaxis, compact)


def _draw_shares(ax: Axes, items: Sequence[ThroughputSummary], look: Mapping[str, Look]) -> None:
    for row, item in enumerate(items):
        colour, left = look[item.arm.label].colour, 0.0
        for part, alpha in ((item.rollout_share, 1.0), (item.update_share, _UPDATE_ALPHA)):
            ax.barh(row, 100 * part, left=left, height=0.75, color=colour, alpha=alpha, edgecolor="white")
            if part >= 0.1:
                ink = "white" if alpha == 1 and np.dot(colour, _BRIGHTNESS) < 0.45 else "black"
                ax.text(left + 50 * part, row, percent(part), ha="center", va="center", color=ink, fontsize=10)
            left += 100 * part
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of the time of an iteration [%]")
