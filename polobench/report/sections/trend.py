"""The trend: the score of every arm over commits, from a project's history."""

from __future__ import annotations

from functools import partial

import pandas as pd

from polobench.analysis.statistics.intervals import STUDENT, Interval
from polobench.report.blocks import Block, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw.trend import draw_trend, trend_pages
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, number, with_ends
from polobench.report.words import note

_ARM = ["task", "budget", "device", "label", "method"]
_SHOWN_HASH = 7


def sections(findings: Findings) -> list[Section]:
    """The newest score of every arm beside the one before it, then the figures; empty without a history."""
    if findings.history is None:
        return []
    learning = findings.history[findings.history["kind"] == "learning"]
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
        "change": NOTHING if before is None else _signed(float(newest["score"]) - before),
        "commit": newest["commit"][:_SHOWN_HASH],
        "date": newest["date"][:10],
    }


def _signed(change: float) -> str:
    text = number(change, 2)
    return text if text.startswith("-") else f"+{text}"
