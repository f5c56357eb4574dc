"""What is measured of a method: each measure defined once, with its source. claims.toml names them.

A measure turns the cells of one arm into numbers, one per observation: a run, or a timed round of throughput.
Observations are averaged within a task and then over tasks.

Ratio measures (costs) are kept as natural logarithms, so that a difference of means is the logarithm of a ratio of
geometric means; a table shows the exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from polobench.analysis.collection import (
    Arm,
    Collection,
    has_smoke_run,
    looks_of,
    more_than_declared,
    of_several_processors,
)
from polobench.analysis.columns import column, finite, mean_of, speaks, value_of
from polobench.analysis.frontier import GOLD_REWARD, REWARD_MODEL, place_of
from polobench.analysis.reliability import (
    Scores,
    area_under_curve,
    collapsed,
    drawdown_of_noise,
    largest_drawdown,
    scores,
)
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.tuning import Trial, gains, trials_of
from polobench.core.result import RunResult
from polobench.kinds.gradient_noise import GradientNoise
from polobench.kinds.learning import Learning
from polobench.kinds.throughput import Throughput

STRETCHES = 10
END_SHARE = 0.25  # of the updates: what a mean at the end is over
TUNING = "tuning trials"  # in place of a kind of cells
# what decides how noisy a gradient is beside its estimator: the discount, lambda, and how well the critic is fitted
NOISE_SETTINGS = ("gamma", "gae_lambda", "normalize_rewards")
CRITIC_SETTINGS = ("critic_learning_rate", "critic_epochs", "critic_minibatch_size")
Place = tuple[str, str, str]  # task (of its ways one preference problem), budget, device
Policy = tuple[str, int, float]  # at which gradients are taken: trainer, its seed, and the stage


class Cells:
    """The cells of one place, with what several measures read of them made once."""

    def __init__(self, runs: Sequence[RunResult]) -> None:
        self.runs = runs

    @cached_property
    def scores(self) -> list[Scores]:
        """Of each run."""
        return [scores(run) for run in self.runs]


Numbers = Callable[[Cells], Array]


@dataclass(frozen=True)
class Measure:
    """One measure."""

    title: str  # in a few words
    unit: str
    kind: str  # of the cells that it reads
    numbers: Numbers  # of the cells of one place, only finite ones
    observation: str = "seed"  # what one number belongs to
    is_ratio: bool = False  # numbers are logarithms, and differences are shown as ratios
    is_share: bool = False  # numbers are 0 or 1
    is_score: bool = False  # the final score, which has a ceiling
    never: float = math.nan  # the number of a run that never got there
    per_sample: bool = False  # a cost, of which a sample that is read has another than one that is taken
    by_clock: bool = False  # in seconds, which compare on one processor alone
    noise: str = ""  # the measure of what the noise of evaluations alone gives
    by_policy: Callable[[Cells], Mapping[Policy, float]] | None = None  # where two methods are paired by policies

    def values(self, runs: Sequence[RunResult]) -> Array:
        """The numbers of cells of one place."""
        return self.numbers(Cells(runs))

    def counted(self, n: int) -> str:
        """`8 seeds`, `1 cell`."""
        return f"{n} {self.observation}{'' if n == 1 else 's'}"


class Observations:
    """The numbers of a collection by label and measure, each made once however many claims read it.

    Tasks that are ways to one preference problem are one place. An arm that sees the gold reward has no part.

    Args:
        study: read only its runs; all by default.
    """

    def __init__(self, collection: Collection, study: str = "") -> None:
        self._collection, self._study = collection, study
        self._cells: dict[tuple[str, str], dict[Place, Cells]] = {}
        self._known: dict[tuple[str, str], dict[Place, Array]] = {}

    @cached_property
    def studies(self) -> dict[str, Observations]:
        """Each study alone, where the collection holds several."""
        found = {str(run.provenance.get("study")) for runs in self._collection.arms.values() for run in runs}
        alone = {name: Observations(self._collection, name) for name in sorted(found)}
        return {} if self._study or len(found) < 2 else alone

    @cached_property
    def trials(self) -> dict[Arm, list[Trial]]:
        """Those of each arm."""
        return trials_of(self._collection.trials)

    @cached_property
    def language(self) -> set[str]:
        """The tasks on which a policy says something."""
        return {place_of(runs[0])[0] for runs in self._collection.arms.values() if any(map(speaks, runs))}

    def of(self, label: str, name: str) -> dict[Place, Array]:
        """The numbers of one label by place, of the measure of that name; nothing is concluded from smoke runs."""
        if (label, name) not in self._known:
            cells = self._by_place(label, MEASURES[name].kind)
            values = {place: MEASURES[name].numbers(found) for place, found in cells.items()}
            self._known[label, name] = {place: numbers for place, numbers in values.items() if len(numbers)}
        return self._known[label, name]

    def pairs(self, less: str, more: str, name: str) -> dict[Place, tuple[Array, Array]]:
        """The numbers of `more` and `less`, run by run, at the policies that both were measured at."""
        by_policy, kind = MEASURES[name].by_policy, MEASURES[name].kind
        if by_policy is None:
            return {}
        sides = [self._by_place(label, kind) for label in (more, less)]
        found = {}
        for place in sides[0].keys() & sides[1].keys():
            one, other = (by_policy(side[place]) for side in sides)
            if common := one.keys() & other.keys():
                found[place] = (_over_stages(one, common), _over_stages(other, common))
        return found

    def looks(self, places: Mapping[str, Iterable[Place]], kind: str) -> int:
        """The most looks that a study of these labels declares, of what it ran at these places of each."""
        cells = [self._by_place(label, kind).get(place) for label, found in places.items() for place in found]
        return looks_of(run for item in cells if item is not None for run in item.runs)

    def longest(self, places: Iterable[Place], label: str, kind: str) -> list[Place]:
        """Of the budgets on one task the largest: a run of a seed begins as the shorter run of that seed does."""
        largest: dict[tuple[str, str], Place] = {}
        for place in sorted(places, key=lambda place: self._samples(label, place, kind)):
            task, _, device = place
            largest[task, device] = place
        return sorted(largest.values())

    def _samples(self, label: str, place: Place, kind: str) -> int:
        cells = self._by_place(label, kind).get(place)
        return max(run.ledger.samples for run in cells.runs) if cells else 0

    def undeclared(self, label: str, places: Iterable[Place], kind: str) -> str:
        """As `more_than_declared`, of one label at these places."""
        cells = [self._by_place(label, kind).get(place) for place in places]
        runs = [list({run.seed: run for run in item.runs}.values()) for item in cells if item is not None]
        return next(filter(None, map(more_than_declared, runs)), "")

    def refused(self, less: str, more: str, name: str) -> str:
        """Why two labels get no verdict: more seeds than declared, or what does not compare by this measure."""
        measure = MEASURES[name]
        sides = [self._by_place(label, measure.kind) for label in (less, more)]
        for place in sorted(set(sides[0]) & set(sides[1])):
            pair = [side[place].runs for side in sides]
            for runs in pair:
                if why := more_than_declared(list({run.seed: run for run in runs}.values())):
                    return why
            if measure.by_policy and (names := _unequal(*(runs[0].hyperparameters for runs in pair))):
                return f"measured with unequal {', '.join(names)}"
            if measure.by_clock and of_several_processors(run for runs in pair for run in runs):
                return "their runs at one task are of different processors, whose seconds do not compare"
            if measure.per_sample and len({_only_reads(runs[0]) for runs in pair}) > 1:
                return "one only reads its samples, and the other takes some: their costs per sample do not compare"
        return ""

    def _by_place(self, label: str, kind: str) -> dict[Place, Cells]:
        """The cells of one label and kind, in the order of their places."""
        if (label, kind) not in self._cells:
            found: dict[Place, list[RunResult]] = {}
            for arm, runs in self._arms(kind):
                mine = [run for run in runs if self._study in ("", run.provenance.get("study"))]
                task, feedback = place_of(runs[0])
                if arm.label == label and mine and feedback != GOLD_REWARD and not has_smoke_run(runs):
                    found.setdefault((task, arm.budget, arm.device), []).extend(mine)
            self._cells[label, kind] = {place: Cells(runs) for place, runs in sorted(found.items())}
        return self._cells[label, kind]

    def _arms(self, kind: str) -> Iterable[tuple[Arm, list[RunResult]]]:
        if kind != TUNING:
            return self._collection.of_kind(kind).items()
        return [(arm, [run for trial in trials for run in trial.runs]) for arm, trials in self.trials.items()]


def _only_reads(run: RunResult) -> bool:
    return run.ledger.samples_read == run.ledger.samples


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings of the noise that both have and that differ."""
    mine, theirs = _noise_settings(one), _noise_settings(other)
    return [name for name in mine if name in theirs and mine[name] != theirs[name]]


