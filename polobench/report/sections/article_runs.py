"""The article's methods run again: its published figures beside ours over seeds, and where its run lies among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from polobench.analysis.article import SHOWN_EPISODES, EpisodeArm, LossShape, Placement, PublishedReturn, published
from polobench.analysis.frame import ARM, table_of
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.summary import ArmSummary
from polobench.core.result import RunResult
from polobench.report.blocks import Block, Bullets, Figure, Heading, Paragraph, Section, Table, Text, compact
from polobench.report.draw import style
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, counted, decimals_for, known_of, number, significant, span, with_ends
from polobench.report.words import note

_QUARTILES = {"least": 0.0, "quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75, "most": 1.0}
TITLE = "The article's own methods, run again"
_BLACK = "black"
_DOT: dict[str, Any] = {"markersize": 7, "linestyle": "none"}


def sections(findings: Findings) -> list[Section]:
    """Empty without one of the article's methods in the store."""
    if not findings.article_costs:
        return []
    spent = Table.of([_spent_row(*item, findings.budgets) for item in findings.article_costs], "lllrrrrr")
    draw = partial(draw_article, findings.article_arms, findings.looks)
    blocks: list[Block] = [
        Paragraph(note("article")),
        Paragraph(note("spent")),
        *compact(spent, 2),
        Figure("article", "Training returns, the article's run over ours", draw, note("article_figure")),
    ]
    headers = ["episode", "article", "ours: median [quartiles]", "least to most", "n", "the article's run among ours"]
    for item in findings.article_arms:
        where = f"{item.arm.label}; {item.arm.task}; {findings.budgets[item.arm.task, item.arm.budget]}"
        table = Table(headers, [_episode_row(placement) for placement in item.placements], "rrrrrl")
        blocks += [Heading(where), Paragraph(_cut(item)), table]
    blocks.append(Paragraph(note("episodes") if findings.article_arms else ""))
    for method, items in findings.article_losses.items():
        blocks += [
            Heading(f"{method}: loss and pairs"),
            Paragraph(note("smoke") if any(item.smoke for item in items) else ""),
            Paragraph("What the article shows of its run:"),
            Bullets([f"{of}: {words}" for of, words in published()[method].claims.items()]),
            *compact(Table.of([_loss_row(item) for item in items], "llrrrrrrrrr"), 2),
        ]
    blocks.append(Paragraph(note("article_losses") if findings.article_losses else ""))
    placements = [_numbers(place) for item in findings.article_arms for place in item.placements]
    return [Section(TITLE, blocks, {"article": table_of(placements)})]


def _numbers(item: Placement) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(item.arm, name) for name in ARM} | {"episode": item.episode}
    if item.article is not None:
        row |= {f"article_{name}": value for name, value in asdict(item.article).items()}
    row |= _quartiles(item)
    return row | {"n": len(item.values), "below_article": item.n_below, "above_article": item.n_above}


def _quartiles(item: Placement) -> dict[str, float]:
    found = np.quantile(item.values, list(_QUARTILES.values())) if len(item.values) else [math.nan] * len(_QUARTILES)
    return dict(zip(_QUARTILES, map(float, found), strict=True))


def _spent_row(summary: ArmSummary, runs: Sequence[RunResult], words: Mapping[tuple[str, str], str]) -> dict[str, Text]:
    """With the medians over the runs of what they spent."""
    decimals = decimals_for(summary.floor, summary.target, [summary.final_return])
    return {
        "task": summary.arm.task,
        "method": summary.arm.label,
        "budget": words[summary.arm.task, summary.arm.budget],
        "n": str(summary.n),
        "samples": number(median(run.ledger.samples for run in runs)),
        "updates": number(median(run.ledger.updates for run in runs)),
        "floor": number(summary.floor, decimals),
        "final return, mean [95 %]": with_ends(summary.final_return, summary.final_interval, decimals),
    }


def _cut(item: EpisodeArm) -> str:
    """Which runs ended in an episode that did not."""
    if not item.cut:
        return ""
    steps = span(number(min(item.cut.values())), number(max(item.cut.values())))
    return (
        f"{len(item.cut)} of {len(item.returns)} runs ended in an episode that was still going, after {steps} steps of "
        "it, when the budget of samples was spent; later episodes do not exist."
    )


def _episode_row(item: Placement) -> list[Text]:
    least, first, middle, third, most = map(number, _quartiles(item).values())
    ours = [f"{middle} [{first}, {third}]", f"{least} to {most}"] if len(item.values) else [NOTHING] * 2
    return [number(item.episode), _shown(item.article), *ours, str(len(item.values)), _place(item)]


