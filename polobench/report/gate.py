"""The gate's report: what changed between base and head, by how much, how sure, and what could not have been seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from polobench.gate.compare import LAYERS, GateFinding, StoreComparison, arm_text
from polobench.gate.exact import LARGEST_GROWTH, TOLERANCE, Bits
from polobench.gate.learning import LEVEL, WATCHED, Row
from polobench.gate.matching import MatchedArm
from polobench.report.blocks import Block, Bullets, Page, Paragraph, Section, Strong, Table, Text
from polobench.report.formatting import counted, p_value, significant
from polobench.report.markdown import render

_SEEDS_SHOWN = 3


def gate_markdown(found: StoreComparison) -> str:
    """The whole page."""
    sections = [
        Section("What changed", [*_findings(found.findings), Paragraph(_batches(found))]),
        Section("Same bits", _bits(found.bits)),
        Section("Tests of learning, loss and KL", _tests(found.rows)),
    ]
    notes: list[Block] = [Bullets(found.notes)] if found.notes else []
    title = f"Gate: {found.head} against {found.base}"
    return render(Page("gate", title, sections, [Paragraph(answer(found)), *notes]))


def answer(found: StoreComparison) -> str:
    """The verdict in one sentence, plain enough for a terminal."""
    cells = sum(len(pair.common) for pair in found.pairs)
    identical = sum(bits.identical for _, bits in found.bits)
    compared = f"{cells} cells compared, {identical} of them the same bits"
    bad = {finding.layer for finding in found.regressions}
    if not bad:
        return f"No regression: {compared}."
    where = ", ".join(name for layer, name in LAYERS.items() if layer in bad)
    return f"{counted(len(found.regressions), 'regression')} ({where}): {compared}."


def finding_line(finding: GateFinding) -> str:
    """For a terminal."""
    word = "REGRESSION" if finding.is_regression else "note"
    return f"{word}: {LAYERS[finding.layer]}: {finding.arm}: {finding.what}"


def _findings(findings: Sequence[GateFinding]) -> list[Block]:
    if not findings:
        return [Paragraph("Nothing that the gate looks at.")]
    rows: list[list[Text]] = [
        [Strong("regression") if item.is_regression else "note", LAYERS[item.layer], item.arm, item.what]
        for item in sorted(findings, key=lambda finding: not finding.is_regression)
    ]
    return [Table(["", "layer", "arm", "what"], rows, "llll")]


def _batches(found: StoreComparison) -> str:
    """How many updates on stored batches were compared, and how many of them differ."""
    arms = list(map(arm_text, found.updates))
    if not arms:
        return ""
    differing = {item.arm for item in found.regressions if item.layer in ("fixed batch", "cost")} & {*arms}
    agree = f"{len(differing)} differ" if differing else "all agree"
    return f"{len(arms)} updates on stored batches were compared, number by number and count by count: {agree}."


def _bits(bits: Sequence[tuple[MatchedArm, Bits]]) -> list[Block]:
    if not bits:
        return [Paragraph("No cell of both sides has a digest.")]
    headers = ["arm", "the same bits", "first update that differs, by seed"]
    rows = [[arm_text(pair.arm), f"{found.identical} of {found.compared}", _first(found)] for pair, found in bits]
    needless = "Arms whose runs are all the same bits need no test: there is nothing that could differ."
    return [Table(headers, rows, "lrl"), Paragraph(needless)]


def _first(found: Bits) -> str:
    shown = list(found.first_differences.items())
    texts = [f"{seed}: {'unknown' if update is None else f'{update:,}'}" for seed, update in shown[:_SEEDS_SHOWN]]
    more = f" and {len(shown) - _SEEDS_SHOWN} more" if len(shown) > _SEEDS_SHOWN else ""
    return ", ".join(texts) + more


def _tests(rows: Sequence[Row]) -> list[Block]:
    if not rows:
        return [Paragraph("None: every arm is the same bits, or there is no arm that learns.")]
    tested = sum(not row.refused for row in rows)
    said: Text = [
        f"{tested} unpaired permutation tests at {LEVEL:g} over all of them (Holm); scores one-sided, loss and KL "
        "two-sided. A regression is a change that is sure and that matters. ",
        Strong("What this comparison could not see:"),
        " a change smaller than the last column is found in fewer than four of five comparisons. On stored batches a "
        f"number may differ by {TOLERANCE:g} of its size and a count may grow by {LARGEST_GROWTH:.0%}.",
    ]
    refused = sorted({f"Not tested: {WATCHED[row.measure].title}: {row.refused}." for row in rows if row.refused})
    return [Table.of([_test(row) for row in rows], "llrrrrrrr"), Paragraph(said), *map(Paragraph, refused)]


def _test(row: Row) -> dict[str, Text]:
    shift = row.shift
    sure = "not tested" if shift is None or math.isnan(row.adjusted_p) else p_value(row.adjusted_p)
    return {
        "arm": arm_text(row.arm),
        "measure": WATCHED[row.measure].title,
        "n": f"{shift.n[0]}, {shift.n[1]}" if shift else "",
        "base": significant(row.base_mean),
        "head": significant(row.base_mean + shift.difference) if shift else "",
        "change": significant(shift.difference) if shift else "",
        "p (Holm)": Strong(sure) if row.is_regression else sure,
        "matters from": significant(row.smallest_change),
        "80 % power from": significant(row.detectable) if shift else "",
    }


def gate_json(found: StoreComparison) -> Mapping[str, Any]:
    """The same as data; NaN and infinity as null."""
    return {
        "base": found.base,
        "head": found.head,
        "exit_code": found.exit_code,
        "answer": answer(found),
        "notes": list(found.notes),
        "findings": [vars(finding) for finding in found.findings],
        "same_bits": [
            {"arm": arm_text(pair.arm), "identical": bits.identical, "compared": bits.compared,
             "same_platform": bits.same_platform,
             "first_differences": {str(seed): update for seed, update in bits.first_differences.items()}}
            for pair, bits in found.bits
        ],
        "tests": [_test_json(row) for row in found.rows],
    }  # fmt: skip


def _test_json(row: Row) -> dict[str, Any]:
    numbers: dict[str, float | None] = {
        "base_mean": row.base_mean,
        "difference": row.shift.difference if row.shift else None,
        "p": row.shift.p if row.shift else None,
        "adjusted_p": row.adjusted_p,
        "smallest_change_that_matters": row.smallest_change,
        "smallest_detectable_change": row.detectable,
    }
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}
    about = {"arm": arm_text(row.arm), "measure": row.measure, "is_regression": row.is_regression}
    return about | finite | {"n": list(row.shift.n) if row.shift else None, "refused": row.refused}
