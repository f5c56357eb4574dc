"""What could flip the verdict, in three lines."""

from __future__ import annotations

from polobench.report.blocks import Bullets, Link, Section, Text
from polobench.report.findings import Findings
from polobench.report.naming import term
from polobench.report.sections.provenance import store_caveats
from polobench.report.text import number, runs_of

MOST = 3


def sections(findings: Findings) -> list[Section]:
    """The gravest first: what is wrong with the store, then what no comparison of this kind can tell."""
    found: list[Text] = [*store_caveats(findings.collection)]
    if findings.comparisons and not findings.is_first_look:
        found += filter(None, (_compute(findings), _tuning(findings)))
    if len(found) > MOST:
        more: Text = [f"{len(found) - MOST + 1} more: ", Link("about this store", "provenance#about-this-store")]
        found = [*found[: MOST - 1], more]
    return [Section("What could flip it", [Bullets(found)])] if found else []


def _compute(findings: Findings) -> Text:
    """Equal samples are not equal work."""
    ratios = []
    for group in findings.groups:
        steps = [
            sum(run.ledger.gradient_steps for runs in found for run in runs) / sum(map(len, found))
            for found in group.runs.values()
        ]
        known = [value for value in steps if value > 0]
        ratios.append(max(known) / min(known) if known else 1.0)
    most = max(ratios, default=1.0)
    if most < 2:
        return ""
    return [
        "Methods had equal samples, not equal work: the number of ", term("gradient step", "gradient steps"),
        f" differs up to {number(most)}-fold within a comparison.",
    ]  # fmt: skip


def _tuning(findings: Findings) -> Text:
    trials = findings.trials
    if trials.empty:
        return "No tuning is known for these hyper-parameters; other values could change the order."
    counts = runs_of(trials.groupby(["task", "method"]).size().tolist())
    return [
        f"Each method was tuned with {counts} trials per task on one seed; a longer search "
        "could change the order (", Link("tuning", "settings#tuning"), ").",
    ]  # fmt: skip
