"""Throughput bars: samples per second of whole iterations, and how rollout and update share their time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from polobench.analysis.summary import ThroughputSummary
from polobench.report.draw.panels import Drawn
from polobench.report.draw.style import Look, grid_of_axes, save, short, thousands
from polobench.report.text import number

_UPDATE_ALPHA = 0.45
_BRIGHTNESS = (0.2126, 0.7152, 0.0722)  # weights of red, green and blue (ITU-R BT.709)


def draw_throughput(
    items: Sequence[ThroughputSummary], number_of_page: int, look: Mapping[str, Look], folder: Path
) -> Drawn:
    """Bars of the arms that were measured, grouped by task and device.

    Args:
        items: arms with at least one cell that counts.
    """
    items = sorted(items, key=lambda item: (item.arm.task, item.arm.device, item.arm.label, item.arm))
    places = _places(items)
    figure, (speed, share) = grid_of_axes(2, 2, (5.6, 0.33 * (max(places) + 1) + 1.1))
    _draw_speeds(speed, items, places, look)
    _draw_shares(share, items, places, look)
    for ax in (speed, share):
        ax.set_ylim(max(places) + 0.7, -1.1)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
    speed.set_yticks(places, [short(item.arm.label) for item in items])
    share.set_yticks([])
    _name_groups(speed, items, places)
    path = save(figure, folder / f"throughput_{number_of_page}.png")
    return Drawn(path, "throughput", "Throughput of whole iterations")


def _places(items: Sequence[ThroughputSummary]) -> list[float]:
    """A position a bar, with room for a heading above each task and device."""
    places: list[float] = []
    for index, item in enumerate(items):
        new = index > 0 and _group(item) != _group(items[index - 1])
        places.append(places[-1] + (2.0 if new else 1.0) if places else 0.0)
    return places


def _group(item: ThroughputSummary) -> tuple[str, str]:
    return item.arm.task, item.arm.device


def _name_groups(ax: Axes, items: Sequence[ThroughputSummary], places: Sequence[float]) -> None:
    named: set[tuple[str, str]] = set()
    for item, place in zip(items, places, strict=True):
        if _group(item) not in named:
            named.add(_group(item))
            ax.text(
                0.0, place - 0.55, f"{short(item.arm.task)} ({short(item.arm.device)})", fontweight="bold", va="bottom",
                transform=ax.get_yaxis_transform(),
            )  # fmt: skip


def _draw_speeds(
    ax: Axes, items: Sequence[ThroughputSummary], places: Sequence[float], look: Mapping[str, Look]
) -> None:
    speeds = [0.0 if math.isnan(item.samples_per_second) else item.samples_per_second for item in items]
    colours = [look[item.arm.label].colour for item in items]
    ax.barh(places, speeds, height=0.75, color=colours)
    for item, place, end in zip(items, places, speeds, strict=True):
        if not math.isnan(item.interval.low):
            ends = [[end - item.interval.low], [item.interval.high - end]]
            ax.errorbar(end, place, xerr=np.abs(ends), color="black", linewidth=1, capsize=2.5)
            end = item.interval.high
        ax.annotate(
            number(item.samples_per_second), (end, place), (5, 0), textcoords="offset points", va="center", fontsize=10
        )
    ax.set_xlabel("samples per second (mean over cells, 95 % Student's t)")
    ax.set_xlim(0, 1.2 * max(*speeds, *(item.interval.high for item in items if item.n > 1), 0) or 1)
    thousands(ax.xaxis)
    seaborn.despine(ax=ax, left=True)


def _draw_shares(
    ax: Axes, items: Sequence[ThroughputSummary], places: Sequence[float], look: Mapping[str, Look]
) -> None:
    for item, place in zip(items, places, strict=True):
        colour, left = look[item.arm.label].colour, 0.0
        for part, alpha in ((item.rollout_share, 1.0), (item.update_share, _UPDATE_ALPHA)):
            ax.barh(place, 100 * part, left=left, height=0.75, color=colour, alpha=alpha, edgecolor="white")
            if part >= 0.1:
                ink = "white" if alpha == 1 and np.dot(colour, _BRIGHTNESS) < 0.45 else "black"
                ax.text(
                    left + 50 * part, place, f"{100 * part:.0f} %", ha="center", va="center", color=ink, fontsize=10
                )
            left += 100 * part
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of an iteration's seconds [%]")
    keys = [Patch(color="#333333", label="rollout"), Patch(color="#333333", alpha=_UPDATE_ALPHA, label="update")]
    ax.legend(handles=keys, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0)
