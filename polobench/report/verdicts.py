"""The article's claims beside what was measured: its table, its sentences, and every pair behind a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from polobench.analysis.claims import Claims
from polobench.analysis.collection import Collection
from polobench.analysis.frame import table_of
from polobench.analysis.measures import MEASURES, Measure, Observations, Place
from polobench.analysis.statistics.intervals import Interval
from polobench.analysis.verdicts import (
    CONTRADICTED,
    NOT_MEASURED,
    NOT_TESTABLE,
    SUPPORTED,
    VERDICTS,
    ClaimVerdict,
    ColumnVerdict,
    Level,
    PairVerdict,
    WordVerdict,
    claim_verdict,
    column_verdict,
)
from polobench.report.tables import TextTable
from polobench.report.text import NOTHING, escape, number, p_value, significant

TABLE_NOTE = (
    "The article's words beside what was measured at the cells that all of a column's methods share: the mean over "
    "tasks [95 %, Student's t, stratified by task], n observations a task. A word is tested against every method whose "
    "word ranks differently; the pairs behind each verdict, with p and the smallest effect that counts, are below."
)
RULES = (
    "A pair: d is the mean over tasks of the second method's measure less the first's (of a cost, the ratio). p: "
    "permutation within task, two-sided, adjusted by Holm over the pairs of the column or claim. Supported: p at most "
    "{level:g} and d at least the smallest effect. Contradicted: the interval of d (Welch, stratified by task, at the "
    "Bonferroni level) lies wholly below that effect. Detectable: the smallest d that such a test would have found 80 "
    "times in 100, from this study's own spread. A word is supported when all its pairs are, contradicted when one is."
)


class Verdicts:
    """All verdicts of a collection: `columns` of the table, and `claims` one by one."""

    def __init__(self, collection: Collection, rules: Claims) -> None:
        self.rules = rules
        observations = Observations(collection)
        self.columns = [column_verdict(observations, column, rules) for column in rules.columns]
        self.claims = [claim_verdict(observations, claim, rules) for claim in rules.claims]

    @property
    def has_words(self) -> bool:
        """Whether a word of the article's table has a measure in this store."""
        return any(word.level for column in self.columns for word in column.words)

    @property
    def is_about_something(self) -> bool:
        """Whether a word or sentence of the article has one."""
        return self.has_words or any(item.levels or any(pair.compared for pair in item.pairs) for item in self.claims)


def summary_sentence(verdicts: Verdicts) -> str:
    """How many words and sentences of the article ended how."""
    words = [word.verdict for column in verdicts.columns for word in column.words]
    claims = [item.verdict for item in verdicts.claims]
    return (
        f"Of the {len(words)} words of the article's table {_counts(words)}; of {len(claims)} further claims "
        f"{_counts(claims)}."
    )


def _counts(found: Sequence[str]) -> str:
    return ", ".join(f"{found.count(name)} {name}" for name in VERDICTS if name in found)


def article_table(verdicts: Verdicts) -> str:
    """The article's table and the measured one, side by side."""
    headers, align = ["method"], "l"
    for item in verdicts.columns:
        measure = MEASURES[item.column.measure]
        headers += [f"{item.column.name}: article, verdict", f"{measure.title} ({measure.unit})"]
        align += "lr"
    methods = list(dict.fromkeys(word.method for item in verdicts.columns for word in item.words))
    rows = [[escape(method), *_article_cells(verdicts, method)] for method in methods]
    return TextTable([escape(name) for name in headers], rows, align).markdown()


def _article_cells(verdicts: Verdicts, method: str) -> list[str]:
    cells: list[str] = []
    for item in verdicts.columns:
        word = next((word for word in item.words if word.method == method), None)
        cells += [_word(word), _level(word.level, MEASURES[item.column.measure])] if word else [NOTHING, NOTHING]
    return cells