def _shown(article: PublishedReturn | None) -> str:
    if article is None:
        return NOTHING
    if article.words:
        return article.words
    low, high = number(article.low), number(article.high)
    return f"above {low}" if math.isinf(article.high) else span(low, high)


def _place(item: Placement) -> str:
    """Where the article's run lies; words alone have no place."""
    article, n = item.article, len(item.values)
    if article is None or math.isnan(article.low) or not n:
        return NOTHING
    level = n - item.n_below - item.n_above
    if article.low < article.high:
        return f"{level} of {n} where it says, {item.n_below} below, {item.n_above} above"
    return f"above {item.n_below}, level with {level}, below {item.n_above} of {n}"


def _loss_row(item: LossShape) -> dict[str, Text]:
    first, third, last = map(significant, item.moments) if len(item.losses) else [NOTHING] * 3
    return {
        "task": item.arm.task,
        "method": item.arm.label,
        "n": known_of(len(item.losses), item.n),
        "loss in the first epoch": first,
        "a third of the way": third,
        "in the last": last,
        "early share": _spread(item.early_shares, 2),
        "fell": f"{len(item.early_shares)}/{len(item.losses)}",
        "pairs": str(item.pairs),
        "in order before": _spread(item.in_order[:, 0], 0),
        "in order after": _spread(item.in_order[:, 1], 0),
    }


def _spread(values: Array, decimals: int) -> str:
    if not len(values):
        return NOTHING
    least, middle, most = (number(value, decimals) for value in np.quantile(values, (0, 0.5, 1)))
    return f"{middle} [{least}, {most}]"


def draw_article(every: Sequence[EpisodeArm], look: style.Looks) -> Drawing | None:
    """The training returns of arms whose updates are episodes; None if none had an episode."""
    arms = [item for item in every if any(map(len, item.returns))]
    if not arms:
        return None
    figure, axes = style.grid_of_axes(len(arms), 2, (5.6, 3.3))
    for ax, item in zip(axes, arms, strict=True):
        returns = published()[item.arm.method].returns
        _draw_runs(ax, item, look[item.arm.label])
        _draw_published(ax, returns)
        style.name_panel(
            ax, f"{style.short(item.arm.label)} ({style.short(item.arm.task)}, {counted(len(item.returns), 'run')})"
        )
        ax.set_xlabel("episode, one per update")
        style.label_first_column(ax, "return of the episode")
        ax.set_xlim(0, 1.02 * max(*SHOWN_EPISODES, *map(len, item.returns)))
        ax.set_yscale("log")
        low, high = ax.set_ylim(*_ends(item, returns))
        style.log_ticks(ax.yaxis, low, high, short=1000)
    ours = [
        style.key("a run", _BLACK, linewidth=0.6, alpha=0.5),
        style.key("median of our runs", _BLACK, linewidth=1.6),
    ]
    theirs = [
        style.key("the article's run", _BLACK, marker="o", **_DOT),
        style.key("its lower bound", _BLACK, marker="^", **_DOT),
        style.key("its range", _BLACK, marker="|", markersize=12, markeredgewidth=3.5, linestyle="none"),
    ]
    style.explain(figure, [*ours, *theirs])
    return figure


def _ends(item: EpisodeArm, returns: Mapping[int, PublishedReturn]) -> tuple[float, float]:
    """Around all that a panel shows."""
    every = np.concatenate(item.returns)
    drawn = np.concatenate([every[every > 0], [end for found in returns.values() for end in _known(found)]])
    low, high = float(drawn.min()), float(drawn.max())
    margin = (high / low) ** 0.06
    return low / margin, high * margin


def _known(found: PublishedReturn) -> list[float]:
    return [end for end in (found.low, found.high) if np.isfinite(end)]


def _draw_runs(ax: Axes, item: EpisodeArm, look: style.Look) -> None:
    """And the median over the runs that had the episode."""
    runs = [run for run in item.returns if len(run)]
    for run in runs:
        ax.plot(np.arange(1, len(run) + 1), run, color=look.colour, linewidth=0.6, alpha=0.3)
    middle = [np.median([run[at] for run in runs if len(run) > at]) for at in range(max(map(len, runs)))]
    ax.plot(np.arange(1, len(middle) + 1), middle, color=look.colour, linewidth=1.6)


def _draw_published(ax: Axes, returns: Mapping[int, PublishedReturn]) -> None:
    for episode, found in returns.items():
        ends = _known(found)
        if len(ends) == 2 and found.low < found.high:
            ax.plot([episode, episode], ends, color=_BLACK, linewidth=3.5, solid_capstyle="butt", zorder=4)
        elif ends:
            ax.plot(episode, ends[0], marker="o" if len(ends) == 2 else "^", color=_BLACK, zorder=4, **_DOT)
