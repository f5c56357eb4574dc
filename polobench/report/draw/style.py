"""One look for every figure: a method has one colour everywhere, its variants share it and differ in their dashes.

Figures are made without pyplot, so that no global state or display is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from textwrap import wrap
from typing import Any, TypeVar

import matplotlib
import numpy as np
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from polobench.analysis.statistics.intervals import Array
from polobench.report.formatting import plain

DPI = 120
PALETTE = 256  # colours
GREY = "#555555"
LARGEST_DRAWN = 1e100
_LEFT = 0.5  # inches on the left of a panel
_INCH_A_LETTER = 0.1  # of a title
_INCHES_A_KEY = 2.1  # of a legend
_COLOURS = {
    "dpo": "#0173b2", "grpo": "#de8f05", "ppo": "#029e73", "reinforce": "#d55e00", "trpo": "#cc78bc",
    "ranking": "#56b4e9", "random": "#949494",
}  # fmt: skip
_ARTICLE = {f"article-{name}": name for name in ("dpo", "grpo", "ppo", "trpo")} | {"article-pg": "reinforce"}
_SIZES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_PLUG_INS = ("#7a4f1d", "#5b4bb3", "#8f9a00", "#e3508f", "#175e62", "#a30021")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (10, 3)))
_RC: Any = {
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "xtick.labelsize": 10, "ytick.labelsize": 10,
    "legend.fontsize": 11, "axes.edgecolor": "#888888", "grid.color": "#e4e4e4", "axes.spines.top": False,
    "axes.spines.right": False, "figure.dpi": DPI, "savefig.dpi": DPI, "text.parse_math": False,
}  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """How a label is drawn.

    Attributes:
        family: the method whose variants share the colour; the article's version of a method is one of them.
    """

    colour: tuple[float, float, float]
    dashes: Any
    family: str


Looks = Mapping[str, Look]  # by label


def looks(labels: Sequence[str], methods: Mapping[str, str] | None = None) -> dict[str, Look]:
    """A look for each label of a store; those of the built-in methods do not depend on who else is in it.

    Args:
        labels: all of the store in a fixed order; those that come after others do not change how these look.
        methods: by label; else a label names its method before the first comma.
    """
    named = {label: (methods or {}).get(label) or label.partition(",")[0].strip() for label in labels}
    families = {label: _ARTICLE.get(name, name) for label, name in named.items()}
    plug_ins = [family for family in dict.fromkeys(families.values()) if family not in _COLOURS]
    colours = _COLOURS | {family: _PLUG_INS[index % len(_PLUG_INS)] for index, family in enumerate(plug_ins)}
    found: dict[str, Look] = {}
    taken: set[tuple[str, int]] = set()
    for label, family in families.items():
        first = 0 if label == family else 1 if label in _ARTICLE else 2
        rank = next(rank for rank in count(first) if (colours[family], rank) not in taken)
        taken.add((colours[family], rank))
        dashes = _DASHES[rank] if rank < len(_DASHES) else (0, (6, 1.5, *(1.2, 1.5) * (rank - 3)))
        found[label] = Look(to_rgb(colours[family]), dashes, family)
    return found


def natural(text: str) -> str:
    """A key that sorts 2 before 16."""
    return re.sub(r"\d+", lambda found: found[0].zfill(20), text)


@contextmanager
def styled() -> Iterator[None]:
    """The look of the figures inside, nothing changed outside."""
    with seaborn.axes_style("whitegrid"), matplotlib.rc_context(_RC):
        yield


def grid_of_axes(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with exactly `count` axes, row by row; `size` of each in inches."""
    rows = -(-count // columns)
    columns = -(-count // rows)  # four panels stand two by two, not three and one
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), dpi=DPI, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def label_first_column(ax: Axes, name: str) -> bool:
    """Name the y axis where no neighbour on the left has the same one; and whether it was."""
    subplot = ax.get_subplotspec()
    is_first = subplot is None or subplot.is_first_col()
    ax.set_ylabel(name if is_first else "")
    return is_first


def name_figure(figure: Figure, title: str) -> None:
    """The title above all axes."""
    figure.suptitle(_within(figure.get_figwidth(), title))


def name_panel(ax: Axes, title: str) -> None:
    """The title above one of the axes of `grid_of_axes`."""
    grid, figure = ax.get_gridspec(), ax.get_figure()
    assert grid is not None
    assert isinstance(figure, Figure)
    ax.set_title(_within(figure.get_figwidth() / grid.ncols - _LEFT, title), x=0, ha="left")


def _within(width: float, title: str) -> str:
    """In as many lines as `width` [inches] needs; what the last brackets hold begins one of them."""
    letters = max(12, int(width / _INCH_A_LETTER))
    start = title.rfind(" (")
    parts = [title] if len(title) <= letters or start < 0 else [title[:start], title[start + 1 :]]
    return "\n".join(line for part in parts for line in wrap(part, letters) or [part])


def key(label: str, colour: str | tuple[float, float, float] = GREY, **style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=colour, label=label, **style)


def explain(figure: Figure, keys: Sequence[Artist]) -> None:
    """A legend below all axes, in as many rows as it needs."""
    columns = min(len(keys), max(1, int(figure.get_figwidth() // _INCHES_A_KEY)))
    figure.set_figheight(figure.get_figheight() + 0.23 * (-(-len(keys) // columns) - 1))
    figure.legend(handles=keys, loc="outside lower center", ncols=columns, frameon=False)


def count_axis(ax: Axes, end: float, name: str = "samples") -> None:
    """From 0 to the end, thousands as 50k."""
    ax.set_xlim(0, 1.01 * end or 1)
    ax.set_xlabel(name)
    round_ticks(ax.xaxis, 5)
    ticks(ax.xaxis, compact)


def round_ticks(axis: Axis, most: int, **options: Any) -> None:
    """At round numbers."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], **options))


def log_ticks(axis: Axis, low: float, high: float, short: float = 100.0) -> None:
    """Named 0.1, 1 and 10; 0.2 and 0.5 too where the ratio of the ends is below `short`."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < short * low else (1.0,)))
    axis.set_minor_locator(NullLocator())
    ticks(axis, "{:g}".format)


def ticks(axis: Axis, text: Callable[[float], str]) -> None:
    """What is written at a tick."""
    axis.set_major_formatter(lambda value, _: text(value))


def percent(share: float) -> str:
    """As 20 %."""
    return f"{100 * share:.0f} %"


def compact(value: float) -> str:
    """As 500, 50k, 1.5M."""
    size, suffix = next((found for found in _SIZES if abs(value) >= found[0]), (1.0, ""))
    return f"{value / size:.3g}{suffix}"


def share_y(panels: Iterable[tuple[Axes, Hashable]]) -> None:
    """One scale for all panels of the same group."""
    groups: dict[Hashable, list[Axes]] = {}
    for ax, group in panels:
        groups.setdefault(group, []).append(ax)
    for axes in groups.values():
        ends = np.array([ax.get_ylim() for ax in axes])
        for ax in axes:
            ax.set_ylim(float(ends[:, 0].min()), float(ends[:, 1].max()))


def darker(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    """Light colours of the palette are hard to read as text."""
    red, green, blue = (0.75 * part for part in colour)
    return red, green, blue


def short(text: str, longest: int = 32) -> str:
    """A label as a figure shows it; matplotlib would drop one that starts with an underscore."""
    line = plain(text, longest)
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


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG with a palette, which takes a third of the room and looks the same.

    It is drawn once; `Figure.savefig` would go through all of it twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas: Any = FigureCanvasAgg(figure)  # untyped
    canvas.draw()
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    image = drawn.convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)
    image.save(path, format="png", dpi=(DPI, DPI))


def pages(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """At most `size` items per page."""
    return [items[start : start + size] for start in range(0, len(items), size)]
