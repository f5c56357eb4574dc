"""Where the panels of a figure stand: as large as what is written around them leaves room for.

matplotlib's constrained layout measures every label twice, a third of the time of all figures. Ours are plain grids,
with a title above and a legend below at most, so one measurement from about the right places will do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

_PAD = 3 / 72  # inches around a panel with its labels
_USUAL = (0.7, 0.15, 0.5, 0.35)  # inches that labels take on the left, right, bottom and top
_LEAST = 0.2  # inches of a panel, however long its labels are


def arrange(figure: Figure, renderer: RendererBase) -> None:
    """Place the axes of a grid so that no label is cut off or covers another panel; all panels get one size."""
    pad = _PAD * figure.dpi
    below = sum(legend.get_window_extent(renderer).height + 2 * pad for legend in figure.legends)
    above = 0.0
    for title in figure.texts:
        title.set_y(1 - pad / figure.bbox.height)
        above += title.get_window_extent(renderer).height + 2 * pad
    usual = [size * figure.dpi + pad for size in _USUAL]
    _place(figure, [usual for _ in figure.axes], below, above)
    _place(figure, [_margins(ax, renderer, pad) for ax in figure.axes], below, above)


def _margins(ax: Axes, renderer: RendererBase, pad: float) -> list[float]:
    """Pixels that are needed on the left, right, bottom and top of the panel itself."""
    panel = ax.get_window_extent(renderer)
    whole = ax.get_tightbbox(renderer, for_layout_only=True) or panel
    return [panel.x0 - whole.x0 + pad, whole.x1 - panel.x1 + pad, panel.y0 - whole.y0 + pad, whole.y1 - panel.y1 + pad]


def _place(figure: Figure, margins: Sequence[Sequence[float]], below: float, above: float) -> None:
    """Set the positions; a row or column gets the largest margins of its panels."""
    specs = [spec for ax in figure.axes if (spec := ax.get_subplotspec()) is not None]
    rows, columns = specs[0].get_gridspec().get_geometry()
    left, right, bottom, top = (np.zeros(count) for count in (columns, columns, rows, rows))
    for spec, sizes in zip(specs, margins, strict=True):
        row, column = spec.rowspan.start, spec.colspan.start
        for most, at, size in zip((left, right, bottom, top), (column, column, row, row), sizes, strict=True):
            most[at] = max(most[at], size)
    width, height, least = figure.bbox.width, figure.bbox.height, _LEAST * figure.dpi
    wide = max(least, (width - float(left.sum() + right.sum())) / columns)
    high = max(least, (height - below - above - float(bottom.sum() + top.sum())) / rows)
    for ax, spec in zip(figure.axes, specs, strict=True):
        row, column = spec.rowspan.start, spec.colspan.start
        x = float(left[: column + 1].sum() + right[:column].sum()) + column * wide
        y = height - above - float(top[: row + 1].sum() + bottom[:row].sum()) - (row + 1) * high
        ax.set_position((x / width, y / height, wide / width, high / height))
