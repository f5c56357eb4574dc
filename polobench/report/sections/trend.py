"""The trend: the score of every arm over commits, from a project's history."""

from __future__ import annotations

from functools import partial

import pandas as pd

from polobench.analysis.statistics.intervals import STUDENT, Interval
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, compact
from polobench.report.draw.trend import draw_trend, scores_of, trend_pages
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, ends, number

CAPTION = (
    "Mean final score over the runs of each commit, in the order of the history, with 95 % Student's t intervals. "
    "Whether a change is a regression the gate decides, not this picture."
)
SPEED_NOTE = "Speeds come from separate runs, so a change is a hint; measure it with polobench ab."
_ARM = ["task", "budget", "device", "label", "method"]
_SHOWN_HASH = 7


def sections(findings: Findings) -> list[Section]:
    """Empty without a history."""
    return [] if findings.history is None else [Section("Trend over commits", _blocks(findings, findings.history))]


def _blocks(findings: Findings, history: pd.DataFrame) -> list[Block]:
    """The newest score of every arm beside the one before it, then the figures, then speeds."""
    scores, speeds = scores_of(history), history[history["samples_per_second"].notna()]
    unscored = len(history[(history["kind"] == "learning") & history["score"].isna()][_ARM].drop_duplicates())
    blocks: list[Block] = compact(_score_table(scores), 3) if len(scores) else []
    blocks += [
        Figure(partial(draw_trend, page, number, history, findings.collection.labels), CAPTION if number == 1 else "")
        for number, page in trend_pages(history)
    ]
    if unscored:
        blocks.append(Paragraph(f"Arms without a target have no score and are left out: {unscored}."))
    if len(speeds):
        blocks += [Paragraph(SPEED_NOTE), *compact(_speed_table(speeds), 3)]
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
        *_arm_cells(newest),
        str(len(arm)),
        number(float(score.min()), 2),
        number(float(score.max()), 2),
        number(before, 2),
        f"{number(float(newest['score']), 2)} {ends(interval, 2)}".strip(),
        str(newest["n"]),
        NOTHING if before is None else _signed(float(newest["score"]) - before),
        *_origin_cells(newest),
    ]


def _speed_table(speeds: pd.DataFrame) -> Table:
    headers = ["study", "task", "method", "commits", "before, samples/s", "newest, samples/s", "n", "commit", "date"]
    return Table(headers, [_speed_row(arm) for arm in _arms(speeds)], "lllrrrrll")


def _speed_row(arm: pd.DataFrame) -> list[str]:
    newest, speed = arm.iloc[-1], arm["samples_per_second"]
    return [
        *_arm_cells(newest),
        str(len(arm)),
        number(float(speed.iloc[-2]) if len(arm) > 1 else None),
        number(float(newest["samples_per_second"])),
        str(newest["n"]),
        *_origin_cells(newest),
    ]


def _arms(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each arm, oldest first, in a fixed order."""
    return [group.sort_values("number") for _, group in rows.groupby(["study", *_ARM], sort=True)]


def _arm_cells(row: pd.Series) -> list[str]:
    return [str(row["study"]), f"{row['task']} ({row['budget']}, {row['device']})", str(row["label"])]


def _origin_cells(row: pd.Series) -> list[str]:
    return [row["commit"][:_SHOWN_HASH], row["date"][:10]]


def _signed(change: float) -> str:
    text = number(change, 2)
    return text if text.startswith("-") else f"+{text}"
