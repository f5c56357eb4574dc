"""What a report says over all tasks, computed once for its text and its tables."""

from __future__ import annotations

from dataclasses import dataclass

from polobench.analysis.claims import Claims, load_claims
from polobench.analysis.collection import Collection
from polobench.report.overall import Groups, groups_of
from polobench.report.verdicts import Verdicts


@dataclass(frozen=True)
class Findings:
    """Scores over tasks, and the verdicts on claims."""

    groups: Groups
    verdicts: Verdicts

    @classmethod
    def of(cls, collection: Collection, claims: Claims | None = None) -> Findings:
        """By default with verdicts on the source article's claims."""
        return cls(groups_of(collection), Verdicts(collection, claims or load_claims()))