def _noise_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a method has; a critic that shares the actor's optimizer (PPO's) is fitted by that one's settings."""
    own = CRITIC_SETTINGS if found.get("baseline", "value") == "value" else ()
    keys = {name: name.removeprefix("critic_") if "value_coef" in found else name for name in own}
    keys |= {name: name for name in NOISE_SETTINGS}
    monte_carlo = {"gae_lambda": 1.0} if "baseline" in found else {}  # REINFORCE's advantages
    return monte_carlo | {name: found[key] for name, key in keys.items() if key in found}


def _each(function: Callable[[RunResult], float | None]) -> Numbers:
    """One number per run; runs without one are left out."""
    return lambda cells: finite([function(run) for run in cells.runs])


def _spread(cells: Cells) -> Array:
    """The distance of each run's final score from the arm's median."""
    found = finite([run.final_score for run in cells.runs])
    return np.abs(found - np.median(found)) if len(found) else found


def _gain_of_search(cells: Cells) -> Array:
    found = [gains(np.array([trial.score for trial in trials])) for trials in trials_of(cells.runs).values()]
    return np.concatenate([np.empty(0), *found])


def _samples_to_target(run: RunResult) -> float:
    """As a share of the budget, 1 for a run that never got there: the mean is Kaplan and Meier's restricted mean."""
    budget = run.budget.get("samples")
    if run.target is None or not budget:
        return math.nan
    reached = run.time_to_target.get("samples") if run.status == "ok" else None
    return 1.0 if reached is None else float(reached) / budget


