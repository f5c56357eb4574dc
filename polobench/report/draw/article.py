"""The article's published returns over our runs of its methods, a panel per arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polobench.analysis.article import SHOWN_EPISODES, EpisodeArm, PublishedReturn, published
from polobench.report.draw import style
from polobench.report.text import counted

_BLACK = "black"
_DOT: dict[str, Any] = {"markersize": 7, "linestyle": "none"}


def draw_article(every: Sequence[EpisodeArm], look: style.Looks) -> Figure | None:
    """The training returns of arms whose updates are episodes; None if none had an episode."""
    arms = [item for item in every if any(map(len, item.returns))]
    if not arms:
        return None
    figure, axes = style.grid_of_axes(len(arms), 2, (5.6, 3.3))
    for ax, item in zip(axes, arms, strict=True):
        returns = published()[item.arm.method].returns
        _draw_runs(ax, item, look[item.arm.label])
        _draw_published(ax, returns)
        style.name_panel(
            ax, f"{style.short(item.arm.label)} ({style.short(item.arm.task)}, {counted(len(item.returns), 'run')})"
        )
        ax.set_xlabel("episode, one per update")
        style.label_first_column(ax, "return of the episode")
        ax.set_xlim(0, 1.02 * max(*SHOWN_EPISODES, *map(len, item.returns)))
        ax.set_yscale("log")
        low, high = ax.set_ylim(*_ends(item, returns))
        style.log_ticks(ax.yaxis, low, high, short=1000)
    ours = [
        style.key("a run", _BLACK, linewidth=0.6, alpha=0.5),
        style.key("median of our runs", _BLACK, linewidth=1.6),
    ]
    dots = [
        style.key("the article's run", _BLACK, marker="o", **_DOT),
        style.key("its lower bound", _BLACK, marker="^", **_DOT),
    ]
    bar = style.key("its range", _BLACK, marker="|", markersize=12, markeredgewidth=3.5, linestyle="none")
    style.explain(figure, [*ours, *dots, bar])
    return figure


def _ends(item: EpisodeArm, returns: Mapping[int, PublishedReturn]) -> tuple[float, float]:
    """Around all that a panel shows."""
    every = np.concatenate(item.returns)
    drawn = np.concatenate([every[every > 0], [end for found in returns.values() for end in _known(found)]])
    low, high = float(drawn.min()), float(drawn.max())
    margin = (high / low) ** 0.06
    return low / margin, high * margin


def _known(found: PublishedReturn) -> list[float]:
    return [end for end in (found.low, found.high) if np.isfinite(end)]


def _draw_runs(ax: Axes, item: EpisodeArm, look: style.Look) -> None:
    """And the median over the runs that had the episode."""
    runs = [run for run in item.returns if len(run)]
    for run in runs:
        ax.plot(np.arange(1, len(run) + 1), run, color=look.colour, linewidth=0.6, alpha=0.3)
    middle = [np.median([run[at] for run in runs if len(run) > at]) for at in range(max(map(len, runs)))]
    ax.plot(np.arange(1, len(middle) + 1), middle, color=look.colour, linewidth=1.6)


def _draw_published(ax: Axes, returns: Mapping[int, PublishedReturn]) -> None:
    for episode, found in returns.items():
        ends = _known(found)
        if len(ends) == 2 and found.low < found.high:
            ax.plot([episode, episode], ends, color=_BLACK, linewidth=3.5, solid_capstyle="butt", zorder=4)
        elif ends:
            ax.plot(episode, ends[0], marker="o" if len(ends) == 2 else "^", color=_BLACK, zorder=4, **_DOT)
