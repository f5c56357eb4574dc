"""The section on the source article: its published figures, ours over seeds, and where its run lies among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from polobench.analysis.article import (
    EpisodeArm,
    LossShape,
    Placement,
    PublishedReturn,
    Spent,
    beside_sound,
    episode_arms,
    loss_shapes,
    published,
)
from polobench.analysis.collection import Collection
from polobench.analysis.frame import table_of
from polobench.analysis.statistics.intervals import Array
from polobench.report.answers import SMOKE
from polobench.report.tables import TextTable, arm_columns
from polobench.report.text import NOTHING, decimals_for, ends, escape, number, significant

QUARTILES = (0, 0.25, 0.5, 0.75, 1)
HOW_TO_READ = """\
- The article shows one run of each method. Ours are the same methods with the faults that the article describes, kept
  on purpose, over seeds; each method's file under `polobench/article/` lists them, and what the article leaves open.
- Returns are of single training episodes, undiscounted, each of the policy that it then updates. `n`: runs that had
  this episode. The last column counts our runs on each side of the article's, or how many lie where it says."""
FIGURE_CAPTION = (
    "A thin line a run, a thick one the median of the runs that had the episode, both of single training episodes. In "
    "black what the article shows of its run: dots are values, a bar a range, a triangle a lower bound. Logarithmic."
)
SPENT_NOTE = (
    "The article's versions and, below each, a sound one on the same task; samples and updates are medians over the n "
    "runs. Final return: held-out, mean over seeds [95 %, Student's t]."
)
LOSS_NOTE = (
    "Losses are means over each epoch (of a sound version over as many equal stretches), medians over the n runs with "
    "at least as many updates as epochs. Early share: how much of the fall from the first epoch to the last was done a "
    "third of the way, the median [least, most] over the runs that fell; a straight line has 0.33. In order: training "
    "pairs with the chosen response the likelier one, by the summed log-probability, the median [least, most]."
)


def article_frame(collection: Collection) -> pd.DataFrame:
    """Every number of the tables by episode, a row an arm and episode."""
    return table_of(_numbers(place) for item in episode_arms(collection) for place in item.placements)


def _numbers(item: Placement) -> dict[str, object]:
    row: dict[str, object] = arm_columns(item.arm) | {"episode": item.episode}
    if item.article is not None:
        row |= {f"article_{name}": value for name, value in asdict(item.article).items()}
    names, known = ("least", "quartile_1", "median", "quartile_3", "most"), len(item.values) > 0
    row |= dict(zip(names, np.quantile(item.values, QUARTILES) if known else [math.nan] * 5))
    return row | {"n": len(item.values), "below_article": item.n_below, "above_article": item.n_above}


def article_section(collection: Collection, figure: str) -> str:
    """Every table of the section with the figure; empty without one of the article's methods in the store."""
    rows = beside_sound(collection)
    if not rows:
        return ""
    parts = [HOW_TO_READ, SPENT_NOTE, _spent_table(rows).markdown(), figure]
    for item in episode_arms(collection):
        parts += [f"### {_name(item)}", _cut(item), _episode_table(item.placements).markdown()]
    shapes = loss_shapes(collection)
    for method, items in shapes.items():
        smoke = SMOKE if any(item.smoke for item in items) else ""
        parts += [f"### {escape(method)}: loss and pairs", smoke, _claims(method), _loss_table(items).markdown()]
    parts.append(LOSS_NOTE if shapes else "")
    return "\n\n".join(part for part in parts if part)


def _name(item: EpisodeArm) -> str:
    return escape(f"{item.arm.label}, {item.arm.task}, {item.arm.budget}")


def _spent_table(rows: Sequence[Spent]) -> TextTable:
    headers = ["task", "method", "budget", "n", "samples", "updates", "floor", "final return, mean [95 %]"]
    return TextTable(headers, [_spent_row(item) for item in rows], "lllrrrrr")


def _spent_row(item: Spent) -> list[str]:
    summary = item.summary
    decimals = decimals_for(summary.floor, summary.target, [summary.final_return])
    return [
        *(escape(text) for text in (summary.arm.task, summary.arm.label, summary.arm.budget)),
        str(summary.n),
        number(item.samples),
        number(item.updates),
        number(summary.floor, decimals),
        f"{number(summary.final_return, decimals)} {ends(summary.final_interval, decimals)}".strip(),
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


def _episode_table(placements: Sequence[Placement]) -> TextTable:
    headers = ["episode", "article", "ours: median [quartiles]", "least to most", "n", "the article's run among ours"]
    return TextTable(headers, [_episode_row(item) for item in placements], "rrrrrl")


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
        return escape(article.words)
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


def _claims(method: str) -> str:
    """What the article shows, in words."""
    lines = [f"- {escape(claim.of)}: {escape(claim.words)}" for claim in published()[method].claims]
    return "\n".join(["What the article shows of its run:", "", *lines])


def _loss_table(items: Sequence[LossShape]) -> TextTable:
    headers = [
        "task", "method", "n", "loss in the first epoch", "a third of the way", "in the last", "early share", "fell",
        "pairs", "in order before", "in order after",
    ]  # fmt: skip
    return TextTable(headers, [_loss_row(item) for item in items], "llrrrrrrrrr")


def _loss_row(item: LossShape) -> list[str]:
    losses = [significant(value) for value in item.moments] if len(item.losses) else [NOTHING] * 3
    return [
        *(escape(text) for text in (item.arm.task, item.arm.label)),
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
