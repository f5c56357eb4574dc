"""A preference problem solved in several ways: the frontier, learned beside gold reward, reward models and costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from polobench.analysis import frontier
from polobench.analysis.frame import flat_table
from polobench.analysis.frontier import Cost, Place, Pursuit, RewardModels
from polobench.analysis.statistics.aggregates import Estimate
from polobench.report.blocks import Block, Bullets, Figure, Heading, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw.frontier import PANELS_A_PAGE, draw_calibration, draw_frontier, draw_pursuits
from polobench.report.draw.style import pages
from polobench.report.findings import Findings
from polobench.report.text import number, with_ends
from polobench.report.words import note


def sections(findings: Findings) -> list[Section]:
    """Empty without such tasks."""
    collection = findings.collection
    places = frontier.places(collection)
    if not places:
        return []
    best, models = frontier.best_of(collection), frontier.reward_models(collection)
    pursuits, costs = frontier.pursuits(collection), frontier.costs(collection)
    blocks: list[Block] = []
    for number_, problem in enumerate(dict.fromkeys(item.problem for item in places), 1):
        ended = [item for item in places if item.problem == problem and item.n]
        beside = [item for item in best if item.problem == problem]
        draw = partial(draw_frontier, ended, beside) if ended else lambda: None
        blocks.append(Figure(f"frontier_{number_}", f"The frontier: {problem}", draw, note("frontier")))
    blocks += compact(Table.of([_place(item) for item in places], "llllrrrrrr"), 3)
    blocks.append(Heading("Over-optimisation"))
    blocks += _pursuits(pursuits, findings)
    if models:
        blocks.append(Heading("Reward models"))
        blocks.append(Figure("calibration", "Calibration", partial(draw_calibration, models), note("calibration")))
        blocks += compact(Table.of([_model(item) for item in models], "lrrrr"), 1)
    blocks.append(Heading("What it took"))
    blocks += compact(Table.of([_cost(item) for item in costs], "lllrrrrrr"), 3)
    blocks.append(Paragraph(note("frontier_costs")))
    tables: dict[str, Sequence[Any]] = {"frontier": places, "best_of": best, "frontier_costs": costs}
    return [Section("One preference problem, several ways", blocks, {k: flat_table(v) for k, v in tables.items()})]


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


def _pursuits(items: list[Pursuit], findings: Findings) -> list[Block]:
    if not items:
        return [Paragraph("No arm follows a learned reward.")]
    surely = [item for item in items if item.is_overoptimised]
    said = f"In {len(surely)} of {len(items)} arms gold reward fell after its peak while the learned one rose, by:"
    none = f"No over-optimisation appears: in none of {len(items)} arms did gold reward surely fall after its peak."
    drawn = figures(
        "pursuit", "Learned and gold reward over training", draw_pursuits, pages(items, PANELS_A_PAGE), findings.looks,
        note("pursuit"),
    )  # fmt: skip
    falls = [f"{item.arm.label} ({item.arm.task}): {_ends(item.fall)}" for item in surely]
    return [*([Paragraph(said), Bullets(falls)] if surely else [Paragraph(none)]), *drawn]


def _model(item: RewardModels) -> dict[str, Text]:
    return {
        "task": item.task,
        "n": str(item.n),
        "accuracy on held-out labels": _ends(item.accuracy),
        "agreement with gold": _ends(item.gold_accuracy),
        "calibration error": _ends(item.calibration_error),
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
