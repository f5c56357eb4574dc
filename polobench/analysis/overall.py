"""Methods over several tasks: which runs may be put together, and what they say in one number each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.columns import last_of
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

CONTROL, LANGUAGE, PREFERENCES = "control", "language", "preferences"


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
    worlds = _worlds(arms)
    tasks: dict[tuple[str, str, str, str], dict[str, list[RunResult]]] = {}
    for arm, runs in arms.items():
        if all(run.final_score is not None for run in runs) and not any(run.provenance.get("smoke") for run in runs):
            tasks.setdefault((worlds[arm.task], arm.device, arm.task, arm.budget), {})[arm.label] = runs
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


def _worlds(arms: Mapping[Arm, Sequence[RunResult]]) -> dict[str, str]:
    """By task: only a language model says something, and only preference data are read."""
    runs: dict[str, list[RunResult]] = {}
    for arm, found in arms.items():
        runs.setdefault(arm.task, []).extend(found)
    return {task: _world(found) for task, found in runs.items()}


def _world(runs: Sequence[RunResult]) -> str:
    if not any(run.snapshots for run in runs):
        return CONTROL
    return PREFERENCES if any(run.ledger.samples_read for run in runs) else LANGUAGE


@dataclass(frozen=True)
class Overall:
    """One label over the tasks of a group.

    Attributes:
        n: runs at the place with the fewest.
        worst: the run with the lowest score.
        cpu_seconds, gradient_steps: of a run, as means over runs and then over tasks.
        sampled, greedy: final held-out returns of actions drawn from the policy and of its likeliest ones, in the mean
            over tasks, where runs know both; NaN elsewhere.
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
    worst: RunResult
    cpu_seconds: float
    gradient_steps: float
    sampled: float
    greedy: float


def overall(group: Comparable) -> list[Overall]:
    """Every label of a group, the largest mean first."""
    found = [_overall(group, label) for label in group.runs]
    return sorted(found, key=lambda item: (-item.mean.value, item.label))


def mean_over_tasks(group: Comparable, label: str, of: Callable[[RunResult], float]) -> float:
    """The mean over runs, and then over the tasks of a group."""
    return float(np.mean([np.mean([of(run) for run in runs]) for runs in group.runs[label]]))


def _sampled(run: RunResult) -> float:
    return run.final_return if math.isfinite(_greedy(run)) else math.nan


def _greedy(run: RunResult) -> float:
    return last_of(run, "heldout_greedy_return")


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
        worst=min(runs, key=lambda run: (run.final_score or 0.0, run.task, run.seed)),
        cpu_seconds=mean_over_tasks(group, label, lambda run: run.ledger.cpu_seconds),
        gradient_steps=mean_over_tasks(group, label, lambda run: run.ledger.gradient_steps),
        sampled=mean_over_tasks(group, label, _sampled),
        greedy=mean_over_tasks(group, label, _greedy),
    )
