"""Gradient noise: the signal-to-noise ratio of each method's gradient at the fixed policies, a panel per task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from polobench.analysis.gradient_noise import NoiseSummary
from polobench.report.draw.rows import FIRST, SECOND, Mark, draw_marks, keys
from polobench.report.draw.style import GREY, Look, explain, grid_of_axes, key, log_ticks, name_panel, natural, short

_TRAINED = "trained"


def draw_noise(page: Sequence[tuple[str, Sequence[NoiseSummary]]], look: Mapping[str, Look]) -> Figure:
    """Dots with intervals on one scale: hollow at the initial policy, filled at the trained one.

    Args:
        page: titles of panels with the cells of each.
    """
    tallest = max(len({item.arm.label for item in found}) for _, found in page)
    figure, axes = grid_of_axes(len(page), 2, (5.2, 0.36 * tallest + 1.2))
    low, high = _scale([item for _, found in page for item in found])
    for ax, (title, found) in zip(axes, page, strict=True):
        labels = sorted({item.arm.label for item in found}, key=natural)
        marks = [_mark(item, labels, look, low) for item in found if math.isfinite(item.snr)]
        draw_marks(ax, [short(label) for label in labels], marks)
        hidden = [mark for mark in marks if mark.outer[0] == low or mark.value == low]
        ax.scatter(
            [low] * len(hidden), [mark.row for mark in hidden], marker="<", s=24, clip_on=False, zorder=5,
            color=[mark.colour for mark in hidden],
        )  # fmt: skip
        ax.axvline(1, color=GREY, linewidth=1, zorder=1)
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        log_ticks(ax.xaxis, low, high)
        samples = sorted({item.samples for item in found})
        ax.set_xlabel(f"signal-to-noise ratio of {' or '.join(f'{count:,}' for count in samples)} samples")
        name_panel(ax, title)
    arrow = key("goes on beyond the axis", marker="<", linestyle="none")
    explain(figure, [*keys("initial policy", "trained policy"), key("signal = noise", linewidth=1), arrow])
    return figure


def _mark(item: NoiseSummary, labels: Sequence[str], look: Mapping[str, Look], least: float) -> Mark:
    """What is 0 or less, where noise hides the signal, lies on the left edge."""
    row = labels.index(item.arm.label) + (SECOND if item.policy == _TRAINED else FIRST)
    ends = (max(least, item.interval.low), max(least, item.interval.high))
    outer = (math.nan, math.nan) if math.isnan(item.interval.low) else ends
    return Mark(row, max(least, item.snr), look[item.arm.label].colour, outer, filled=item.policy == _TRAINED)


def _scale(items: Sequence[NoiseSummary]) -> tuple[float, float]:
    """From a third of the smallest estimate above 0; an interval may end further down."""
    estimates = [item.snr for item in items if 0 < item.snr < math.inf] or [1.0]
    highs = [item.interval.high for item in items if 0 < item.interval.high < math.inf]
    return min(1.0, *estimates) / 3, 1.3 * max(1.0, *estimates, *highs)
