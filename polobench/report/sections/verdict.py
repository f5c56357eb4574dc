"""Which method to use for what: the answer first, with its cost, how sure it is, and what would change it."""

from __future__ import annotations

from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.overall import CONTROL, LANGUAGE, PREFERENCES, Standings, UseCase, horizons
from polobench.analysis.statistics.aggregates import mean_score
from polobench.analysis.statistics.hypothesis import LEVEL, MARGIN
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.report.blocks import Block, Paragraph, Section, Strong, Table, Text
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, counted, listed, number, sentence, significant, span, with_ends
from polobench.report.words import against_others, names, note, place_names

NOT_MEASURED = "not measured yet"
_CHEAPER, _NEARLY = 0.67, 0.75  # of the CPU seconds of the best, and of its score
_STUDIES = {CONTROL: "control tasks", LANGUAGE: "language tasks", PREFERENCES: "preference data with a target"}
Case = tuple[UseCase, Standings | None]


def sections(findings: Findings) -> list[Section]:
    """The table of use cases; in a first look at a store, those alone that were measured."""
    if not findings.comparisons:
        return [Section("Verdict", [Paragraph("No learning cell has run.")])]
    cases = cases_of(findings)
    if not cases:
        return []
    how_to_read = Paragraph(note("verdict", level=LEVEL, margin=MARGIN))
    blocks: list[Block] = [verdict_table(cases), how_to_read, *_where(findings, cases)]
    rows = []
    for case, found in cases:
        rows += flat_rows(found.items, use_case=case.name, measure=case.what) if found else []
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
    return row | {
        "use": _use(found),
        "score [95 %]": with_ends(found.best.value.value, found.best.value.interval),
        **_costs(found),
        "how sure": how_sure(found),
        "what would change the answer": _what_would_change(found),
    }


def _costs(found: Standings) -> dict[str, Text]:
    """Of whole runs; where all had equal CPU seconds, these, from the task with the fewest to that with the most."""
    if found.case.at_equal_cost:
        seconds, steps = sorted(horizons(found.group)), NOTHING
    else:
        seconds = sorted(item.cpu_seconds for item in found.equal)
        of_all = sorted(item.gradient_steps for item in found.equal)
        steps = span(number(of_all[0]), number(of_all[-1]))
    return {"CPU s": span(*(significant(seconds[at], 2) for at in (0, -1))), "gradient steps": steps}


def _use(found: Standings) -> Text:
    """The best; where others are level with it, all of them, the cheapest first."""
    if not found.is_conclusive:
        highest = [item.label for item in found.items if item.value.value == found.best.value.value]
        return f"too few seeds; highest: {listed(highest, 'or')}"
    if len(found.equal) == len(found.items):
        return f"any: no test tells the {len(found.items)} apart by more than {MARGIN:g}"
    best = Strong(listed([item.label for item in found.equal], "or"))
    rivals = names([item.label for item in found.undecided])
    return [best, f" ({rivals} not told apart)"] if rivals else best


def how_sure(found: Standings) -> str:
    """What the adjusted tests say of the best and the others, which is named where several are level."""
    if not found.is_conclusive:
        return f"nothing concluded: {counted(found.n, 'seed')}, {CONCLUSIVE_SEEDS} are needed"
    if found.refused:
        return f"not tested: {found.refused}"
    contrasts = [item.contrast for item in found.items if item.contrast]
    subject = f"{found.best.label} is " if len(found.equal) > 1 else ""
    return f"{subject}{against_others(contrasts)}; n = {found.n}"


def _what_would_change(found: Standings) -> str:
    if not found.is_conclusive:
        return "more seeds"
    if found.refused:
        return "runs that can be tested"
    seen = [item.contrast.compared for item in found.undecided if item.contrast]
    if seen and found.case.statistic is not mean_score:
        return f"more seeds than {found.n}"  # the detectable gap is that of means
    if seen:
        gap, margin = (number(max(sizes), 2) for sizes in zip(*((one.detectable, one.margin) for one in seen)))
        return f"more seeds: {found.n} cannot show gaps below {gap}, nor equality within less than {margin}"
    others = [item for item in found.items if item not in found.equal]
    if not others:
        return "harder tasks or smaller budgets"
    second, used = others[0], found.equal[0]
    good = [item for item in others if item.value.value > _NEARLY * found.best.value.value]
    cheap = min(good, key=lambda item: item.cpu_seconds, default=used)
    if cheap.cpu_seconds < _CHEAPER * used.cpu_seconds and not found.case.at_equal_cost:
        share = number(100 * cheap.cpu_seconds / used.cpu_seconds)
        return f"CPU time: {cheap.label} scores {number(cheap.value.value, 2)} at {share} % of the CPU seconds"
    gap = number(found.best.value.value - second.value.value, 2)
    return f"other tasks or budgets: {second.label} is {gap} behind on these"


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
