"""What a method's scores cost: the share of runs at the target over samples, and the final score over its seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from polobench.analysis.frame import reached
from polobench.analysis.statistics import Array, mean_interval
from polobench.analysis.survival import TimeToTarget, time_to_target
from polobench.core.result import RunResult
from polobench.report.panels import MOST_COMPARED, Drawn, Panel
from polobench.report.placing import Spot, place_labels
from polobench.report.style import (
    LARGEST_DRAWN,
    Look,
    grid_of_axes,
    label_first_column,
    legend,
    save,
    short,
    thousands,
)

TIME_CAPTION = (
    "Time to target: the share of runs that had reached the target by then (two evaluations in a row at or above it), "
    "by Kaplan and Meier. A run that never reached it, failed ones included, counts as not there until the budget "
    "ends. Bands, from a method's first such run on: 95 % Wilson intervals at each moment by itself, over the n runs "
    "of the table. Tasks whose target no run reached are left out, as are those of one run a method or of more than "
    f"{MOST_COMPARED} methods."
)
COST_CAPTION = (
    "Cost against score: small dots are runs, a large one is the mean score of a method at its median cost, with the "
    "95 % Student's t interval of that mean over its n runs, failed ones included, at the floor. Cost is in "
    "seconds of training for 1,000 samples, evaluation excluded: of the CPU for runs on it, else of the wall where "
    f"they ran alone. Tasks without a target show the return; those of more than {MOST_COMPARED} methods are left out."
)
_COLUMNS = 3
_SIZE = (4.6, 3.5)
_BAR_MARKS = 20


def has_reached(panel: Panel) -> bool:
    """Whether a run of the panel ever reached its target, and there are shares of runs to draw."""
    several = len(panel.arms) <= MOST_COMPARED and any(len(runs) > 1 for _, runs in panel.arms)
    return several and any(reached(run) for _, runs in panel.arms for run in runs)


def arrivals(panel: Panel) -> dict[str, TimeToTarget]:
    """By label, the share of runs that have reached the target over samples."""
    end = _last_sample(panel)
    found = {}
    for arm, runs in panel.arms:
        there = [bool(reached(run)) for run in runs]
        times = [_samples(run) if there_now else end for run, there_now in zip(runs, there, strict=True)]
        found[arm.label] = time_to_target(times, there)
    return found


def _samples(run: RunResult) -> float:
    return float(run.time_to_target["samples"] or 0.0)


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
        ax.set_title(panel.title)
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


def costs(panel: Panel, runs: Sequence[RunResult]) -> tuple[Array, Array]:
    """Seconds for 1,000 samples and final score (or return) of each run, `[n]`; a cost is NaN where nothing ran."""
    axis = _axis(panel)
    seconds = np.array([getattr(run.ledger, axis) for run in runs], np.float64)
    samples = np.array([run.ledger.samples for run in runs], np.float64)
    cost = np.divide(1000 * seconds, samples, out=np.full(len(runs), math.nan), where=(samples > 0) & (seconds > 0))
    scores = [run.final_score if has_target(panel) else run.final_return for run in runs]
    return cost, np.array(scores, np.float64)


def _axis(panel: Panel) -> str:
    """The CPU's seconds say nothing of an accelerator's."""
    return "cpu_seconds" if panel.device == "cpu" else panel.seconds


def has_target(panel: Panel) -> bool:
    """Whether every run of the panel has a score."""
    return all(run.final_score is not None for _, runs in panel.arms for run in runs)


def has_costs(panel: Panel) -> bool:
    """Whether a method of the panel can be drawn, and their names can be read."""
    return len(panel.arms) <= MOST_COMPARED and any(_is_drawable(*costs(panel, runs)) for _, runs in panel.arms)


def _is_drawable(cost: Array, score: Array) -> bool:
    return bool(np.isfinite(cost).any()) and bool((np.abs(score) < LARGEST_DRAWN).all())


def draw_costs(page: Sequence[Panel], number_of_page: int, look: Mapping[str, Look], folder: Path) -> Drawn:
    """One page of panels, each with dots for the runs and for the mean of each method, labelled directly."""
    figure, axes = grid_of_axes(len(page), _COLUMNS, _SIZE)
    for ax, panel in zip(axes, page, strict=True):
        spots = []
        for arm, runs in panel.arms:
            cost, score = costs(panel, runs)
            if _is_drawable(cost, score):
                spots.append(_draw_arm(ax, cost, score, arm.label, look[arm.label]))
        _finish(ax, panel)
        place_labels(ax, spots, _SIZE)
    path = save(figure, folder / f"cost_{number_of_page}.png")
    return Drawn(path, "cost", "Cost against score")


def _draw_arm(ax: Axes, cost: Array, score: Array, label: str, look: Look) -> Spot:
    ink = float(np.clip(10 / len(cost), 0.08, 0.4))
    ax.plot(cost, score, marker="o", color=look.colour, markersize=4, alpha=ink, linestyle="none", markeredgewidth=0)
    middle, mean = float(np.nanmedian(cost)), float(score.mean())
    interval = mean_interval(score.tolist())
    marks = np.column_stack([cost, score])
    if not math.isnan(interval.low):
        bar = np.linspace(interval.low, interval.high, _BAR_MARKS)
        marks = np.vstack([marks, np.column_stack([np.full(_BAR_MARKS, middle), bar])])
        ax.vlines(middle, interval.low, interval.high, color=look.colour, linewidth=2.2, zorder=4)
    ax.plot(
        middle, mean, marker="o", color=look.colour, markersize=9, linestyle="none", markeredgecolor="white", zorder=5
    )
    return Spot(middle, mean, short(label, 24), look.colour, marks[np.isfinite(marks).all(axis=1)])


def _finish(ax: Axes, panel: Panel) -> None:
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.set_xlim(low / 1.5, high * 1.5)
    ax.margins(y=0.12)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 30 * low else (1.0,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.set_title(panel.title)
    clock = "CPU" if _axis(panel) == "cpu_seconds" else "wall"
    ax.set_xlabel(f"{clock} seconds for 1,000 samples")
    ax.set_ylabel("final score (0 = floor, 1 = target)" if has_target(panel) else "final held-out return")
