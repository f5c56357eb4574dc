"""The evidence on the article: every rating and claim with what was measured, and the pairs behind each verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from polobench.analysis import verdicts
from polobench.analysis.claims import Claim, Column
from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.measures import MEASURES, Measure, Place
from polobench.analysis.statistics.intervals import Interval
from polobench.report.blocks import Paragraph, Section, Strong, Table, Text, compact
from polobench.report.findings import Findings
from polobench.report.text import NOTHING, counted, listed, number, p_text, p_value, quoted, significant
from polobench.report.words import note


def sections(findings: Findings) -> list[Section]:
    """One per column of the article's table, and one with its further claims; empty where nothing is about them."""
    if not findings.has_verdicts:
        return []
    found = [_column(item, findings.rules.level) for item in findings.columns] if findings.has_ratings else []
    return [*found, Section("Further claims", [_claim_table(findings.claims)], tables_of(findings))]


def anchor_of(item: verdicts.ColumnVerdict) -> str:
    """How a link names the section of a column."""
    return Section(item.column.name.capitalize(), []).anchor


def _column(item: verdicts.ColumnVerdict, level: float) -> Section:
    order = " < ".join(" = ".join(words) for words in item.column.order)
    measure = MEASURES[item.column.measure]
    effect = f"{item.column.smallest_effect:g}"
    said = (
        f"Measured by: {measure.title} ({measure.unit}). The "
        f"article's words in the order of the measure: {order}. Smallest effect that counts: {effect}. Every rated "
        f"method was measured on {_places(item.places)}."
    )
    return Section(
        item.column.name.capitalize(),
        [
            Paragraph(said),
            *compact(_rating_table(item), 3),
            Paragraph(note("rules", level=level)),
            *compact(_pair_table(item), 3),
        ],
    )


def strong(verdict: str) -> Text:
    """A verdict, emphasised where it is one."""
    return Strong(verdict) if verdict in (verdicts.SUPPORTED, verdicts.CONTRADICTED) else verdict


def _rating_table(item: verdicts.ColumnVerdict) -> Table:
    """Every rating beside the measure, and beside the column's other measures, which are not tested."""
    measure, others = MEASURES[item.column.measure], [MEASURES[name] for name in item.column.also]
    rows: list[dict[str, Text]] = [
        {
            "method": word.method,
            "rating": word.word,
            "our verdict": strong(word.verdict),
            f"{measure.title} ({measure.unit}) [95 %]": shown_level(word.level, measure),
            "n": _size(word.level, measure),
        }
        | {
            f"{other.title} ({other.unit})": shown_level(word.also.get(name), other)
            for name, other in zip(item.column.also, others, strict=True)
        }
        for word in item.words
    ]
    return Table.of(rows, "lllrr" + "r" * len(others))


def shown_level(level: verdicts.Level | None, measure: Measure) -> str:
    """A method's measure with its interval."""
    return NOTHING if level is None else f"{_shown(level.value, measure)} {_ends(level.interval, measure)}".strip()


def _size(level: verdicts.Level | None, measure: Measure) -> str:
    """Of how many numbers a level is the mean."""
    if level is None:
        return NOTHING
    over = f" x {counted(level.places, 'setting')}" if level.places > 1 and not measure.is_share else ""
    return f"{level.n} {measure.observation}{over}"


def _shown(value: float, measure: Measure) -> str:
    """A number of a measure; of a ratio measure it is a logarithm."""
    if math.isnan(value):
        return NOTHING
    return significant(math.exp(min(value, 700.0))) if measure.is_ratio else number(value, 3)


def _ends(interval: Interval, measure: Measure) -> str:
    if math.isnan(interval.low):
        return ""
    return f"[{_shown(interval.low, measure)}, {_shown(interval.high, measure)}]"


def _places(places: Sequence[Place]) -> str:
    return listed(" ".join(filter(None, (task, policy))) for task, _, _, policy in places) or "no common task"


def _pair_table(item: verdicts.ColumnVerdict) -> Table:
    return Table.of([_pair_row(pair, MEASURES[item.column.measure]) for pair in item.pairs], "lllrrrrrl")


def _pair_row(pair: verdicts.PairVerdict, measure: Measure) -> dict[str, Text]:
    found = pair.compared
    row: dict[str, Text] = {"less": pair.less, "more": pair.more, "verdict": pair.verdict}
    numbers = ("d [Bonferroni]", "p (Holm)", "detectable", "n", "settings")
    row |= dict.fromkeys(numbers, NOTHING) | {"reason": pair.reason}
    if found is None:
        return row
    return row | {
        "d [Bonferroni]": f"{_shown(found.difference, measure)} {_ends(found.interval, measure)}",
        "p (Holm)": p_value(pair.p),
        "detectable": _shown(found.detectable, measure),
        "n": str(found.n),
        "settings": str(len(pair.places)),
    }


def _claim_table(items: Sequence[verdicts.ClaimVerdict]) -> Table:
    rows: list[dict[str, Text]] = [
        {
            "where": item.claim.source,
            "the article says": item.claim.says,
            "verdict": strong(item.verdict),
            "measured": _measured(item),
            "reason": _reason(item),
        }
        for item in items
    ]
    return Table.of(rows, "lllll")


def _measured(item: verdicts.ClaimVerdict) -> str:
    if item.verdict in (verdicts.NOT_TESTABLE, verdicts.NOT_MEASURED):
        return NOTHING
    measure = MEASURES[item.claim.measure]
    parts = [
        f"{quoted(label)} {shown_level(level, measure)}, n = {_size(level, measure)}"
        for label, level in (item.levels or {}).items()
    ]
    parts += [
        f"{quoted(pair.more)} {'over' if measure.is_ratio else 'less'} {quoted(pair.less)} "
        f"{_shown(pair.compared.difference, measure)} {_ends(pair.compared.interval, measure)}, {p_text(pair.p)}, "
        f"n = {pair.compared.n} {measure.observation} x {counted(len(pair.places), 'setting')}"
        for pair in item.pairs
        if pair.compared
    ]
    return f"{measure.title}: {'; '.join(parts)}"


def _reason(item: verdicts.ClaimVerdict) -> str:
    reasons = [item.reason, *(pair.reason for pair in item.pairs)]
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or NOTHING


def tables_of(findings: Findings) -> dict[str, pd.DataFrame]:
    """Every number behind the verdicts: of the ratings, the claims and the pairs. Costs are logarithms."""
    ratings = [
        row
        for item in findings.columns
        for row in flat_rows(
            [replace(word, pairs=(), also={}) for word in item.words],
            column=item.column.name,
            measure=item.column.measure,
        )
    ]
    rules = [(item.column.name, item.column, item.pairs) for item in findings.columns]
    pairs = [row for name, rule, found in rules for row in _pairs(name, rule, found)]
    pairs += [row for item in findings.claims for row in _pairs(item.claim.says, item.claim, item.pairs)]
    claims = [
        {"source": item.claim.source, "says": item.claim.says, "measure": item.claim.measure, "verdict": item.verdict}
        | {"measured": _measured(item), "reason": _reason(item)}
        for item in findings.claims
    ]
    return {"verdicts": table_of(ratings), "pairs": table_of(pairs), "claims": table_of(claims)}


def _pairs(name: str, rule: Column | Claim, pairs: Sequence[verdicts.PairVerdict]) -> list[dict[str, object]]:
    return flat_rows(pairs, claim=name, measure=rule.measure, smallest_effect=rule.smallest_effect)
