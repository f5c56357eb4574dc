"""Names beside the points of a panel, where they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from polobench.analysis.statistics.intervals import Array

_CHARACTER, _LINE, _GAP = 0.082, 0.17, 0.11  # inches, of 10 point text
_MARK = 0.012  # square inches that a mark takes
_SIDES = {"left": 1.0, "center": 0.0, "right": -1.0}  # how a name is aligned, and where it then stands
_OFFSETS = (
    ("left", 0), ("right", 0), ("center", 1), ("center", -1),
    *((side, lines) for lines in (1, -1, 2, -2, 3, -3) for side in ("left", "right")),
)  # fmt: skip


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


@dataclass(frozen=True)
class _Box:
    """Its ends in inches from the lower left corner of the panel."""

    left: float
    right: float
    bottom: float
    top: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def count(self, marks: Array) -> int:
        x, y = marks[:, 0], marks[:, 1]
        return int(((x > self.left) & (x < self.right) & (y > self.bottom) & (y < self.top)).sum())


def place_labels(ax: Axes, spots: Sequence[Spot], size: tuple[float, float]) -> None:
    """Write each name beside its point, or a few lines up or down where that is taken, with a line to the point.

    Args:
        size: of the axes with what stands around them, in inches; nothing is laid out yet.
    """
    inner = (size[0] - 0.9, size[1] - 0.9)
    places = [_inches(ax, np.array([[spot.x, spot.y]]), inner)[0] for spot in spots]
    taken = [_Box(x - 0.07, x + 0.07, y - 0.07, y + 0.07) for x, y in places]
    marks = np.concatenate([np.empty((0, 2)), *(_inches(ax, spot.marks, inner) for spot in spots)])
    for spot, place in sorted(zip(spots, places, strict=True), key=lambda item: -item[1][1]):
        boxes = [_box(spot.name, place, *offset) for offset in _OFFSETS]
        chosen = min(range(len(boxes)), key=lambda index: (_cost(boxes[index], taken, marks, inner), index))
        taken.append(boxes[chosen])
        side, lines = _OFFSETS[chosen]
        ax.annotate(
            spot.name, (spot.x, spot.y), (72 * _SIDES[side] * _GAP, 72 * lines * _LINE), textcoords="offset points",
            ha=side, va="center", color=_darker(spot.colour), fontsize=10, zorder=6,
            arrowprops={"arrowstyle": "-", "color": spot.colour, "linewidth": 0.8} if abs(lines) > 1 else None,
        )  # fmt: skip


def _inches(ax: Axes, points: Array, inner: tuple[float, float]) -> Array:
    """`[k, 2]` from the lower left corner."""
    fractions = ax.transAxes.inverted().transform(ax.transData.transform(points))
    return np.asarray(fractions * inner, dtype=np.float64)


def _box(name: str, place: Array, side: str, lines: int) -> _Box:
    half = _CHARACTER * len(name) / 2
    x = float(place[0]) + _SIDES[side] * (_GAP + half)
    y = float(place[1]) + lines * _LINE
    return _Box(x - half, x + half, y - _LINE / 2, y + _LINE / 2)


def _cost(box: _Box, taken: Sequence[_Box], marks: Array, inner: tuple[float, float]) -> float:
    """Square inches of what it would cover, or lose beyond the panel's edge."""
    inside = box.overlap(_Box(0.0, inner[0], 0.0, inner[1]))
    lost = (box.right - box.left) * (box.top - box.bottom) - inside
    covered = sum(box.overlap(other) for other in taken) + _MARK * box.count(marks)
    return round(2 * lost + covered, 6)


def _darker(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    """Light colours of the palette are hard to read as text."""
    red, green, blue = (float(part) for part in 0.75 * np.array(colour))
    return red, green, blue
