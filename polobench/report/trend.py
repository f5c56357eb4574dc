"""The report's section on the trend: the score of every arm over commits, from a project's history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from polobench.analysis.statistics.intervals import STUDENT, Interval
from polobench.report.draw.lines import Line, name_ends
from polobench.report.draw.panels import MOST_LINES, Drawn
from polobench.report.draw.style import (
    Look,
    grid_of_axes,
    label_first_column,
    looks,
    name_panel,
    pages,
    save,
    short,
    styled,
)
from polobench.report.tables import TextTable
from polobench.report.text import NOTHING, ends, escape, number

TREND_CAPTION = (
    "Points: mean final score over the runs of a commit, failed ones at 0; bars: Student's t interval, 95 %, n as in "
    "the table. Commits stand in the order in which the history got them. Neighbouring points come from separate runs "
    "and other machines perhaps; whether a change is a regression, the gate decides, not this picture."
)
SPEED_NOTE = "Speeds come from separate runs, so that a change of them is advice; `polobench ab` measures one."
PANELS_A_PAGE = 6
_COLUMNS = 2
_SIZE = (6.0, 3.7)
_ARM = ["task", "budget", "device", "label", "method"]
_PLACE = ["study", "task", "budget", "device"]
_SHOWN_HASH = 7
_MOST_TICKS = 14
_STEP = 0.06  # beside each other, in commits, so that bars of neighbours do not hide each other


def draw_trend(history: pd.DataFrame, labels: Sequence[str], folder: Path) -> list[Drawn]:
    """Pages of panels, one a task, budget, device and study, with at most seven arms each.

    Args:
        history: a row an arm and commit, as `polobench.gate.history.history_table` gives it.
        labels: of the report's store, so that its other figures and these agree on colours.
        folder: where the PNG files go.
    """
    scores = _scores(history)
    others = sorted(set(scores["label"]) - set(labels))
    look = looks([*labels, *others], dict(zip(scores["label"], scores["method"], strict=True)))
    with styled():
        return [
            _draw_page(page, scores["study"].nunique() > 1, look, folder / f"trend_{number_of_page}.png")
            for number_of_page, page in pages(list(_panels(scores)), PANELS_A_PAGE)
        ]


def _scores(history: pd.DataFrame) -> pd.DataFrame:
    return history[(history["kind"] == "learning") & history["score"].notna()]


def _panels(scores: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, group in scores.groupby(_PLACE, sort=True):
        for _, labels in pages(sorted(group["label"].unique()), MOST_LINES):
            yield group[group["label"].isin(labels)]


def _draw_page(page: Sequence[pd.DataFrame], with_study: bool, look: Mapping[str, Look], path: Path) -> Drawn:
    figure, axes = grid_of_axes(len(page), _COLUMNS, _SIZE)
    for ax, panel in zip(axes, page, strict=True):
        first = panel.iloc[0]
        study = f"{short(first['study'])}: " if with_study else ""
        name_panel(ax, f"{study}{short(first['task'])} ({short(first['budget'])}, {short(first['device'])})")
        _draw_panel(ax, panel, look)
        label_first_column(ax, "final score (0 floor, 1 solved)")
    return Drawn(save(figure, path), "trend", "Final score over commits")


def _draw_panel(ax: Axes, panel: pd.DataFrame, look: Mapping[str, Look]) -> None:
    lines = panel[["number", "commit"]].drop_duplicates().sort_values("number")
    places = {line: place for place, line in enumerate(lines["number"])}
    arms = sorted(panel["label"].unique())
    named: list[Line] = []
    for index, label in enumerate(arms):
        arm = panel[panel["label"] == label].sort_values("number")
        shift = _STEP * (index - (len(arms) - 1) / 2)
        x = np.array([places[line] + shift for line in arm["number"]])
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
    shown = list(places.values())[::-1][::step]  # the newest commit is always named
    hashes = lines["commit"].tolist()
    ax.set_xticks(shown, [short(hashes[place][:_SHOWN_HASH]) for place in shown], rotation=60, ha="right")
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.grid(visible=False, axis="x")
    name_ends(ax, named, _SIZE)


def trend_section(history: pd.DataFrame, figures: str) -> str:
    """The newest score of every arm beside the one before it, then the figures with their caption, then speeds."""
    scores, speeds = _scores(history), history[history["samples_per_second"].notna()]
    unscored = len(history[(history["kind"] == "learning") & history["score"].isna()][_ARM].drop_duplicates())
    parts = [
        _score_table(scores).markdown() if len(scores) else "",
        figures,
        f"Arms without a target have no score and are left out: {unscored}." if unscored else "",
        f"{SPEED_NOTE}\n\n{_speed_table(speeds).markdown()}" if len(speeds) else "",
    ]
    return "\n\n".join(part for part in parts if part) or "The history has no line yet."


def _score_table(scores: pd.DataFrame) -> TextTable:
    headers = [
        "study", "task", "method", "commits", "lowest", "highest", "before", "newest, mean [95 %]", "n", "change",
        "commit", "date",
    ]  # fmt: skip
    return TextTable(headers, [_score_row(arm) for arm in _arms(scores)], "lllrrrrrrrll")


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


def _speed_table(speeds: pd.DataFrame) -> TextTable:
    headers = ["study", "task", "method", "commits", "before, samples/s", "newest, samples/s", "n", "commit", "date"]
    return TextTable(headers, [_speed_row(arm) for arm in _arms(speeds)], "lllrrrrll")


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
    return [
        escape(row["study"]),
        escape(f"{row['task']} ({row['budget']}, {row['device']})"),
        escape(row["label"]),
    ]


def _origin_cells(row: pd.Series) -> list[str]:
    return [escape(row["commit"][:_SHOWN_HASH]), escape(row["date"][:10])]


def _signed(change: float) -> str:
    text = number(change, 2)
    return text if text.startswith("-") else f"+{text}"
