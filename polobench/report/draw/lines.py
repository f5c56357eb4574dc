"""Lines with their bands in panels, each named at its end, where no name covers another."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from polobench.analysis.curves import MeanCurve
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw import style
from polobench.report.draw.placing import Spot, place_labels

_AROUND = 0.8  # inches above and below a panel
_LETTERS = 22  # of a line of a name
_LINE = 0.165  # inches between two lines of text
_EARLY = 0.85  # of the width of a panel
_GAP = 0.045  # widths of a panel between the end of a line and its name


@dataclass(frozen=True)
class Line:
    """A named curve `[k]` with its band; NaN where there is none."""

    name: str
    look: style.Look
    x: Array
    y: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, name: str, look: style.Look, curve: MeanCurve) -> Line:
        """A mean over runs."""
        return cls(
            name, look, curve.x, style.drawable(curve.mean), style.drawable(curve.low), style.drawable(curve.high)
        )

    @property
    def end(self) -> tuple[float, float]:
        """Its last point; NaN without any."""
        known = np.flatnonzero(np.isfinite(self.y))
        return (float(self.x[known[-1]]), float(self.y[known[-1]])) if len(known) else (np.nan, np.nan)


@dataclass(frozen=True)
class Chart:
    """A panel of lines over samples or seconds.

    Attributes:
        scale: panels of the same one share the ends of their y axis.
        levels: by name, where thin lines cross the panel.
    """

    title: str
    lines: Sequence[Line]
    scale: Hashable
    y_name: str = ""
    x_name: str = "samples"
    levels: Mapping[str, float] = field(default_factory=dict)


def draw_charts(charts: Sequence[Chart], columns: int, size: tuple[float, float]) -> Figure:
    """The panels row by row, with the names of their lines on the right; `size` of each in inches."""
    figure, axes = style.grid_of_axes(len(charts), columns, size)
    for ax, chart in zip(axes, charts, strict=True):
        draw_lines(ax, chart.lines, chart.levels)
        style.name_panel(ax, chart.title)
        ax.set_ylabel(chart.y_name)
        style.round_ticks(ax.yaxis, 6)
        style.count_axis(ax, max(float(line.x[-1]) for line in chart.lines), chart.x_name)
    style.share_y([(ax, chart.scale) for ax, chart in zip(axes, charts, strict=True)])
    for ax, chart in zip(axes, charts, strict=True):
        name_ends(ax, chart.lines, size, chart.levels)
    return figure


def draw_lines(ax: Axes, lines: Sequence[Line], levels: Mapping[str, float], steps: bool = False) -> None:
    """The curves, and thin lines across the panel; a band is fainter the more there are."""
    ink = min(0.18, 0.8 / max(1, len(lines)))
    for line in lines:
        known, colour = np.isfinite(line.y), line.look.colour
        (drawn,) = ax.plot(line.x[known], line.y[known], color=colour, linestyle=line.look.dashes, linewidth=2)
        drawn.set_drawstyle("steps-post" if steps else "default")
        ax.fill_between(line.x, line.low, line.high, color=colour, alpha=ink, lw=0, step="post" if steps else None)
    for level in levels.values():
        ax.axhline(level, color=style.GREY, linewidth=0.9, zorder=1)


def name_ends(ax: Axes, lines: Sequence[Line], size: tuple[float, float], levels: Mapping[str, float]) -> None:
    """Write the names at the right of the panel, as near to the ends of their lines as they fit below each other.

    A line that ends far from there is named where it ends.

    Args:
        ax: its limits are final.
        size: of the panel with what stands around it, in inches.
    """
    to_panel = ax.transData - ax.transAxes
    ends = [
        (line.name, *to_panel.transform(line.end), style.darker(line.look.colour), line.look.dashes) for line in lines
    ]
    ends += [(name, 1.0, to_panel.transform((0, level))[1], style.GREY, "-") for name, level in levels.items()]
    named = sorted((end for end in ends if end[1] >= _EARLY), key=lambda end: (end[2], end[0]))
    texts = [wrap(name, _LETTERS, break_on_hyphens=False) or [name] for name, *_ in named]
    sizes = np.array([len(text) * _LINE / (size[1] - _AROUND) for text in texts])
    places = _apart(np.array([end[2] for end in named]), sizes)
    for (_, x, y, colour, dashes), text, place in zip(named, texts, places, strict=True):
        ax.annotate(
            "\n".join(text), (min(x, 1.0), y), (1 + _GAP, place), xycoords="axes fraction", va="center", color=colour,
            fontsize=10, linespacing=1.0, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.1, "linestyle": dashes, "shrinkA": 1,
                        "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip
    early = [line for line, end in zip(lines, ends) if end[1] < _EARLY]
    marks = [np.column_stack([line.x, line.y]) for line in early]
    place_labels(
        ax, [Spot(*line.end, line.name, line.look.colour, mark) for line, mark in zip(early, marks, strict=True)], size
    )


def _apart(wanted: Array, sizes: Array) -> Array:
    """Places as near to the wanted ones, which ascend, as boxes of these sizes fit between 0 and their sum or 1."""
    if not len(wanted):
        return wanted
    offsets = np.cumsum(sizes) - sizes / 2
    free = isotonic_regression(wanted - offsets).x
    room = 1 - float(sizes.sum())
    return np.asarray(free.clip(min(0.0, room), max(0.0, room)) + offsets, dtype=np.float64)