def _log_noise_shares(cells: Cells) -> dict[Policy, float]:
    """log tr(S) / (|G|^2 + tr(S)) at each policy."""
    found = {
        (noise["trainer"], run.seed, noise["stage"]): -float(np.log1p(np.maximum(0.0, noise["snr"])))
        for run in cells.runs
        for noise in [run.gradient_noise]
        if "batches" in noise and "stage" in noise
    }
    return {policy: share for policy, share in found.items() if math.isfinite(share)}


def _over_stages(shares: Mapping[Policy, float], policies: Iterable[Policy]) -> Array:
    """One per run of a trainer, the mean over its stages: a run's policies are not independent."""
    by_run: dict[tuple[str, int], list[float]] = {}
    for policy in sorted(policies):
        by_run.setdefault(policy[:2], []).append(shares[policy])
    return np.array([np.mean(found) for found in by_run.values()], np.float64)


def _log_noise_share(cells: Cells) -> Array:
    shares = _log_noise_shares(cells)
    return _over_stages(shares, shares)


def _log_update_seconds(cells: Cells) -> Array:
    """One per cell that ran alone, whose rounds are of one process: seconds of its updates per 1,000 samples."""
    found: list[float] = []
    for run in cells.runs:
        timed, speed = run.throughput, run.throughput.get("samples_per_second")
        if run.status == "ok" and speed and not run.ran_beside_others:
            samples = speed * sum(timed["iteration_seconds"])
            found += [1000 * sum(timed["update_seconds"]) / samples] if samples > 0 else []
    return np.log([seconds for seconds in found if seconds > 0])


def _early_fall(run: RunResult) -> float:
    """The early share of the loss's fall from the first tenth of the updates to the last; 0 where it does not fall."""
    if "loss" not in run.updates or len(run.updates) < STRETCHES:
        return math.nan
    losses = np.array([part.mean() for part in np.array_split(column(run.updates, "loss"), STRETCHES)])
    share = early_share(losses)
    return 0.0 if math.isnan(share) else share


def _at_the_end(name: str) -> Callable[[RunResult], float]:
    """The mean of a column of the updates at their end."""

    def one(run: RunResult) -> float:
        values = column(run.updates, name) if name in run.updates else np.empty(0)
        return mean_of(finite(values[-max(1, math.ceil(END_SHARE * len(values))) :]))

    return one


def early_share(losses: Array) -> float:
    """The share of the fall from the first to the last of some losses, `[E]`, done a third of the way; NaN of none."""
    start, third, end = start_third_end(losses)
    return (start - third) / (start - end) if start > end else math.nan


def start_third_end(losses: Array) -> tuple[float, float, float]:
    """Of losses in order, `[E]`; a third of the way may lie between two."""
    last = len(losses) - 1
    return float(losses[0]), float(np.interp(last / 3, np.arange(last + 1), losses)), float(losses[last])


