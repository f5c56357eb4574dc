"""Learning curves, and scores against what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polobench.analysis.statistics.intervals import Array, mean_interval
from polobench.core.result import RunResult
from polobench.report.blocks import Paragraph, Section, figures
from polobench.report.draw import style
from polobench.report.draw.curves import draw_returns
from polobench.report.draw.lines import Spot, place_labels
from polobench.report.draw.panels import LEADING, MOST_NAMED, PANELS_A_PAGE, Panel, merged
from polobench.report.findings import Findings
from polobench.report.words import note

RETURNS = "Held-out return over samples"
_MOST_PAGES = 2
_SIZE = (4.6, 3.5)
_BAR_MARKS = 20
_LEAST_RATIO = 5.0  # of the ends of the axis of costs: two of 1, 2, 5, 10 lie between them wherever they are


def sections(findings: Findings) -> list[Section]:
    """The first pages of both, of a task with a leaderboard the arms on it; the cards of the tasks have all of them."""
    first = [panel for panel in findings.curves if panel.part == LEADING]
    led = {(panel.task, panel.budget, panel.device) for panel in first}
    first += [panel for panel in findings.curves if (panel.task, panel.budget, panel.device) not in led]
    shown, look = style.pages(first, PANELS_A_PAGE)[:_MOST_PAGES], findings.looks
    blocks = figures("returns_over_samples", RETURNS, draw_returns, shown, look, note("returns"))
    if sum(map(len, shown)) < len(findings.curves):
        blocks.append(Paragraph("Further arms and tasks have their curves in their cards."))
    if not findings.is_first_look:
        costly = style.pages(
            [panel for panel in merged(findings.panels, MOST_NAMED) if has_costs(panel)], PANELS_A_PAGE
        )
        blocks += figures("cost", "Cost against score", draw_costs, costly[:1], look, note("cost", most=MOST_NAMED))
    return [Section("Curves and cost", blocks)] if blocks else []


def costs(panel: Panel, runs: Sequence[RunResult]) -> tuple[Array, Array]:
    """Seconds per 1,000 samples and final score (or return) of each run, `[n]`; a cost is NaN where nothing ran."""
    seconds = np.array([getattr(run.ledger, _axis(panel)) for run in runs], np.float64)
    samples = np.array([run.ledger.samples for run in runs], np.float64)
    cost = np.divide(1000 * seconds, samples, out=np.full(len(runs), math.nan), where=(samples > 0) & (seconds > 0))
    scored = _has_target(panel)
    scores = [run.final_score if scored else run.final_return for run in runs]
    return cost, np.array(scores, np.float64)


def _axis(panel: Panel) -> str:
    """The CPU's seconds say nothing of an accelerator's."""
    return "cpu_seconds" if panel.device == "cpu" else panel.seconds


def _has_target(panel: Panel) -> bool:
    return all(run.final_score is not None for _, runs in panel.arms for run in runs)


def has_costs(panel: Panel) -> bool:
    """Whether a method of the panel can be drawn, and their names can be read."""
    return len(panel.arms) <= MOST_NAMED and any(_is_drawable(*costs(panel, runs)) for _, runs in panel.arms)


def _is_drawable(cost: Array, score: Array) -> bool:
    return bool(np.isfinite(cost).any()) and bool((np.abs(score) < style.LARGEST_DRAWN).all())


def draw_costs(page: Sequence[Panel], look: style.Looks) -> Figure:
    """Panels, each with dots for the runs and for the mean of each method, labelled directly."""
    figure, axes = style.grid_of_axes(len(page), 3, _SIZE)
    for ax, panel in zip(axes, page, strict=True):
        spots = []
        for arm, runs in panel.arms:
            cost, score = costs(panel, runs)
            if _is_drawable(cost, score):
                spots.append(_draw_arm(ax, cost, score, panel.name(arm), look[arm.label]))
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        beyond = max(1.5, math.sqrt(_LEAST_RATIO * low / high))
        low, high = ax.set_xlim(low / beyond, high * beyond)
        ax.margins(y=0.12)
        style.log_ticks(ax.xaxis, low, high)
        style.round_ticks(ax.yaxis, 6)
        style.name_panel(ax, panel.title)
        clock = "CPU" if _axis(panel) == "cpu_seconds" else "wall-clock"
        ax.set_xlabel(f"{clock} seconds per 1,000 samples")
        ax.set_ylabel("final score (0 = floor, 1 = target)" if _has_target(panel) else "final held-out return")
        place_labels(ax, spots, _SIZE)
    return figure


def _draw_arm(ax: Axes, cost: Array, score: Array, name: str, look: style.Look) -> Spot:
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
    return Spot(middle, mean, name, look.colour, marks[np.isfinite(marks).all(axis=1)])
