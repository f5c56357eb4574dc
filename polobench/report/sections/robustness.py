"""How bad it may get: the profile of scores, the worst seeds, and a gallery of failures."""

from __future__ import annotations

import numpy as np

from polobench.analysis.frame import flat_table
from polobench.analysis.reliability import scores
from polobench.core.result import RunResult
from polobench.report.blocks import Block, Paragraph, Section, Table, compact, figures
from polobench.report.draw.panels import PANELS_A_PAGE, compared
from polobench.report.draw.profiles import draw_profiles
from polobench.report.draw.style import pages
from polobench.report.findings import Findings
from polobench.report.text import number, plain, with_ends
from polobench.report.words import note

MOST_FAILURES = 10
MOST_ROWS = 16
LEVELS = "▁▂▃▄▅▆▇█"


def sections(findings: Findings) -> list[Section]:
    """Empty in a first look, and without a task that has scores."""
    if findings.is_first_look:
        return []
    profiles = pages(compared(findings.groups), PANELS_A_PAGE)[:1]
    subject = "Performance profiles over tasks"
    blocks = figures("profiles", subject, draw_profiles, profiles, findings.looks, note("profiles"))
    blocks += [*_worst(findings), *_gallery(findings)]
    return [Section("Robustness", blocks, {"troubled": flat_table(findings.troubled)})] if blocks else []


def _worst(findings: Findings) -> list[Block]:
    rows = [
        {
            "world": group.world,
            "method": item.label,
            "worst quarter of seeds [95 %]": with_ends(item.tail.value, item.tail.interval),
            "lowest score": number(item.worst.final_score, 2),
            "where": f"{item.worst.task}, seed {item.worst.seed}",
        }
        for group, items in findings.overalls
        if len(items) > 1
        for item in sorted(items, key=lambda item: -item.tail.value)
    ]
    if len({(row["worst quarter of seeds [95 %]"], row["lowest score"]) for row in rows}) < 2:
        return [Paragraph(f"The worst seed of every method scores {rows[0]['lowest score']}." if rows else "")]
    more = len(rows) - MOST_ROWS
    said = Paragraph(f"{more} more are in tables/overall.csv." if more > 0 else "")
    return [*compact(Table.of(rows[:MOST_ROWS], "llrrl"), keep=2), said]


def _gallery(findings: Findings) -> list[Block]:
    found = findings.troubled
    if not found:
        return [Paragraph("No run failed, stayed at the floor, collapsed or fell below its start.")]
    rows = [
        {
            "task": item.arm.task,
            "method": item.arm.label,
            "seed": str(item.run.seed),
            "what happened": item.what,
            "score over training": _spark(item.run),
            "reason": plain(item.reason),
        }
        for item in found[:MOST_FAILURES]
    ]
    runs = sum(map(len, findings.collection.of_kind("learning").values()))
    worst = f"; the {MOST_FAILURES} worst" if len(found) > MOST_FAILURES else ""
    said = note("gallery", wrong=len(found), runs=runs, worst=worst)
    return [Paragraph(said), *compact(Table.of(rows, "llrlll"), keep=4)]


def _spark(run: RunResult) -> str:
    """The held-out scores of a run as a line of bars, from the floor to the target."""
    places = (np.clip(scores(run).found, 0, 1) * (len(LEVELS) - 1)).round().astype(int)
    return "".join(LEVELS[place] for place in places)
