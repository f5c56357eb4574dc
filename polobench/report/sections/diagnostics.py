"""When the target was reached, and how loss and KL went."""

from __future__ import annotations

from functools import partial

from polobench.analysis.frame import flat_table
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, compact, figures
from polobench.report.draw.arrivals import draw_arrivals, has_reached
from polobench.report.draw.panels import PANELS_A_PAGE
from polobench.report.draw.style import pages
from polobench.report.draw.update import draw_losses, draw_updates
from polobench.report.findings import Findings
from polobench.report.text import with_ends
from polobench.report.words import note


def arrival_sections(findings: Findings) -> list[Section]:
    """Empty where no run of any task reached its target."""
    if not findings.arrivals:
        return []
    arrived = pages([panel for panel in findings.panels if has_reached(panel)], PANELS_A_PAGE)
    subject = "Share of runs that reached the target over samples"
    rows = [
        {
            "task": item.arm.task,
            "budget": item.arm.budget,
            "method": item.arm.label,
            "device": item.arm.device,
            "reached": f"{item.reached}/{item.n}",
            "samples to target, capped at the budget [95 %]": with_ends(item.mean, item.interval, 0),
        }
        for item in findings.arrivals
    ]
    blocks: list[Block] = [
        *figures("time_to_target", subject, draw_arrivals, arrived, findings.looks, note("arrivals")),
        *compact(Table.of(rows, "llllrr"), 3),
        Paragraph(note("arrival_mean")),
    ]
    return [Section("Time to target", blocks, {"time_to_target": flat_table(findings.arrivals)})]


def update_sections(findings: Findings) -> list[Section]:
    """Loss and KL of each task, then how the losses are spread."""
    look = findings.looks
    blocks: list[Block] = [
        Figure(
            f"{metric}_{number}_{part.file_part}",
            f"{name} over samples on {part.task}",
            partial(draw_updates, part, metric, look),
        )
        for metric, name in {"loss": "Loss", "kl": "KL"}.items()
        for number, part in findings.parts
    ]
    blocks += [Paragraph(note("updates"))] if blocks else []
    blocks += [
        Figure(
            f"losses_{number}_{part.file_part}",
            f"Distribution of the losses of the updates on {part.task}",
            partial(draw_losses, part, look),
            note("losses"),
        )
        for number, part in findings.parts
        if part.speaks
    ]
    return [Section("Loss and KL", blocks)] if blocks else []
