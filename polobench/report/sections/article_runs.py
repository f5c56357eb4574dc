"""The article's methods run again: its published figures beside ours over seeds, and where its run lies among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd

from polobench.analysis.article import EpisodeArm, LossShape, Placement, PublishedReturn, Spent, published
from polobench.analysis.frame import table_of
from polobench.analysis.statistics.intervals import Array
from polobench.report.blocks import Block, Bullets, Figure, Heading, Paragraph, Section, Table, compact
from polobench.report.draw.article import draw_article
from polobench.report.findings import Findings
from polobench.report.naming import arm_columns
from polobench.report.sections.welcome import SMOKE
from polobench.report.text import NOTHING, decimals_for, number, significant, with_ends

QUARTILES = (0, 0.25, 0.5, 0.75, 1)
TITLE = "The article's own methods, run again"
HOW_TO_READ = (
    "The article shows one run of each method. Ours are the same methods over several seeds, with the faults that the "
    "article describes kept on purpose; each file below polobench/article/ lists them. Budgets differ: compare methods "
    "only where their budgets are equal."
)
FIGURE_CAPTION = (
    "Returns of single training episodes: thin lines are our runs, thick ones their median. Black marks are what the "
    "article shows of its run: a dot is a value, a bar a range, a triangle a lower bound."
)
SPENT_NOTE = (
    "Each of the article's methods with a sound version on the same task below it. Samples and updates are medians "
    "over the n runs; the final return is held-out, a mean over seeds [95 %, Student's t]."
)
EPISODE_NOTE = (
    "Returns of single training episodes. n: runs that had the episode. The last column says where the article's run "
    "lies among ours."
)
LOSS_NOTE = (
    "Losses are means per epoch, medians over runs. Early share: how much of the fall was done a third of the way "
    "(0.33 for a straight line), the median [least, most] over the runs that fell. In order: training pairs whose "
    "chosen response is the likelier one, median [least, most]."
)


def article_frame(arms: Sequence[EpisodeArm]) -> pd.DataFrame:
    """Every number of the tables by episode, a row per arm and episode."""
    return table_of(_numbers(place) for item in arms for place in item.placements)


def _numbers(item: Placement) -> dict[str, object]:
    row: dict[str, object] = arm_columns(item.arm) | {"episode": item.episode}
    if item.article is not None:
        row |= {f"article_{name}": value for name, value in asdict(item.article).items()}
    names, known = ("least", "quartile_1", "median", "quartile_3", "most"), len(item.values) > 0
    row |= dict(zip(names, np.quantile(item.values, QUARTILES) if known else [math.nan] * 5))
    return row | {"n": len(item.values), "below_article": item.n_below, "above_article": item.n_above}


def sections(findings: Findings) -> list[Section]:
    """Empty without one of the article's methods in the store."""
    if not findings.article_costs:
        return []
    blocks: list[Block] = [
        Paragraph(HOW_TO_READ),
        Paragraph(SPENT_NOTE),
        *compact(_spent_table(findings.article_costs, findings.budgets), 2),
        Figure(partial(draw_article, findings.article_arms, findings.looks), FIGURE_CAPTION),
    ]
    for item in findings.article_arms:
        where = f"{item.arm.label}; {item.arm.task}; {findings.budgets[item.arm.task, item.arm.budget]}"
        blocks += [Heading(where), Paragraph(_cut(item)), _episode_table(item.placements)]
    blocks += [Paragraph(EPISODE_NOTE if findings.article_arms else "")]
    for method, items in findings.article_losses.items():
        smoke = SMOKE if any(item.smoke for item in items) else ""
        blocks += [
            Heading(f"{method}: loss and pairs"),
            Paragraph(smoke),
            *_claims(method),
            *compact(_loss_table(items), 2),
        ]
    blocks.append(Paragraph(LOSS_NOTE if findings.article_losses else ""))
    return [Section(TITLE, blocks, {"article": article_frame(findings.article_arms)})]


