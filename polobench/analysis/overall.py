"""Methods over several tasks: which runs may be put together, what each says in one number, and which to use when."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from polobench.analysis.collection import (
    Collection,
    has_smoke_run,
    looks_of,
    more_than_declared,
    of_several_processors,
)
from polobench.analysis.columns import column, finite, on_the_curve, speaks, value_of
from polobench.analysis.curves import return_curve
from polobench.analysis.frame import solved
from polobench.analysis.frontier import GOLD_REWARD, KL, UNIT, line_of, place_of
from polobench.analysis.reliability import area_under_curve, fell_below_start, scores
from polobench.analysis.statistics.aggregates import (
    Estimate,
    aggregate,
    iqm,
    mean_score,
    tail_score,
)
from polobench.analysis.statistics.hypothesis import (
    CEILING,
    EQUIVALENT,
    OPEN,
    Contrast,
    against_best,
    stratified_mean_interval,
)
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS, Array, Interval, wilson_interval
from polobench.core.result import RunResult

CONTROL, LANGUAGE, PREFERENCES = "control", "language", "preferences"
SAMPLED, OWN = "heldout_sampled_return", "heldout_own_return"
ENOUGH_SHARE = 0.75  # of the seeds of the arm with the most: with fewer an arm is one of a sweep
COSTS = ("cpu_seconds", "gradient_steps", "backward_rows")


@dataclass(frozen=True)
class Comparable:
    """Tasks of one world with a target, on which the same labels ran on one device."""

    world: str
    device: str
    places: tuple[tuple[str, str], ...]  # task and budget of each
    runs: Mapping[str, tuple[list[RunResult], ...]]  # by label, the runs of each place

    def scores(self, label: str) -> list[Array]:
        """`[n]` final scores for each place, failed runs at the floor."""
        return [np.array([run.final_score for run in runs], dtype=np.float64) for runs in self.runs[label]]


def comparables(collection: Collection) -> list[Comparable]:
    """Every largest such group of the learning arms, most tasks first; a smoke run has no part.

    A task is in a group once: of two budgets the larger is in the first group, since a seed's shorter run is the
    beginning of its longer one and tells nothing anew.
    Tasks that are ways to one preference problem are one place. There the arms with at least three quarters of the
    most seeds are compared, of which the others are sweeps, and of a line the arm that is named as the line itself, if
    there is one; an arm that sees the gold reward is none of them.
    """
    arms = collection.learning
    of_task: dict[str, list[RunResult]] = {}
    for arm, runs in arms.items():
        of_task.setdefault(arm.task, []).extend(runs)
    worlds = {task: _world(runs) for task, runs in of_task.items()}
    tasks: dict[tuple[str, str, str, str], dict[str, list[RunResult]]] = {}
    for arm, runs in arms.items():
        place, feedback = place_of(runs[0])
        if feedback != GOLD_REWARD and all(run.final_score is not None for run in runs) and not has_smoke_run(runs):
            tasks.setdefault((worlds[arm.task], arm.device, place, arm.budget), {})[arm.label] = runs
    groups: dict[tuple[str, str, tuple[str, ...], int], dict[tuple[str, str], dict[str, list[RunResult]]]] = {}
    turns: Counter[tuple[object, ...]] = Counter()
    for (world, device, task, budget), found in sorted(tasks.items(), key=_larger_budgets_first):
        if world == PREFERENCES:
            most = max(map(len, found.values()))
            found = {label: runs for label, runs in found.items() if len(runs) >= ENOUGH_SHARE * most}
            found = {
                label: runs for label, runs in found.items() if label == line_of(label) or line_of(label) not in found
            }
        labels = tuple(sorted(found))
        seen = world, device, labels, task
        groups.setdefault((world, device, labels, turns[seen]), {})[task, budget] = found
        turns[seen] += 1
    return [
        Comparable(
            world, device, tuple(places), {label: tuple(found[label] for found in places.values()) for label in labels}
        )
        for (world, device, labels, _), places in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _larger_budgets_first(item: tuple[tuple[str, str, str, str], dict[str, list[RunResult]]]) -> tuple[object, ...]:
    (world, device, task, budget), found = item
    return world, device, task, -max(run.ledger.samples for runs in found.values() for run in runs), budget


def _world(runs: Sequence[RunResult]) -> str:
    """Only a language model says something, and only preference data are read."""
    if not any(map(speaks, runs)):
        return CONTROL
    return PREFERENCES if any(run.ledger.samples_read or run.unit == UNIT for run in runs) else LANGUAGE


@dataclass(frozen=True)
class Overall:
    """One label over the tasks of a group."""

    label: str
    n: int  # runs at the place with the fewest
    runs: int  # all of them
    mean: Estimate
    iqm: Estimate
    tail: Estimate  # the mean of the worst quarter of each task's runs (conditional value at risk), over tasks
    solved: int  # of all runs
    solved_interval: Interval  # Wilson's, of the share
    worst: RunResult  # the run with the lowest score
    cpu_seconds: float  # per run, as means over runs and then over tasks
    gradient_steps: float
    backward_rows: float
    at_equal_seconds: float  # the score after as many CPU seconds as all runs of the group have used
    is_annealed: bool  # the learning rate falls over the budget, so earlier points of a curve are not of shorter runs
    beside_others: int  # runs that had no machine to themselves, whose seconds are too many
    below_start: int  # runs whose last evaluation is below their first
    evaluation_error: float  # the standard error of a run's final score, the largest of the runs
    sampled: float  # the final score of drawn actions, in language at temperature 1
    at_own_temperature: float  # the same at the temperature that a language policy keeps; NaN where that is 1
    untrained: float  # the score of greedy ones before the first update
    kl: float  # to the checkpoint, nats per completion; NaN where it is not measured


def horizons(group: Comparable) -> list[float]:
    """For each task the CPU seconds that every run has used at least that ended ok and learned something."""
    every = [[run for runs in found for run in runs] for found in zip(*group.runs.values(), strict=True)]
    learned = [[run for run in runs if run.status == "ok" and run.ledger.gradient_steps] for runs in every]
    return [min((run.ledger.cpu_seconds for run in runs), default=0.0) for runs in learned]


def score_at(run: RunResult, end: float) -> float:
    """The score on the learning curve after so many CPU seconds."""
    if run.target is None or end <= 0:
        return math.nan
    return float(on_the_curve(run, return_curve(run, "cpu_seconds", np.array([end])))[0])


def _score_of(run: RunResult, name: str, place: int = -1) -> float:
    return float(on_the_curve(run, np.array([value_of(run, name, place)]))[0])


def _sampled_score(run: RunResult) -> float:
    """Of sampled actions at the end, on the scale of greedy ones; of a failed run its score, or the lowest sampled."""
    if run.final_score is None or run.status == "ok" or SAMPLED not in run.curve:
        return _score_of(run, SAMPLED)
    return float(min([run.final_score, *finite(on_the_curve(run, column(run.curve, SAMPLED)).tolist())]))


def evaluation_error(run: RunResult) -> float:
    """The standard error of the final score over the episodes of the final evaluation; NaN where unknown."""
    episodes = run.provenance.get("final_episodes")
    if run.target is None or not episodes:
        return math.nan
    return run.final_return_std / (run.target - run.floor) / math.sqrt(episodes)


def overall(group: Comparable) -> list[Overall]:
    """Every label of a group, the largest mean first."""
    found = [_overall(group, label) for label in group.runs]
    return sorted(found, key=lambda item: (-item.mean.value, item.label))


def _mean(scores: Sequence[Array]) -> Estimate:
    """The mean over tasks with Student's interval, as of one task alone."""
    return Estimate(float(mean_score(scores)), stratified_mean_interval(scores))


