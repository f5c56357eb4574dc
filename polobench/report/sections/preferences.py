"""A preference problem solved in several ways: the frontier, learned beside gold reward, reward models and costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from polobench.analysis import frontier
from polobench.analysis.frame import flat_table
from polobench.analysis.frontier import AtKL, BestOf, Cost, Place, Pursuit, RewardModels
from polobench.analysis.statistics.aggregates import Estimate
from polobench.report.blocks import Block, Bullets, Figure, Link, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw import style
from polobench.report.draw.lines import Spot, place_labels
from polobench.report.draw.panels import MOST_LINES
from polobench.report.draw.style import key, pages
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, number, with_ends
from polobench.report.words import note

FEEDBACKS = ("pairs", "reward model", "gold reward")
PANELS_A_PAGE = 8
_TALL, _SMALL = (4.4, 4.6), (4.4, 3.2)
_FAR = 5.0  # nats, above which the axis is drawn in powers of ten
_AXES = {"learned": "learned reward [checkpoint's deviations]", "gold": "gold reward"}


def front_sections(findings: Findings) -> list[Section]:
    """The frontier of each problem, and its lines at equal KL; empty without such tasks."""
    places = [item for item in findings.frontier if item.n]
    if not places:
        return []
    best, blocks = findings.best_of, list[Block]()
    for number_, problem in enumerate(dict.fromkeys(item.problem for item in places), 1):
        ended = [item for item in places if item.problem == problem]
        draw = partial(draw_frontier, ended, [item for item in best if item.problem == problem])
        blocks.append(Figure(f"frontier_{number_}", f"The frontier: {problem}", draw, note("frontier")))
        lines = [item for item in findings.at_equal_kl if item.problem == problem]
        blocks += [Paragraph(note("equal_kl"))] * bool(lines)
        blocks += compact(Table.of(_at_equal_kl(lines), "ll" + "r" * (len(frontier.KLS) + 1)))
    surely = [item for item in findings.pursuits if item.is_overoptimised]
    if findings.pursuits:
        blocks.append(Paragraph(_overoptimised(surely, findings)))
    blocks.append(Paragraph([Link("All arms, learned beside gold reward, reward models and costs", "preferences")]))
    return [Section("One preference problem, several ways", blocks)]


def _at_equal_kl(items: Sequence[AtKL]) -> list[dict[str, Text]]:
    """A row per line; an empty cell where a line does not reach that far."""
    rows: dict[tuple[str, str], dict[str, Text]] = {}
    for item in sorted(items, key=lambda item: (FEEDBACKS.index(item.feedback), item.line)):
        row = rows.setdefault((item.feedback, item.line), {"sees": item.feedback, "method": item.line})
        row[f"gold at a KL of {item.kl:g}"] = _ends(item.gold) if isfinite(item.gold.value) else ""
        row["n"] = str(item.n)
    return list(rows.values())


def _overoptimised(surely: Sequence[Pursuit], findings: Findings) -> str:
    if not surely:
        return f"No over-optimisation appears: in none of {len(findings.pursuits)} arms did gold reward surely fall."
    return (
        f"In {len(surely)} of {len(findings.pursuits)} arms gold reward fell after its peak while the learned one rose."
    )


def sections(findings: Findings) -> list[Section]:
    """Everything about it; empty without such tasks."""
    collection, places = findings.collection, findings.frontier
    if not places:
        return []
    models, costs = frontier.reward_models(collection), frontier.costs(collection)
    surely = [item for item in findings.pursuits if item.is_overoptimised]
    found = [Section("Arms", compact(Table.of([_place(item) for item in places], "llllrrrrrr"), 3))]
    if findings.best_of:
        best = Table.of([_best_of_row(item) for item in findings.best_of], "llrrr")
        found.append(Section("Best of n", [Paragraph(note("best_of_n")), *compact(best)]))
    if findings.pursuits:
        falls = [f"{item.arm.label} ({item.arm.task}): {_ends(item.fall)}" for item in surely]
        drawn = figures(
            "pursuit", "Learned and gold reward over training", draw_pursuits,
            pages(findings.pursuits, PANELS_A_PAGE), findings.looks, note("pursuit"),
        )  # fmt: skip
        found.append(
            Section("Over-optimisation", [Paragraph(_overoptimised(surely, findings)), Bullets(falls), *drawn])
        )
    if models:
        headers = ["task", "n", "accuracy on held-out labels", "agreement with gold", "calibration error"]
        rows = [
            [item.task, str(item.n), *map(_ends, (item.accuracy, item.gold_accuracy, item.calibration_error))]
            for item in models
        ]
        shown = Figure("calibration", "Calibration", partial(draw_calibration, models), note("calibration"))
        found.append(Section("Reward models", [shown, *compact(Table(headers, rows, "lrrrr"))]))
    blocks = [*compact(Table.of([_cost(item) for item in costs], "lllrrrrrrl"), 3), Paragraph(note("frontier_costs"))]
    tables: dict[str, Sequence[Any]] = {
        "frontier": places, "best_of_n": findings.best_of, "frontier_costs": costs,
    }  # fmt: skip
    return [*found, Section("What it took", blocks, {name: flat_table(items) for name, items in tables.items()})]


def _ends(found: Estimate) -> str:
    return with_ends(found.value, found.interval)


def _place(item: Place) -> dict[str, Text]:
    return {
        "task": item.arm.task,
        "sees": item.feedback,
        "method": item.arm.label,
        "budget": item.arm.budget,
        "n": f"{item.n}" + (f" ({item.failed} failed)" if item.failed else ""),
        "KL [nats]": _ends(item.kl),
        "gold, sampled": _ends(item.gold),
        "gold, greedy": _ends(item.greedy),
        "accuracy": _ends(item.accuracy),
        "accuracy, implicit": _ends(item.implicit_accuracy),
    }


def _best_of_row(item: BestOf) -> dict[str, Text]:
    return {
        "problem": item.problem,
        "chosen by": item.feedback,
        "n": str(item.n),
        "KL at most [nats]": number(item.kl, 2),
        "gold": _ends(item.gold),
    }


def _cost(item: Cost) -> dict[str, Text]:
    return {
        "task": item.arm.task,
        "sees": item.feedback,
        "method": item.arm.label,
        "tokens read": number(item.read),
        "tokens generated": number(item.generated),
        "tokens through the reward model": number(item.reward_tokens),
        "its training [CPU s]": number(item.reward_model_seconds, 1),
        "all [CPU s]": number(item.cpu_seconds, 1),
        "gradient steps": number(item.gradient_steps),
        "processor": item.processor or NOTHING,
    }


def draw_frontier(items: Sequence[Place], baselines: Sequence[BestOf]) -> Drawing:
    """One problem, a panel for what a method sees: a line for each, a dot for each pull; bars are intervals of gold."""
    panels = [
        (feedback, lines)
        for feedback in FEEDBACKS
        for lines in pages(sorted({item.line for item in items if item.feedback == feedback}), MOST_LINES)
    ]
    figure, axes = style.grid_of_axes(len(panels), len(FEEDBACKS), _TALL)
    look = style.looks(sorted({item.line for item in items}))
    spots = []
    for ax, (feedback, lines) in zip(axes, panels, strict=True):
        mine = [[item for item in items if (item.line, item.feedback) == (line, feedback)] for line in lines]
        best = [item for item in baselines if item.feedback == feedback]
        spots.append([_line(ax, found, look[found[0].line].colour) for found in mine] + [_best_of(ax, i) for i in best])
        style.name_panel(ax, f"sees {feedback}")
        if any(item.kl.value > _FAR for item in items):
            ax.set_xscale("symlog", linthresh=1.0)
        ax.set_xlabel("KL to the checkpoint [nats per completion]")
        style.label_first_column(ax, "gold reward of sampled completions")
        style.ticks(ax.xaxis, style.compact)
    style.share_y([(ax, None) for ax in axes])
    end = max(ax.get_xlim()[1] for ax in axes)
    for ax, named in zip(axes, spots, strict=True):
        ax.set_xlim(-0.04, end)  # what did not move stays whole
        place_labels(ax, named, _TALL)
    return figure


def _line(ax: Axes, places: Sequence[Place], colour: tuple[float, float, float]) -> Spot:
    """The line through the strengths of one method's pull, a diamond at the tuned one; it is named at the highest."""
    mine = sorted(places, key=lambda item: item.strength)
    tuned = np.array([item.arm.label == item.line for item in mine])
    x, y = np.array([[item.kl.value, item.gold.value] for item in mine]).T
    ends = [[item.gold.interval.low, item.gold.interval.high] for item in mine]
    errors = np.nan_to_num(np.abs(np.array(ends) - y[:, None])).T
    ax.errorbar(x, y, yerr=errors, fmt="-", color=colour, elinewidth=1)
    for some, marker in ((~tuned, "o"), (tuned, "D")):
        ax.plot(x[some], y[some], marker, color=colour, markersize=4.5)
    best = int(np.nanargmax(y)) if np.isfinite(y).any() else 0
    return Spot(x[best], y[best], mine[0].line, colour, np.column_stack([x, y]))


