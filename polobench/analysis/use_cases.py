"""What a reader may care about, and which method to use then: the standings of each use case, from a store alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polobench.analysis.collection import looks_of, more_than_declared
from polobench.analysis.overall import CONTROL, LANGUAGE, PREFERENCES, Comparable, horizons, mean_over_tasks, score_at
from polobench.analysis.reliability import area_under_curve, scores
from polobench.analysis.statistics.aggregates import Estimate, aggregate, mean_score, tail_score
from polobench.analysis.statistics.hypothesis import CEILING, EQUIVALENT, OPEN, Contrast, against_best
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS, Array
from polobench.core.result import RunResult

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
    def undecided(self) -> list[Standing]:
        """Those of which the tests know neither that they are worse than the best nor that they are as good."""
        return [item for item in self.items[1:] if item.contrast is None or item.contrast.word == OPEN]

    @property
    def equal(self) -> list[Standing]:
        """The best and those that the tests call equivalent, or that leave no room above; the cheapest first."""
        level = [item for item in self.items[1:] if item.contrast and item.contrast.word in (CEILING, EQUIVALENT)]
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
    return _each_run(group, lambda run, place: score_at(run, ends[place]))


USE_CASES = (
    UseCase("few samples, control", CONTROL, "mean score over the budget of samples", _over_samples),
    UseCase("little CPU time, control", CONTROL, "score after equal CPU seconds", _over_seconds, at_equal_cost=True),
    UseCase("worst-case seeds, control", CONTROL, "final score of the worst quarter", _final_scores, tail_score),
    UseCase("language, checkable answers", LANGUAGE, "final score", _final_scores),
    UseCase("little CPU time, language", LANGUAGE, "score after equal CPU seconds", _over_seconds, at_equal_cost=True),
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
    arms = [runs for places in group.runs.values() for runs in places]
    looks = looks_of(run for runs in arms for run in runs)
    refused = next(filter(None, map(more_than_declared, arms)), "")
    contrasts = {item.other: item for item in against_best(ordered, tested, looks=looks, refused=refused)}
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
