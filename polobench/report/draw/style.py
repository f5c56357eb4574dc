"""One look for every figure: the same method has the same colour and dashes everywhere, readable at half size.

Figures are made without pyplot, so that no global state or display is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from PIL import Image

from polobench.analysis.curves import MeanCurve
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw.layout import arrange
from polobench.report.text import plain

DPI = 120
PALETTE = 256  # colours
GREY = "#555555"
LARGEST_DRAWN = 1e100
BUILT_IN = ("dpo", "grpo", "ppo", "reinforce", "trpo", "ranking", "random")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_RC: Any = {
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "xtick.labelsize": 10, "ytick.labelsize": 10,
    "legend.fontsize": 11, "axes.edgecolor": "#888888", "grid.color": "#e4e4e4", "axes.spines.top": False,
    "axes.spines.right": False, "figure.dpi": DPI, "savefig.dpi": DPI, "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a label is drawn."""

    colour: tuple[float, float, float]
    dashes: Any


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each label of a store; past ten labels the colours come again with other dashes.

    The built-in methods look the same in every report, whoever else is in it.

    Args:
        labels: all of the store in a fixed order.
    """
    palette = seaborn.color_palette("colorblind")
    size = len(palette)
    others = [label for label in labels if label not in BUILT_IN]
    return {
        label: Look(palette[index % size], _DASHES[(index + index // size) % len(_DASHES)])
        for index, label in enumerate((*BUILT_IN, *others))
        if label in labels
    }


@contextmanager
def styled() -> Iterator[None]:
    """The look of the figures inside, nothing changed outside."""
    with seaborn.axes_style("whitegrid"), matplotlib.rc_context(_RC):
        yield


def grid_of_axes(count: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with exactly `count` axes, row by row; `size` of each in inches."""
    rows = -(-count // columns)
    columns = -(-count // rows)  # four panels stand two by two, not three and one
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), dpi=DPI)
    return figure, [figure.add_subplot(rows, columns, index + 1, **options) for index in range(count)]


def draw_mean(ax: Axes, curve: MeanCurve, look: Look, beside: int) -> None:
    """A mean curve with its band, which is fainter the more curves are drawn beside it."""
    mean = drawable(curve.mean)
    known = np.isfinite(mean)
    ax.plot(curve.x[known], mean[known], color=look.colour, linestyle=look.dashes, linewidth=2)
    low, high = drawable(curve.low), drawable(curve.high)
    ax.fill_between(curve.x, low, high, color=look.colour, alpha=min(0.18, 0.8 / beside), linewidth=0)


def is_first_column(ax: Axes) -> bool:
    """Whether no panel stands on its left."""
    subplot = ax.get_subplotspec()
    return subplot is None or subplot.is_first_col()


def label_first_column(ax: Axes, name: str) -> None:
    """Name the y axis, where no neighbour on the left has the same one."""
    ax.set_ylabel(name if is_first_column(ax) else "")


def name_figure(figure: Figure, title: str) -> None:
    """The title above all axes."""
    figure.suptitle(_within(figure.get_figwidth(), title))


def name_panel(ax: Axes, title: str) -> None:
    """The title above one of the axes of `grid_of_axes`."""
    grid, figure = ax.get_gridspec(), ax.get_figure()
    assert grid is not None
    assert isinstance(figure, Figure)
    ax.set_title(_within(figure.get_figwidth() / grid.ncols, title))


def _within(width: float, title: str) -> str:
    """What the title's last brackets hold goes into a second line where `width` [inches] is too narrow for both."""
    start = title.rfind(" (")
    fits = width >= 0.1 * len(title)  # inches a letter
    return title if fits or start < 0 else f"{title[:start]}\n{title[start + 1 :]}"


def legend(figure: Figure, labels: Sequence[str], look: Mapping[str, Look]) -> None:
    """A legend below all axes, where it can cover nothing; the figure grows by its rows."""
    lines = [Line2D([], [], color=look[label].colour, linestyle=look[label].dashes, linewidth=2) for label in labels]
    names = [short(label) for label in labels]
    columns = min(len(names), max(1, int(figure.get_figwidth() // (0.9 + 0.09 * max(map(len, names))))))
    figure.set_figheight(figure.get_figheight() + 0.23 * (-(-len(names) // columns) - 1))
    figure.legend(lines, names, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2)


def short(text: str, longest: int = 32) -> str:
    """A label as a figure shows it; matplotlib would drop one that starts with an underscore."""
    line = plain(text)
    line = line if len(line) <= longest else f"{line[: longest - 1]}…"
    return f" {line}" if line.startswith("_") else line


def drawable(values: Array) -> Array:
    """NaN for what is too large: matplotlib places no ticks where the ends of an axis overflow."""
    return np.where(np.abs(values) < LARGEST_DRAWN, values, np.nan)


def typical_range(values: Array, least: float = 1e-3) -> tuple[float, float]:
    """Ends between which nearly all values lie: no further than five quartile distances beyond the quartiles.

    Args:
        values: finite, at least one.
        least: the range is at least this wide, as that of a constant.
    """
    low, high = float(values.min()), float(values.max())
    first, third = (float(end) for end in np.quantile(values, (0.25, 0.75)))
    if third > first:
        low, high = max(low, first - 5 * (third - first)), min(high, third + 5 * (third - first))
    least = max(least, 1e-3 * max(abs(low), abs(high)))
    if high - low >= least:
        return low, high
    middle = low + (high - low) / 2
    return middle - least / 2, middle + least / 2


def thousands(axis: Any) -> None:
    """Ticks as 500, 50k, 1.5M."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))


def _thousands(value: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG with a palette, which takes a third of the room and looks the same.

    It is drawn once; `Figure.savefig` would go through all of it twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas: Any = FigureCanvasAgg(figure)  # untyped
    arrange(figure, canvas.get_renderer())
    canvas.draw()
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    image = drawn.convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)
    image.save(path, format="png", dpi=(DPI, DPI))
    return path


def pages(items: Sequence[Any], size: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """Numbered from 1, at most `size` a page."""
    for start in range(0, len(items), size):
        yield start // size + 1, items[start : start + size]
