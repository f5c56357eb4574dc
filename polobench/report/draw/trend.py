"""The score of every arm over commits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

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
)

PANELS_A_PAGE = 6
_COLUMNS = 2
_SIZE = (6.0, 3.7)
_PLACE = ["study", "task", "budget", "device"]
_SHOWN_HASH = 7
_MOST_TICKS = 14
_STEP = 0.06  # beside each other, in commits, so that bars of neighbours do not hide each other


def trend_pages(history: pd.DataFrame) -> list[tuple[int, Sequence[pd.DataFrame]]]:
    """Numbered pages of panels: one per study, task, budget and device, and for every seven arms of these."""
    return list(pages(list(_panels(scores_of(history))), PANELS_A_PAGE))


def draw_trend(
    page: Sequence[pd.DataFrame], number_of_page: int, history: pd.DataFrame, labels: Sequence[str], folder: Path
) -> Drawn:
    """One page.

    Args:
        history: a row per arm and commit, as `polobench.gate.history.history_table` gives it.
        labels: of the report's store, so that its other figures and these agree on colours.
    """
    scores = scores_of(history)
    others = sorted(set(scores["label"]) - set(labels))
    look = looks([*labels, *others], dict(zip(scores["label"], scores["method"], strict=True)))
    return _draw_page(page, scores["study"].nunique() > 1, look, folder / f"trend_{number_of_page}.png")


def scores_of(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of learning arms that have a score."""
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
