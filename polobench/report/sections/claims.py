"""The article's ratings and claims beside our verdicts, with what was measured and the pairs behind each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from polobench.analysis import verdicts
from polobench.analysis.claims import Claim, Column
from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.measures import MEASURES, Measure
from polobench.analysis.statistics.hypothesis import CEILING, EQUIVALENT, OPEN
from polobench.analysis.statistics.intervals import Interval
from polobench.report.blocks import Block, Link, Paragraph, Piece, Section, Strong, Table, Text, compact
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, counted, listed, number, p_text, p_value, quoted, significant
from polobench.report.words import note

ARTICLE = "“LLM Optimization: Optimizing AI with GRPO, PPO, and DPO” (Analytics Vidhya, 20 March 2025)"


def rating_sections(findings: Findings) -> list[Section]:
    """The first page's table; empty without a rating or a claim that this store has a word on."""
    if not findings.has_verdicts or findings.is_first_look:
        return []
    rows: list[dict[str, Text]] = [
        {
            "method": word.method,
            "rating": Link(f"{item.column.name}: {word.word}", f"article#{anchor_of(item)}"),
            "our verdict": strong(word.verdict),
            "why": _why(item, word),
        }
        for item in findings.columns
        for word in item.words
        if word.verdict != verdicts.NOT_MEASURED
    ]
    blocks: list[Block] = [Paragraph(summary(findings))]
    return [Section("The article's ratings", [*blocks, *compact(Table.of(rows, "llll"), 2)] if rows else blocks)]


def summary(findings: Findings) -> Text:
    """How many ratings and claims ended how."""
    ratings = [word.verdict for item in findings.columns for word in item.words]
    claims = [item.verdict for item in findings.claims]
    text: list[Piece] = [f"The source article is {ARTICLE}. "]
    if findings.has_ratings:
        text.append(f"Its ratings of methods, “variance” read in two ways: {_tally(ratings)}. ")
    text.append(f"Of its {counted(len(claims), 'further claim')}: {_tally(claims)}. ")
    return [*text, Link("All the evidence", "article")]


def _tally(found: Sequence[str]) -> str:
    return ", ".join(f"{found.count(name)} {name}" for name in verdicts.VERDICTS if name in found)


def _why(item: verdicts.ColumnVerdict, word: verdicts.WordVerdict) -> str:
    """The pairs that decide, or what kept it open."""
    deciding = [pair for pair in word.pairs if pair.verdict in (*verdicts.FAILS, CEILING, word.verdict)]
    reasons = dict.fromkeys(filter(None, [word.reason, *(pair.reason for pair in deciding)]))
    said = [difference(pair, MEASURES[item.column.measure]) for pair in deciding if pair.compared and not pair.reason]
    return "; ".join([*said[:2], *list(reasons)[:1]][:2]) or "no runs to compare with all that it is compared with"


def difference(pair: verdicts.PairVerdict, measure: Measure) -> str:
    """`ppo less trpo 0.12 (p = 0.012)`, and what keeps a difference open that is shown."""
    assert pair.compared is not None
    verb = "over" if measure.is_ratio else "less"
    tested = {verdicts.CONTRADICTED: pair.below_p, EQUIVALENT: pair.equal_p}.get(pair.verdict, pair.p)
    size = _shown(pair.compared.difference, measure)
    small = ", below the smallest effect" if pair.is_small else ""
    return f"{quoted(pair.more)} {verb} {quoted(pair.less)} {size} ({p_text(tested)}{small})"


def sections(findings: Findings) -> list[Section]:
    """One per column of the article's table, and one with its further claims; empty where nothing is about them."""
    if not findings.has_verdicts:
        return []
    found = [_column(item, findings) for item in findings.columns] if findings.has_ratings else []
    claims = Table.of([_claim_row(item) for item in findings.claims], "lllll")
    return [*found, Section("Further claims", [claims], tables_of(findings))]


def anchor_of(item: verdicts.ColumnVerdict) -> str:
    """How a link names the section of a column."""
    return Section(item.column.name.capitalize(), []).anchor


def _column(item: verdicts.ColumnVerdict, findings: Findings) -> Section:
    order = " < ".join(" = ".join(words) for words in item.column.order)
    measure = MEASURES[item.column.measure]
    effect, tasks = f"{item.column.smallest_effect:g}", listed(task for task, _, _ in item.places)
    said = (
        f"Measured by: {measure.title} ({measure.unit}). The article's words in the order of the measure: {order}. "
        f"Smallest effect that counts: {effect}. The means are over the tasks that all measured methods share: "
        f"{tasks or 'no common task'}. A pair is compared on all that the two share."
    )
    return Section(
        item.column.name.capitalize(),
        [
            Paragraph(" ".join(filter(None, [said, item.column.note]))),
            *compact(Table.of([_rating_row(word, measure) for word in item.words], "lllrrl"), 3),
            Paragraph(note("rules", level=findings.rules.level)),
            *compact(Table.of([_pair_row(pair, measure) for pair in item.pairs], "lllrrrrrrrrl"), 3),
        ],
    )


