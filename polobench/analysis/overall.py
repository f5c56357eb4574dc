"""Methods over several tasks: which runs may be put together, and what they say in one number each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from polobench.analysis.collection import Collection
from polobench.analysis.frame import solved
from polobench.analysis.statistics.aggregates import (
    Estimate,
    aggregates,
    iqm,
    mean_score,
    median_score,
    optimality_gap,
    tail_score,
)
from polobench.analysis.statistics.intervals import Array, Interval, wilson_interval
from polobench.core.result import RunResult

CONTROL, LANGUAGE = "control", "language"


@dataclass(frozen=True)
class Comparable:
    """Tasks of one world with a target, on which the same labels ran on one device.

    Attributes:
        places: task and budget of each.
        runs: by label, a list of runs for each place.
    """

    world: str
    device: str
    places: tuple[tuple[str, str], ...]
    runs: Mapping[str, tuple[list[RunResult], ...]]

    def scores(self, label: str) -> list[Array]:
        """`[n]` final scores for each place, failed runs at the floor."""
        return [np.array([run.final_score for run in runs], dtype=np.float64) for runs in self.runs[label]]


def comparables(collection: Collection) -> list[Comparable]:
    """Every largest such group of the learning arms, most tasks first; a smoke run has no part."""
    arms = collection.of_kind("learning")
    speaking = {arm.task for arm, runs in arms.items() if any(run.snapshots for run in runs)}
    tasks: dict[tuple[str, str, str, str], dict[str, list[RunResult]]] = {}
    for arm, runs in arms.items():
        world = LANGUAGE if arm.task in speaking else CONTROL  # only a language model says something
        if all(run.final_score is not None for run in runs) and not any(run.provenance.get("smoke") for run in runs):
            tasks.setdefault((world, arm.device, arm.task, arm.budget), {})[arm.label] = runs
    groups: dict[tuple[str, str, tuple[str, ...]], list[tuple[tuple[str, str], dict[str, list[RunResult]]]]] = {}
    for (world, device, task, budget), found in sorted(tasks.items()):
        groups.setdefault((world, device, tuple(sorted(found))), []).append(((task, budget), found))
    return [
        Comparable(
            world,
            device,
            tuple(place for place, _ in members),
            {label: tuple(found[label] for _, found in members) for label in labels},
        )
        for (world, device, labels), members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


@dataclass(frozen=True)
class Overall:
    """One label over the tasks of a group.

    Attributes:
        n: runs at the place with the fewest.
        solved: of all `runs`; with Wilson's interval of the share.
        tail: the mean of the worst quarter of each task's runs (conditional value at risk over runs), over tasks.
    """

    label: str
    n: int
    runs: int
    mean: Estimate
    median: Estimate
    iqm: Estimate
    optimality_gap: Estimate
    tail: Estimate
    solved: int
    solved_interval: Interval


def overall(group: Comparable) -> list[Overall]:
    """Every label of a group, the largest mean first."""
    found = [_overall(group, label) for label in group.runs]
    return sorted(found, key=lambda item: (-item.mean.value, item.label))


def _overall(group: Comparable, label: str) -> Overall:
    scores = group.scores(label)
    runs = [run for place in group.runs[label] for run in place]
    n_solved = sum(bool(solved(run)) for run in runs)
    mean, median, middle, gap, tail = aggregates(scores, (mean_score, median_score, iqm, optimality_gap, tail_score))
    return Overall(
        label=label,
        n=min(map(len, scores)),
        runs=len(runs),
        mean=mean,
        median=median,
        iqm=middle,
        optimality_gap=gap,
        tail=tail,
        solved=n_solved,
        solved_interval=wilson_interval(n_solved, len(runs)),
    )
