"""When the target was reached: the share of runs over samples, and the mean time, at most the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
from matplotlib.figure import Figure

from polobench.analysis.collection import Arm
from polobench.analysis.frame import reached
from polobench.analysis.statistics import survival
from polobench.analysis.statistics.intervals import Interval
from polobench.core.result import RunResult
from polobench.report.draw import style
from polobench.report.draw.lines import Line, draw_lines
from polobench.report.draw.panels import MOST_COMPARED, Panel

_COLUMNS = 6
_OTHERS = "#cccccc"


def has_reached(panel: Panel) -> bool:
    """Whether a run of the panel ever reached its target, and there are shares of runs to draw."""
    several = len(panel.arms) <= MOST_COMPARED and any(len(runs) > 1 for _, runs in panel.arms)
    return several and any(reached(run) for _, runs in panel.arms for run in runs)


def arrivals(panel: Panel) -> dict[str, survival.TimeToTarget]:
    """By label, the share of runs that have reached the target over samples."""
    end = last_sample(panel)
    return {arm.label: survival.time_to_target(*_times(runs, end)) for arm, runs in panel.arms}


def _times(runs: Sequence[RunResult], end: float) -> tuple[list[float], list[bool]]:
    """When each run was there, or where it is censored, at the end; and whether it was there."""
    there = [bool(reached(run)) for run in runs]
    samples = [run.time_to_target["samples"] or 0.0 if known else end for run, known in zip(runs, there, strict=True)]
    return samples, there


def last_sample(panel: Panel) -> float:
    """Where the panel's axis ends, and where runs that never got there are censored."""
    every = [run for _, runs in panel.arms for run in runs]
    spent = [max(run.ledger.samples, run.time_to_target.get("samples") or 0.0) for run in every]
    return max(float(run.budget.get("samples") or samples) for run, samples in zip(every, spent, strict=True))


@dataclass(frozen=True)
class Arrival:
    """How many of an arm's runs reached the target, and the restricted mean of the samples to it with its interval."""

    arm: Arm
    n: int
    reached: int
    mean: float
    interval: Interval


def arrivals_of(every: Sequence[Panel]) -> list[Arrival]:
    """Of each arm of the tasks whose target a run reached."""
    found = []
    for panel in filter(has_reached, every):
        end = last_sample(panel)
        for arm, runs in panel.arms:
            times, there = _times(runs, end)
            mean = survival.restricted_mean(times, there, end)
            found.append(Arrival(arm, len(runs), sum(there), mean.value, mean.interval))
    return found


def draw_arrivals(page: Sequence[Panel], look: style.Looks) -> Figure:
    """A row per task and a panel per method: its curve and band, those of the others in grey."""
    columns = min(_COLUMNS, max(len(panel.arms) for panel in page))
    blocks = [-(-len(panel.arms) // columns) * columns for panel in page]
    figure, axes = style.grid_of_axes(sum(blocks), columns, (2.6, 1.9))
    rest = iter(axes)
    for panel, block in zip(page, blocks, strict=True):
        lines = _lines(panel, look)
        for ax, line in zip_longest(islice(rest, block), lines):
            if line is None:
                ax.remove()
                continue
            for other in lines:
                ax.step(other.x, other.y, where="post", color=_OTHERS, linewidth=1)
            draw_lines(ax, [line], {}, steps=True)
            style.name_panel(ax, line.name)
            style.count_axis(ax, float(line.x[-1]))
            ax.set_ylim(-0.03, 1.03)
            ax.set_yticks([0, 0.5, 1])
            style.ticks(ax.yaxis, style.percent)
            name = f"{style.short(panel.task, 20)}\n{style.short(panel.budget, 20)}"
            ax.tick_params(labelleft=style.label_first_column(ax, name))
    return figure


def _lines(panel: Panel, look: style.Looks) -> list[Line]:
    """The curve of each label, level after its last run; its band begins with its first, as all would be the same."""
    found, end = arrivals(panel), last_sample(panel)
    lines = []
    for label in sorted(found, key=style.natural):
        curve = found[label]
        share, low, high = (np.append(part, part[-1]) for part in (curve.reached_share, curve.low, curve.high))
        band = [np.where(share > 0, part, np.nan) for part in (low, high)]
        lines.append(Line(style.short(label), look[label], np.append(curve.times, end), share, *band))
    return lines
