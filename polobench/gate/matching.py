"""Cells of two stores, matched by what their study asks for, never by id: an id holds the hash of the code.

An arm is a method variant on a task, device and budget; its cells differ by seed (and by policy, for gradient noise).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from polobench.analysis.collection import Arm
from polobench.core.budget import budget_text
from polobench.core.errors import PoloError
from polobench.core.result import RunResult
from polobench.kinds.table import kind_of
from polobench.store.identity import newest, within_arm

MOST_SHOWN = 3  # differences that a message lists
Key = tuple[int, str]  # seed and, of gradient noise, the policy
Cells = Mapping[Key, RunResult]

# what a study fixes besides the names of its arms; stores that differ in one of them cannot be compared
FIELDS: Mapping[str, Callable[[RunResult], object]] = {
    "method": lambda result: result.method,
    "budget": lambda result: budget_text(result.budget),
    "device": lambda result: result.device,
    "hyper-parameters set by the study": lambda result: result.provenance.get("overrides"),
    "threads": lambda result: result.provenance.get("threads"),
    "data, model and arguments of the task": lambda result: result.provenance.get("task_hash"),
    "floor": lambda result: result.floor,
    "target": lambda result: result.target,
    "probe": lambda result: bool(result.provenance.get("probe")),
}
_MEASURED = ("floor", "target")  # not known of a cell that failed or was skipped early, as what its kind adds


class Incomparable(PoloError):
    """The two stores answer different questions; the text names the fields that differ."""

    exit_code = 3


@dataclass(frozen=True)
class MatchedArm:
    """One arm on both sides; a side that lacks it is empty."""

    arm: Arm
    base: Cells
    head: Cells

    @property
    def common(self) -> list[Key]:
        """Keys of cells that both sides have, whatever their status, in order."""
        return sorted(self.base.keys() & self.head.keys())

    @property
    def is_probe(self) -> bool:
        """Whether the arm's task has a known answer."""
        return any(result.provenance.get("probe") for result in (*self.base.values(), *self.head.values()))


def matched_arms(base: Sequence[RunResult], head: Sequence[RunResult]) -> list[MatchedArm]:
    """The arms of both sides, in a fixed order; where a cell is there twice, its newest result.

    Raises:
        Incomparable: the sides come from different studies, or an arm that both have was asked for in different ways.
    """
    differences = _study_differences(base, head)
    if differences:
        more = f"; and {len(differences) - MOST_SHOWN} more" if len(differences) > MOST_SHOWN else ""
        raise Incomparable(f"the stores cannot be compared: {'; '.join(differences[:MOST_SHOWN])}{more}")
    one, other = cells_by_arm(base), cells_by_arm(head)
    return [MatchedArm(arm, one.get(arm, {}), other.get(arm, {})) for arm in sorted(one.keys() | other.keys())]


def cells_by_arm(results: Iterable[RunResult]) -> dict[Arm, dict[Key, RunResult]]:
    """The newest result for each key of each arm; one that ran counts as newer than one that was skipped."""
    found: dict[Arm, dict[Key, RunResult]] = {}
    for result in newest(results, _within_study):
        found.setdefault(Arm.of(result), {})[within_arm(result)] = result
    return found


def _study_differences(base: Sequence[RunResult], head: Sequence[RunResult]) -> list[str]:
    names = [sorted({str(result.provenance.get("study", "")) for result in side}) for side in (base, head)]
    if names[0] != names[1]:
        return [f"study {', '.join(names[0])!r} against {', '.join(names[1])!r}"]
    sides = [_asked(newest(side, _within_study)) for side in (base, head)]
    return [
        f"{kind} cells of {label} on {task}: {field} {_shown(one[field])} against {_shown(other[field])}"
        for kind, label, task in sorted(sides[0].keys() & sides[1].keys())
        for one, other in [[side[kind, label, task] for side in sides]]
        for field in one
        if _differ(one[field], other.get(field, set()))
    ]


def _within_study(result: RunResult) -> tuple[Arm, Key]:
    return Arm.of(result), within_arm(result)


def _asked(results: Iterable[RunResult]) -> dict[tuple[str, str, str], dict[str, set[str]]]:
    """The values of each field, as text, by kind, label and task."""
    found: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for result in results:
        of_arm = found.setdefault((result.kind, result.label, result.task), {})
        values = {name: value(result) for name, value in FIELDS.items()} | kind_of(result).definition(result)
        for name, value in values.items():
            if result.status == "ok" or (name in FIELDS and name not in _MEASURED):
                of_arm.setdefault(name, set()).add(json.dumps(value, sort_keys=True, default=str))
    return found


def _differ(one: set[str], other: set[str]) -> bool:
    """Whether the values differ; a side on which none is known cannot differ."""
    known, also_known = one - {"null"}, other - {"null"}
    return bool(known) and bool(also_known) and known != also_known


def _shown(values: set[str]) -> str:
    return " and ".join(sorted(value.strip('"') for value in values))
