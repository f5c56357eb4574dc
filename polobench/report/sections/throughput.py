"""How fast whole iterations are, and what takes the time."""

from __future__ import annotations

import math

from polobench.analysis.frame import flat_table
from polobench.analysis.summary import ThroughputSummary
from polobench.report.blocks import Block, Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw.style import pages, percent
from polobench.report.draw.throughput import draw_throughput
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, counts_text, number, significant, with_ends
from polobench.report.words import note

_BARS_A_PAGE = 30


def sections(findings: Findings) -> list[Section]:
    """Empty without a throughput cell."""
    items = findings.throughputs
    if not items:
        return []
    measured = pages([item for item in items if item.n], _BARS_A_PAGE)
    blocks: list[Block] = [
        Paragraph(note("throughput")),
        *figures("throughput", "Throughput of whole iterations", draw_throughput, measured, findings.looks),
        *compact(Table.of([_row(item) for item in items], "lllrrrrrrrrrrl"), 2),
    ]
    return [Section("Throughput", blocks, {"throughput": flat_table(items)})]


def _row(item: ThroughputSummary) -> dict[str, Text]:
    low, high = (significant(end) for end in item.quartiles)
    others = {"beside others": item.beside_others, "no new samples": item.without_samples}
    return {
        "task": item.arm.task,
        "method": item.arm.label,
        "device": item.arm.device,
        "n/cells": f"{item.n}/{item.cells}",
        "rounds": str(item.rounds),
        "samples/s [95 %]": with_ends(item.samples_per_second, item.interval, 0),
        "updates/s": significant(item.updates_per_second),
        "rollout samples/s": number(item.rollout_samples_per_second),
        "update samples/s": number(item.update_samples_per_second),
        "s per iteration: median [quartiles]": (
            f"{significant(item.iteration_seconds)} [{low}, {high}]" if item.n else NOTHING
        ),
        "rollout share": _share(item.rollout_share),
        "update share": _share(item.update_share),
        "peak MiB": number(item.peak_memory_mib),
        "status": counts_text(item.statuses | {name: count for name, count in others.items() if count}),
    }


def _share(part: float) -> str:
    return NOTHING if math.isnan(part) else percent(part)
