"""What a language model says, how it is described, and how likely it finds what it should prefer, by training.

The pairs of one prompt share it and the seeds of one pair share the pair: both stay together in every interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from polobench.analysis.collection import Arm, Collection, looks_of, more_than_declared
from polobench.analysis.columns import finite, mean_of, value_of
from polobench.analysis.statistics.aggregates import Estimate
from polobench.analysis.statistics.hypothesis import LEVEL, MARGIN, OPEN, adjusted, below_p
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS, Array, clustered_intervals
from polobench.core.budget import LARGEST
from polobench.core.result import RunResult
from polobench.store.validation import PAIR_LOG_PROBS, PAIR_SETS

_IN_CURVES = {
    "kl_to_reference": "heldout_kl",
    "entropy": "heldout_entropy",
    "completion_length": "heldout_completion_length",
}


class Conversation(NamedTuple):
    """An arm and its run whose answers are shown: the lowest seed that ended ok, else the lowest that knows answers."""

    arm: Arm
    run: RunResult


@dataclass(frozen=True)
class MeasureSummary:
    """One measure of an arm's policy."""

    arm: Arm
    name: str
    n: int  # runs
    known: int  # runs that have the measure after training, or failed and have it before
    before: float  # the mean over the runs that have it
    after: float  # the same; a run that knows nothing after training counts as before
    everywhere: bool  # it is of all held-out prompts, as the curves are; else only of those whose answers are stored


def snapshot(run: RunResult, moment: str) -> dict[str, Any]:
    """What was stored "before" or "after"; a run that failed has no after, however late it failed."""
    return {} if moment == "after" and run.status != "ok" else dict(run.snapshots.get(moment, {}))


def conversations(collection: Collection) -> list[Conversation]:
    """What each learning arm answers, by task, budget and label; arms without answers are left out."""
    arms = collection.learning.items()
    found = [(arm, [run for run in runs if snapshot(run, "before").get("completions")]) for arm, runs in arms]
    return [Conversation(arm, min(runs, key=lambda run: (run.status != "ok", run.seed))) for arm, runs in found if runs]


def measures(collection: Collection) -> list[MeasureSummary]:
    """Every measure of every learning arm, by task, budget, label and then as the snapshots order them."""
    found = []
    for arm, runs in collection.learning.items():
        names = dict.fromkeys(name for run in runs for moment in ("before", "after") for name in _measures(run, moment))
        found += [_summarize_measure(arm, runs, name) for name in names]
    return found


def _summarize_measure(arm: Arm, runs: Sequence[RunResult], name: str) -> MeasureSummary:
    moments = [(run, *_moments(run, name)) for run in runs]
    before = finite(first for _, first, _ in moments)
    after = finite(first if math.isnan(last) and not snapshot(run, "after") else last for run, first, last in moments)
    everywhere = all(_IN_CURVES.get(name) in run.curve for run in runs)
    return MeasureSummary(arm, name, len(runs), len(after), mean_of(before), mean_of(after), everywhere)


def _moments(run: RunResult, name: str) -> tuple[float, float]:
    """Before and after: of the curve where it has the measure, since a snapshot reads only a few prompts."""
    if (column := _IN_CURVES.get(name, "")) in run.curve:
        after = value_of(run, column) if snapshot(run, "after") else math.nan
        return known_number(value_of(run, column, 0)), known_number(after)
    before, after = (known_number(_measures(run, moment).get(name)) for moment in ("before", "after"))
    return before, after


def _measures(run: RunResult, moment: str) -> dict[str, float]:
    return dict(snapshot(run, moment).get("measures", {}))


def notes(collection: Collection) -> list[tuple[Arm, str, list[float]]]:
    """Every remark on the data that a learning arm's runs read, and for how many rows of each run it holds."""
    found = []
    for arm, runs in collection.learning.items():
        counts: dict[str, list[float]] = {}
        for moment in (moment for run in runs for moment in run.snapshots.values()):
            for text, count in moment.get("notes", {}).items():
                counts.setdefault(text, []).append(float(count))
        found += [(arm, text, counts[text]) for text in sorted(counts)]
    return found


@dataclass(frozen=True)
class Sharpening:
    """Whether an arm learnt what it could not do (pass@8 rises), or does more surely what it could (pass@1 alone)."""

    arm: Arm
    n: int  # runs that know both
    pass_1: tuple[float, float]  # means before and after
    pass_8: tuple[float, float]
    word: str


def sharpenings(collection: Collection) -> list[Sharpening]:
    """Every learning arm that knows pass@1 and pass@8, by task, budget and label."""
    arms = collection.learning.items()
    known = [(arm, [run for run in runs if "heldout_pass_8" in run.curve]) for arm, runs in arms]
    return [_sharpening(arm, runs) for arm, runs in known if runs]


def _sharpening(arm: Arm, runs: Sequence[RunResult]) -> Sharpening:
    one, eight = (
        np.array([[value_of(run, name, place) for place in (0, -1)] for run in runs])
        for name in ("heldout_pass_1", "heldout_pass_8")
    )
    rises = [[(found[:, 1], found[:, 0])] for found in (one, eight)]
    falls = [[(before, after)] for ((after, before),) in rises]
    p_values = adjusted([*(below_p(pair, 0.0) for pair in falls), below_p(rises[1], MARGIN)], looks_of(runs))
    first, more, no_more = (p <= LEVEL for p in p_values)
    word = "no rise shown" if not first else "sharpening" if no_more else "skill" if more else OPEN
    if len(runs) < CONCLUSIVE_SEEDS or more_than_declared(runs):
        word = OPEN
    return Sharpening(arm, len(runs), tuple(one.mean(axis=0).tolist()), tuple(eight.mean(axis=0).tolist()), word)