def _best_of(ax: Axes, item: BestOf) -> Spot:
    ax.plot(item.kl, item.gold.value, "^", color=style.GREY, markersize=7)
    return Spot(item.kl, item.gold.value, f"best of {item.n}", (0.4, 0.4, 0.4), np.empty((0, 2)))


def draw_pursuits(items: Sequence[Pursuit], look: style.Looks) -> Drawing:
    """An arm each: learned reward dashed on the right axis, gold reward on the left one, over KL."""
    figure, axes = style.grid_of_axes(len(items), 4, _SMALL)
    for ax, item in zip(axes, items, strict=True):
        style.name_panel(ax, style.short(item.arm.label))
        colour = look[item.arm.label].colour
        ax.plot(item.samples, item.gold, color=colour, marker="o", markersize=3.5)
        other = ax.twinx()
        other.plot(item.samples, item.learned, color=colour, linestyle="--")
        other.grid(visible=False)
        style.label_first_column(ax, _AXES["gold"])
        other.set_ylabel(_AXES["learned"], fontsize=8)
        style.count_axis(ax, float(item.samples[-1]))
        ax.set_ylim(0, 1)
    style.explain(figure, [key("gold (left axis)"), key("learned (right axis)", linestyle="--")])
    return figure


def draw_calibration(items: Sequence[RewardModels]) -> Drawing:
    """A task each: dots on the diagonal are probabilities that come true; a dot's area follows its pairs."""
    figure, axes = style.grid_of_axes(len(items), 3, _SMALL)
    for ax, item in zip(axes, items, strict=True):
        style.name_panel(ax, style.short(item.task))
        ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9)
        ax.scatter(item.predicted, item.observed, s=8 + 120 * item.counts / item.counts.max(), color="#333333")
        ax.set(xlabel="predicted probability", ylabel="share observed", xlim=(0, 1), ylim=(0, 1))
    return figure
