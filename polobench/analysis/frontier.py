"""A preference problem solved in several ways: what is gained at which distance from the checkpoint, and at which cost.

Sources: Rafailov et al. 2023, "Direct Preference Optimization", figure 2 (left), the frontier of reward and KL; Gao et
al. 2023, "Scaling Laws for Reward Model Overoptimization", figure 1, learned beside gold reward.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.columns import column, mean_of, value_of
from polobench.analysis.language import snapshot
from polobench.analysis.statistics.aggregates import Estimate
from polobench.analysis.statistics.intervals import Array, mean_interval
from polobench.core.result import RunResult

UNIT = "gold reward of greedy answers"  # of the tasks that are ways to one problem
GOLD_REWARD, REWARD_MODEL = "gold reward", "reward model"
FEEDBACKS = {"-learned": REWARD_MODEL, "-gold": GOLD_REWARD}  # by what is behind a task's name; else pairs
STRENGTHS = ("kl_coef", "beta")  # the pull to the checkpoint; of a method that has both, the first one
GOLD, LEARNED, KL = "heldout_sampled_return", "heldout_learned_return", "heldout_response_kl"
BEST_OF = (4, 16)
BINS = 10
KLS = (0.5, 1.0, 1.5, 2.0, 5.0)  # nats per completion, at which lines are compared
FEWEST_PULLS = 3  # of a line between which gold reward is read
WIDEST_GAP = 1.0  # between the roots of the KL [nats] of two neighbours among them
Runs = Sequence[RunResult]
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where an arm ended: means over its runs, which failed ones leave.

    `problem` is the task whose pairs it is about, `line` the arms that differ by their pull to the checkpoint alone.
    """

    arm: Arm
    problem: str
    feedback: str
    line: str
    strength: float
    n: int
    failed: int
    kl: Estimate  # nats per completion, sampled at temperature 1
    gold: Estimate  # of sampled completions
    greedy: Estimate
    accuracy: Estimate  # on held-out pairs, by log-probability
    implicit_accuracy: Estimate  # by log-ratio to the checkpoint


@dataclass(frozen=True)
class AtKL:
    """The gold reward of a line at a KL, so that methods are compared at an equal distance from the checkpoint.

    It is read between the settings of each seed, from the checkpoint on: no setting is picked, so that noise cannot be.
    Between two settings gold is taken to be a straight line over the root of the KL, in which it is nearly one (Gao et
    al. 2023, section 3.1); over the KL itself it bends, so that a wide gap would cost a method. `gold` is NaN where the
    line of a seed ends before that KL, or where the settings on both sides of it are further apart than `WIDEST_GAP`.
    """

    problem: str
    feedback: str
    line: str
    kl: float
    n: int  # seeds
    gold: Estimate  # of sampled completions


@dataclass(frozen=True)
class Cost:
    """What a run of an arm took, in means."""

    arm: Arm
    feedback: str
    read: float  # tokens of the pairs, those that the reward model was trained on included
    generated: float
    reward_tokens: float
    reward_model_seconds: float  # CPU seconds of the reward model's training; NaN where nothing is known of it
    cpu_seconds: float
    gradient_steps: float
    processor: str  # on which its seconds are; several are named one after another


@dataclass(frozen=True)
class Pursuit:
    """Learned beside gold reward along training, at the evaluations that all runs of an arm have; `[k]` means.

    `fall` is the gold reward at its peak less that at the end. Each run's peak is where the other runs' mean is the
    highest, so that noise makes no fall.
    """

    arm: Arm
    samples: Array
    kl: Array
    gold: Array
    learned: Array
    fall: Estimate
    rise: float  # of the learned reward meanwhile

    @property
    def is_overoptimised(self) -> bool:
        """Gold reward fell surely while the learned one rose."""
        return self.fall.interval.low > 0 and self.rise > 0


@dataclass(frozen=True)
class RewardModels:
    """The reward models of a task's runs on the same held-out pairs, one per seed."""

    task: str
    n: int
    accuracy: Estimate
    gold_accuracy: Estimate
    calibration_error: Estimate
    predicted: Array  # by bin: mean predicted probability, share observed, pairs
    observed: Array
    counts: Array


