"""Learning curves, and scores against what they cost."""

from __future__ import annotations

from polobench.report.blocks import Paragraph, Section, figures
from polobench.report.draw.cost import draw_costs, has_costs
from polobench.report.draw.curves import draw_returns
from polobench.report.draw.panels import MOST_NAMED, PANELS_A_PAGE, merged
from polobench.report.draw.style import pages
from polobench.report.findings import Findings
from polobench.report.words import note

RETURNS = "Held-out return over samples"
_MOST_PAGES = 2


def sections(findings: Findings) -> list[Section]:
    """The first pages of both; the cards of the tasks have all of them."""
    curves = pages(findings.curves, PANELS_A_PAGE)
    look = findings.looks
    blocks = figures("returns_over_samples", RETURNS, draw_returns, curves[:_MOST_PAGES], look, note("returns"))
    if len(curves) > _MOST_PAGES:
        blocks.append(Paragraph("Further tasks have their curves in their cards."))
    if not findings.is_first_look:
        costly = pages([panel for panel in merged(findings.panels, MOST_NAMED) if has_costs(panel)], PANELS_A_PAGE)
        blocks += figures("cost", "Cost against score", draw_costs, costly[:1], look, note("cost", most=MOST_NAMED))
    return [Section("Curves and cost", blocks)] if blocks else []
