"""The gate over two stores: every layer's findings, arm by arm, and one exit code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polobench.analysis.collection import Arm
from polobench.core.result import RunResult
from polobench.gate.exact import Bits, Change, bits_of, differences, fingerprint, growths, ledger_growths, lost_answers
from polobench.gate.learning import WATCHED, Row, columns_of, judge
from polobench.gate.matching import MOST_SHOWN, Cells, Key, MatchedArm, matched_arms
from polobench.gate.reading import read_whole
from polobench.kinds.fixed_batch import FixedBatch
from polobench.kinds.kind import Kind
from polobench.kinds.throughput import Throughput

NOTICEABLE_RATIO = 1.1  # smallest ratio of seconds between different runs that gets a note
LAYERS = {
    "cells": "cells that vanished, failed or are new",
    "probe": "known answers",
    "fixed batch": "one update on a stored batch",
    "learning": "learning, loss and KL",
    "cost": "counts without noise",
    "speed": "speed",
}
_MOST_SEEDS = 10


@dataclass(frozen=True)
class GateFinding:
    """One change that the gate reports."""

    layer: str  # a key of `LAYERS`
    arm: str  # in words
    what: str  # in words, with the numbers of both sides
    is_regression: bool  # whether it fails the gate; else it is a note


@dataclass(frozen=True)
class StoreComparison:
    """What the gate found between two stores."""

    base: str  # the stores' folders
    head: str
    pairs: Sequence[MatchedArm]
    findings: Sequence[GateFinding]  # in the order of the layers
    rows: Sequence[Row]  # every test of the learning layer, skipped ones included
    bits: Sequence[tuple[MatchedArm, Bits]]  # the comparison of digests, for each arm that has some on both sides
    notes: Sequence[str] = ()  # what a reader must know about the comparison itself

    @property
    def regressions(self) -> list[GateFinding]:
        return [finding for finding in self.findings if finding.is_regression]

    @property
    def updates(self) -> list[Arm]:
        """The arms of one update on a stored batch that both sides have."""
        return [pair.arm for pair in self.pairs if pair.arm.kind == FixedBatch.name and pair.common]

    @property
    def exit_code(self) -> int:
        return 1 if self.regressions else 0


def compare_stores(base: Path, head: Path) -> StoreComparison:
    """Compare two stores.

    Raises:
        UsageError: a store is missing, empty, damaged or of another schema.
        Incomparable: they answer different questions.
    """
    return compare_results(read_whole(base), read_whole(head), str(base), str(head))


def compare_results(
    base: Sequence[RunResult], head: Sequence[RunResult], base_name: str = "base", head_name: str = "head",
    *, by_bits: bool = True,
) -> StoreComparison:  # fmt: skip
    """Compare results already read; without `by_bits` equal digests are tested like all others (for simulations)."""
    pairs = matched_arms(base, head)
    bits = [(pair, found) for pair in pairs if pair.common and (found := bits_of(pair)).compared]
    same = {pair.arm for pair, found in bits if by_bits and found.all_identical}
    open_pairs = [pair for pair in pairs if pair.arm not in same]
    rows = judge(columns_of([pair for pair in open_pairs if pair.arm.learns and not pair.is_probe]))
    findings = [
        *_cell_findings(pairs),
        *_probe_findings(open_pairs),
        *_fixed_findings(pairs),
        *(_learning_finding(row) for row in rows if row.is_regression or row.is_gain),
        *_cost_findings(pairs, open_pairs),
        *_speed_findings(pairs),
    ]
    return StoreComparison(base_name, head_name, pairs, findings, rows, bits, _notes(base, head))


def arm_text(arm: Arm) -> str:
    """`ppo on CartPole-v1, 20,000 samples`."""
    device = "" if arm.device == "cpu" else f", {arm.device}"
    return f"{arm.label} on {arm.task}, {arm.budget}{device}"


def _cell_findings(pairs: Sequence[MatchedArm]) -> Iterator[GateFinding]:
    for pair in pairs:
        bad, was_bad = ({key for key, cell in side.items() if cell.status != "ok"} for side in (pair.head, pair.base))
        yield from _cells(pair, pair.base, pair.base.keys() - pair.head.keys(), "vanished", True)
        yield from _cells(pair, pair.head, pair.head.keys() - pair.base.keys(), "new", False)
        yield from _cells(pair, pair.head, (bad & pair.base.keys()) - was_bad, "newly failing", True)
        yield from _cells(pair, pair.head, bad & was_bad, "failing as before", False)


def _cells(pair: MatchedArm, side: Cells, found: Set[Key], what: str, is_regression: bool) -> Iterator[GateFinding]:
    if found:
        name = f"{arm_text(pair.arm)} ({pair.arm.kind.replace('_', ' ')})"
        reasons = sorted({f"{side[key].status}: {side[key].reason}" for key in found if side[key].status != "ok"})
        said = f"; {'; '.join(reasons[:MOST_SHOWN])}" if reasons else ""
        seeds = ", ".join(str(key[0]) for key in sorted(found)[:_MOST_SEEDS])
        yield GateFinding("cells", name, f"{len(found)} cells {what} (seeds {seeds}){said}", is_regression)


def _probe_findings(pairs: Sequence[MatchedArm]) -> Iterator[GateFinding]:
    for pair in pairs:
        lost = lost_answers(pair) if pair.is_probe and pair.arm.learns else []
        if lost:
            seen = ", ".join(f"seed {key[0]}: {pair.head[key].final_return:.4g}" for key in lost[:MOST_SHOWN])
            said = f"the known answer {pair.head[lost[0]].target:g} is no longer reached ({seen})"
            yield GateFinding("probe", arm_text(pair.arm), said, True)


def _both_ok(pairs: Sequence[MatchedArm], kind: type[Kind]) -> Iterator[tuple[MatchedArm, RunResult, RunResult]]:
    for pair in pairs:
        for key in pair.common if pair.arm.kind == kind.name else ():
            if pair.base[key].status == pair.head[key].status == "ok":
                yield pair, pair.base[key], pair.head[key]


def _fixed_findings(pairs: Sequence[MatchedArm]) -> Iterator[GateFinding]:
    for pair, base, head in _both_ok(pairs, FixedBatch):
        found = differences(base, head)
        if found:
            shown = "; ".join(f"{item.what} {item.base:.8g} -> {item.head:.8g}" for item in found[:MOST_SHOWN])
            yield GateFinding("fixed batch", arm_text(pair.arm), f"{len(found)} numbers differ: {shown}", True)


def _learning_finding(row: Row) -> GateFinding:
    assert row.shift is not None
    head = row.base_mean + row.shift.difference
    numbers = f"{WATCHED[row.measure].title} {row.base_mean:.4g} -> {head:.4g}"
    sure = f"p = {row.adjusted_p:.2g} by Holm over all tests, n = {row.shift.n[0]} and {row.shift.n[1]}"
    return GateFinding("learning", arm_text(row.arm), f"{numbers} ({sure})", row.is_regression)


def _cost_findings(pairs: Sequence[MatchedArm], open_pairs: Sequence[MatchedArm]) -> Iterator[GateFinding]:
    for pair, base, head in _both_ok(pairs, FixedBatch):
        for item in growths(base, head):
            yield GateFinding("cost", arm_text(pair.arm), _grown(item), item.is_regression)
    for pair in open_pairs:
        if pair.arm.learns and pair.common and not pair.is_probe:
            for item in ledger_growths(list(pair.base.values()), list(pair.head.values())):
                yield GateFinding("cost", arm_text(pair.arm), f"{_grown(item)} (advice)", False)


def _grown(item: Change) -> str:
    share = f"{(item.head - item.base) / item.base:+.1%}" if item.base else "from nothing"
    return f"{item.what.replace('_', ' ')}: {item.base:,.4g} -> {item.head:,.4g} ({share})"


def _speed_findings(pairs: Sequence[MatchedArm]) -> Iterator[GateFinding]:
    """Speed between stores is only a note: the machine may have had other work, or be another one."""
    for pair, base, head in _both_ok(pairs, Throughput):
        if base.ran_beside_others or head.ran_beside_others or _machine(base) != _machine(head):
            continue
        seconds = [float(np.median(side.throughput["iteration_seconds"])) for side in (base, head)]
        if min(seconds) > 0 and abs(math.log(seconds[1] / seconds[0])) > math.log(NOTICEABLE_RATIO):
            said = f"an iteration takes {seconds[0]:.3g} s -> {seconds[1]:.3g} s ({seconds[1] / seconds[0]:.2f}x)"
            yield GateFinding("speed", arm_text(pair.arm), f"{said} (advice; `polobench ab` measures it)", False)


def _machine(result: RunResult) -> tuple[object, object]:
    return result.provenance.get("cpu_model"), result.provenance.get("device_name")


def _notes(base: Sequence[RunResult], head: Sequence[RunResult]) -> list[str]:
    notes = []
    if set(map(_machine, base)) != set(map(_machine, head)):
        notes.append("The sides ran on different hardware: speed is not compared.")
    if set(map(fingerprint, base)) != set(map(fingerprint, head)):
        notes.append("The sides have different platform fingerprints: bits may differ without any change of the code.")
    return notes
