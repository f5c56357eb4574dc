"""What could flip the verdict, in three lines."""

from __future__ import annotations

from polobench.report.blocks import Bullets, Link, Section, Text
from polobench.report.findings import Findings
from polobench.report.sections.provenance import store_caveats
from polobench.report.text import runs_of
from polobench.report.words import note

MOST = 3


def sections(findings: Findings) -> list[Section]:
    """The gravest first: what is wrong with the store, then what no comparison of this kind can tell."""
    found: list[Text] = [*store_caveats(findings.collection)]
    if findings.comparisons and not findings.is_first_look:
        counts = [len(trials) for trials in findings.trials.values()]
        found.append(note("tuned", trials=runs_of(counts)) if counts else note("untuned"))
    if len(found) > MOST:
        more: Text = [f"{len(found) - MOST + 1} more: ", Link("about this store", "provenance#about-this-store")]
        found = [*found[: MOST - 1], more]
    return [Section("What could flip it", [Bullets(found)])] if found else []
