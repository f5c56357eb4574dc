"""How fast whole iterations are, and what takes the time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from polobench.analysis.frame import flat_table
from polobench.analysis.summary import ThroughputSummary
from polobench.report.blocks import Block, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw import style
from polobench.report.draw.panels import by_task
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, counts_text, number, significant, with_ends
from polobench.report.words import note

_BARS_A_PAGE = 30
_UPDATE_ALPHA = 0.45
_LEAST_NAMED = 0.1  # of an iteration
_BRIGHTNESS = (0.2126, 0.7152, 0.0722)  # weights of red, green and blue (ITU-R BT.709)


def sections(findings: Findings) -> list[Section]:
    """Empty without a throughput cell."""
    items = findings.throughputs
    if not items:
        return []
    ends = " [95 %]" if any(item.n > 1 for item in items) else ""
    measured = style.pages([item for item in items if item.n], _BARS_A_PAGE)
    blocks: list[Block] = [
        Paragraph(note("throughput")),
        *figures("throughput", "Throughput of whole iterations", draw_throughput, measured, findings.looks),
        *compact(Table.of([_row(item, ends) for item in items], "lllrrrrrrrrrrl"), 2),
    ]
    return [Section("Throughput", blocks, {"throughput": flat_table(items)})]


def _row(item: ThroughputSummary, ends: str) -> dict[str, Text]:
    low, middle, high = map(significant, (item.quartiles[0], item.iteration_seconds, item.quartiles[1]))
    others = {"beside others": item.beside_others, "no new samples": item.without_samples}
    shares = [NOTHING if math.isnan(part) else style.percent(part) for part in (item.rollout_share, item.update_share)]
    return {
        "task": item.arm.task,
        "method": item.arm.label,
        "device": item.arm.device,
        "n/cells": f"{item.n}/{item.cells}",
        "rounds": str(item.rounds),
        f"samples/s{ends}": with_ends(item.samples_per_second, item.interval, 0),
        "updates/s": significant(item.updates_per_second),
        "rollout samples/s": number(item.rollout_samples_per_second),
        "update samples/s": number(item.update_samples_per_second),
        "s per iteration: median [quartiles]": f"{middle} [{low}, {high}]" if item.n else NOTHING,
        "rollout share": shares[0],
        "update share": shares[1],
        "peak MiB": number(item.peak_memory_mib),
        "status": counts_text(item.statuses | {name: count for name, count in others.items() if count}),
    }


def draw_throughput(items: Sequence[ThroughputSummary], look: style.Looks) -> Figure:
    """Bars of arms with at least one cell that counts, a row of two panels per task and device."""
    groups = by_task(sorted(items, key=lambda item: (style.natural(item.arm.label), item.arm)))
    tallest = max(len(found) for _, found in groups)
    figure, axes = style.grid_of_axes(2 * len(groups), 2, (5.6, 0.33 * tallest + 0.9))
    for (title, found), speed, share in zip(groups, axes[::2], axes[1::2], strict=True):
        colours = [look[item.arm.label].colour for item in found]
        style.name_panel(speed, title)
        _draw_speeds(speed, found, colours)
        _draw_shares(share, found, colours)
        for ax, names in ((speed, [style.short(item.arm.label) for item in found]), (share, [""] * len(found))):
            ax.set_yticks(range(len(found)), names)
            ax.set_ylim(tallest - 0.5, -0.5)
            ax.grid(visible=False, axis="y")
            ax.spines["left"].set_visible(False)
    update = Patch(color="#333333", alpha=_UPDATE_ALPHA, label="update")
    style.explain(figure, [Patch(color="#333333", label="rollout"), update])
    return figure


def _draw_speeds(ax: Axes, items: Sequence[ThroughputSummary], colours: Sequence[tuple[float, ...]]) -> None:
    """Black: the interval, where there are several cells."""
    speeds = np.nan_to_num([item.samples_per_second for item in items])
    highs = np.nan_to_num([item.interval.high for item in items])
    ax.barh(range(len(items)), speeds, height=0.75, color=colours)
    for row, (item, speed, high) in enumerate(zip(items, speeds, highs, strict=True)):
        if high:
            ends = [[speed - item.interval.low], [high - speed]]
            ax.errorbar(speed, row, xerr=ends, color="black", linewidth=1, capsize=2.5)
        ax.annotate(
            number(item.samples_per_second), (max(speed, high), row), (5, 0), textcoords="offset points", va="center",
            fontsize=10,
        )  # fmt: skip
    ax.set_xlabel("samples per second (mean and 95 % interval)" if highs.any() else "samples per second")
    ax.set_xlim(0, 1.2 * max(*speeds, *highs) or 1)
    style.ticks(ax.xaxis, style.compact)


def _draw_shares(ax: Axes, items: Sequence[ThroughputSummary], colours: Sequence[tuple[float, ...]]) -> None:
    rollout, update = (np.array([getattr(item, f"{name}_share") for item in items]) for name in ("rollout", "update"))
    for shares, left, alpha in ((rollout, 0.0, 1.0), (update, rollout, _UPDATE_ALPHA)):
        bars = ax.barh(range(len(items)), shares, left=left, color=colours, alpha=alpha, edgecolor="white", height=0.75)
        texts = [style.percent(share) if share >= _LEAST_NAMED else "" for share in shares]
        for name, colour in zip(ax.bar_label(bars, texts, label_type="center", fontsize=10), colours, strict=True):
            name.set_color("white" if alpha == 1 and np.dot(colour, _BRIGHTNESS) < 0.45 else "black")
    ax.set_xlim(0, 1)
    style.ticks(ax.xaxis, lambda share: f"{100 * share:.0f}")
    ax.set_xlabel("share of the time of an iteration [%]")
