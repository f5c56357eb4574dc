"""When the target was reached: the share of runs over samples, a row per task and a panel per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice, zip_longest

import numpy as np
from matplotlib.figure import Figure

from polobench.report.arrivals import arrivals, last_sample
from polobench.report.draw import style
from polobench.report.draw.lines import Line, draw_lines
from polobench.report.draw.panels import Panel

_COLUMNS = 6
_OTHERS = "#cccccc"


def draw_arrivals(page: Sequence[Panel], look: Mapping[str, style.Look]) -> Figure:
    """Each method's curve and band, those of the others in grey."""
    columns = min(_COLUMNS, max(len(panel.arms) for panel in page))
    blocks = [-(-len(panel.arms) // columns) * columns for panel in page]
    figure, axes = style.grid_of_axes(sum(blocks), columns, (2.6, 1.9))
    rest = iter(axes)
    for panel, block in zip(page, blocks, strict=True):
        lines = _lines(panel, look)
        for ax, line in zip_longest(islice(rest, block), lines):
            if line is None:
                ax.remove()
                continue
            for other in lines:
                ax.step(other.x, other.y, where="post", color=_OTHERS, linewidth=1)
            draw_lines(ax, [line], {}, steps=True)
            style.name_panel(ax, line.name)
            style.count_axis(ax, float(line.x[-1]))
            ax.set_ylim(-0.03, 1.03)
            ax.set_yticks([0, 0.5, 1])
            style.ticks(ax.yaxis, style.percent)
            ax.tick_params(
                labelleft=style.label_first_column(
                    ax, f"{style.short(panel.task, 20)}\n{style.short(panel.budget, 20)}"
                )
            )
    return figure


def _lines(panel: Panel, look: Mapping[str, style.Look]) -> list[Line]:
    """The curve of each label, level after its last run; its band begins with its first, as all would be the same."""
    found, end = arrivals(panel), last_sample(panel)
    lines = []
    for label in sorted(found, key=style.natural):
        curve = found[label]
        share, low, high = (np.append(part, part[-1]) for part in (curve.reached_share, curve.low, curve.high))
        band = [np.where(share > 0, part, np.nan) for part in (low, high)]
        lines.append(Line(style.short(label), look[label], np.append(curve.times, end), share, *band))
    return lines
