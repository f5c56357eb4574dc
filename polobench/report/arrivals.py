"""When the target was reached: the share of runs over samples, and the mean of which no more than the budget counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from polobench.analysis.collection import Arm
from polobench.analysis.frame import reached, table_of
from polobench.analysis.statistics.intervals import Interval
from polobench.analysis.statistics.survival import (
    TimeToTarget,
    restricted_mean,
    restricted_mean_interval,
    time_to_target,
)
from polobench.core.result import RunResult
from polobench.report.draw.panels import MOST_COMPARED, Drawn, Panel
from polobench.report.draw.style import Look, grid_of_axes, label_first_column, legend, name_panel, save, thousands
from polobench.report.tables import TextTable, arm_columns
from polobench.report.text import ends, escape, number

TIME_CAPTION = (
    "Time to target: the share of runs that had reached the target by then (two evaluations in a row at or above it), "
    "by Kaplan and Meier. A run that never reached it, failed ones included, counts as not there until the budget "
    "ends. Bands, from a method's first such run on: 95 % Wilson intervals at each moment by itself, over the n runs "
    "of the table. Tasks whose target no run reached are left out, as are those of one run a method or of more than "
    f"{MOST_COMPARED} methods."
)
MEAN_NOTE = (
    "Mean: of the samples to target, of which no more than the budget counts, so that a run that never got there "
    "counts as all of it (the restricted mean, the area under the Kaplan-Meier curve); [95 %]: percentile bootstrap "
    "over runs."
)
_COLUMNS = 3
_SIZE = (4.6, 3.5)


def has_reached(panel: Panel) -> bool:
    """Whether a run of the panel ever reached its target, and there are shares of runs to draw."""
    several = len(panel.arms) <= MOST_COMPARED and any(len(runs) > 1 for _, runs in panel.arms)
    return several and any(reached(run) for _, runs in panel.arms for run in runs)


def arrivals(panel: Panel) -> dict[str, TimeToTarget]:
    """By label, the share of runs that have reached the target over samples."""
    end = _last_sample(panel)
    return {arm.label: time_to_target(*_times(runs, end)) for arm, runs in panel.arms}


def _times(runs: Sequence[RunResult], end: float) -> tuple[list[float], list[bool]]:
    """When each run was there, or where it is censored, at the end; and whether it was there."""
    there = [bool(reached(run)) for run in runs]
    samples = [float(run.time_to_target.get("samples") or 0.0) for run in runs]
    return [value if known else end for value, known in zip(samples, there, strict=True)], there


def _last_sample(panel: Panel) -> float:
    """Where the panel's axis ends, and where runs that never got there are censored."""
    return max(_end(run) for _, runs in panel.arms for run in runs)


def _end(run: RunResult) -> float:
    """The budget of samples, or what the run used where the budget is none of samples."""
    return float(run.budget.get("samples") or max(run.ledger.samples, run.time_to_target.get("samples") or 0.0))


def draw_arrivals(page: Sequence[Panel], number_of_page: int, look: Mapping[str, Look], folder: Path) -> Drawn:
    """One page of panels, each with a step curve a method."""
    figure, axes = grid_of_axes(len(page), _COLUMNS, _SIZE)
    for ax, panel in zip(axes, page, strict=True):
        curves = arrivals(panel)
        end = _last_sample(panel)
        for label, curve in curves.items():
            _draw_steps(ax, curve, end, look[label], len(curves))
        name_panel(ax, panel.title)
        ax.set_xlim(0, end)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("samples")
        label_first_column(ax, "share of runs at the target")
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        thousands(ax.xaxis)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    legend(figure, sorted({arm.label for panel in page for arm, _ in panel.arms}), look)
    path = save(figure, folder / f"time_to_target_{number_of_page}.png")
    return Drawn(path, "time_to_target", "Share of runs that reached the target over samples")


def _draw_steps(ax: Axes, curve: TimeToTarget, end: float, look: Look, beside: int) -> None:
    """Level after the last run, to the end of the axis; before the first the bands of all methods would be the same."""
    times = np.append(curve.times, end)
    share, low, high = (np.append(values, values[-1]) for values in (curve.reached_share, curve.low, curve.high))
    ax.step(times, share, where="post", color=look.colour, linestyle=look.dashes, linewidth=2)
    some, ink = share > 0, min(0.14, 0.6 / beside)
    ax.fill_between(times[some], low[some], high[some], step="post", color=look.colour, alpha=ink, linewidth=0)


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
    return [
        _arrival(arm, runs, end)
        for panel in every
        if has_reached(panel)
        for end in [_last_sample(panel)]
        for arm, runs in panel.arms
    ]


def _arrival(arm: Arm, runs: Sequence[RunResult], end: float) -> Arrival:
    times, there = _times(runs, end)
    mean = restricted_mean(times, there, end)
    return Arrival(arm, len(runs), sum(there), mean, restricted_mean_interval(times, there, end))


def arrival_frame(items: Sequence[Arrival]) -> pd.DataFrame:
    """A row an arm."""
    return table_of(
        arm_columns(item.arm)
        | {"n": item.n, "reached": item.reached, "restricted_mean_samples": item.mean}
        | {"low": item.interval.low, "high": item.interval.high, "interval": f"95 % {item.interval.method}"}
        for item in items
    )


def arrival_table(items: Sequence[Arrival]) -> str:
    """The same as text; empty where no run of any task reached its target."""
    rows = [
        [
            *(escape(text) for text in (item.arm.task, item.arm.budget, item.arm.label, item.arm.device)),
            f"{item.reached}/{item.n}",
            f"{number(item.mean)} {ends(item.interval, 0)}".strip(),
        ]
        for item in items
    ]
    headers = ["task", "budget", "method", "device", "reached", "samples to target, restricted mean [95 %]"]
    return f"{TextTable(headers, rows, 'llllrr').markdown()}\n\n{MEAN_NOTE}" if rows else ""