def mean_over_tasks(group: Comparable, label: str, of: Callable[[RunResult], float]) -> float:
    """The mean over runs, and then over the tasks of a group."""
    return float(np.mean([np.mean([of(run) for run in runs]) for runs in group.runs[label]]))


def _overall(group: Comparable, label: str) -> Overall:
    scores, places = group.scores(label), group.runs[label]
    runs = [run for place in places for run in place]
    n_solved = sum(bool(solved(run)) for run in runs)
    costs = {name: mean_over_tasks(group, label, attrgetter(f"ledger.{name}")) for name in COSTS}
    return Overall(
        label=label,
        n=min(map(len, scores)),
        runs=len(runs),
        mean=_mean(scores),
        iqm=aggregate(scores, iqm),
        tail=aggregate(scores, tail_score),
        solved=n_solved,
        solved_interval=wilson_interval(n_solved, len(runs)),
        worst=min(runs, key=lambda run: (run.final_score or 0.0, run.task, run.seed)),
        **costs,
        at_equal_seconds=mean_score(_over_seconds(group)[label]),
        is_annealed=any(run.hyperparameters.get("learning_rate_schedule", "constant") != "constant" for run in runs),
        beside_others=sum(run.ran_beside_others for run in runs),
        below_start=sum(map(fell_below_start, runs)),
        evaluation_error=float(max(finite(map(evaluation_error, runs)), default=math.nan)),
        sampled=mean_over_tasks(group, label, _sampled_score),
        at_own_temperature=mean_over_tasks(group, label, lambda run: _score_of(run, OWN)),
        untrained=mean_over_tasks(group, label, lambda run: _score_of(run, "return_mean", 0)),
        kl=mean_over_tasks(group, label, lambda run: value_of(run, KL)),
    )


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
    def refused(self) -> str:
        """Why some were not tested against the best; empty where all were, or what was not is decided all the same."""
        contrasts = [item.contrast for item in self.items if item.contrast]
        return next((item.reason for item in contrasts if item.word == OPEN and item.reason), "")

    @property
    def is_conclusive(self) -> bool:
        """Whether there are seeds enough to conclude anything."""
        return self.n >= CONCLUSIVE_SEEDS


