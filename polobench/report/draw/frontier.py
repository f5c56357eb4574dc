"""Ways to solve a preference problem: gold reward over KL, learned and gold reward over training, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polobench.analysis.frontier import BestOf, Place, Pursuit, RewardModels
from polobench.report.draw import style
from polobench.report.draw.lines import Spot, place_labels
from polobench.report.draw.style import key

DASHES = {"pairs": "-", "reward model": "--", "gold reward": ":"}
PANELS_A_PAGE = 8
_SIZE, _SMALL = (9.0, 5.4), (4.4, 3.2)
_AXES = {"learned": "learned reward [checkpoint's deviations]", "gold": "gold reward"}


def draw_frontier(items: Sequence[Place], baselines: Sequence[BestOf]) -> Figure:
    """One problem: a line for each method and what it sees, a dot for each pull; bars are 95 % intervals of gold."""
    figure, (ax,) = style.grid_of_axes(1, 1, _SIZE)
    lines = sorted({(item.line, item.feedback) for item in items})
    look = style.looks([*dict.fromkeys(line for line, _ in lines)])
    spots = []
    for line, feedback in lines:
        mine = sorted((i for i in items if (i.line, i.feedback) == (line, feedback)), key=lambda item: item.kl.value)
        x, y = np.array([[item.kl.value, item.gold.value] for item in mine]).T
        ends = [[item.gold.interval.low, item.gold.interval.high] for item in mine]
        errors = np.nan_to_num(np.abs(np.array(ends) - y[:, None])).T
        colour = look[line].colour
        ax.errorbar(
            x, y, yerr=errors, color=colour, linestyle=DASHES[feedback], marker="o", markersize=4.5, elinewidth=1
        )
        best = int(np.nanargmax(y)) if np.isfinite(y).any() else 0
        spots.append(Spot(x[best], y[best], line, colour, np.column_stack([x, y])))
    for item in baselines:
        mark = "^" if item.feedback == "reward model" else "v"
        ax.plot(item.kl, item.gold.value, mark, color=style.GREY, markersize=7)
        spots.append(Spot(item.kl, item.gold.value, f"best of {item.n}", (0.4, 0.4, 0.4), np.empty((0, 2))))
    ax.set_xscale("symlog", linthresh=1.0)
    ax.set_xlim(left=0)
    ax.set_xlabel("KL to the checkpoint [nats per completion, sampled at temperature 1]")
    ax.set_ylabel("gold reward of sampled completions")
    style.ticks(ax.xaxis, style.compact)
    shown = dict.fromkeys(feedback for _, feedback in lines)
    style.explain(figure, [key(f"sees: {name}", linestyle=DASHES[name]) for name in shown])
    place_labels(ax, spots, _SIZE)
    return figure


def draw_pursuits(items: Sequence[Pursuit], look: style.Looks) -> Figure:
    """An arm each: learned reward dashed on the right axis, gold reward on the left one, over KL."""
    figure, axes = style.grid_of_axes(len(items), 4, _SMALL)
    for ax, item in zip(axes, items, strict=True):
        style.name_panel(ax, style.short(item.arm.label))
        colour = look[item.arm.label].colour
        ax.plot(item.samples, item.gold, color=colour, marker="o", markersize=3.5)
        other = ax.twinx()
        other.plot(item.samples, item.learned, color=colour, linestyle="--")
        other.grid(visible=False)
        style.label_first_column(ax, _AXES["gold"])
        other.set_ylabel(_AXES["learned"], fontsize=8)
        style.count_axis(ax, float(item.samples[-1]))
        ax.set_ylim(0, 1)
    style.explain(figure, [key("gold (left axis)"), key("learned (right axis)", linestyle="--")])
    return figure


def draw_calibration(items: Sequence[RewardModels]) -> Figure:
    """A task each: dots on the diagonal are probabilities that come true; a dot's area follows its pairs."""
    figure, axes = style.grid_of_axes(len(items), 3, _SMALL)
    for ax, item in zip(axes, items, strict=True):
        style.name_panel(ax, style.short(item.task))
        ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9)
        ax.scatter(item.predicted, item.observed, s=8 + 120 * item.counts / item.counts.max(), color="#333333")
        _name_shares(ax)
    return figure


def _name_shares(ax: Axes) -> None:
    ax.set_xlabel("predicted probability")
    ax.set_ylabel("share observed")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
