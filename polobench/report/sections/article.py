"""The source article's ratings beside our verdicts, each with its reason in one line."""

from __future__ import annotations

from polobench.analysis import verdicts
from polobench.analysis.measures import MEASURES, Measure
from polobench.report.blocks import Block, Link, Paragraph, Section, Strong, Table, Text
from polobench.report.findings import Findings
from polobench.report.sections.claims import anchor_of, shown_level, strong
from polobench.report.text import counted, listed

ARTICLE = "“LLM Optimization: Optimizing AI with GRPO, PPO, and DPO” (Analytics Vidhya, 20 March 2025)"
_SAID = {"supported": "support", "contradicted": "contradict", "undecided": "leave open"}


def sections(findings: Findings) -> list[Section]:
    """Empty without a rating or a claim that this store has a word on."""
    if not findings.has_verdicts or findings.is_first_look:
        return []
    blocks: list[Block] = [Paragraph(summary(findings))]
    if findings.has_ratings:
        rows: list[dict[str, Text]] = [
            {
                "method": word.method,
                "rating": f"{item.column.name}: {word.word}",
                "our verdict": strong(word.verdict),
                "why": _why(item, word),
                "evidence": Link(item.column.name, f"article#{anchor_of(item)}"),
            }
            for item in findings.columns
            for word in item.words
        ]
        blocks.append(Table.of(rows, "lllll"))
    return [Section("The article's ratings", blocks)]


def summary(findings: Findings) -> Text:
    """How many ratings and claims ended how."""
    claims = [item.verdict for item in findings.claims]
    text: list[str | Strong | Link] = [f"The source article is {ARTICLE}. "]
    if findings.has_ratings:
        ratings = [word.verdict for item in findings.columns for word in item.words]
        text += [f"Of its {len(ratings)} ratings of methods, our runs {_spoken(ratings)}. "]
    said = ", ".join(f"{claims.count(name)} {name}" for name in verdicts.VERDICTS if name in claims)
    text += [f"Of its {counted(len(claims), 'further claim')}: {said}. "]
    return [*text, Link("All the evidence", "article")]


def _spoken(ratings: list[str]) -> str:
    known = [f"{word} {ratings.count(name)}" for name, word in _SAID.items() if name in ratings]
    rest = sum(name not in _SAID for name in ratings)
    return ", ".join(known + ([f"do not measure {rest}"] if rest else []))


def _why(item: verdicts.ColumnVerdict, word: verdicts.WordVerdict) -> str:
    """The pair that decides, or what kept it open."""
    measure = MEASURES[item.column.measure]
    if word.verdict == verdicts.NOT_MEASURED or word.level is None:
        return next((pair.reason for pair in word.pairs if pair.reason), "no runs to compare")
    mine = f"{measure.title} {_value(word.level, measure)}"
    if word.verdict == verdicts.SUPPORTED:
        return f"{mine}; in order with {listed(_other(pair, word) for pair in word.pairs)}"
    deciding = [pair for pair in word.pairs if pair.verdict == verdicts.CONTRADICTED]
    if deciding:
        worst = min(deciding, key=lambda pair: pair.compared.difference if pair.compared else 0.0)
        other = _other(worst, word)
        level = next(found.level for found in item.words if found.method == other)
        return f"{mine}; {other} ({item.column.words[other]}) has {_value(level, measure)}"
    refused = next((pair.reason for pair in word.pairs if pair.reason), "")
    still_open = listed(_other(pair, word) for pair in word.pairs if pair.verdict != verdicts.SUPPORTED)
    return refused or f"{mine}; too close to call with {still_open}"


def _other(pair: verdicts.PairVerdict, word: verdicts.WordVerdict) -> str:
    return pair.more if pair.less == word.method else pair.less


def _value(level: verdicts.Level | None, measure: Measure) -> str:
    return shown_level(level, measure).partition(" ")[0]