@dataclass(frozen=True)
class BestOf:
    """The checkpoint's best of n answers, as the task's reward chooses; its KL is at most log n - (n - 1) / n."""

    problem: str
    feedback: str
    n: int
    kl: float
    gold: Estimate


def problem_of(task: str) -> tuple[str, str]:
    """The problem that a task is a way to, and what it gives to a method."""
    for mark, feedback in FEEDBACKS.items():
        if mark in task:
            return task.replace(mark, "", 1), feedback
    return task, "pairs"


def place_of(run: RunResult) -> tuple[str, str]:
    """Where a run is compared: the problem that its task is a way to, and the feedback; of others the task and ""."""
    return problem_of(run.task) if run.unit == UNIT else (run.task, "")


def ways(collection: Collection) -> dict[Arm, list[RunResult]]:
    """The arms that are ways to such a problem."""
    return {arm: runs for arm, runs in collection.learning.items() if runs[0].unit == UNIT}


def places(collection: Collection) -> list[Place]:
    """By problem, feedback, line and strength."""
    found = [_place(arm, runs) for arm, runs in ways(collection).items()]
    return sorted(found, key=lambda item: (item.problem, item.feedback, item.line, item.strength))


def line_of(label: str) -> str:
    """The method in a label, whose rest says how strong the pull is."""
    return label.partition(",")[0]


def at_equal_kl(collection: Collection) -> list[AtKL]:
    """Each line of which seeds have `FEWEST_PULLS` settings that ended ok, at each of `KLS`."""
    lines: dict[tuple[str, str, str], dict[int, list[RunResult]]] = {}
    for arm, runs in ways(collection).items():
        seeds = lines.setdefault((*problem_of(arm.task), line_of(arm.label)), {})
        for run in runs:
            seeds.setdefault(run.seed, []).append(run)
    found = []
    for line, seeds in lines.items():
        ended = [[run for run in runs if run.status == "ok"] for runs in seeds.values()]
        if swept := [runs for runs in ended if len(runs) >= FEWEST_PULLS]:
            gold = np.array([_gold_at_each_kl(runs) for runs in swept])
            found += [AtKL(*line, kl, len(gold), estimated(gold[:, at].tolist())) for at, kl in enumerate(KLS)]
    return found


def _gold_at_each_kl(runs: Runs) -> Array:
    """`[K]` of the runs of one seed."""
    points = [(0.0, value_of(runs[0], GOLD, 0)), *((value_of(run, KL), value_of(run, GOLD)) for run in runs)]
    roots, gold = np.array(sorted((math.sqrt(max(0.0, kl)), gold) for kl, gold in points)).T
    asked = np.sqrt(KLS)
    above = np.clip(np.searchsorted(roots, asked), 1, len(roots) - 1)
    is_near = roots[above] - roots[above - 1] <= WIDEST_GAP
    return np.where(is_near, np.interp(asked, roots, gold, right=math.nan), math.nan)


def _place(arm: Arm, runs: Runs) -> Place:
    problem, feedback = problem_of(arm.task)
    ended = [run for run in runs if run.status == "ok"]
    given = (ended or runs)[0].hyperparameters
    strength = next((float(given[name]) for name in STRENGTHS if name in given), math.nan)
    known = (KL, GOLD, "return_mean", "heldout_accuracy", "heldout_accuracy_implicit")
    ends = [estimated([value_of(run, name) for run in ended]) for name in known]
    return Place(arm, problem, feedback, line_of(arm.label), strength, len(ended), len(runs) - len(ended), *ends)


def estimated(values: Sequence[float]) -> Estimate:
    """The mean with Student's interval."""
    return Estimate(mean_of(values), mean_interval(values))


def costs(collection: Collection) -> list[Cost]:
    """An arm each."""
    return [_cost(arm, runs) for arm, runs in ways(collection).items()]


