"""The trend: the score of every arm over commits, from a project's history."""

from __future__ import annotations

from functools import partial

import pandas as pd

from polobench.analysis.statistics.intervals import STUDENT, Interval
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, compact
from polobench.report.draw.trend import draw_trend, scores_of, trend_pages
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, number, with_ends

CAPTION = (
    "Mean final score over the runs of each commit, in the order of the history, with 95 % Student's t intervals. "
    "Whether a change is a regression the gate decides, not this picture."
)
_ARM = ["task", "budget", "device", "label", "method"]
_SHOWN_HASH = 7


def sections(findings: Findings) -> list[Section]:
    """Empty without a history."""
    return [] if findings.history is None else [Section("Trend over commits", _blocks(findings, findings.history))]


def _blocks(findings: Findings, history: pd.DataFrame) -> list[Block]:
    """The newest score of every arm beside the one before it, then the figures."""
    scores = scores_of(history)
    unscored = len(history[(history["kind"] == "learning") & history["score"].isna()][_ARM].drop_duplicates())
    blocks: list[Block] = compact(_score_table(scores), 3) if len(scores) else []
    blocks += [
        Figure(partial(draw_trend, page, number, history, findings.collection.labels), CAPTION if number == 1 else "")
        for number, page in trend_pages(history)
    ]
    if unscored:
        blocks.append(Paragraph(f"Arms without a target have no score and are left out: {unscored}."))
    return blocks or [Paragraph("The history has no line yet.")]


def _score_table(scores: pd.DataFrame) -> Table:
    headers = [
        "study", "task", "method", "commits", "lowest", "highest", "before", "newest, mean [95 %]", "n", "change",
        "commit", "date",
    ]  # fmt: skip
    return Table(headers, [_score_row(arm) for arm in _arms(scores)], "lllrrrrrrrll")


def _score_row(arm: pd.DataFrame) -> list[str]:
    newest, score = arm.iloc[-1], arm["score"]
    before = float(score.iloc[-2]) if len(arm) > 1 else None
    interval = Interval(float(newest["low"]), float(newest["high"]), STUDENT, int(newest["n"]))
    return [
        str(newest["study"]),
        f"{newest['task']} ({newest['budget']}, {newest['device']})",
        str(newest["label"]),
        str(len(arm)),
        number(float(score.min()), 2),
        number(float(score.max()), 2),
        number(before, 2),
        with_ends(float(newest["score"]), interval),
        str(newest["n"]),
        NOTHING if before is None else _signed(float(newest["score"]) - before),
        newest["commit"][:_SHOWN_HASH],
        newest["date"][:10],
    ]


def _arms(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each arm, oldest first, in a fixed order."""
    return [group.sort_values("number") for _, group in rows.groupby(["study", *_ARM], sort=True)]


def _signed(change: float) -> str:
    text = number(change, 2)
    return text if text.startswith("-") else f"+{text}"