def strong(verdict: str) -> Text:
    """A verdict, emphasised where it is one."""
    return Strong(verdict) if verdict in (verdicts.SUPPORTED, verdicts.MIXED, *verdicts.FAILS) else verdict


def _rating_row(word: verdicts.WordVerdict, measure: Measure) -> dict[str, Text]:
    """A rating beside the measure."""
    return {
        "method": word.method,
        "rating": word.word,
        "our verdict": strong(word.verdict),
        f"{measure.title} ({measure.unit}) [95 %]": shown_level(word.level, measure),
        "n": _size(word.level, measure),
        "reason": word.reason or NOTHING,
    }


def shown_level(level: verdicts.Level | None, measure: Measure) -> str:
    """A method's measure with its interval."""
    return NOTHING if level is None else f"{_shown(level.value, measure)} {_ends(level.interval, measure)}".strip()


def _size(level: verdicts.Level | None, measure: Measure) -> str:
    """Of how many numbers a level is the mean."""
    if level is None:
        return NOTHING
    over = f" x {counted(level.places, 'setting')}" if level.places > 1 and not measure.is_share else ""
    return f"{measure.counted(level.n)}{over}"


def _shown(value: float, measure: Measure) -> str:
    """A number of a measure; of a ratio measure it is a logarithm."""
    if math.isnan(value):
        return NOTHING
    return significant(math.exp(min(value, 700.0))) if measure.is_ratio else number(value, 3)


def _ends(interval: Interval, measure: Measure) -> str:
    if math.isnan(interval.low):
        return ""
    return f"[{_shown(interval.low, measure)}, {_shown(interval.high, measure)}]"


def _pair_row(pair: verdicts.PairVerdict, measure: Measure) -> dict[str, Text]:
    found = pair.compared
    return {
        "less": pair.less,
        "more": pair.more,
        "verdict": pair.verdict,
        "d [Bonferroni]": f"{_shown(found.difference, measure)} {_ends(found.interval, measure)}" if found else NOTHING,
        "p of d = 0": p_value(pair.p),
        "p of d ≥ effect": p_value(pair.below_p),
        "p of |d| ≥ effect": p_value(pair.equal_p),
        "detectable": _shown(found.detectable, measure) if found else NOTHING,
        "margin": _shown(found.margin, measure) if found else NOTHING,
        "n": str(found.n) if found else NOTHING,
        "settings": str(len(pair.places)) if found else NOTHING,
        "reason": pair.reason,
    }


def _claim_row(item: verdicts.ClaimVerdict) -> dict[str, Text]:
    return {
        "where": item.claim.source,
        "the article says": item.claim.says,
        "verdict": strong(item.verdict),
        "measured": _measured(item),
        "reason": _reason(item),
    }


def _measured(item: verdicts.ClaimVerdict) -> str:
    if item.verdict in (verdicts.NOT_TESTABLE, verdicts.NOT_MEASURED):
        return NOTHING
    measure = MEASURES[item.claim.measure]
    parts = [
        f"{quoted(label)} {shown_level(level, measure)}, n = {_size(level, measure)}"
        for label, level in (item.levels or {}).items()
    ]
    parts += [
        f"{difference(pair, measure)} {_ends(pair.compared.interval, measure)}, "
        f"n = {measure.counted(pair.compared.n)} x {counted(len(pair.places), 'setting')}{resolution(pair, measure)}"
        for pair in item.pairs
        if pair.compared
    ]
    return f"{measure.title}: {'; '.join(parts)}"


def resolution(pair: verdicts.PairVerdict, measure: Measure) -> str:
    """What tests of this size find in 4 of 5 cases: of an open pair a difference, of an equivalent one equality."""
    assert pair.compared is not None
    sizes = {OPEN: ("detectable", pair.compared.detectable), EQUIVALENT: ("margin", pair.compared.margin)}
    name, size = sizes.get(pair.verdict, ("", math.nan))
    return "" if math.isnan(size) else f", {name} {_shown(size, measure)}"


def _reason(item: verdicts.ClaimVerdict) -> str:
    reasons = [item.reason, *(pair.reason for pair in item.pairs)]
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or NOTHING


def tables_of(findings: Findings) -> dict[str, pd.DataFrame]:
    """Every number behind the verdicts: of the ratings, the claims and the pairs. Costs are logarithms."""
    ratings = [
        row
        for item in findings.columns
        for row in flat_rows(
            [replace(word, pairs=()) for word in item.words],
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
