"""How bad it may get: the profile of scores, the worst seeds, and a gallery of failures."""

from __future__ import annotations

from functools import partial

import numpy as np

from polobench.analysis.frame import flat_table
from polobench.analysis.reliability import scores
from polobench.core.result import RunResult
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, Text, compact
from polobench.report.draw.aggregate import PROFILE_CAPTION, compared, draw_profiles
from polobench.report.draw.style import pages
from polobench.report.findings import Findings
from polobench.report.naming import term
from polobench.report.sections.curves import PANELS_A_PAGE
from polobench.report.sections.verdict import estimate
from polobench.report.text import number, plain

MOST_FAILURES = 10
MOST_ROWS = 16
LEVELS = "▁▂▃▄▅▆▇█"


def sections(findings: Findings) -> list[Section]:
    """Empty in a first look, and without a task that has scores."""
    if findings.is_first_look:
        return []
    profiles = list(pages(compared(findings.groups), PANELS_A_PAGE))[:1]
    blocks: list[Block] = [
        Figure(partial(draw_profiles, page, number, findings.looks), PROFILE_CAPTION) for number, page in profiles
    ]
    blocks += [*_worst(findings), *_gallery(findings)]
    return [Section("Robustness", blocks, {"troubled": flat_table(findings.troubled)})] if blocks else []


def _worst(findings: Findings) -> list[Block]:
    rows = [
        [
            group.world,
            item.label,
            estimate(item.tail),
            number(item.worst.final_score, 2),
            f"{item.worst.task}, seed {item.worst.seed}",
        ]
        for group, items in findings.overalls
        if len(items) > 1
        for item in sorted(items, key=lambda item: -item.tail.value)
    ]
    if len({(row[2], row[3]) for row in rows}) < 2:
        return [Paragraph(f"The worst seed of every method scores {rows[0][3]}." if rows else "")]
    headers = ["world", "method", "worst quarter of seeds [95 %]", "lowest score", "where"]
    more = len(rows) - MOST_ROWS
    return [
        *compact(Table(headers, rows[:MOST_ROWS], "llrrl"), keep=2),
        Paragraph(f"{more} more are in tables/overall.csv." if more > 0 else ""),
    ]


def _gallery(findings: Findings) -> list[Block]:
    found = findings.troubled
    if not found:
        return [Paragraph("No run failed, stayed at the floor, collapsed or fell below its start.")]
    headers = ["task", "method", "seed", "what happened", "score over training", "reason"]
    rows: list[list[Text]] = [
        [item.arm.task, item.arm.label, str(item.run.seed), item.what, spark(item.run), plain(item.reason)]
        for item in found[:MOST_FAILURES]
    ]
    more = len(found) - MOST_FAILURES
    said: Text = [
        f"{len(found)} of {sum(map(len, findings.collection.of_kind('learning').values()))} learning runs went wrong"
        f"{f'; the {MOST_FAILURES} worst' if more > 0 else ''}. Failed runs count: they score 0 and stay in every "
        "average (", term("failed run"), "). Curves run from the floor ▁ to the target █.",
    ]  # fmt: skip
    return [Paragraph(said), *compact(Table(headers, rows, "llrlll"), keep=4)]


def spark(run: RunResult) -> str:
    """The held-out scores of a run as a line of bars, from the floor to the target."""
    places = (np.clip(scores(run).found, 0, 1) * (len(LEVELS) - 1)).round().astype(int)
    return "".join(LEVELS[place] for place in places)
