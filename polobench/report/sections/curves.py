"""Learning curves, and scores against what they cost."""

from __future__ import annotations

from functools import partial

from polobench.report.blocks import Block, Figure, Paragraph, Section
from polobench.report.draw.cost import COST_CAPTION, draw_costs, has_costs
from polobench.report.draw.panels import MOST_NAMED, Panel, merged, split
from polobench.report.draw.returns import draw_returns
from polobench.report.draw.style import pages
from polobench.report.findings import Findings

PANELS_A_PAGE = 6
ARMS_A_PAGE = 24
MOST_PAGES = 2
RETURNS_CAPTION = (
    "Mean held-out return over the seeds with a 95 % bootstrap band; a failed run is at the floor from where it ended."
)


def sections(findings: Findings) -> list[Section]:
    """The first pages of both; the cards of the tasks have all of them."""
    curves = [part for panel in panels_of(findings) for part in split(panel, findings.looks)]
    returns = list(pages(curves, PANELS_A_PAGE))
    costly = list(pages([panel for panel in merged(findings.panels, MOST_NAMED) if has_costs(panel)], PANELS_A_PAGE))
    blocks: list[Block] = [
        Figure(partial(draw_returns, page, number, False, findings.looks), RETURNS_CAPTION if number == 1 else "")
        for number, page in returns[:MOST_PAGES]
    ]
    if len(returns) > MOST_PAGES:
        blocks.append(Paragraph("Further tasks have their curves in their cards."))
    if not findings.is_first_look:
        blocks += [
            Figure(partial(draw_costs, page, number, findings.looks), COST_CAPTION) for number, page in costly[:1]
        ]
    return [Section("Curves and cost", blocks)] if blocks else []


def panels_of(findings: Findings) -> list[Panel]:
    """The panels that have curves."""
    return [panel for panel in merged(findings.panels, ARMS_A_PAGE) if panel.has_curves]