def _rose(name: str) -> Callable[[RunResult], float]:
    """1 if the last number of a column is above the first, else 0; a run that failed counts as 0."""

    def one(run: RunResult) -> float:
        rise = value_of(run, name) - value_of(run, name, 0)
        return math.nan if math.isnan(rise) and run.status == "ok" else float(run.status == "ok" and rise > 0)

    return one


def _without_reward_model(run: RunResult) -> float:
    """Calls of a verifier are none of a reward model; a task that has one in place of pairs asks no method.

    A run that failed before its first update counts as 0.
    """
    if place_of(run)[1] == REWARD_MODEL:
        return math.nan
    return float(run.ledger.updates > 0 and getattr(run.ledger, "reward_tokens", 0) == 0)


def _log_kl(run: RunResult) -> float:
    """KL has no scale of its own: only its ratios are compared."""
    value = value_of(run, "heldout_kl")
    return math.log(value) if value > 0 else math.nan


def _learning(title: str, unit: str, function: Callable[[RunResult], float | None], **more: Any) -> Measure:
    return Measure(title, unit, Learning.name, _each(function), **more)


def _of_scores(title: str, unit: str, function: Callable[[Scores], float], **more: Any) -> Measure:
    return Measure(title, unit, Learning.name, lambda cells: finite([function(one) for one in cells.scores]), **more)


def _cost(title: str, unit: str, amount: Callable[[RunResult], float], *, by_clock: bool = False) -> Measure:
    """The logarithm of an amount per 1,000 samples."""

    def one(run: RunResult) -> float:
        value, samples = amount(run), run.ledger.samples
        return math.log(1000 * value / samples) if samples and value > 0 else math.nan

    return Measure(title, unit, Learning.name, _each(one), is_ratio=True, per_sample=True, by_clock=by_clock)


MEASURES: Mapping[str, Measure] = {
    # variance (McCandlish et al. 2018, section 2.2, of a gradient's noise)
    "gradient_variance": Measure(
        "variance of the gradient", "share of its squared length", GradientNoise.name, _log_noise_share, "run",
        is_ratio=True, by_policy=_log_noise_shares,
    ),
    "variance_between_runs": Measure(
        "variance between runs", "mean distance of a final score from the median", Learning.name, _spread
    ),
    # stability (Chan et al. 2020, section 4)
    "largest_drawdown": _of_scores("largest drawdown", "score", largest_drawdown, noise="drawdown_of_noise"),
    "drawdown_of_noise": _learning("drawdown that noise of the evaluations gives", "score", drawdown_of_noise),
    "collapse_after_solving": _of_scores("collapses after solving", "share of runs", collapsed, is_share=True),
    # sample efficiency
    "area_under_curve": _of_scores("area under the learning curve", "mean score", area_under_curve),
    "samples_to_target": _learning("samples to target", "share of the budget", _samples_to_target, never=1.0),
    "final_score": _learning("final score", "0 = floor, 1 = target", lambda run: run.final_score, is_score=True),
    "gain_of_search": Measure(
        "gain of a search, best of eight settings less one", "score", TUNING, _gain_of_search, "configuration"
    ),
    # cost
    "cpu_seconds": _cost(
        "CPU seconds of training", "s per 1,000 samples", lambda run: run.ledger.cpu_seconds, by_clock=True
    ),
    "backward_rows": _cost("rows backward", "per 1,000 samples", lambda run: run.ledger.backward_rows),
    "update_seconds": Measure(
        "seconds of an update", "s per 1,000 samples", Throughput.name, _log_update_seconds, "cell", is_ratio=True,
        per_sample=True, by_clock=True,
    ),
    # what preference optimization does
    "more_pairs_in_order": _learning(
        "runs with more training pairs in order at the end", "share of runs", _rose("train_accuracy"), is_share=True
    ),
    "more_heldout_pairs_in_order": _learning(
        "runs with more held-out pairs in order at the end", "share of runs", _rose("heldout_accuracy"), is_share=True
    ),
    "loss_at_the_end": _learning("loss at the end", "loss", _at_the_end("loss")),
    "update_kl_at_the_end": _learning("KL(old || new) of an update at the end", "nats", _at_the_end("kl")),
    "early_fall": _learning("loss's fall in the first third", "share of the whole fall", _early_fall),
    "kl_to_reference": _learning("KL to the reference", "nats per token", lambda run: value_of(run, "heldout_kl")),
    "kl_ratio": _learning("KL to the reference", "nats per token", _log_kl, is_ratio=True),
    "works_without_reward_model": _learning(
        "runs without a learned reward", "share of runs", _without_reward_model, is_share=True
    ),
}  # fmt: skip
