"""What a reader may care about, and which method to use then: the standings of each use case, from a store alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polobench.analysis.curves import return_curve
from polobench.analysis.overall import CONTROL, LANGUAGE, PREFERENCES, Comparable, mean_over_tasks
from polobench.analysis.reliability import area_under_curve, scores
from polobench.analysis.statistics.aggregates import Estimate, aggregate, mean_score, tail_score
from polobench.analysis.statistics.hypothesis import Contrast, against_best
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS, Array
from polobench.core.result import RunResult

POINTS = 121
Numbers = Callable[[Comparable], Mapping[str, Sequence[Array]]]  # by label, of the runs of each task


@dataclass(frozen=True)
class UseCase:
    """Something to care about in one world."""

    name: str
    world: str
    what: str  # the number that decides, in a few words
    numbers: Numbers
    statistic: Callable[[Sequence[Array]], Any] = mean_score  # of the runs' numbers over the tasks
    at_equal_cost: bool = False  # a cheaper method has no advantage left


@dataclass(frozen=True)
class Standing:
    """One label in a use case, with what a run costs on average."""

    label: str
    value: Estimate
    cpu_seconds: float
    gradient_steps: float
    contrast: Contrast[str] | None  # of the best one with it; None for the best one, and where numbers are not finite


@dataclass(frozen=True)
class Standings:
    """The labels of a use case, the best first; `n` is the number of seeds on the task with the fewest."""

    case: UseCase
    group: Comparable
    items: tuple[Standing, ...]
    n: int

    @property
    def best(self) -> Standing:
        return self.items[0]

    @property
    def unseparated(self) -> list[Standing]:
        """Those that the tests do not tell from the best, also for lack of a test."""
        return [item for item in self.items[1:] if item.contrast is None or not item.contrast.is_separated]

    @property
    def equal(self) -> list[Standing]:
        """The best and those that neither a test nor a hundredth of a score tells from it; the cheapest first."""
        shown = round(self.best.value.value, 2)
        level = [item for item in self.unseparated if round(item.value.value, 2) == shown]
        return sorted([self.best, *level], key=lambda item: item.cpu_seconds)

    @property
    def is_conclusive(self) -> bool:
        """Whether there are seeds enough to conclude anything."""
        return self.n >= CONCLUSIVE_SEEDS


def _final_scores(group: Comparable) -> Mapping[str, Sequence[Array]]:
    return {label: group.scores(label) for label in group.runs}


def _each_run(group: Comparable, of: Callable[[RunResult, int], float]) -> Mapping[str, Sequence[Array]]:
    """A number of each run, which may depend on the place of its task."""
    return {
        label: [np.array([of(run, place) for run in runs]) for place, runs in enumerate(found)]
        for label, found in group.runs.items()
    }


def _over_samples(group: Comparable) -> Mapping[str, Sequence[Array]]:
    return _each_run(group, lambda run, _: area_under_curve(scores(run)))


def _over_seconds(group: Comparable) -> Mapping[str, Sequence[Array]]:
    ends = horizons(group)
    return _each_run(group, lambda run, place: _early_score(run, ends[place]))


def horizons(group: Comparable) -> list[float]:
    """For each task the CPU seconds that every run that ended ok has used at least."""
    every = [[run for runs in found for run in runs] for found in zip(*group.runs.values(), strict=True)]
    return [min((run.ledger.cpu_seconds for run in runs if run.status == "ok"), default=0.0) for runs in every]


def _early_score(run: RunResult, end: float) -> float:
    """The mean score over the first CPU seconds."""
    if run.target is None or end <= 0:
        return math.nan
    curve = return_curve(run, "cpu_seconds", np.linspace(0.0, end, POINTS))
    return float((curve.mean() - run.floor) / (run.target - run.floor))


USE_CASES = (
    UseCase("few samples, control", CONTROL, "mean score over the budget of samples", _over_samples),
    UseCase(
        "little CPU time, control", CONTROL, "mean score over equal CPU seconds", _over_seconds, at_equal_cost=True
    ),
    UseCase("worst-case seeds, control", CONTROL, "final score of the worst quarter", _final_scores, tail_score),
    UseCase("language, checkable answers", LANGUAGE, "final score", _final_scores),
    UseCase("preference data", PREFERENCES, "final score", _final_scores),
)


def standings(groups: Sequence[Comparable], case: UseCase) -> Standings | None:
    """The labels of the world's largest group with something to compare; None where there is none."""
    group = next((group for group in groups if group.world == case.world and len(group.runs) > 1), None)
    return None if group is None else standings_of(group, case)


def standings_of(group: Comparable, case: UseCase) -> Standings:
    """The labels of one group by a use case."""
    numbers = case.numbers(group)
    values = {label: np.nan_to_num(case.statistic(found), nan=-math.inf) for label, found in numbers.items()}
    ordered = sorted(numbers.items(), key=lambda item: (-values[item[0]], item[0]))
    tested = None if case.statistic is mean_score else case.statistic
    contrasts = {item.other: item for item in against_best(ordered, tested)}
    items = tuple(
        Standing(
            label,
            aggregate(values, case.statistic),
            mean_over_tasks(group, label, lambda run: run.ledger.cpu_seconds),
            mean_over_tasks(group, label, lambda run: run.ledger.gradient_steps),
            contrasts.get(label),
        )
        for label, values in ordered
    )
    return Standings(case, group, items, min(len(task) for values in numbers.values() for task in values))


FINAL_SCORE = UseCase("final score", "", "final score", _final_scores)
