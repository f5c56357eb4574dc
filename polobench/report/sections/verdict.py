"""Which method to use for what: the answer first, with its cost, how sure it is, and what would change it."""

from __future__ import annotations

from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.overall import CONTROL, LANGUAGE, PREFERENCES
from polobench.analysis.statistics.hypothesis import LEVEL
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.use_cases import Standings, UseCase
from polobench.report.blocks import Block, Paragraph, Section, Strong, Table, Text
from polobench.report.findings import Findings
from polobench.report.naming import names, place_names
from polobench.report.text import counted, listed, number, p_text, sentence, significant, span, with_ends
from polobench.report.words import note

NOT_MEASURED = "not measured yet"
_CHEAPER, _NEARLY = 0.67, 0.75  # of the CPU seconds of the best, and of its score
_STUDIES = {CONTROL: "control tasks", LANGUAGE: "language tasks", PREFERENCES: "preference data"}
Case = tuple[UseCase, Standings | None]


def sections(findings: Findings) -> list[Section]:
    """The table of use cases; in a first look at a store, those alone that were measured."""
    if not findings.comparisons:
        return [Section("Verdict", [Paragraph("No learning cell has run.")])]
    cases = cases_of(findings)
    if not cases:
        return []
    how_to_read = Paragraph(note("verdict", level=LEVEL))
    blocks: list[Block] = [verdict_table(cases), how_to_read, *_where(findings, cases)]
    rows = [
        row for case, found in cases if found for row in flat_rows(found.items, use_case=case.name, measure=case.what)
    ]
    return [Section("Verdict", blocks, {"use_cases": table_of(rows)})]


def cases_of(findings: Findings) -> list[Case]:
    """The use cases that a reader of this store is told about."""
    return [(case, found) for case, found in findings.use_cases if found or not findings.is_first_look]


def verdict_table(cases: list[Case]) -> Table:
    """A row per use case."""
    return Table.of([_row(case, found) for case, found in cases], "llrrrll")


def _row(case: UseCase, found: Standings | None) -> dict[str, Text]:
    row: dict[str, Text] = {"if you care about": case.name, "use": NOT_MEASURED}
    if found is None:
        empty = dict.fromkeys(("score [95 %]", "CPU s", "gradient steps", "how sure"), "")
        return row | empty | {"what would change the answer": f"a study with {_STUDIES[case.world]}"}
    steps = sorted(item.gradient_steps for item in found.equal)
    return row | {
        "use": _use(found),
        "score [95 %]": with_ends(found.best.value.value, found.best.value.interval),
        "CPU s": span(*(significant(found.equal[at].cpu_seconds, 2) for at in (0, -1))),
        "gradient steps": span(*(number(steps[at]) for at in (0, -1))),
        "how sure": how_sure(found),
        "what would change the answer": _what_would_change(found),
    }


def _use(found: Standings) -> Text:
    """The best; where others are level with it, all of them, the cheapest first."""
    if len(found.equal) == len(found.items):
        return f"any: all {len(found.items)} are tied"
    best = listed([item.label for item in found.equal], "or")
    return Strong(best) if found.is_conclusive else f"too few seeds; highest: {best}"


def how_sure(found: Standings) -> str:
    """Which others the tests do not tell from the best."""
    size = f"n = {found.n}"
    if not found.is_conclusive:
        return f"nothing concluded: {counted(found.n, 'seed')}, {CONCLUSIVE_SEEDS} are needed"
    refused = next((item.contrast.reason for item in found.items if item.contrast and item.contrast.reason), "")
    if refused:
        return f"not tested: {refused}"
    level = [item.label for item in found.equal]
    near = [item.label for item in found.unseparated if item.label not in level]
    if near:
        return f"not separated from the best: {names(near)}; {size}"
    apart = [item.contrast.p for item in found.items if item.contrast and item.label not in level]
    if not apart:
        return f"not separated from each other; {size}"
    return f"separated from the other {len(apart)} ({p_text(max(apart), '≤')}); {size}"


def _what_would_change(found: Standings) -> str:
    if not found.is_conclusive:
        return "more seeds"
    seen = [item.contrast.compared.detectable for item in found.unseparated if item.contrast]
    if seen:
        return f"more seeds: gaps below {number(max(seen), 2)} cannot be seen with {found.n}"
    cheap = min(found.items, key=lambda item: item.cpu_seconds)
    is_good = cheap.value.value > _NEARLY * found.best.value.value and not found.case.at_equal_cost
    if is_good and cheap.cpu_seconds < _CHEAPER * found.best.cpu_seconds:
        share = number(100 * cheap.cpu_seconds / found.best.cpu_seconds)
        return f"CPU time: {cheap.label} scores {number(cheap.value.value, 2)} at {share} % of the CPU seconds"
    second = next(item for item in found.items if item not in found.equal)
    gap = found.best.value.value - second.value.value
    return f"other tasks or budgets: {second.label} is {number(gap, 2)} behind on these"


def _where(findings: Findings, cases: list[Case]) -> list[Paragraph]:
    """What the numbers of each use case are, and on which tasks."""
    lines: dict[tuple[str, int], list[str]] = {}
    for case, found in cases:
        if found is not None:
            what = f"{case.name.partition(',')[0]}: {case.what}"
            lines.setdefault((place_names(found.group.places, findings.budgets), found.n), []).append(what)
    return [
        Paragraph(f"On {places}, {counted(n, 'seed')} per task. {sentence('; '.join(whats))}")
        for (places, n), whats in lines.items()
    ]
