"""How noisy each method's gradient is at a policy that does not move."""

from __future__ import annotations

from polobench.analysis.frame import flat_table
from polobench.analysis.statistics.intervals import Interval
from polobench.report.blocks import Block, Section, Table, compact, figures
from polobench.report.draw.dots import draw_noise
from polobench.report.draw.panels import PANELS_A_PAGE, by_task
from polobench.report.draw.style import pages
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, number, significant
from polobench.report.words import note


def sections(findings: Findings) -> list[Section]:
    """Empty without such cells."""
    items = findings.noises
    if not items:
        return []
    rows = [
        {
            "task": item.arm.task,
            "method": item.arm.label,
            "stage": f"{item.stage:g}",
            "device": item.arm.device,
            "n": str(item.n),
            "batches": str(item.batches),
            "samples of a batch": number(item.samples),
            "signal-to-noise [95 %]": _with_ends(item.snr, item.interval),
        }
        for item in items
    ]
    panels = pages(by_task(items), PANELS_A_PAGE)
    subject = "Signal-to-noise ratio of the gradient at the policies of runs"
    blocks: list[Block] = [
        *figures("gradient_noise", subject, draw_noise, panels, findings.looks, note("noise")),
        *compact(Table.of(rows, "llrlrrrr"), 3),
    ]
    return [Section("Gradient noise", blocks, {"gradient_noise": flat_table(items)})]


def _with_ends(value: float, interval: Interval) -> str:
    low, high = significant(interval.low), significant(interval.high)
    return significant(value) if NOTHING in (low, high) else f"{significant(value)} [{low}, {high}]"
