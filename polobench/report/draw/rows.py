"""Dots with their intervals in named rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes

from polobench.report.draw.style import key

FIRST, SECOND = -0.17, 0.17  # where two marks of a row are
_DOT: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 6.5, "markeredgewidth": 1.6}


@dataclass(frozen=True)
class Mark:
    """A dot in a row; NaN for an end that is not known.

    Attributes:
        row: its place from the top; two marks of one row lie at `FIRST` and `SECOND` from it.
        outer, inner: the ends of a thin line and of a thick one.
        filled: whether the dot is.
    """

    row: float
    value: float
    colour: tuple[float, float, float]
    outer: tuple[float, float]
    inner: tuple[float, float] = (math.nan, math.nan)
    filled: bool = True


def draw_marks(ax: Axes, names: Sequence[str], marks: Sequence[Mark], thickness: float = 1.8) -> None:
    """The marks, row by row; none of the lines of an end that is not known."""
    lines = [(mark, mark.outer, thickness) for mark in marks] + [(mark, mark.inner, 2.5 * thickness) for mark in marks]
    shown = [(mark.row, *ends, mark.colour, width) for mark, ends, width in lines if not math.isnan(ends[0])]
    if shown:
        rows, lows, highs, colours, widths = zip(*shown, strict=True)
        ax.hlines(rows, lows, highs, colors=colours, linewidth=widths)
    for mark in marks:
        face = mark.colour if mark.filled else "white"
        ax.plot(mark.value, mark.row, color=mark.colour, markerfacecolor=face, zorder=4, **_DOT)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")


def keys(hollow: str, filled: str) -> list[Artist]:
    """What the two kinds of dots mean, for a legend."""
    return [key(hollow, markerfacecolor="white", **_DOT), key(filled, **_DOT)]
