"""What a report says over all tasks, computed once for its text and its tables."""

from __future__ import annotations

from dataclasses import dataclass

from polobench.analysis.claims import Claims, load_claims
from polobench.analysis.collection import Collection
from polobench.analysis.summary import ArmSummary, comparisons
from polobench.report.arrivals import Arrival, arrivals_of
from polobench.report.draw.panels import panels
from polobench.report.overall import Groups, groups_of
from polobench.report.verdicts import Verdicts


@dataclass(frozen=True)
class Findings:
    """Scores over tasks, the verdicts on claims, the arms of each task and budget, and when they were at the target."""

    groups: Groups
    verdicts: Verdicts
    comparisons: dict[tuple[str, str], list[ArmSummary]]
    arrivals: list[Arrival]

    @classmethod
    def of(cls, collection: Collection, claims: Claims | None = None) -> Findings:
        """By default with verdicts on the source article's claims."""
        verdicts = Verdicts(collection, claims or load_claims())
        return cls(groups_of(collection), verdicts, comparisons(collection), arrivals_of(panels(collection)))
