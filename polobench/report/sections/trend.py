"""The trend: the score of every arm over commits, from a project's history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polobench.analysis.statistics.intervals import STUDENT, Interval
from polobench.gate.history import KINDS
from polobench.report.blocks import Block, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw.lines import Line, name_ends
from polobench.report.draw.panels import MOST_LINES, PANELS_A_PAGE
from polobench.report.draw.style import Looks, grid_of_axes, label_first_column, looks, name_panel, pages, short
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, number, with_ends
from polobench.report.words import note

_ARM = ["task", "budget", "device", "label", "method"]
_SHOWN_HASH = 7
_SIZE = (6.0, 3.7)
_MOST_TICKS = 14
_STEP = 0.06  # beside each other, in commits, so that bars of neighbours do not hide each other


def sections(findings: Findings) -> list[Section]:
    """The newest score of every arm beside the one before it, then the figures; empty without a history."""
    if findings.history is None:
        return []
    learning = findings.history[findings.history["kind"] == KINDS["scores"]]
    scores = learning[learning["score"].notna()]
    unscored = len(learning[learning["score"].isna()][_ARM].drop_duplicates())
    arms = scores.sort_values("number").groupby(["study", *_ARM], sort=True)
    blocks: list[Block] = compact(Table.of([_row(arm) for _, arm in arms], "lllrrrrrrrll"), 3) if len(scores) else []
    drawn = partial(draw_trend, scores), trend_pages(scores), findings.collection.labels
    blocks += figures("trend", "Final score over commits", *drawn, note("trend"))
    if unscored:
        blocks.append(Paragraph(f"Arms without a target have no score and are left out: {unscored}."))
    return [Section("Trend over commits", blocks or [Paragraph("The history has no line yet.")])]


def _row(arm: pd.DataFrame) -> dict[str, Text]:
    """Of an arm's lines, the oldest first."""
    newest, score = arm.iloc[-1], arm["score"]
    before = float(score.iloc[-2]) if len(arm) > 1 else None
    change = None if before is None else number(float(newest["score"]) - before, 2)
    interval = Interval(float(newest["low"]), float(newest["high"]), STUDENT, int(newest["n"]))
    return {
        "study": str(newest["study"]),
        "task": f"{newest['task']} ({newest['budget']}, {newest['device']})",
        "method": str(newest["label"]),
        "commits": str(len(arm)),
        "lowest": number(float(score.min()), 2),
        "highest": number(float(score.max()), 2),
        "before": number(before, 2),
        "newest, mean [95 %]": with_ends(float(newest["score"]), interval),
        "n": str(newest["n"]),
        "change": NOTHING if change is None else change if change.startswith("-") else f"+{change}",
        "commit": newest["commit"][:_SHOWN_HASH],
        "date": newest["date"][:10],
    }


def trend_pages(scores: pd.DataFrame) -> list[Sequence[pd.DataFrame]]:
    """Pages of panels: one per study, task, budget and device, and for every seven arms of these."""
    found = [
        group[group["label"].isin(labels)]
        for _, group in scores.groupby(["study", "task", "budget", "device"], sort=True)
        for labels in pages(sorted(group["label"].unique()), MOST_LINES)
    ]
    return pages(found, PANELS_A_PAGE)


def draw_trend(scores: pd.DataFrame, page: Sequence[pd.DataFrame], labels: Sequence[str]) -> Figure:
    """One page of all `scores`, a row per arm and commit; `labels` of the report's store keep their colours."""
    others = sorted(set(scores["label"]) - set(labels))
    look = looks([*labels, *others], dict(zip(scores["label"], scores["method"], strict=True)))
    figure, axes = grid_of_axes(len(page), 2, _SIZE)
    for ax, panel in zip(axes, page, strict=True):
        first = panel.iloc[0]
        study = f"{short(first['study'])}: " if scores["study"].nunique() > 1 else ""
        name_panel(ax, f"{study}{short(first['task'])} ({short(first['budget'])}, {short(first['device'])})")
        _draw_panel(ax, panel, look)
        label_first_column(ax, "final score (0 floor, 1 solved)")
    return figure


def _draw_panel(ax: Axes, panel: pd.DataFrame, look: Looks) -> None:
    commits = panel[["number", "commit"]].drop_duplicates().sort_values("number")
    places = {number: place for place, number in enumerate(commits["number"])}
    arms = sorted(panel["label"].unique())
    named: list[Line] = []
    for index, label in enumerate(arms):
        arm = panel[panel["label"] == label].sort_values("number")
        x = arm["number"].map(places).to_numpy() + _STEP * (index - (len(arms) - 1) / 2)
        score = arm["score"].to_numpy()
        sizes = np.nan_to_num(np.abs(np.stack([score - arm["low"], arm["high"] - score])))
        ax.errorbar(
            x, score, yerr=sizes, color=look[label].colour, linestyle=look[label].dashes, linewidth=1.6, marker="o",
            markersize=4.5, elinewidth=1.1, capsize=0,
        )  # fmt: skip
        named.append(Line(short(label), look[label], x, score, score, score))
    for value in (0.0, 1.0):
        ax.axhline(value, color="#999999", linewidth=0.9, zorder=1)
    step = -(-len(places) // _MOST_TICKS)
    shown = list(enumerate(commits["commit"]))[::-1][::step]  # the newest commit is always named
    names = [short(commit[:_SHOWN_HASH]) for _, commit in shown]
    ax.set_xticks([place for place, _ in shown], names, rotation=60, ha="right")
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.grid(visible=False, axis="x")
    name_ends(ax, named, _SIZE, {})
