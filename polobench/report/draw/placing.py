"""Names beside the points of a panel, where they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from polobench.analysis.statistics.intervals import Array
from polobench.report.draw.style import darker

_CHARACTER, _LINE, _GAP, _DOT = 0.082, 0.17, 0.11, 0.07  # inches, of 10 point text and half a mark
_MARK = 0.012  # square inches that a mark takes
_HALO = withStroke(linewidth=2.5, foreground="white")  # a name may lie on a line
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
            spot.name, (spot.x, spot.y), (72 * _SIDES[side] * _GAP, 72 * lines * _LINE), textcoords="offset points",
            ha=side, va="center", color=darker(spot.colour), fontsize=10, zorder=6, path_effects=[_HALO],
            arrowprops={"arrowstyle": "-", "color": spot.colour, "linewidth": 0.8} if abs(lines) > 1 else None,
        )  # fmt: skip


def _box(name: str, place: Array, side: str, lines: int) -> Array:
    """Lower left and upper right corner in inches."""
    half = np.array([_CHARACTER * len(name), _LINE]) / 2
    middle = place + np.array([_SIDES[side] * (_GAP + half[0]), lines * _LINE])
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
