"""The source article's ratings beside our verdicts, each with its reason in one line."""

from __future__ import annotations

from polobench.analysis.measures import MEASURES, Measure
from polobench.analysis.verdicts import (
    CONTRADICTED,
    NOT_MEASURED,
    SUPPORTED,
    VERDICTS,
    ColumnVerdict,
    Level,
    PairVerdict,
    WordVerdict,
)
from polobench.report.blocks import Block, Link, Paragraph, Section, Strong, Table, Text
from polobench.report.findings import Findings
from polobench.report.sections.claims import anchor_of, shown_level, strong
from polobench.report.text import counted

TITLE = "The article's ratings"
ARTICLE = "“LLM Optimization: Optimizing AI with GRPO, PPO, and DPO” (Analytics Vidhya, 20 March 2025)"
_SAID = {"supported": "support", "contradicted": "contradict", "undecided": "leave open"}


def sections(findings: Findings) -> list[Section]:
    """Empty without a rating or a claim that this store has a word on."""
    if not findings.has_verdicts or findings.is_first_look:
        return []
    blocks: list[Block] = [Paragraph(summary(findings))]
    if findings.has_ratings:
        rows = [_row(item, word) for item in findings.columns for word in item.words]
        blocks.append(Table(["method", "rating", "our verdict", "why", "evidence"], rows, "lllll"))
    return [Section(TITLE, blocks)]


def summary(findings: Findings) -> Text:
    """How many ratings and claims ended how."""
    claims = [item.verdict for item in findings.claims]
    text: list[str | Strong | Link] = [f"The source article is {ARTICLE}. "]
    if findings.has_ratings:
        ratings = [word.verdict for item in findings.columns for word in item.words]
        text += [f"Of its {len(ratings)} ratings of methods, our runs {_spoken(ratings)}. "]
    said = ", ".join(f"{claims.count(name)} {name}" for name in VERDICTS if name in claims)
    text += [f"Of its {counted(len(claims), 'further claim')}: {said}. "]
    return [*text, Link("All the evidence", "article")]


def _spoken(ratings: list[str]) -> str:
    known = [f"{word} {ratings.count(name)}" for name, word in _SAID.items() if name in ratings]
    rest = sum(name not in _SAID for name in ratings)
    return ", ".join(known + ([f"do not measure {rest}"] if rest else []))


def _row(item: ColumnVerdict, word: WordVerdict) -> list[Text]:
    return [
        word.method,
        f"{item.column.name}: {word.word}",
        strong(word.verdict),
        _why(item, word),
        Link(item.column.name, f"article#{anchor_of(item)}"),
    ]


def _why(item: ColumnVerdict, word: WordVerdict) -> str:
    """The pair that decides, or what kept it open."""
    measure = MEASURES[item.column.measure]
    if word.verdict == NOT_MEASURED or word.level is None:
        return next((pair.reason for pair in word.pairs if pair.reason), "no runs to compare")
    deciding = [pair for pair in word.pairs if pair.verdict == CONTRADICTED]
    mine = f"{measure.title} {_value(word.level, measure)}"
    if word.verdict == SUPPORTED:
        return f"{mine}; in order with {_others(word)}"
    if deciding:
        worst = min(deciding, key=lambda pair: pair.compared.difference if pair.compared else 0.0)
        other = _other(worst, word)
        return f"{mine}; {other} ({item.column.words[other]}) has {_value(_level_of(item, other), measure)}"
    refused = next((pair.reason for pair in word.pairs if pair.reason), "")
    return refused or f"{mine}; too close to call with {_open(word)}"


def _open(word: WordVerdict) -> str:
    return ", ".join(_other(pair, word) for pair in word.pairs if pair.verdict != SUPPORTED)


def _others(word: WordVerdict) -> str:
    return ", ".join(_other(pair, word) for pair in word.pairs)


def _other(pair: PairVerdict, word: WordVerdict) -> str:
    return pair.more if pair.less == word.method else pair.less


def _level_of(item: ColumnVerdict, method: str) -> Level | None:
    return next(word.level for word in item.words if word.method == method)


def _value(level: Level | None, measure: Measure) -> str:
    return shown_level(level, measure).partition(" ")[0]
