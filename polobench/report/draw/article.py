"""The article's published returns over our runs of its methods, a panel an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polobench.analysis.article import SHOWN_EPISODES, EpisodeArm, PublishedReturn, published
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw.panels import Drawn
from polobench.report.draw.style import Look, grid_of_axes, name_panel, save, short

_COLUMNS = 2
_TICKS = [step * 10**power for power in range(6) for step in (1, 2, 5)]
_BLACK = "black"


def draw_article(every: Sequence[EpisodeArm], look: Mapping[str, Look], folder: Path) -> Drawn | None:
    """The training returns of arms whose updates are episodes; None if none had an episode."""
    arms = [item for item in every if any(map(len, item.returns))]
    if not arms:
        return None
    figure, axes = grid_of_axes(len(arms), _COLUMNS, (5.6, 3.3))
    for index, (ax, item) in enumerate(zip(axes, arms, strict=True)):
        _draw_runs(ax, item, look[item.arm.label])
        _draw_published(ax, published()[item.arm.method].returns)
        _finish(ax, item, "return of the episode" if index % _COLUMNS == 0 else "")
    _explain(figure)
    return Drawn(save(figure, folder / "article.png"), "article", "Training returns, the article's run over ours")


def _ends(item: EpisodeArm) -> tuple[float, float]:
    """Around all that a panel shows."""
    every = np.concatenate(item.returns)
    shown = [end for found in published()[item.arm.method].returns.values() for end in _known(found)]
    drawn = np.concatenate([every[every > 0], shown])
    low, high = float(drawn.min()), float(drawn.max())
    margin = (high / low) ** 0.06
    return low / margin, high * margin


def _known(found: PublishedReturn) -> list[float]:
    return [end for end in (found.low, found.high) if np.isfinite(end)]


def _draw_runs(ax: Axes, item: EpisodeArm, look: Look) -> None:
    for run in item.returns:
        ax.plot(np.arange(1, len(run) + 1), run, color=look.colour, linewidth=0.6, alpha=0.3)
    middle = _median([run for run in item.returns if len(run)])
    ax.plot(np.arange(1, len(middle) + 1), middle, color=look.colour, linewidth=1.6)


def _median(runs: list[Array]) -> Array:
    """Over the runs that had the episode."""
    return np.array([np.median([run[at] for run in runs if len(run) > at]) for at in range(max(map(len, runs)))])


def _draw_published(ax: Axes, returns: Mapping[int, PublishedReturn]) -> None:
    for episode, found in returns.items():
        ends = _known(found)
        if len(ends) == 2 and found.low < found.high:
            ax.plot([episode, episode], ends, color=_BLACK, linewidth=3.5, solid_capstyle="butt", zorder=4)
        elif ends:
            marker = "o" if len(ends) == 2 else "^"
            ax.plot(episode, ends[0], marker=marker, color=_BLACK, markersize=7, linestyle="none", zorder=4)


def _finish(ax: Axes, item: EpisodeArm, y_name: str) -> None:
    runs, ends = len(item.returns), _ends(item)
    name_panel(ax, f"{short(item.arm.label)} ({short(item.arm.task)}, {runs} run{'s' if runs != 1 else ''})")
    ax.set_xlabel("episode, one an update")
    ax.set_ylabel(y_name)
    ax.set_xlim(0, 1.02 * max(*SHOWN_EPISODES, *map(len, item.returns)))
    ax.set_yscale("log")
    ax.set_ylim(*ends)
    ax.yaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if ends[0] <= tick <= ends[1]]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _explain(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=_BLACK, linewidth=0.6, alpha=0.5, label="a run"),
        Line2D([], [], color=_BLACK, linewidth=1.6, label="median of our runs"),
        Line2D([], [], color=_BLACK, marker="o", markersize=7, linestyle="none", label="the article's run"),
        Line2D([], [], color=_BLACK, marker="^", markersize=7, linestyle="none", label="its lower bound"),
        Line2D(
            [], [], color=_BLACK, marker="|", markersize=12, markeredgewidth=3.5, linestyle="none", label="its range"
        ),
    ]
    columns = min(len(handles), max(1, int(figure.get_figwidth() // 2.1)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
