"""Lines with their bands, and names beside lines and points, where they cover neither each other nor these."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.optimize import isotonic_regression

from polobench.analysis.curves import MeanCurve
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw import style

_AROUND = 0.8  # inches above and below a panel
_LETTERS = 22  # of a line of a name
_LINE = 0.165  # inches between two lines of text
_EARLY = 0.85  # of the width of a panel
_GAP = 0.045  # widths of a panel between the end of a line and its name
_CHARACTER, _HIGH, _BESIDE, _DOT = 0.082, 0.17, 0.11, 0.07  # inches, of 10 point text and half a mark
_MARK = 0.012  # square inches that a mark takes
_HALO = withStroke(linewidth=2.5, foreground="white")  # a name may lie on a line
_SIDES = {"left": 1.0, "center": 0.0, "right": -1.0}  # how a name is aligned, and where it then stands
_OFFSETS = (
    ("left", 0), ("right", 0), ("center", 1), ("center", -1),
    *((side, lines) for lines in (1, -1, 2, -2, 3, -3) for side in ("left", "right")),
)  # fmt: skip


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
        return cls(name, look, curve.x, *map(style.drawable, (curve.mean, curve.low, curve.high)))

    def spot(self, x: float, y: float) -> Spot:
        """Its name beside one of its points."""
        return Spot(x, y, self.name, self.look.colour, np.column_stack([self.x, self.y]))

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
    place_labels(ax, [line.spot(*line.end) for line, end in zip(lines, ends) if end[1] < _EARLY], size)


def _apart(wanted: Array, sizes: Array) -> Array:
    """Places as near to the wanted ones, which ascend, as boxes of these sizes fit between 0 and their sum or 1."""
    if not len(wanted):
        return wanted
    offsets = np.cumsum(sizes) - sizes / 2
    free = isotonic_regression(wanted - offsets).x
    room = 1 - float(sizes.sum())
    return np.asarray(free.clip(min(0.0, room), max(0.0, room)) + offsets, dtype=np.float64)


@dataclass(frozen=True)
class Spot:
    """A point in data coordinates, the name that belongs beside it, and what else is drawn with it.

    Attributes:
        marks: `[k, 2]` points in data coordinates.
    """

    x: float
    y: float
    name: str
    colour: tuple[float, float, float]
    marks: Array


def place_labels(ax: Axes, spots: Sequence[Spot], size: tuple[float, float]) -> None:
    """Write each name beside its point, or a few lines up or down where that is taken, with a line to the point.

    Args:
        size: of the axes with what stands around them, in inches; nothing is laid out yet.
    """
    inner = np.array(size) - 0.9
    to_panel = ax.transData - ax.transAxes
    places = [inner * to_panel.transform((spot.x, spot.y)) for spot in spots]
    taken = [np.array([place - _DOT, place + _DOT]) for place in places]
    marks = np.concatenate([np.empty((0, 2)), *(inner * to_panel.transform(spot.marks) for spot in spots)])
    for spot, place in sorted(zip(spots, places, strict=True), key=lambda item: -item[1][1]):
        boxes = [_box(spot.name, place, *offset) for offset in _OFFSETS]
        chosen = min(range(len(boxes)), key=lambda index: (_cost(boxes[index], taken, marks, inner), index))
        taken.append(boxes[chosen])
        side, lines = _OFFSETS[chosen]
        ax.annotate(
            spot.name, (spot.x, spot.y), (72 * _SIDES[side] * _BESIDE, 72 * lines * _HIGH), textcoords="offset points",
            ha=side, va="center", color=style.darker(spot.colour), fontsize=10, zorder=6, path_effects=[_HALO],
            arrowprops={"arrowstyle": "-", "color": spot.colour, "linewidth": 0.8} if abs(lines) > 1 else None,
        )  # fmt: skip


def _box(name: str, place: Array, side: str, lines: int) -> Array:
    """Lower left and upper right corner in inches."""
    half = np.array([_CHARACTER * len(name), _HIGH]) / 2
    middle = place + np.array([_SIDES[side] * (_BESIDE + half[0]), lines * _HIGH])
    return np.array([middle - half, middle + half])


def _cost(box: Array, taken: Sequence[Array], marks: Array, inner: Array) -> float:
    """Square inches of what it would cover, or lose beyond the panel's edge."""
    area, inside = _overlaps(box, np.array([box, [np.zeros(2), inner]]))
    covered = _overlaps(box, np.array(taken)).sum() + _MARK * ((marks > box[0]) & (marks < box[1])).all(axis=1).sum()
    return round(float(2 * (area - inside) + covered), 6)


def _overlaps(box: Array, others: Array) -> Array:
    """Square inches that each of the others `[k, 2, 2]` has in common with the box."""
    sides = np.minimum(box[1], others[:, 1]) - np.maximum(box[0], others[:, 0])
    return np.asarray(sides.clip(0).prod(axis=1), dtype=np.float64)
