"""Lines with their bands, each named at its end, where no name covers another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from polobench.analysis.curves import MeanCurve
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw.placing import Spot, place_labels
from polobench.report.draw.style import GREY, Look, darker, drawable

NO_LEVELS: Mapping[str, float] = MappingProxyType({})
_AROUND = 0.8  # inches above and below a panel
_LETTERS = 22  # of a line of a name
_LINE = 0.165  # inches between two lines of text
_EARLY = 0.85  # of the width of a panel
_GAP = 0.045  # widths of a panel between the end of a line and its name


@dataclass(frozen=True)
class Line:
    """A named curve `[k]` with its band; NaN where there is none."""

    name: str
    look: Look
    x: Array
    y: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, name: str, look: Look, curve: MeanCurve) -> Line:
        """A mean over runs."""
        return cls(name, look, curve.x, drawable(curve.mean), drawable(curve.low), drawable(curve.high))

    @property
    def end(self) -> tuple[float, float]:
        """Its last point; NaN without any."""
        known = np.flatnonzero(np.isfinite(self.y))
        return (float(self.x[known[-1]]), float(self.y[known[-1]])) if len(known) else (np.nan, np.nan)


def draw_lines(ax: Axes, lines: Sequence[Line], levels: Mapping[str, float] = NO_LEVELS, steps: bool = False) -> None:
    """The curves, and thin lines across the panel; a band is fainter the more there are."""
    ink = min(0.18, 0.8 / max(1, len(lines)))
    for line in lines:
        known, colour = np.isfinite(line.y), line.look.colour
        (drawn,) = ax.plot(line.x[known], line.y[known], color=colour, linestyle=line.look.dashes, linewidth=2)
        drawn.set_drawstyle("steps-post" if steps else "default")
        ax.fill_between(line.x, line.low, line.high, color=colour, alpha=ink, lw=0, step="post" if steps else None)
    for level in levels.values():
        ax.axhline(level, color=GREY, linewidth=0.9, zorder=1)


def name_ends(
    ax: Axes, lines: Sequence[Line], size: tuple[float, float], levels: Mapping[str, float] = NO_LEVELS
) -> None:
    """Write the names at the right of the panel, as near to the ends of their lines as they fit below each other.

    A line that ends far from there is named where it ends.

    Args:
        ax: its limits are final.
        size: of the panel with what stands around it, in inches.
        levels: by name, where thin lines are.
    """
    to_panel = ax.transData - ax.transAxes
    ends = [(line.name, *to_panel.transform(line.end), darker(line.look.colour), line.look.dashes) for line in lines]
    ends += [(name, 1.0, to_panel.transform((0, level))[1], GREY, "-") for name, level in levels.items()]
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
    marks = [np.column_stack([line.x, line.y]) for line in lines]
    early = zip(lines, ends, marks, strict=False)
    spots = [Spot(*line.end, line.name, line.look.colour, mark) for line, end, mark in early if end[1] < _EARLY]
    place_labels(ax, spots, size)


def _apart(wanted: Array, sizes: Array) -> Array:
    """Places as near to the wanted ones, which ascend, as boxes of these sizes fit between 0 and their sum or 1.

    Without the sizes it is an isotonic regression: neighbours that would overlap are pooled at their mean.
    """
    offsets = np.cumsum(sizes) - sizes / 2
    pools: list[list[float]] = []  # sum and count
    for value in wanted - offsets:
        pools.append([float(value), 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] >= pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + count]
    free = np.concatenate([np.empty(0), *(np.full(int(count), total / count) for total, count in pools)])
    room = 1 - float(sizes.sum())
    return np.asarray(free.clip(min(0.0, room), max(0.0, room)) + offsets, dtype=np.float64)
