"""How fast whole iterations are, and what takes the time."""

from __future__ import annotations

import math
from functools import partial

from polobench.analysis.frame import flat_table
from polobench.analysis.summary import ThroughputSummary
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, compact
from polobench.report.draw.style import pages, percent
from polobench.report.draw.throughput import draw_throughput
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, number, significant, with_ends

BARS_A_PAGE = 30
NOTE = (
    "An iteration is a rollout and its update, timed at the start of training, where episodes are still short. "
    "Learning runs may be much faster or slower, so compare methods within this table alone. Speeds are means "
    "over the n cells that ended ok and ran alone."
)


def sections(findings: Findings) -> list[Section]:
    """Empty without a throughput cell."""
    items = findings.throughputs
    if not items:
        return []
    measured = [item for item in items if item.n]
    headers = [
        "task", "method", "device", "n/cells", "rounds", "samples/s [95 %]", "updates/s", "rollout samples/s",
        "update samples/s", "s per iteration: median [quartiles]", "rollout share", "update share", "peak MiB",
        "status",
    ]  # fmt: skip
    blocks: list[Block] = [
        Paragraph(NOTE),
        *(
            Figure(partial(draw_throughput, page, number, findings.looks))
            for number, page in pages(measured, BARS_A_PAGE)
        ),
        *compact(Table(headers, [_row(item) for item in items], "lllrrrrrrrrrrl"), 2),
    ]
    return [Section("Throughput", blocks, {"throughput": flat_table(items)})]


def _row(item: ThroughputSummary) -> list[str]:
    low, high = (significant(end) for end in item.quartiles)
    timed = f"{significant(item.iteration_seconds)} [{low}, {high}]" if item.n else NOTHING
    statuses = [f"{status} {count}" for status, count in item.statuses.items()]
    if item.beside_others:
        statuses.append(f"beside others {item.beside_others}")
    if item.without_samples:
        statuses.append(f"no new samples {item.without_samples}")
    return [
        item.arm.task,
        item.arm.label,
        item.arm.device,
        f"{item.n}/{item.cells}",
        str(item.rounds),
        with_ends(item.samples_per_second, item.interval, 0),
        significant(item.updates_per_second),
        number(item.rollout_samples_per_second),
        number(item.update_samples_per_second),
        timed,
        *(NOTHING if math.isnan(part) else percent(part) for part in (item.rollout_share, item.update_share)),
        number(item.peak_memory_mib),
        ", ".join(statuses),
    ]