def _word(word: WordVerdict) -> str:
    strong = word.verdict in (SUPPORTED, CONTRADICTED)
    return f"{escape(word.word)}: {f'**{word.verdict}**' if strong else word.verdict}"


def _level(level: Level | None, measure: Measure) -> str:
    if level is None:
        return NOTHING
    over = f" x {level.places} places" if level.places > 1 and not measure.is_share else ""
    return f"{_shown(level.value, measure)} {_ends(level.interval, measure)}, n = {level.n}{over}".replace(" ,", ",")


def _shown(value: float, measure: Measure) -> str:
    """A number of a measure; of a ratio measure it is a logarithm."""
    if math.isnan(value):
        return NOTHING
    return significant(math.exp(min(value, 700.0))) if measure.is_ratio else number(value, 3)


def _ends(interval: Interval, measure: Measure) -> str:
    if math.isnan(interval.low):
        return ""
    return f"[{_shown(interval.low, measure)}, {_shown(interval.high, measure)}]"


def claims_section(verdicts: Verdicts) -> str:
    """Every claim with its verdict, then the pairs behind them."""
    text = [RULES.format(level=verdicts.rules.level)]
    for item in verdicts.columns:
        text += [
            f"### {escape(item.column.name.capitalize())}",
            _read_at(item),
            _pair_table(item.pairs, item).markdown(),
        ]
        text.append(_also_table(item).markdown() if any(word.also for word in item.words) else "")
    text += ["### Further claims", _claim_table(verdicts.claims).markdown()]
    return "\n\n".join(part for part in text if part)


def _read_at(item: ColumnVerdict) -> str:
    measure = MEASURES[item.column.measure]
    effect = f"{item.column.smallest_effect:g}"
    order = " &lt; ".join(escape(" = ".join(words)) for words in item.column.order)
    return (
        f"{escape(measure.title.capitalize())} ({escape(measure.unit)}), by {measure.observation}; smallest effect "
        f"{effect}. In the order of the measure: {order.replace('<', '&lt;')}. "
        f"All methods were measured at: {_places(item.places)}."
    )


def _places(places: Sequence[Place]) -> str:
    return (
        ", ".join(escape(" ".join(part for part in (task, policy) if part)) for task, _, _, policy in places) or "none"
    )


def _pair_table(pairs: Sequence[PairVerdict], item: ColumnVerdict) -> TextTable:
    headers = ["less", "more", "verdict", "d [Bonferroni]", "p (Holm)", "detectable", "n", "places", "reason"]
    return TextTable(headers, [_pair_row(pair, MEASURES[item.column.measure]) for pair in pairs], "lllrrrrrl")


def _pair_row(pair: PairVerdict, measure: Measure) -> list[str]:
    found = pair.compared
    named = [escape(pair.less), escape(pair.more), pair.verdict]
    if found is None:
        return [*named, *[NOTHING] * 5, escape(pair.reason)]
    return [
        *named,
        f"{_shown(found.difference, measure)} {_ends(found.interval, measure)}",
        p_value(pair.p),
        _shown(found.detectable, measure),
        str(found.n),
        str(len(pair.places)),
        escape(pair.reason),
    ]


def _also_table(item: ColumnVerdict) -> TextTable:
    """The other measures of a column, shown without a test."""
    names = [item.column.measure, *item.column.also]
    headers = ["method", *(f"{MEASURES[name].title} ({MEASURES[name].unit})" for name in names)]
    rows = [
        [
            escape(word.method),
            _level(word.level, MEASURES[item.column.measure]),
            *(_level(word.also.get(name), MEASURES[name]) for name in item.column.also),
        ]
        for word in item.words
    ]
    return TextTable([escape(name) for name in headers], rows, "l" + "r" * len(names))


def _claim_table(items: Sequence[ClaimVerdict]) -> TextTable:
    headers = ["where", "the article says", "verdict", "measured", "reason"]
    rows = [
        [escape(item.claim.source), escape(item.claim.says), _strong(item.verdict), _measured(item), _reason(item)]
        for item in items
    ]
    return TextTable(headers, rows, "lllll")