def _cost(arm: Arm, runs: Runs) -> Cost:
    names = ("samples_read", "samples_generated", "reward_tokens", "cpu_seconds", "gradient_steps")
    read, generated, tokens, seconds, steps = (mean_of(getattr(run.ledger, name) for run in runs) for name in names)
    feedback = problem_of(arm.task)[1]
    absent = math.nan if feedback == REWARD_MODEL else 0.0  # a run that failed before may not say it
    fitted = mean_of(_reward_model(run).get("cpu_seconds", absent) for run in runs)
    processors = sorted({str(run.provenance.get("cpu_model", "")) for run in runs})
    return Cost(arm, feedback, read, generated, tokens, fitted, seconds, steps, ", ".join(filter(None, processors)))


def _reward_model(run: RunResult) -> Mapping[str, Any]:
    found = snapshot(run, "before").get("reward_model", {})
    return found if isinstance(found, dict) else {}


def pursuits(collection: Collection) -> list[Pursuit]:
    """Of the arms that follow a learned reward."""
    return [item for arm, runs in ways(collection).items() if (item := _pursuit(arm, runs)) is not None]


def _pursuit(arm: Arm, runs: Runs) -> Pursuit | None:
    known = [run for run in runs if run.status == "ok" and LEARNED in run.curve]
    if not any((column(run.curve, KL) > 0).any() for run in known):  # what does not move follows no reward
        return None
    rows = min(len(run.curve) for run in known)
    picked = [np.append(np.arange(rows - 1), len(run.curve) - 1) for run in known]  # the last row is the end
    samples, kl, gold, learned = (
        np.stack([column(run.curve, name)[rows] for run, rows in zip(known, picked)])
        for name in ("samples", KL, GOLD, LEARNED)
    )
    total = gold.sum(axis=0)
    peaks = [int(np.argmax(total - own if len(gold) > 1 else own)) for own in gold]
    falls = [float(own[peak] - own[-1]) for own, peak in zip(gold, peaks)]
    rise = mean_of(float(own[-1] - own[peak]) for own, peak in zip(learned, peaks))
    samples, kl, gold, learned = (values.mean(axis=0) for values in (samples, kl, gold, learned))
    return Pursuit(arm, samples, kl, gold, learned, estimated(falls), rise)


def _one_per_seed(collection: Collection, of: Callable[[RunResult], T]) -> dict[str, list[T]]:
    """By task, what is the same for all arms of a seed: of the first run of each that has it."""
    by_task: dict[str, dict[int, T]] = defaultdict(dict)
    for arm, runs in ways(collection).items():
        for run in runs:
            if found := of(run):
                by_task[arm.task].setdefault(run.seed, found)
    return {task: list(seeds.values()) for task, seeds in by_task.items()}


def reward_models(collection: Collection) -> list[RewardModels]:
    """One per task."""
    return [_models(task, found) for task, found in _one_per_seed(collection, _reward_model).items()]


def _models(task: str, found: Sequence[Mapping[str, Any]]) -> RewardModels:
    names = ("accuracy", "gold_accuracy", "calibration_error")
    accuracy, gold_accuracy, error = (estimated([float(item[name]) for item in found]) for name in names)
    predicted, observed, counts = (
        np.concatenate([np.asarray(item[name], dtype=np.float64) for item in found])
        for name in ("predicted", "observed", "counts")
    )
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    pairs = np.bincount(bins, counts, BINS).astype(np.float64)
    held = pairs > 0
    predicted, observed = (
        np.bincount(bins, counts * values, BINS)[held] / pairs[held] for values in (predicted, observed)
    )
    return RewardModels(task, len(found), accuracy, gold_accuracy, error, predicted, observed, pairs[held])


def best_of(collection: Collection) -> list[BestOf]:
    """Of the checkpoint, measured where each run begins."""
    found = []
    for task, runs in _one_per_seed(collection, lambda run: run).items():
        for n in BEST_OF:
            values = [value_of(run, f"heldout_best_of_{n}", 0) for run in runs]
            if known := [value for value in values if not math.isnan(value)]:
                found.append(BestOf(*problem_of(task), n, math.log(n) - (n - 1) / n, estimated(known)))
    return found