def _spent_table(rows: Sequence[Spent], words: Mapping[tuple[str, str], str]) -> Table:
    headers = ["task", "method", "budget", "n", "samples", "updates", "floor", "final return, mean [95 %]"]
    return Table(headers, [_spent_row(item, words) for item in rows], "lllrrrrr")


def _spent_row(item: Spent, words: Mapping[tuple[str, str], str]) -> list[str]:
    summary = item.summary
    decimals = decimals_for(summary.floor, summary.target, [summary.final_return])
    return [
        summary.arm.task,
        summary.arm.label,
        words[summary.arm.task, summary.arm.budget],
        str(summary.n),
        number(item.samples),
        number(item.updates),
        number(summary.floor, decimals),
        with_ends(summary.final_return, summary.final_interval, decimals),
    ]


def _cut(item: EpisodeArm) -> str:
    """Which runs ended in an episode that did not."""
    if not item.cut:
        return ""
    steps = list(item.cut.values())
    few, most = number(min(steps)), number(max(steps))
    shown = few if few == most else f"{few} to {most}"
    return (
        f"{len(item.cut)} of {len(item.returns)} runs ended in an episode that was still going, after {shown} steps of "
        "it, when the budget of samples was spent; later episodes do not exist."
    )


def _episode_table(placements: Sequence[Placement]) -> Table:
    headers = ["episode", "article", "ours: median [quartiles]", "least to most", "n", "the article's run among ours"]
    return Table(headers, [_episode_row(item) for item in placements], "rrrrrl")


def _episode_row(item: Placement) -> list[str]:
    found = [NOTHING, NOTHING]
    if len(item.values):
        least, low, middle, high, most = (number(value) for value in np.quantile(item.values, QUARTILES))
        found = [f"{middle} [{low}, {high}]", f"{least} to {most}"]
    return [number(item.episode), _shown(item.article), *found, str(len(item.values)), _place(item)]


def _shown(article: PublishedReturn | None) -> str:
    if article is None:
        return NOTHING
    if article.words:
        return article.words
    if article.low == article.high:
        return number(article.low)
    return (
        f"above {number(article.low)}"
        if math.isinf(article.high)
        else f"{number(article.low)} to {number(article.high)}"
    )


def _place(item: Placement) -> str:
    """Where the article's run lies; words alone have no place."""
    article, n = item.article, len(item.values)
    if article is None or math.isnan(article.low) or not n:
        return NOTHING
    level = n - item.n_below - item.n_above
    if article.low < article.high:
        return f"{level} of {n} where it says, {item.n_below} below, {item.n_above} above"
    return f"above {item.n_below}, level with {level}, below {item.n_above} of {n}"


def _claims(method: str) -> list[Block]:
    """What the article shows, in words."""
    lines = [f"{claim.of}: {claim.words}" for claim in published()[method].claims]
    return [Paragraph("What the article shows of its run:"), Bullets(lines)]


def _loss_table(items: Sequence[LossShape]) -> Table:
    headers = [
        "task", "method", "n", "loss in the first epoch", "a third of the way", "in the last", "early share", "fell",
        "pairs", "in order before", "in order after",
    ]  # fmt: skip
    return Table(headers, [_loss_row(item) for item in items], "llrrrrrrrrr")


def _loss_row(item: LossShape) -> list[str]:
    losses = [significant(value) for value in item.moments] if len(item.losses) else [NOTHING] * 3
    return [
        item.arm.task,
        item.arm.label,
        str(item.n) if len(item.losses) == item.n else f"{len(item.losses)}/{item.n}",
        *losses,
        _spread(item.early_shares, 2),
        f"{len(item.early_shares)}/{len(item.losses)}",
        str(item.pairs),
        *(_spread(item.in_order[:, moment], 0) for moment in (0, 1)),
    ]


def _spread(values: Array, decimals: int) -> str:
    if not len(values):
        return NOTHING
    least, middle, most = (number(value, decimals) for value in np.quantile(values, (0, 0.5, 1)))
    return f"{middle} [{least}, {most}]"