def _strong(verdict: str) -> str:
    return f"**{verdict}**" if verdict in (SUPPORTED, CONTRADICTED) else verdict


def _measured(item: ClaimVerdict) -> str:
    if item.verdict in (NOT_TESTABLE, NOT_MEASURED):
        return NOTHING
    measure = MEASURES[item.claim.measure]
    parts = [f"{escape(label)} {_level(level, measure)}" for label, level in (item.levels or {}).items()]
    parts += [
        f"{escape(pair.more)} {'over' if measure.is_ratio else 'less'} {escape(pair.less)} "
        f"{_shown(pair.compared.difference, measure)} {_ends(pair.compared.interval, measure)}, p = {p_value(pair.p)}, "
        f"n = {pair.compared.n} x {len(pair.places)}"
        for pair in item.pairs
        if pair.compared
    ]
    return f"{escape(measure.title)}: {'; '.join(parts)}"


def _reason(item: ClaimVerdict) -> str:
    reasons = [item.reason, *(pair.reason for pair in item.pairs)]
    return escape("; ".join(dict.fromkeys(reason for reason in reasons if reason))) or NOTHING


def word_frame(verdicts: Verdicts) -> pd.DataFrame:
    """A row a word of the article's table, with its level of every measure of the column."""
    return table_of(
        {
            "column": item.column.name,
            "method": word.method,
            "word": word.word,
            "verdict": word.verdict,
            "measure": name,
            "primary": name == item.column.measure,
            **_level_numbers(word.level if name == item.column.measure else word.also.get(name), MEASURES[name]),
        }
        for item in verdicts.columns
        for word in item.words
        for name in (item.column.measure, *item.column.also)
    )


def _level_numbers(level: Level | None, measure: Measure) -> dict[str, object]:
    if level is None:
        return {}
    ends = {"value": level.value, "low": level.interval.low, "high": level.interval.high}
    numbers = {name: math.exp(value) if measure.is_ratio else value for name, value in ends.items()}
    return numbers | {"interval": f"95 % {level.interval.method}", "n": level.n, "places": level.places}


def pair_frame(verdicts: Verdicts) -> pd.DataFrame:
    """A row a pair of a column or claim: every number behind the verdicts; costs as ratios."""
    named = [
        (item.column.name, item.column.measure, item.column.smallest_effect, item.pairs) for item in verdicts.columns
    ]
    named += [(item.claim.says, item.claim.measure, item.claim.smallest_effect, item.pairs) for item in verdicts.claims]
    return table_of(
        {"claim": name, "measure": measure, "smallest_effect": effect} | _pair_numbers(pair, MEASURES[measure])
        for name, measure, effect, pairs in named
        for pair in pairs
    )


def _pair_numbers(pair: PairVerdict, measure: Measure) -> dict[str, object]:
    row: dict[str, object] = {"less": pair.less, "more": pair.more, "verdict": pair.verdict}
    found = pair.compared
    if found is not None:
        ends = {"low": found.interval.low, "high": found.interval.high, "detectable": found.detectable}
        numbers = {"difference": found.difference} | ends
        row |= {name: math.exp(value) if measure.is_ratio else value for name, value in numbers.items()}
        row |= {"interval": f"Bonferroni {found.interval.method}", "p_holm": pair.p, "n": found.n}
        row |= {"places": len(pair.places)}
    return row | {"reason": pair.reason}


def claim_frame(verdicts: Verdicts) -> pd.DataFrame:
    """A row a further claim, with its verdict."""
    return table_of(
        {
            "source": item.claim.source,
            "says": item.claim.says,
            "measure": item.claim.measure,
            "verdict": item.verdict,
            "measured": _measured(item),
            "reason": "; ".join(dict.fromkeys([item.reason, *(pair.reason for pair in item.pairs)])).strip("; "),
        }
        for item in verdicts.claims
    )
