"""How training moved preference pairs, a row per method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from polobench.analysis.preferences import Pairs, has_after, pooled_pairs
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw.panels import Panel
from polobench.report.draw.rows import FIRST, SECOND, Mark, draw_marks, keys
from polobench.report.draw.style import (
    GREY,
    Look,
    drawable,
    explain,
    grid_of_axes,
    key,
    label_first_column,
    name_figure,
    round_ticks,
    short,
    typical_range,
)
from polobench.report.text import counted

PAIR_SET = "heldout"
_THICKNESS = 1.5
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST = 0.1  # nats; no axis is shorter
_SHOWN: dict[str, Callable[[Pairs], Array]] = {  # `[N, 2]`, before and after
    "margin: chosen minus rejected [nats]": lambda pairs: pairs.chosen - pairs.rejected,
    "log-probability of chosen [nats]": lambda pairs: pairs.chosen,
    "log-probability of rejected [nats]": lambda pairs: pairs.rejected,
}


def draw_pairs(panel: Panel, look: Mapping[str, Look]) -> Figure | None:
    """How margins and log-probabilities of pairs are spread before and after; None if no run knows both."""
    pooled = [(arm, runs, pooled_pairs(runs, PAIR_SET)) for arm, runs in panel.arms]
    found = [(arm, runs, pairs) for arm, runs, pairs in pooled if pairs is not None]
    if not found:
        return None
    counts = [sum(has_after(run, PAIR_SET) for run in runs) for _, runs, _ in found]
    names = [f"{short(arm.label)} ({counted(n, 'run')})" for (arm, _, _), n in zip(found, counts, strict=True)]
    figure, axes = grid_of_axes(len(_SHOWN), len(_SHOWN), (4.6, 0.4 * len(found) + 1.1))
    for ax, (name, values) in zip(axes, _SHOWN.items(), strict=True):
        marks = [
            mark for row, (arm, _, pairs) in enumerate(found) for mark in _marks(row, values(pairs), look[arm.label])
        ]
        draw_marks(ax, names, marks, _THICKNESS)
        ax.tick_params(labelleft=label_first_column(ax, ""))
        ax.axvline(0, color=GREY, linewidth=1, zorder=1)
        low, high = typical_range(np.array([mark.outer for mark in marks] + [(0.0, 0.0)]).ravel(), _LEAST)
        ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        round_ticks(ax.xaxis, 6)
        ax.set_xlabel(name)
    name_figure(figure, panel.title)
    thick = key("middle half of pairs", linewidth=2.5 * _THICKNESS)
    explain(figure, [*keys("before", "after"), thick, key("middle 90 %", linewidth=_THICKNESS)])
    return figure


def _marks(row: int, values: Array, look: Look) -> list[Mark]:
    """Before and after, `[N, 2]`: the median, the middle half and the middle 90 %."""
    return [
        Mark(row + place, middle, look.colour, (low, high), (first, third), filled=place == SECOND)
        for place, moment in zip((FIRST, SECOND), drawable(values).T, strict=True)
        for low, first, middle, third, high in [map(float, np.quantile(moment, _LEVELS))]
        if math.isfinite(low + high)
    ]
