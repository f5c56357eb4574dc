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
from polobench.report.markdown import render
from polobench.report.text import number, p_value, significant

_SEEDS_SHOWN = 3


def gate_markdown(found: StoreComparison) -> str:
    """The whole page."""
    sections = [
        Section("What changed", [*_findings(found.findings), Paragraph(_batches(found))]),
        Section("Same bits", _bits(found.bits)),
        Section("Tests of learning, loss and KL", _tests(found.rows)),
    ]
    notes: list[Block] = [Bullets(found.notes)] if found.notes else []
    return render(
        Page("gate", f"Gate: {found.head} against {found.base}", sections, [Paragraph(answer(found)), *notes])
    )


def answer(found: StoreComparison) -> str:
    """The verdict in one sentence, plain enough for a terminal."""
    cells = sum(len(pair.common) for pair in found.pairs)
    identical = sum(bits.identical for _, bits in found.bits)
    compared = f"{cells} cells compared, {identical} of them the same bits"
    bad = found.regressions
    if not bad:
        return f"No regression: {compared}."
    layers = [name for name in LAYERS if any(finding.layer == name for finding in bad)]
    where = ", ".join(LAYERS[name] for name in layers)
    return f"{len(bad)} regression{'s' if len(bad) > 1 else ''} ({where}): {compared}."


def finding_line(finding: GateFinding) -> str:
    """For a terminal."""
    word = "REGRESSION" if finding.is_regression else "note"
    return f"{word}: {LAYERS[finding.layer]}: {finding.arm}: {finding.what}"


def _findings(findings: Sequence[GateFinding]) -> list[Block]:
    if not findings:
        return [Paragraph("Nothing that the gate looks at.")]
    ordered = sorted(findings, key=lambda finding: not finding.is_regression)
    rows: list[list[Text]] = [
        [Strong("regression") if item.is_regression else "note", LAYERS[item.layer], item.arm, item.what]
        for item in ordered
    ]
    return [Table(["", "layer", "arm", "what"], rows, "llll")]


def _batches(found: StoreComparison) -> str:
    """How many updates on stored batches were compared, and how many of them differ."""
    pairs = [pair for pair in found.pairs if pair.arm.kind == "fixed_batch" and pair.common]
    if not pairs:
        return ""
    findings = [item for item in found.findings if item.is_regression and item.layer in ("fixed batch", "cost")]
    differing = len({item.arm for item in findings} & {arm_text(pair.arm) for pair in pairs})
    agree = "all agree" if not differing else f"{differing} differ"
    return f"{len(pairs)} updates on stored batches were compared, number by number and count by count: {agree}."


def _bits(bits: Sequence[tuple[MatchedArm, Bits]]) -> list[Block]:
    if not bits:
        return [Paragraph("No cell of both sides has a digest.")]
    rows = [[arm_text(pair.arm), f"{found.identical} of {found.compared}", _first(found)] for pair, found in bits]
    return [
        Table(["arm", "the same bits", "first update that differs, by seed"], rows, "lrl"),
        Paragraph("Arms whose runs are all the same bits need no test: there is nothing that could differ."),
    ]


def _first(found: Bits) -> str:
    shown = list(found.first_differences.items())
    texts = [f"{seed}: {'unknown' if update is None else f'{update:,}'}" for seed, update in shown[:_SEEDS_SHOWN]]
    more = f" and {len(shown) - _SEEDS_SHOWN} more" if len(shown) > _SEEDS_SHOWN else ""
    return ", ".join(texts) + more


def _tests(rows: Sequence[Row]) -> list[Block]:
    if not rows:
        return [Paragraph("None: every arm is the same bits, or there is no arm that learns.")]
    table = Table(
        ["arm", "measure", "n", "base", "head", "change", "p (Holm)", "matters from", "80 % power from"],
        [_test(row) for row in rows],
        "llrrrrrrr",
    )
    tested = sum(not row.refused for row in rows)
    said: Text = [
        f"{tested} unpaired permutation tests at {LEVEL:g} over all of them (Holm); scores one-sided, loss and KL "
        "two-sided. A regression is a change that is sure and that matters. ",
        Strong("What this comparison could not see:"),
        " a change smaller than the last column is found in fewer than four of five comparisons. On stored batches a "
        f"number may differ by {TOLERANCE:g} of its size and a count may grow by {LARGEST_GROWTH:.0%}.",
    ]
    refused = sorted({f"{WATCHED[row.measure].title}: {row.refused}" for row in rows if row.refused})
    return [table, Paragraph(said), *(Paragraph(f"Not tested: {text}.") for text in refused)]


def _test(row: Row) -> list[Text]:
    arm, title = arm_text(row.arm), WATCHED[row.measure].title
    if row.shift is None:
        return [arm, title, "", significant(row.base_mean), "", "", "not tested", significant(row.smallest_change), ""]
    head = row.base_mean + row.shift.difference
    sure = "not tested" if math.isnan(row.adjusted_p) else p_value(row.adjusted_p)
    return [
        arm, title, f"{row.shift.n[0]}, {row.shift.n[1]}", significant(row.base_mean), significant(head),
        significant(row.shift.difference), Strong(sure) if row.is_regression else sure,
        significant(row.smallest_change), number(None) if math.isnan(row.detectable) else significant(row.detectable),
    ]  # fmt: skip


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
