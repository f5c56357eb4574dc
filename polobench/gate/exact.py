"""Layers 1, 2 and 4 of the gate: comparisons that need no statistics.

- Same bits: two runs of equal digest are one run, and their arm needs no test. Where they differ, the trail names the
  first update that does.
- Probes: a run of a task with a known answer that no longer reaches it.
- The fixed batch: one update's metrics and the change of every tensor, in float64, agree within `TOLERANCE`, far above
  what platforms round differently and far below what any fault changes.
- Counts of the same update and of the method's first rollout: a growth of more than `LARGEST_GROWTH` is a regression.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from polobench.core.result import RunResult
from polobench.gate.matching import Key, MatchedArm

TOLERANCE = 1e-6
LEAST_CHANGE = 1e-9
LARGEST_GROWTH = 0.01


@dataclass(frozen=True)
class Bits:
    """How the runs of an arm compare bit for bit.

    Attributes:
        identical: cells of equal digest.
        compared: cells that have a digest on both sides.
        first_differences: for each differing seed the first update that differs; None where no trail tells.
        same_platform: both sides ran on one platform fingerprint.
    """

    identical: int
    compared: int
    first_differences: Mapping[int, int | None]
    same_platform: bool

    @property
    def all_identical(self) -> bool:
        return self.compared > 0 and self.identical == self.compared


def bits_of(pair: MatchedArm) -> Bits:
    """The digests of an arm's cells that both sides have."""
    known = [key for key in pair.common if pair.base[key].digest and pair.head[key].digest]
    differing = [key for key in known if pair.base[key].digest != pair.head[key].digest]
    prints = {_fingerprint(result) for side in (pair.base, pair.head) for result in side.values()}
    return Bits(
        identical=len(known) - len(differing),
        compared=len(known),
        first_differences={key[0]: pair.base[key].first_difference(pair.head[key]) for key in differing},
        same_platform=len(prints) == 1,
    )


def _fingerprint(result: RunResult) -> object:
    return result.provenance.get("platform_fingerprint")


def lost_answers(pair: MatchedArm) -> list[Key]:
    """Cells of a probe that reached the known answer on the base and do not on the head."""
    return [key for key in pair.common if _answers(pair.base[key]) and not _answers(pair.head[key])]


def _answers(result: RunResult) -> bool:
    return result.status == "ok" and result.target is not None and result.final_return >= result.target


@dataclass(frozen=True)
class Difference:
    """A number of a fixed-batch cell that differs on the head; NaN where a side lacks it."""

    what: str
    base: float
    head: float


@dataclass(frozen=True)
class Growth:
    """A count that grew, or fell, by more than `LARGEST_GROWTH`."""

    what: str
    base: float
    head: float

    @property
    def is_regression(self) -> bool:
        return self.head > self.base

    @property
    def share(self) -> float:
        """The growth as a share of the base; infinite from 0."""
        return (self.head - self.base) / self.base if self.base else math.inf


def differences(base: RunResult, head: RunResult) -> list[Difference]:
    """The numbers of the update on the stored batch that lie outside of the tolerance."""
    sides = [dict(_numbers(result)) for result in (base, head)]
    found = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        one, other = (side.get(name, (math.nan, 0.0)) for side in sides)
        scale = max(one[1], other[1], LEAST_CHANGE / TOLERANCE)
        if name not in sides[0] or name not in sides[1] or not _agree(one[0], other[0], TOLERANCE * scale):
            found.append(Difference(name, one[0], other[0]))
    return found


def _agree(one: float, other: float, tolerance: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other)) or abs(one - other) <= tolerance


def _numbers(result: RunResult) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each number by name, with the size that its tolerance is a share of: of a tensor's change, its norm."""
    for name, value in result.fixed_batch["metrics"].items():
        yield name, (float(value), abs(float(value)) if math.isfinite(value) else 0.0)
    for name, sketch in result.fixed_batch["changes"].items():
        for index, value in enumerate(sketch):
            title = f"change of {name}, {'norm' if index == 0 else f'projection {index}'}"
            yield title, (float(value), abs(float(sketch[0])))


def growths(base: RunResult, head: RunResult) -> list[Growth]:
    """Counts of the update, and of the rollout per sample, that changed by more than `LARGEST_GROWTH`."""
    sides = [dict(_counts(result)) for result in (base, head)]
    pairs = {name: (sides[0].get(name, 0.0), sides[1].get(name, 0.0)) for name in sides[0].keys() | sides[1].keys()}
    return [
        Growth(name, one, other)
        for name, (one, other) in sorted(pairs.items())
        if abs(other - one) > LARGEST_GROWTH * one
    ]


def _counts(result: RunResult) -> Iterator[tuple[str, float]]:
    for name, count in result.fixed_batch["batch_counts"].items():
        yield f"{name}, update", float(count)
    taken = result.fixed_batch["rollout_counts"]
    samples = max(1, taken.get("samples_generated", 0) + taken.get("samples_read", 0))
    for name, count in taken.items():
        if not name.startswith("samples_"):
            yield f"{name} per sample, rollout", count / samples


def ledger_growths(base: Sequence[RunResult], head: Sequence[RunResult]) -> list[Growth]:
    """Counts per sample over whole runs. Only a note: what a run does follows from what it has learned."""
    names = ("gradient_steps", "forward_rows", "backward_rows", "reward_calls")
    means = [{name: _mean_per_sample(side, name) for name in names} for side in (base, head)]
    return [
        Growth(f"{name} per sample, whole runs", means[0][name], means[1][name])
        for name in names
        if abs(means[1][name] - means[0][name]) > LARGEST_GROWTH * means[0][name]
    ]


def _mean_per_sample(runs: Sequence[RunResult], name: str) -> float:
    shares = [getattr(run.ledger, name) / run.ledger.samples for run in runs if run.ledger.samples]
    return sum(shares) / len(shares) if shares else 0.0
