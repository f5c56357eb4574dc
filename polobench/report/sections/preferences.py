"""A preference problem solved in several ways: the frontier, learned beside gold reward, reward models and costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from polobench.analysis import frontier
from polobench.analysis.frame import flat_table
from polobench.analysis.frontier import AtKL, BestOf, Cost, Place, Pursuit, RewardModels
from polobench.analysis.statistics.aggregates import Estimate
from polobench.report.blocks import Block, Bullets, Figure, Link, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw import style
from polobench.report.draw.lines import Spot, place_labels
from polobench.report.draw.style import key, pages
from polobench.report.findings import Findings
from polobench.report.text import number, with_ends
from polobench.report.words import note

DASHES = {"pairs": "-", "reward model": "--", "gold reward": ":"}
PANELS_A_PAGE = 8
_SIZE, _SMALL = (9.0, 5.4), (4.4, 3.2)
_AXES = {"learned": "learned reward [checkpoint's deviations]", "gold": "gold reward"}


def front_sections(findings: Findings) -> list[Section]:
    """The frontier of each problem, and its lines at equal KL; empty without such tasks."""
    places = [item for item in findings.frontier if item.n]
    if not places:
        return []
    best, blocks = frontier.best_of(findings.collection), list[Block]()
    for number_, problem in enumerate(dict.fromkeys(item.problem for item in places), 1):
        ended = [item for item in places if item.problem == problem]
        draw = partial(draw_frontier, ended, [item for item in best if item.problem == problem])
        blocks.append(Figure(f"frontier_{number_}", f"The frontier: {problem}", draw, note("frontier")))
        lines = [item for item in findings.at_equal_kl if item.problem == problem]
        blocks += [Paragraph(note("equal_kl"))] * bool(lines)
        blocks += compact(Table.of(_at_equal_kl(lines), "ll" + "r" * len(frontier.KLS)))
    surely = [item for item in findings.pursuits if item.is_overoptimised]
    if findings.pursuits:
        blocks.append(Paragraph(_overoptimised(surely, findings)))
    blocks.append(Paragraph([Link("All arms, learned beside gold reward, reward models and costs", "preferences")]))
    return [Section("One preference problem, several ways", blocks)]


def _at_equal_kl(items: Sequence[AtKL]) -> list[dict[str, Text]]:
    """A row per line; an empty cell where a line does not reach that far."""
    rows: dict[tuple[str, str], dict[str, Text]] = {}
    for item in sorted(items, key=lambda item: (list(DASHES).index(item.feedback), item.line)):
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
    blocks = [*compact(Table.of([_cost(item) for item in costs], "lllrrrrrr"), 3), Paragraph(note("frontier_costs"))]
    tables: dict[str, Sequence[Any]] = {
        "frontier": places, "best_of": frontier.best_of(collection), "frontier_costs": costs,
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
    }


def draw_frontier(items: Sequence[Place], baselines: Sequence[BestOf]) -> Drawing:
    """One problem: a line for each method and what it sees, a dot for each pull; bars are 95 % intervals of gold."""
    figure, (ax,) = style.grid_of_axes(1, 1, _SIZE)
    lines = sorted({(item.line, item.feedback) for item in items})
    look = style.looks([*dict.fromkeys(line for line, _ in lines)])
    spots = []
    for line, feedback in lines:
        mine = sorted((i for i in items if (i.line, i.feedback) == (line, feedback)), key=lambda item: item.kl.value)
        x, y = np.array([[item.kl.value, item.gold.value] for item in mine]).T
        ends = [[item.gold.interval.low, item.gold.interval.high] for item in mine]
        errors = np.nan_to_num(np.abs(np.array(ends) - y[:, None])).T
        colour = look[line].colour
        ax.errorbar(
            x, y, yerr=errors, color=colour, linestyle=DASHES[feedback], marker="o", markersize=4.5, elinewidth=1
        )
        best = int(np.nanargmax(y)) if np.isfinite(y).any() else 0
        spots.append(Spot(x[best], y[best], line, colour, np.column_stack([x, y])))
    for item in baselines:
        mark = "^" if item.feedback == "reward model" else "v"
        ax.plot(item.kl, item.gold.value, mark, color=style.GREY, markersize=7)
        spots.append(Spot(item.kl, item.gold.value, f"best of {item.n}", (0.4, 0.4, 0.4), np.empty((0, 2))))
    ax.set_xscale("symlog", linthresh=1.0)
    ax.set_xlim(left=0)
    ax.set_xlabel("KL to the checkpoint [nats per completion, sampled at temperature 1]")
    ax.set_ylabel("gold reward of sampled completions")
    style.ticks(ax.xaxis, style.compact)
    shown = dict.fromkeys(feedback for _, feedback in lines)
    style.explain(figure, [key(f"sees: {name}", linestyle=DASHES[name]) for name in shown])
    place_labels(ax, spots, _SIZE)
    return figure


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
