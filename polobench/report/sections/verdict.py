"""Which method to use for what: the answer first, with its cost, how sure it is, and what would change it."""

from __future__ import annotations

from polobench.analysis.contrasts import LEVEL
from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.overall import CONTROL, LANGUAGE, PREFERENCES
from polobench.analysis.statistics.aggregates import Estimate
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.use_cases import Standings, UseCase
from polobench.report.blocks import Block, Paragraph, Section, Strong, Table, Text
from polobench.report.findings import Findings
from polobench.report.naming import names, place_names, term
from polobench.report.text import counted, listed, number, p_value, sentence, significant, with_ends

NOT_MEASURED = "not measured yet"
_CHEAPER, _NEARLY = 0.67, 0.75  # of the CPU seconds of the best, and of its score
_STUDIES = {CONTROL: "control tasks", LANGUAGE: "language tasks", PREFERENCES: "preference data"}


def sections(findings: Findings) -> list[Section]:
    """The table of use cases; in a first look at a store, those alone that were measured."""
    cases = [(case, found) for case, found in findings.use_cases if found or not findings.is_first_look]
    if not findings.comparisons:
        return [Section("Verdict", [Paragraph("No learning cell has run.")])]
    blocks: list[Block] = [verdict_table(cases), Paragraph(_how_to_read())] if cases else []
    blocks += [Paragraph(line) for line in _where(findings, cases)]
    rows = [
        row for case, found in cases if found for row in flat_rows(found.items, use_case=case.name, measure=case.what)
    ]
    return [Section("Verdict", blocks, {"use_cases": table_of(rows)})] if blocks else []


def _how_to_read() -> Text:
    return [
        "A ", term("score"), " of 0 is the ", term("floor"), " (the random policy, or the language model before "
        "training), 1 the ", term("target"), " that counts as solved. Costs are means per run. “Not separated”: a ",
        term("permutation test"), f" with Holm's adjustment does not tell it from the best at p = {LEVEL:g}.",
    ]  # fmt: skip


def verdict_table(cases: list[tuple[UseCase, Standings | None]]) -> Table:
    """A row per use case."""
    headers = [
        "if you care about", "use", "score [95 %]", "CPU s", "gradient steps", "how sure",
        "what would change the answer",
    ]  # fmt: skip
    return Table(headers, [_row(case, found) for case, found in cases], "llrrrll")


def _row(case: UseCase, found: Standings | None) -> list[Text]:
    if found is None:
        return [case.name, NOT_MEASURED, "", "", "", "", f"a study with {_STUDIES[case.world]}"]
    best = found.equal
    return [
        case.name,
        _use(found),
        estimate(found.best.value),
        _span([significant(item.cpu_seconds, 2) for item in best]),
        _span([number(item.gradient_steps) for item in sorted(best, key=lambda item: item.gradient_steps)]),
        how_sure(found),
        _what_would_change(found),
    ]


def _use(found: Standings) -> Text:
    """The best; where others are level with it, all of them, the cheapest first."""
    if len(found.equal) == len(found.items):
        return f"any: all {len(found.items)} are tied"
    best = listed([item.label for item in found.equal], "or")
    return [Strong(best)] if found.is_conclusive else f"too few seeds; highest: {best}"


def _span(values: list[str]) -> str:
    return values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def estimate(found: Estimate) -> str:
    """`1.04 [1.03, 1.05]`."""
    return with_ends(found.value, found.interval)


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
    surest = p_value(max(apart))
    return f"separated from the other {len(apart)} (p {surest if '<' in surest else f'≤ {surest}'}); {size}"


def _what_would_change(found: Standings) -> str:
    if not found.is_conclusive:
        return "more seeds"
    near = [item for item in found.unseparated if item.contrast is not None]
    if near:
        seen = max(item.contrast.compared.detectable for item in near if item.contrast)
        return f"more seeds: gaps below {number(seen, 2)} cannot be seen with {found.n}"
    cheap = min(found.items, key=lambda item: item.cpu_seconds)
    is_good = cheap.value.value > _NEARLY * found.best.value.value and not found.case.at_equal_cost
    if is_good and cheap.cpu_seconds < _CHEAPER * found.best.cpu_seconds:
        share = number(100 * cheap.cpu_seconds / found.best.cpu_seconds)
        return f"CPU time: {cheap.label} scores {number(cheap.value.value, 2)} at {share} % of the CPU seconds"
    second = next(item for item in found.items if item not in found.equal)
    gap = found.best.value.value - second.value.value
    return f"other tasks or budgets: {second.label} is {number(gap, 2)} behind on these"


def _where(findings: Findings, cases: list[tuple[UseCase, Standings | None]]) -> list[str]:
    """What the numbers of each use case are, and on which tasks."""
    lines: dict[tuple[str, int], list[str]] = {}
    for case, found in cases:
        if found is not None:
            what = f"{case.name.partition(',')[0]}: {case.what}"
            lines.setdefault((place_names(found.group.places, findings.budgets), found.n), []).append(what)
    return [
        f"On {places}, {counted(n, 'seed')} per task. {sentence('; '.join(whats))}"
        for (places, n), whats in lines.items()
    ]
