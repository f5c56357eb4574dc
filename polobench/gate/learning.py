"""Layer 3 of the gate: did learning change? Tests each measure of each arm whose two sides are not the same bits.

Holm's procedure over all tests of all arms keeps the chance of any false alarm below `LEVEL`. A test whose smallest
reachable p is above `LEVEL` over the number of tests can decide nothing; it is skipped, and the report says how many
runs it needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from polobench.analysis.collection import Arm
from polobench.analysis.measures import MEASURES, Measure
from polobench.analysis.statistics.hypothesis import holm
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.statistics.permutation import Shift, runs_needed, shift_of, smallest_p
from polobench.gate.matching import Cells, MatchedArm

LEVEL = 0.002
LEAST_RUNS = 2


@dataclass(frozen=True)
class WatchedMeasure:
    """A measure, and which change of it is harm."""

    measure: Measure  # what a run's number is
    harm: str  # a key of `permutation.HARM`
    smallest: float  # the smallest change that matters: of the score, or as a share of the base's mean size
    of_score: bool  # which of the two; a failed run has a score, 0, but neither a loss nor a KL

    @property
    def title(self) -> str:
        return self.measure.title

    def smallest_change(self, base: Array) -> float:
        """The smallest change that matters, in the measure's own unit."""
        return self.smallest if self.of_score else self.smallest * _mean(np.abs(base))

    def values(self, cells: Cells) -> Array:
        """The finite values of the cells, ordered by seed."""
        runs = [run for _, run in sorted(cells.items())]
        counted = [run for run in runs if run.status == "ok" or (self.of_score and run.status != "skipped")]
        return self.measure.values(counted)


WATCHED: Mapping[str, WatchedMeasure] = {
    "final_score": WatchedMeasure(MEASURES["final_score"], "lower", 0.05, of_score=True),
    "area": WatchedMeasure(MEASURES["area_under_curve"], "lower", 0.05, of_score=True),
    "loss": WatchedMeasure(MEASURES["loss_at_the_end"], "both", 0.2, of_score=False),
    "kl": WatchedMeasure(MEASURES["update_kl_at_the_end"], "both", 0.2, of_score=False),
    "heldout_kl": WatchedMeasure(MEASURES["kl_to_reference"], "both", 0.2, of_score=False),
}


@dataclass(frozen=True)
class Row:
    """One test, or the reason why it was skipped."""

    arm: Arm
    measure: str  # a key of `WATCHED`
    base_mean: float  # of the base's runs
    shift: Shift | None  # None where there were too few runs
    smallest_change: float  # the smallest d that matters, in the measure's own unit
    adjusted_p: float  # by Holm over all tests; NaN for one that was skipped
    detectable: float  # the smallest |d| that a comparison like this one finds 4 times in 5
    refused: str = ""  # why the test was skipped

    @property
    def is_regression(self) -> bool:
        """Worse, significantly, and by enough to matter; a skipped test never is."""
        return self.shift is not None and self.adjusted_p <= LEVEL and self.shift.harmful >= self.smallest_change

    @property
    def is_gain(self) -> bool:
        """Better by as much as would be detected if it were worse: reported, not tested."""
        return self.shift is not None and -self.shift.harmful > max(self.smallest_change, self.detectable)


Name = tuple[Arm, str]  # an arm and a key of `WATCHED`
Columns = Mapping[Name, tuple[Array, Array]]


def columns_of(arms: Sequence[MatchedArm]) -> dict[Name, tuple[Array, Array]]:
    """The finite values of base and head `[n]`, `[m]`, of every measure that both sides of an arm have, or that one of
    them has although runs of both ended ok.
    """
    found: dict[Name, tuple[Array, Array]] = {}
    for item in arms:
        least = max if _has_sound(item.base) and _has_sound(item.head) else min
        for name, measure in WATCHED.items():
            values = measure.values(item.base), measure.values(item.head)
            if least(map(len, values)) > 0:
                found[item.arm, name] = values
    return found


def _has_sound(cells: Cells) -> bool:
    return any(run.status == "ok" for run in cells.values())


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan


def judge(columns: Columns) -> list[Row]:
    """One row per column, tested together."""
    enough = {name: values for name, values in columns.items() if min(map(len, values)) >= LEAST_RUNS}
    possible = _possible(enough)
    found = {name: shift_of(*values, WATCHED[name[1]].harm) for name, values in enough.items()}
    adjusted = dict(zip(possible, holm([found[name].p for name in possible]), strict=True))
    rows = []
    for name, values in columns.items():
        measure, shift = WATCHED[name[1]], found.get(name)
        smallest = measure.smallest_change(values[0])
        row = Row(*name, _mean(values[0]), shift, smallest, math.nan, math.nan)
        if shift is not None and name in adjusted:
            detectable = shift.detectable(LEVEL / len(possible), smallest)
            rows.append(replace(row, adjusted_p=adjusted[name], detectable=detectable))
        else:
            rows.append(replace(row, refused=_why_refused(values, measure, LEVEL / len(columns))))
    return rows


def _why_refused(values: tuple[Array, Array], measure: WatchedMeasure, level: float) -> str:
    fewest = min(map(len, values))
    if not fewest:
        return f"no run of the {'head' if len(values[0]) else 'base'} has a value"
    needed = max(LEAST_RUNS, runs_needed(level, measure.harm))
    return f"{fewest} runs per side cannot reach p = {level:.2g} (needed: {needed})"


def _possible(columns: Columns) -> list[Name]:
    """The tests that can reach `LEVEL` over their number; that number falls with each that cannot."""
    least = {name: smallest_p(len(base), len(head), WATCHED[name[1]].harm) for name, (base, head) in columns.items()}
    names = sorted(columns, key=least.__getitem__)
    while names and least[names[-1]] > LEVEL / len(names):
        names.pop()
    return [name for name in columns if name in set(names)]