def _final_scores(group: Comparable) -> Mapping[str, Sequence[Array]]:
    return {label: group.scores(label) for label in group.runs}


def _sampled_scores(group: Comparable) -> Mapping[str, Sequence[Array]]:
    return _each_run(group, lambda run, _: _sampled_score(run))


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
    UseCase("few samples, language", LANGUAGE, "mean score over the budget of samples", _over_samples),
    UseCase("little CPU time, language", LANGUAGE, "score after equal CPU seconds", _over_seconds, at_equal_cost=True),
    UseCase("greedy answers, preferences", PREFERENCES, "final score", _final_scores),
    UseCase("sampled answers, preferences", PREFERENCES, "final score of sampled answers", _sampled_scores),
    UseCase(
        "little CPU time, preferences", PREFERENCES, "score after equal CPU seconds", _over_seconds, at_equal_cost=True
    ),
)


def standings(groups: Sequence[Comparable], case: UseCase) -> Standings | None:
    """The labels of the world's largest group with something to compare; None where there is none, or no number."""
    group = next((group for group in groups if group.world == case.world and len(group.runs) > 1), None)
    if group is None or all(math.isnan(case.statistic(numbers)) for numbers in case.numbers(group).values()):
        return None
    return standings_of(group, case)


def standings_of(group: Comparable, case: UseCase) -> Standings:
    """The labels of one group by a use case."""
    numbers = case.numbers(group)
    values = {label: np.nan_to_num(case.statistic(found), nan=-math.inf) for label, found in numbers.items()}
    ordered = sorted(numbers.items(), key=lambda item: (-values[item[0]], item[0]))
    tested = None if case.statistic is mean_score else case.statistic
    arms = [runs for places in group.runs.values() for runs in places]
    looks = looks_of(run for runs in arms for run in runs)
    refused = next(filter(None, map(more_than_declared, arms)), _processors_differ(group) if case.at_equal_cost else "")
    contrasts = {item.other: item for item in against_best(ordered, tested, looks=looks, refused=refused)}
    items = tuple(
        Standing(
            label,
            _mean(values) if case.statistic is mean_score else aggregate(values, case.statistic),
            mean_over_tasks(group, label, lambda run: run.ledger.cpu_seconds),
            mean_over_tasks(group, label, lambda run: run.ledger.gradient_steps),
            contrasts.get(label),
        )
        for label, values in ordered
    )
    return Standings(case, group, items, min(len(task) for values in numbers.values() for task in values))


def _processors_differ(group: Comparable) -> str:
    """Why CPU seconds of a group do not compare; empty where each task ran on one processor."""
    for place, (task, _) in enumerate(group.places):
        if of_several_processors(run for found in group.runs.values() for run in found[place]):
            return f"the runs on {task} are of different processors, whose seconds do not compare"
    return ""


FINAL_SCORE = UseCase("final score", "", "final score", _final_scores)
