"""Methods over several tasks: how their scores are spread, and how likely a run of one beats one of another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from polobench.analysis.overall import Comparable
from polobench.analysis.statistics.aggregates import Estimate, is_ahead, performance_profile, probability_of_improvement
from polobench.analysis.statistics.intervals import Array
from polobench.report.draw.panels import MOST_COMPARED, MOST_NAMED, Drawn
from polobench.report.draw.style import GREY, Look, grid_of_axes, label_first_column, legend, save, short

PROFILE_CAPTION = (
    "Performance profiles: the share of runs with a score above each threshold, in the mean over the tasks of a panel. "
    "0 is the floor, where failed runs are, 1 the target. A panel holds the tasks of one world with a target on which "
    f"the same methods ran, 2 to {MOST_COMPARED} of them and at least twice each, on one device; n runs on each task. "
    "Bands: 95 % stratified bootstrap, runs resampled within each task, at each threshold by itself."
)
IMPROVEMENT_CAPTION = (
    "How likely a run of the first method scores above one of the second, a tie counted half, in the mean over the "
    "tasks of the panel; the groups of tasks are those of the performance profiles with at most "
    f"{MOST_NAMED} methods. Lines: 95 % stratified bootstrap, the runs of both resampled within each task; n runs on "
    "each task. An interval that holds 0.5 separates nothing."
)
_COLUMNS = 2
_THRESHOLDS = 241
_LEAST_RUNS = 2
_HIGHEST_SCORE = 2.0
_LONGEST_LINE = 46  # letters of a pair's name


@dataclass(frozen=True)
class Pair:
    """Two labels of a group, `better` the one whose runs are more likely ahead."""

    better: str
    other: str
    estimate: Estimate


def compared(groups: Sequence[Comparable]) -> list[Comparable]:
    """The groups in which there is something to compare: some methods, several runs of each, every score known."""
    return [group for group in groups if 1 < len(group.runs) <= MOST_COMPARED and _is_known(group)]


def _is_known(group: Comparable) -> bool:
    scores = [task for label in group.runs for task in group.scores(label)]
    return all(len(task) >= _LEAST_RUNS and bool(np.isfinite(task).all()) for task in scores)


def draw_profiles(page: Sequence[Comparable], number_of_page: int, look: Mapping[str, Look], folder: Path) -> Drawn:
    """A panel a group."""
    figure, axes = grid_of_axes(len(page), _COLUMNS, (5.4, 3.7))
    for ax, group in zip(axes, page, strict=True):
        thresholds = _thresholds(group)
        for label in group.runs:
            _draw_profile(ax, group.scores(label), thresholds, look[label], len(group.runs))
        ax.axvline(1, color=GREY, linewidth=0.9, zorder=1)
        ax.set_title(title(group))
        ax.set_xlim(thresholds[0], thresholds[-1])
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("score (0 = floor, 1 = target)")
        label_first_column(ax, "share of runs above")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    legend(figure, sorted({label for group in page for label in group.runs}), look)
    path = save(figure, folder / f"profiles_{number_of_page}.png")
    return Drawn(path, "profiles", "Performance profiles over tasks")


def _thresholds(group: Comparable) -> Array:
    """From the floor to the best run; a score far above the target does not squeeze the rest."""
    best = max(float(task.max()) for label in group.runs for task in group.scores(label))
    return np.linspace(0, 1.03 * min(max(best, 1.0), _HIGHEST_SCORE), _THRESHOLDS)


def _draw_profile(ax: Axes, scores: Sequence[Array], thresholds: Array, look: Look, beside: int) -> None:
    share, low, high = performance_profile(scores, thresholds)
    ax.plot(thresholds, share, color=look.colour, linestyle=look.dashes, linewidth=2)
    ax.fill_between(thresholds, low, high, color=look.colour, alpha=min(0.18, 0.8 / beside), linewidth=0)


def title(group: Comparable) -> str:
    """`control, cpu, n = 10`, and the tasks below."""
    counts = sorted({len(task) for label in group.runs for task in group.scores(label)})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    names = ", ".join(short(task, 24) for task in dict.fromkeys(task for task, _ in group.places))
    lines = wrap(names, 50, max_lines=2, placeholder=" …")
    return "\n".join([f"{group.world}, {short(group.device)}, n = {n}", *lines])


def improvements(group: Comparable) -> list[Pair]:
    """Every pair of labels, the surest first."""
    scores = {label: group.scores(label) for label in group.runs}
    pairs = [_pair(scores, *labels) for labels in combinations(group.runs, 2)]
    return sorted(pairs, key=lambda pair: -pair.estimate.value)


def _pair(scores: Mapping[str, Sequence[Array]], one: str, two: str) -> Pair:
    better, other = (one, two) if is_ahead(scores[one], scores[two]) else (two, one)
    return Pair(better, other, probability_of_improvement(scores[better], scores[other]))


def draw_improvements(group: Comparable, number: int, look: Mapping[str, Look], folder: Path) -> Drawn:
    """A dot and its interval a pair, in the first method's colour."""
    pairs = improvements(group)
    lines = 1 + max("\n" in _name(pair) for pair in pairs)
    figure, (ax,) = grid_of_axes(1, 1, (7.6, (0.1 + 0.2 * lines) * len(pairs) + 0.9))
    _draw_pairs(ax, pairs, look)
    figure.suptitle(title(group))
    path = save(figure, folder / f"improvement_{number}.png")
    return Drawn(path, "improvement", f"Probability of improvement on the {group.world} tasks")


def _name(pair: Pair) -> str:
    """Both labels, in two lines where they are long: cut shorter, those of variants would look the same."""
    better, other = short(pair.better), f"over {short(pair.other)}"
    return (" " if len(better) + len(other) < _LONGEST_LINE else "\n").join((better, other))


def _draw_pairs(ax: Axes, pairs: Sequence[Pair], look: Mapping[str, Look]) -> None:
    ax.axvline(0.5, color=GREY, linewidth=1, zorder=1)
    for place, pair in enumerate(pairs):
        estimate, colour = pair.estimate, look[pair.better].colour
        low, high = estimate.interval.low, estimate.interval.high
        if not math.isnan(low):
            ax.hlines(place, low, high, color=colour, linewidth=2.4)
        ax.plot(estimate.value, place, marker="o", color=colour, markersize=7, linestyle="none")
        ends = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        ax.annotate(
            f"{estimate.value:.2f}{ends}", (1.02, place), xycoords=("axes fraction", "data"), va="center",
            fontsize=10, annotation_clip=False,
        )  # fmt: skip
    ax.set_yticks(range(len(pairs)), [_name(pair) for pair in pairs])
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    lows = [pair.estimate.interval.low for pair in pairs if not math.isnan(pair.estimate.interval.low)]
    ax.set_xlim(max(0.0, min([0.4, *lows]) - 0.02), 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.set_xlabel("probability that a run of the first scores higher")
    ax.grid(visible=False, axis="y")
