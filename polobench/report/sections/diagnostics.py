"""When the target was reached, who beats whom, and how loss and KL went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from polobench.analysis.frame import flat_table
from polobench.report.arrivals import Arrival, has_reached
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, compact
from polobench.report.draw.aggregate import IMPROVEMENT_CAPTION, compared, draw_improvements
from polobench.report.draw.arrivals import draw_arrivals
from polobench.report.draw.panels import MOST_NAMED, Panel, merged
from polobench.report.draw.preference import draw_losses
from polobench.report.draw.style import natural, pages
from polobench.report.draw.update import draw_updates
from polobench.report.findings import Findings
from polobench.report.sections.curves import ARMS_A_PAGE, PANELS_A_PAGE
from polobench.report.text import with_ends

TIME_CAPTION = (
    "The share of runs that had reached the target (two evaluations in a row at or above it), by Kaplan and Meier, "
    "with pointwise 95 % Wilson bands. Failed runs count as never. Tasks whose target no run reached are left out."
)
UPDATE_CAPTION = (
    "Lines are medians over the runs, bands the middle 90 % of those still going, crosses runs that failed. "
    "Losses of different methods measure different things; KL is between the policies before and after an update."
)
SPREAD_CAPTION = "The losses of all updates of all seeds, averaged over at most 500 stretches per run."


def arrival_sections(findings: Findings) -> list[Section]:
    """Empty where no run of any task reached its target."""
    if not findings.arrivals:
        return []
    arrived = pages([panel for panel in findings.panels if has_reached(panel)], PANELS_A_PAGE)
    headers = ["task", "budget", "method", "device", "reached", "samples to target, capped at the budget [95 %]"]
    table = Table(headers, [_arrival_row(item) for item in findings.arrivals], "llllrr")
    blocks: list[Block] = [
        *(Figure(partial(draw_arrivals, page, number, findings.looks), TIME_CAPTION) for number, page in arrived),
        *compact(table, 3),
        Paragraph("The mean is the area under the Kaplan-Meier curve, with a percentile bootstrap over runs."),
    ]
    return [Section("Time to target", blocks, {"time_to_target": flat_table(findings.arrivals)})]


def _arrival_row(item: Arrival) -> list[str]:
    named = [item.arm.task, item.arm.budget, item.arm.label, item.arm.device]
    return [*named, f"{item.reached}/{item.n}", with_ends(item.mean, item.interval, 0)]


def improvement_sections(findings: Findings) -> list[Section]:
    """Each pair of methods; empty without a group that can be compared."""
    groups = [group for group in compared(findings.groups) if len(group.runs) <= MOST_NAMED]
    figures = [
        Figure(partial(draw_improvements, group, number, findings.looks), IMPROVEMENT_CAPTION if number == 1 else "")
        for number, group in enumerate(groups, 1)
    ]
    return [Section("Probability of improvement", figures)] if figures else []


def update_sections(findings: Findings) -> list[Section]:
    """Loss and KL of each task, then how the losses are spread."""
    every = list(parts(merged(findings.panels, ARMS_A_PAGE)))
    blocks: list[Block] = [
        Figure(partial(draw_updates, part, number, metric, findings.looks))
        for metric in ("loss", "kl")
        for number, part in every
    ]
    blocks += [Paragraph(UPDATE_CAPTION)] if every else []
    speaking = [(number, part) for number, part in every if part.speaks]
    blocks += [Figure(partial(draw_losses, part, number, findings.looks), SPREAD_CAPTION) for number, part in speaking]
    return [Section("Loss and KL", blocks)] if blocks else []


def parts(every: Sequence[Panel]) -> Iterator[tuple[str, Panel]]:
    """Panels with no more arms than a figure shows, numbered by panel and page."""
    for place, panel in enumerate(every, 1):
        arms = sorted(panel.arms, key=lambda item: natural(item[0].label))
        for page, shown in pages(arms, ARMS_A_PAGE):
            yield f"{place:02d}-{page}", replace(panel, arms=tuple(shown))