def known_number(value: object) -> float:
    """NaN for what is not known or no finite number."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


@dataclass(frozen=True)
class Pairs:
    """Preference pairs of some runs, one row per pair and run."""

    prompt: Array  # `[N]` the number of each pair's prompt
    chosen: Array  # `[N, 2]` summed log-probabilities before and after, in nats
    rejected: Array
    chosen_tokens: Array  # `[N]` lengths of the responses
    rejected_tokens: Array

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """The rows of all parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    @property
    def accuracy(self) -> Array:
        """`[N, 2]` 1 where the chosen response is more likely, 1/2 where both are equally likely, else 0."""
        return _preferred(self.chosen, self.rejected)

    @property
    def normalised_accuracy(self) -> Array:
        """The same by log-probability per token, so that length does not count against a response."""
        chosen = self.chosen / np.maximum(self.chosen_tokens, 1)[:, None]
        return _preferred(chosen, self.rejected / np.maximum(self.rejected_tokens, 1)[:, None])

    @property
    def margin(self) -> Array:
        """`[N]` how much more the chosen response gained than the rejected one, in nats."""
        gained = np.diff(self.chosen, axis=1) - np.diff(self.rejected, axis=1)
        return np.asarray(gained[:, 0], dtype=np.float64)


@dataclass(frozen=True)
class PreferenceSummary:
    """One set of pairs of one arm."""

    arm: Arm
    pair_set: str  # "heldout" or "train"
    n: int  # runs, one per seed
    known: int  # runs that know the pairs before training: the means are over these
    unchanged: int  # of them, those without numbers after training, which count as before
    prompts: int  # how many there are
    pairs: int
    accuracy: tuple[Estimate, Estimate, Estimate]  # before, after, and the difference of the same pairs
    normalised_accuracy: tuple[Estimate, Estimate, Estimate]
    margin: Estimate  # implicit reward margin: what chosen gained less what rejected gained
    chosen: tuple[float, float]  # mean summed log-probability before and after
    rejected: tuple[float, float]


def preferences(collection: Collection) -> list[PreferenceSummary]:
    """Every learning arm and set of pairs that a run knows, by task, budget and label."""
    every = ((arm, runs, name) for arm, runs in collection.learning.items() for name in PAIR_SETS)
    return [item for arm_and_pairs in every if (item := summarize_pairs(*arm_and_pairs)) is not None]


def summarize_pairs(arm: Arm, runs: Sequence[RunResult], pair_set: str) -> PreferenceSummary | None:
    """The numbers of one arm from its runs; None if none knows such pairs."""
    known = [(run, pairs) for run in runs if (pairs := pairs_of(run, pair_set)) is not None]
    if not known:
        return None
    every = Pairs.joined([pairs for _, pairs in known])
    accuracies = [np.append(item, np.diff(item), axis=1) for item in (every.accuracy, every.normalised_accuracy)]
    values = np.column_stack([*accuracies, every.margin])
    intervals = clustered_intervals(values, every.prompt)
    found = [Estimate(float(value), ends) for value, ends in zip(values.mean(axis=0), intervals, strict=True)]
    return PreferenceSummary(
        arm=arm,
        pair_set=pair_set,
        n=len(runs),
        known=len(known),
        unchanged=sum(not has_after(run, pair_set) for run, _ in known),
        prompts=len(np.unique(every.prompt)),
        pairs=max(len(pairs.prompt) for _, pairs in known),
        accuracy=(found[0], found[1], found[2]),
        normalised_accuracy=(found[3], found[4], found[5]),
        margin=found[6],
        chosen=tuple(every.chosen.mean(axis=0).tolist()),
        rejected=tuple(every.rejected.mean(axis=0).tolist()),
    )


def pooled_pairs(runs: Sequence[RunResult], pair_set: str) -> Pairs | None:
    """The pairs of the runs that have numbers before and after training; None if none has."""
    found = [pairs for run in runs if has_after(run, pair_set) and (pairs := pairs_of(run, pair_set)) is not None]
    return Pairs.joined(found) if found else None


def pairs_of(run: RunResult, pair_set: str) -> Pairs | None:
    """The pairs of one run; without numbers after training they stay as before, and without any there are none."""
    before = _log_probs(run, "before", pair_set)
    if before is None:
        return None
    columns, after = run.snapshots["before"]["pairs"][pair_set], _log_probs(run, "after", pair_set) or before
    tokens = [np.asarray(columns[name], dtype=np.float64) for name in ("chosen_tokens", "rejected_tokens")]
    prompt = np.asarray(columns["prompt"], dtype=np.float64)
    return Pairs(prompt, *(np.stack(moments, axis=1) for moments in zip(before, after)), *tokens)


def has_after(run: RunResult, pair_set: str) -> bool:
    """Whether the run knows the pairs after training too."""
    return _log_probs(run, "after", pair_set) is not None


def _log_probs(run: RunResult, moment: str, pair_set: str) -> tuple[Array, Array] | None:
    """Chosen and rejected, `[N]` each; None if there are none or one is no finite number, as after divergence."""
    columns = snapshot(run, moment).get("pairs", {}).get(pair_set, {})
    if not columns:
        return None
    chosen, rejected = (np.asarray(columns.get(name, ()), dtype=np.float64) for name in PAIR_LOG_PROBS)
    usable = len(chosen) and all((np.abs(values) < LARGEST).all() for values in (chosen, rejected))
    return (chosen, rejected) if usable else None


def _preferred(chosen: Array, rejected: Array) -> Array:
    return np.asarray((np.sign(chosen - rejected) + 1) / 2, dtype=np.float64)
