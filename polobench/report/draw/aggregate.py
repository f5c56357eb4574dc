"""Methods over several tasks: how their scores are spread, and how likely a run of one beats one of another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

from polobench.analysis.overall import Comparable
from polobench.analysis.statistics.aggregates import Estimate, is_ahead, performance_profile, probability_of_improvement
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw.lines import Line, draw_lines
from polobench.report.draw.panels import MOST_COMPARED, parts_of
from polobench.report.draw.placing import Spot, place_labels
from polobench.report.draw.rows import Mark, draw_marks
from polobench.report.draw.style import (
    GREY,
    Look,
    grid_of_axes,
    label_first_column,
    percent,
    round_ticks,
    short,
    ticks,
)
from polobench.report.text import with_ends

_SIZE = (5.6, 3.5)
_THRESHOLDS = 241
_LEAST_RUNS = 2
_HIGHEST_SCORE = 2.0
_LONGEST_LINE = 46  # letters of a pair's name
_NAMED_EVERY = 4  # thresholds between the places where a line may be named
_NAME = (0.35, 0.08)  # of a panel's width and height: what a name takes
_TIE = 0.01  # so that lines which are the same are named where they fall
_EDGES = np.array([[x, y] for x in np.linspace(0, 1, 21) for y in (0.0, 1.0)])  # of a panel, where no name belongs


def compared(groups: Sequence[Comparable]) -> list[Comparable]:
    """The groups in which there is something to compare: some methods, several runs of each, every score known."""
    return [group for group in groups if 1 < len(group.runs) <= MOST_COMPARED and _is_known(group)]


def _is_known(group: Comparable) -> bool:
    scores = [task for label in group.runs for task in group.scores(label)]
    return all(len(task) >= _LEAST_RUNS and bool(np.isfinite(task).all()) for task in scores)


def draw_profiles(page: Sequence[Comparable], look: Mapping[str, Look]) -> Figure:
    """A panel per group, or a few where the lines of one would be too many."""
    parts = [
        (group, part, labels)
        for group in page
        for part, labels in parts_of(group.runs, lambda label: (label, look[label].family))
    ]
    figure, axes = grid_of_axes(len(parts), 2, _SIZE)
    for ax, (group, part, labels) in zip(axes, parts, strict=True):
        lines = _profile_lines(group, labels, look)
        draw_lines(ax, lines, {})
        ax.axvline(1, color=GREY, linewidth=0.9, zorder=1)
        ax.set_title(f"{part}: {_title(group)}" if part else _title(group), x=0, ha="left")
        ax.set_xlim(lines[0].x[0], lines[0].x[-1])
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("score (0 = floor, 1 = target)")
        label_first_column(ax, "share of runs above")
        ticks(ax.yaxis, percent)
        place_labels(ax, _spots(lines), _SIZE)
    return figure


def _profile_lines(group: Comparable, labels: Sequence[str], look: Mapping[str, Look]) -> list[Line]:
    """From the floor to the best run of the group; a score far above the target does not squeeze the rest."""
    best = max(float(task.max()) for label in group.runs for task in group.scores(label))
    thresholds = np.linspace(0, 1.03 * min(max(best, 1.0), _HIGHEST_SCORE), _THRESHOLDS)
    return [
        Line(short(label), look[label], thresholds, *performance_profile(group.scores(label), thresholds))
        for label in labels
    ]


def _spots(lines: Sequence[Line]) -> list[Spot]:
    """Where the lines are named: each where it is the furthest from the others and their names, as all end at 0."""
    drawn = [np.column_stack([line.x / line.x[-1], line.y])[::_NAMED_EVERY] for line in lines]
    spots: list[Spot] = []
    chosen: list[Array] = []
    for index, line in enumerate(lines):
        points = drawn[index]
        alone = cdist(points, np.concatenate([_EDGES, *drawn[:index], *drawn[index + 1 :]])).min(axis=1)
        alone += _TIE * points[:, 1] * (1 - points[:, 1])
        for other in chosen:
            alone -= (np.abs(points - other) < _NAME).all(axis=1)
        chosen.append(points[int(alone.argmax())])
        x, y = chosen[-1].tolist()
        spots.append(Spot(x * line.x[-1], y, line.name, line.look.colour, np.column_stack([line.x, line.y])))
    return spots


def _title(group: Comparable) -> str:
    """`control, cpu, n = 10`, and the tasks below."""
    counts = sorted({len(task) for label in group.runs for task in group.scores(label)})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    names = ", ".join(short(task, 24) for task in dict.fromkeys(task for task, _ in group.places))
    lines = wrap(names, 50, max_lines=2, placeholder=" …")
    return "\n".join([f"{group.world}, {short(group.device)}, n = {n}", *lines])


def improvements(group: Comparable) -> list[tuple[str, str, Estimate]]:
    """Every pair of labels, the one whose runs are more likely ahead first, and how likely; the surest pair first."""
    scores = {label: group.scores(label) for label in group.runs}
    ordered = [
        (one, two) if is_ahead(scores[one], scores[two]) else (two, one) for one, two in combinations(group.runs, 2)
    ]
    pairs = [(better, other, probability_of_improvement(scores[better], scores[other])) for better, other in ordered]
    return sorted(pairs, key=lambda pair: -pair[2].value)


def draw_improvements(group: Comparable, look: Mapping[str, Look]) -> Figure:
    """A dot and its interval per pair, in the first method's colour."""
    pairs = improvements(group)
    names = [_name(short(better), f"over {short(other)}") for better, other, _ in pairs]
    lines = 1 + max("\n" in name for name in names)
    figure, (ax,) = grid_of_axes(1, 1, (7.6, (0.1 + 0.2 * lines) * len(pairs) + 0.9))
    figure.suptitle(_title(group))
    ax.axvline(0.5, color=GREY, linewidth=1, zorder=1)
    marks = [
        Mark(row, found.value, look[better].colour, (found.interval.low, found.interval.high))
        for row, (better, _, found) in enumerate(pairs)
    ]
    draw_marks(ax, names, marks, thickness=2.4)
    for row, (_, _, found) in enumerate(pairs):
        ax.annotate(
            with_ends(found.value, found.interval), (1.02, row), xycoords=("axes fraction", "data"), va="center",
            fontsize=10, annotation_clip=False,
        )  # fmt: skip
    lows = [mark.outer[0] for mark in marks if not math.isnan(mark.outer[0])]
    ax.set_xlim(max(0.0, min([0.4, *lows]) - 0.02), 1.02)
    round_ticks(ax.xaxis, 6)
    ax.set_xlabel("probability that a run of the first scores higher")
    return figure


def _name(better: str, other: str) -> str:
    """Both labels, in two lines where they are long: cut shorter, those of variants would look the same."""
    return (" " if len(better) + len(other) < _LONGEST_LINE else "\n").join((better, other))
