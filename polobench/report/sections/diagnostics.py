"""When the target was reached, and what happened inside the updates: loss and KL over samples, a panel per arm.

Losses of different methods mean different things, so each has its own axis; KL shares one, in nats. A band holds the
middle 90 % of the runs that are still going.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch

from polobench.analysis.columns import columns
from polobench.analysis.curves import GRID_POINTS
from polobench.analysis.frame import flat_table
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.summary import moves
from polobench.core.result import RunResult
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw import style
from polobench.report.draw.arrivals import draw_arrivals, has_reached
from polobench.report.draw.panels import PANELS_A_PAGE, Panel
from polobench.report.findings import Findings
from polobench.report.formatting import counted, with_ends
from polobench.report.words import note

_GRID = (4, (3.7, 2.9))  # columns, and inches of a panel
_NAMES = {"loss": "loss", "kl": "KL(old, new) [nats]"}
_LEVELS = (0.05, 0.5, 0.95)
_CROSS: dict[str, Any] = {"marker": "X", "markersize": 7, "linestyle": "none"}
_BINS = (6, 24)
Lines = list[tuple[RunResult, Array, Array]]  # a run, its samples and its metric


def arrival_sections(findings: Findings) -> list[Section]:
    """Empty where no run of any task reached its target."""
    if not findings.arrivals:
        return []
    arrived = style.pages([panel for panel in findings.panels if has_reached(panel)], PANELS_A_PAGE)
    subject = "Share of runs that reached the target over samples"
    headers = ["task", "budget", "method", "device", "reached", "samples to target, capped at the budget [95 %]"]
    rows = []
    for item in findings.arrivals:
        arm, mean = item.arm, with_ends(item.mean, item.interval, 0)
        rows.append([arm.task, arm.budget, arm.label, arm.device, f"{item.reached}/{item.n}", mean])
    blocks: list[Block] = [
        *figures("time_to_target", subject, draw_arrivals, arrived, findings.looks, note("arrivals")),
        *compact(Table(headers, rows, "llllrr"), 3),
        Paragraph(note("arrival_mean")),
    ]
    return [Section("Time to target", blocks, {"time_to_target": flat_table(findings.arrivals)})]


def update_sections(findings: Findings) -> list[Section]:
    """Loss and KL of each task, then how the losses are spread."""
    parts, look = findings.parts, findings.looks
    blocks = [
        *part_figures(parts, "loss", "Loss over samples", partial(draw_updates, look=look, metric="loss")),
        *part_figures(parts, "kl", "KL over samples", partial(draw_updates, look=look, metric="kl")),
    ]
    blocks += [Paragraph(note("updates"))] if blocks else []
    subject, draw = "Distribution of the losses of the updates", partial(draw_losses, look=look)
    blocks += part_figures(findings.spoken, "losses", subject, draw, note("losses"))
    return [Section("Loss and KL", blocks)] if blocks else []


def part_figures(
    parts: Sequence[tuple[str, Panel]], name: str, subject: str, draw: Callable[[Panel], Drawing | None],
    caption: Text = "",
) -> list[Block]:  # fmt: skip
    """A figure for each task, and for each part of one with many arms."""
    return [
        Figure(f"{name}_{number}_{part.file_part}", f"{subject} on {part.task}", partial(draw, part), caption)
        for number, part in parts
    ]


def draw_updates(panel: Panel, look: style.Looks, metric: str) -> Drawing | None:
    """One metric of one task, a small panel per arm whose metric moves by more than noise; None if none has."""
    found = [(arm, lines) for arm, runs in panel.arms if (lines := _lines(runs, metric))]
    if not found:
        return None
    every = np.concatenate([values for _, lines in found for _, _, values in lines])
    logarithmic = metric == "kl" and every.min() >= 0 and every.max() > 0
    figure, axes = style.grid_of_axes(len(found), *_GRID)
    for ax, (arm, lines) in zip(axes, found, strict=True):
        _draw_arm(ax, lines, look[arm.label], logarithmic)
        style.name_panel(ax, panel.name(arm))
        style.count_axis(ax, max(float(samples[-1]) for _, samples, _ in lines))
        is_first = style.label_first_column(ax, _NAMES[metric])
        if metric == "kl":
            ax.set_yscale("log" if logarithmic else "linear")
            ax.tick_params(labelleft=is_first)
    if metric == "kl":  # in nats, so that steps of different methods can be compared
        style.share_y([(ax, metric) for ax in axes])
    for ax in axes if logarithmic else ():
        style.log_ticks(ax.yaxis, *ax.get_ylim())
    style.name_figure(figure, panel.title)
    style.explain(figure, _keys([lines for _, lines in found]))
    return figure


def _lines(runs: Sequence[RunResult], metric: str) -> Lines:
    """The runs that have the metric; none if it never moves, as the loss of a method that learns nothing."""
    found: Lines = []
    for run in runs:
        if metric in run.updates:
            samples, values = map(style.drawable, columns(run.updates, "samples", metric))
            known = np.isfinite(samples) & np.isfinite(values)
            if known.sum() > 1:
                found.append((run, samples[known], values[known]))
    every = np.concatenate([np.empty(0), *(values for _, _, values in found)])
    return found if len(every) and (moves(every) if metric == "loss" else np.ptp(every) > 0) else []


def _draw_arm(ax: Axes, lines: Lines, look: style.Look, logarithmic: bool) -> None:
    """The median, the band and a cross where a run failed; a logarithm shows no 0."""
    grid = np.linspace(0, max(samples.max() for _, samples, _ in lines), GRID_POINTS)
    curves = [np.interp(grid, samples, values, np.nan, np.nan) for _, samples, values in lines]
    samples, levels = _quantiles(grid, np.stack(curves))
    low, middle, high = np.where(levels > 0, levels, np.nan) if logarithmic else levels
    ax.fill_between(samples, low, high, color=look.colour, alpha=0.3, linewidth=0)
    ax.plot(samples, middle, color=look.colour, linewidth=2)
    shown = [(run, y > 0 if logarithmic else np.full(len(y), True), x, y) for run, x, y in lines]
    ends = [(x[known][-1], y[known][-1]) for run, known, x, y in shown if run.status != "ok" and known.any()]
    if ends:
        ax.plot(*zip(*ends, strict=True), color="black", zorder=5, **_CROSS)


def _quantiles(grid: Array, curves: Array) -> tuple[Array, Array]:
    """Quantiles of runs, `[n, G]`, each NaN where it has not begun or has ended: where at least half have a value.

    Returns:
        The places that are left, `[K]`, and each level there, `[levels, K]`: of one or two runs they would jump.
    """
    known = np.isfinite(curves).mean(axis=0) >= 0.5
    return grid[known], np.nanquantile(curves[:, known], _LEVELS, axis=0)


def _keys(found: Sequence[Lines]) -> list[Artist]:
    """Of what was drawn."""
    several = any(len(lines) > 1 for lines in found)
    keys: list[Artist] = [style.key("median" if several else "one run", "black", linewidth=2)]
    if several:
        keys.append(Patch(color="black", alpha=0.3, linewidth=0, label="middle 90 % of runs"))
    if any(run.status != "ok" for lines in found for run, *_ in lines):
        keys.append(style.key("run failed", "black", **_CROSS))
    return keys


def draw_losses(panel: Panel, look: style.Looks) -> Drawing | None:
    """How the losses of the updates are spread, all seeds pooled; None where no loss moves by more than noise."""
    every = [(arm, runs, _losses(runs)) for arm, runs in panel.arms]
    found = [(arm, runs, losses) for arm, runs, losses in every if len(losses) and moves(losses)]
    if not found:
        return None
    figure, axes = style.grid_of_axes(len(found), *_GRID)
    for ax, (arm, runs, losses) in zip(axes, found, strict=True):
        shares, edges = _shares(losses)
        ax.stairs(shares, edges, fill=True, color=look[arm.label].colour, alpha=0.55, edgecolor="white")
        style.name_panel(ax, f"{panel.name(arm)} ({counted(len(runs), 'run')})")
        ax.set_xlabel("loss")
        style.label_first_column(ax, "share of updates")
        ax.set_ylim(bottom=0)
        # few labels, for they may be long, and none at an end of x, where it would touch the next panel's
        style.round_ticks(ax.xaxis, 4, prune="both")
        style.round_ticks(ax.yaxis, 5)
    style.name_figure(figure, panel.title)
    return figure


def _losses(runs: Sequence[RunResult]) -> Array:
    every = [run.updates["loss"].astype(float) for run in runs if "loss" in run.updates]
    values = style.drawable(np.concatenate([np.empty(0), *every]))
    return values[np.isfinite(values)]


def _shares(values: Array) -> tuple[Array, Array]:
    """In equally wide bins, more for more values; those far out are in the outermost bins."""
    count = int(np.clip(np.sqrt(len(values)), *_BINS))
    low, high = style.typical_range(values, 0.0)
    counts, edges = np.histogram(np.clip(values, low, high), count, (low, high))
    return counts / len(values), edges
