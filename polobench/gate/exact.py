"""Layers 1, 2 and 4 of the gate: comparisons that need no statistics.

- Same bits: two runs of equal digest are one run, and their arm needs no test. Else the trail names the first update
  that differs.
- Probes: a run of a task with a known answer that no longer reaches it.
- The fixed batch: one update's metrics and the change of every tensor, in float64, agree within `TOLERANCE`, far above
  what platforms round differently and far below what any fault changes.
- Counts of the same update and of the method's first rollout: a growth of more than `LARGEST_GROWTH` is a regression.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from polobench.analysis.frame import solved
from polobench.core.result import RunResult
from polobench.gate.matching import Key, MatchedArm

TOLERANCE = 1e-6
LEAST_CHANGE = 1e-9
LARGEST_GROWTH = 0.01


@dataclass(frozen=True)
class Bits:
    """How the runs of an arm compare bit for bit."""

    identical: int  # cells of equal digest
    compared: int  # cells that have a digest on both sides
    first_differences: Mapping[int, int | None]  # by seed, the first update that differs; None if no trail tells
    same_platform: bool  # both sides ran on one platform fingerprint

    @property
    def all_identical(self) -> bool:
        return self.compared > 0 and self.identical == self.compared


def bits_of(pair: MatchedArm) -> Bits:
    """The digests of an arm's cells that both sides have."""
    known = [key for key in pair.common if pair.base[key].digest and pair.head[key].digest]
    differing = [key for key in known if pair.base[key].digest != pair.head[key].digest]
    both = [*pair.base.values(), *pair.head.values()]
    return Bits(
        identical=len(known) - len(differing),
        compared=len(known),
        first_differences={key[0]: pair.base[key].first_difference(pair.head[key]) for key in differing},
        same_platform=len(set(map(fingerprint, both))) == 1,
    )


def fingerprint(result: RunResult) -> object:
    """Of the platform that the result comes from."""
    return result.provenance.get("platform_fingerprint")


def lost_answers(pair: MatchedArm) -> list[Key]:
    """Cells of a probe that reached the known answer on the base and do not on the head."""
    return [key for key in pair.common if solved(pair.base[key]) and not solved(pair.head[key])]


@dataclass(frozen=True)
class Change:
    """A number that differs between the sides; NaN where a side lacks it."""

    what: str
    base: float
    head: float

    @property
    def is_regression(self) -> bool:
        """Of a count: whether it grew."""
        return self.head > self.base


def differences(base: RunResult, head: RunResult) -> list[Change]:
    """The numbers of the update on the stored batch that lie outside of the tolerance."""
    one, other = dict(_numbers(base)), dict(_numbers(head))
    absent = math.nan, 0.0
    found = []
    for name in sorted(one.keys() | other.keys()):
        (before, size), (after, other_size) = one.get(name, absent), other.get(name, absent)
        tolerance = TOLERANCE * max(size, other_size, LEAST_CHANGE / TOLERANCE)
        if (name in one) != (name in other) or not _agree(before, after, tolerance):
            found.append(Change(name, before, after))
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


def growths(base: RunResult, head: RunResult) -> list[Change]:
    """Counts of the update, and of the rollout per sample, that changed by more than `LARGEST_GROWTH`."""
    return sorted(_grown(dict(_counts(base)), dict(_counts(head))), key=lambda item: item.what)


def _counts(result: RunResult) -> Iterator[tuple[str, float]]:
    for name, count in result.fixed_batch["batch_counts"].items():
        yield f"{name}, update", float(count)
    taken = result.fixed_batch["rollout_counts"]
    samples = max(1, taken.get("samples_generated", 0) + taken.get("samples_read", 0))
    for name, count in taken.items():
        if not name.startswith("samples_"):
            yield f"{name} per sample, rollout", count / samples


def ledger_growths(base: Sequence[RunResult], head: Sequence[RunResult]) -> list[Change]:
    """Counts per sample over whole runs. Only a note: what a run does follows from what it has learned."""
    return _grown(_mean_counts(base), _mean_counts(head))


def _mean_counts(runs: Sequence[RunResult]) -> dict[str, float]:
    taken = [run.ledger for run in runs if run.ledger.samples]
    return {
        f"{name} per sample, whole runs": sum(getattr(item, name) / item.samples for item in taken) / max(1, len(taken))
        for name in ("gradient_steps", "forward_rows", "backward_rows", "reward_calls")
    }


def _grown(base: Mapping[str, float], head: Mapping[str, float]) -> list[Change]:
    """The counts that changed by more than `LARGEST_GROWTH`; what a side lacks it counted 0 times."""
    both = [Change(name, base.get(name, 0.0), head.get(name, 0.0)) for name in {**base, **head}]
    return [item for item in both if abs(item.head - item.base) > LARGEST_GROWTH * item.base]
