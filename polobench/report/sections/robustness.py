"""How bad it may get: the profile of scores, and a gallery of failures."""

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
from polobench.report.text import plain
from polobench.report.words import note

MOST_FAILURES = 10
LEVELS = "▁▂▃▄▅▆▇█"


def sections(findings: Findings) -> list[Section]:
    """Empty in a first look, and without a task that has scores."""
    if findings.is_first_look:
        return []
    profiles = pages(compared(findings.groups), PANELS_A_PAGE)[:1]
    subject = "Performance profiles over tasks"
    blocks = figures("profiles", subject, draw_profiles, profiles, findings.looks, note("profiles"))
    blocks += _gallery(findings)
    return [Section("Robustness", blocks, {"troubled": flat_table(findings.troubled)})] if blocks else []


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
