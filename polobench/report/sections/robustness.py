"""How bad it may get: the profile of scores, and a gallery of failures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

from polobench.analysis.frame import flat_table
from polobench.analysis.overall import Comparable
from polobench.analysis.reliability import scores
from polobench.analysis.statistics.aggregates import performance_profile
from polobench.analysis.statistics.intervals import Array
from polobench.core.result import RunResult
from polobench.report.blocks import Block, Paragraph, Section, Table, compact, figures
from polobench.report.draw import style
from polobench.report.draw.lines import Line, Spot, draw_lines, place_labels
from polobench.report.draw.panels import PANELS_A_PAGE, compared, parts_of, title_of
from polobench.report.draw.style import pages
from polobench.report.findings import Findings
from polobench.report.formatting import plain
from polobench.report.words import note

MOST_FAILURES = 10
LEVELS = "▁▂▃▄▅▆▇█"
_SIZE = (5.6, 3.5)
_THRESHOLDS = 241
_HIGHEST_SCORE = 2.0
_NAMED_EVERY = 4  # thresholds between the places where a line may be named
_NAME = (0.35, 0.08)  # of a panel's width and height: what a name takes
_TIE = 0.01  # so that lines which are the same are named where they fall
_EDGES = np.array([[x, y] for x in np.linspace(0, 1, 21) for y in (0.0, 1.0)])  # of a panel, where no name belongs


def sections(findings: Findings) -> list[Section]:
    """Empty in a first look, and without a task that has scores."""
    if findings.is_first_look:
        return []
    profiles = pages(compared(findings.groups), PANELS_A_PAGE)[:1]
    subject = "Performance profiles over tasks"
    blocks = figures("profiles", subject, draw_profiles, profiles, findings.looks, note("profiles"))
    blocks += _gallery(findings)
    return [Section("Robustness", blocks, {"troubled": flat_table(findings.troubled)})] if blocks else []


def _gallery(findings: Findings) -> list[Block]:
    found = findings.troubled
    if not found:
        return [Paragraph("No run failed, stayed at the floor, collapsed or fell below its start.")]
    headers = ["task", "method", "seed", "what happened", "score over training", "reason"]
    rows = [
        [item.arm.task, item.arm.label, str(item.run.seed), item.what, _spark(item.run), plain(item.reason)]
        for item in found[:MOST_FAILURES]
    ]
    runs = sum(map(len, findings.collection.learning.values()))
    worst = f"; the {MOST_FAILURES} worst" if len(found) > MOST_FAILURES else ""
    said = note("gallery", wrong=len(found), runs=runs, worst=worst)
    return [Paragraph(said), *compact(Table(headers, rows, "llrlll"))]


def _spark(run: RunResult) -> str:
    """The held-out scores of a run as a line of bars, from the floor to the target."""
    places = (np.clip(scores(run).found, 0, 1) * (len(LEVELS) - 1)).round().astype(int)
    return "".join(LEVELS[place] for place in places)


def draw_profiles(page: Sequence[Comparable], look: style.Looks) -> Figure:
    """A panel per group, or a few where the lines of one would be too many."""
    parts = [
        (group, part, labels)
        for group in page
        for part, labels in parts_of(group.runs, lambda label: (label, look[label].family))
    ]
    figure, axes = style.grid_of_axes(len(parts), 2, _SIZE)
    for ax, (group, part, labels) in zip(axes, parts, strict=True):
        lines = _profile_lines(group, labels, look)
        draw_lines(ax, lines, {})
        ax.axvline(1, color=style.GREY, linewidth=0.9, zorder=1)
        ax.set_title(f"{part}: {title_of(group)}" if part else title_of(group), x=0, ha="left")
        ax.set_xlim(lines[0].x[0], lines[0].x[-1])
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("score (0 = floor, 1 = target)")
        style.label_first_column(ax, "share of runs above")
        style.ticks(ax.yaxis, style.percent)
        place_labels(ax, _spots(lines), _SIZE)
    return figure


def _profile_lines(group: Comparable, labels: Sequence[str], look: style.Looks) -> list[Line]:
    """From the floor to the best run of the group; a score far above the target does not squeeze the rest."""
    scores = {label: group.scores(label) for label in group.runs}
    best = max(float(task.max()) for found in scores.values() for task in found)
    x = np.linspace(0, 1.03 * min(max(best, 1.0), _HIGHEST_SCORE), _THRESHOLDS)
    return [Line(style.short(label), look[label], x, *performance_profile(scores[label], x)) for label in labels]


def _spots(lines: Sequence[Line]) -> list[Spot]:
    """Where the lines are named: each where it is the furthest from the others and their names, as all end at 0."""
    drawn = [np.column_stack([line.x / line.x[-1], line.y])[::_NAMED_EVERY] for line in lines]
    spots: list[Spot] = []
    chosen: list[Array] = []
    for index, (line, points) in enumerate(zip(lines, drawn, strict=True)):
        alone = cdist(points, np.concatenate([_EDGES, *drawn[:index], *drawn[index + 1 :]])).min(axis=1)
        alone += _TIE * points[:, 1] * (1 - points[:, 1])
        for other in chosen:
            alone -= (np.abs(points - other) < _NAME).all(axis=1)
        chosen.append(points[int(alone.argmax())])
        x, y = chosen[-1].tolist()
        spots.append(line.spot(x * line.x[-1], y))
    return spots
