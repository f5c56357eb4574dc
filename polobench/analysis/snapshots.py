"""What a policy says before and after training, how it is described, and what was left out of its data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.columns import finite, mean_of, value_of
from polobench.core.result import RunResult

_IN_CURVES = {
    "kl_to_reference": "heldout_kl",
    "entropy": "heldout_entropy",
    "completion_length": "heldout_completion_length",
}


@dataclass(frozen=True)
class Answer:
    """The greedy answers to one held-out prompt; None where the run has none, NaN where a reward is not known."""

    prompt: str
    before: str
    after: str | None
    reward_before: float
    reward_after: float


@dataclass(frozen=True)
class Conversation:
    """The answers of one run of an arm: the lowest seed that ended ok, else the lowest that knows answers."""

    arm: Arm
    seed: int
    status: str
    answers: tuple[Answer, ...]


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


@dataclass(frozen=True)
class NoteSummary:
    """A remark on the data that an arm's runs read, and for how many rows it holds: the least and the most of a run."""

    arm: Arm
    text: str
    least: float
    most: float


def snapshot(run: RunResult, moment: str) -> dict[str, Any]:
    """What was stored "before" or "after"; a run that failed has no after, however late it failed."""
    return {} if moment == "after" and run.status != "ok" else dict(run.snapshots.get(moment, {}))


def conversations(collection: Collection) -> list[Conversation]:
    """What a run of each learning arm answers, by task, budget and label; arms without answers are left out."""
    found = []
    for arm, runs in sorted(collection.of_kind("learning").items()):
        speaking = [run for run in runs if snapshot(run, "before").get("completions")]
        if speaking:
            run = min(speaking, key=lambda run: (run.status != "ok", run.seed))
            found.append(Conversation(arm, run.seed, run.status, tuple(_answers(run))))
    return found


def _answers(run: RunResult) -> list[Answer]:
    """By the text of the prompt, should the two moments not list them alike."""
    before, after = (snapshot(run, moment).get("completions", []) for moment in ("before", "after"))
    by_prompt = {item["prompt"]: item for item in after}
    found = []
    for item in before:
        later = by_prompt.get(item["prompt"], {})
        rewards = _known(item.get("reward")), _known(later.get("reward"))
        found.append(Answer(item["prompt"], item["completion"], later.get("completion"), *rewards))
    return found


def measures(collection: Collection) -> list[MeasureSummary]:
    """Every measure of every learning arm, by task, budget, label and then as the snapshots order them."""
    found = []
    for arm, runs in sorted(collection.of_kind("learning").items()):
        names = dict.fromkeys(name for run in runs for moment in ("before", "after") for name in _measures(run, moment))
        found += [_summarize_measure(arm, runs, name) for name in names]
    return found


def _summarize_measure(arm: Arm, runs: Sequence[RunResult], name: str) -> MeasureSummary:
    moments = [(run, *_moments(run, name)) for run in runs]
    after = finite(first if math.isnan(last) and not snapshot(run, "after") else last for run, first, last in moments)
    return MeasureSummary(
        arm=arm,
        name=name,
        n=len(runs),
        known=len(after),
        before=mean_of(finite(first for _, first, _ in moments)),
        after=mean_of(after),
        everywhere=all(_IN_CURVES.get(name) in run.curve for run in runs),
    )


def _moments(run: RunResult, name: str) -> tuple[float, float]:
    """Before and after: of the curve where it has the measure, since a snapshot reads only a few prompts."""
    if _IN_CURVES.get(name) in run.curve:
        after = value_of(run, _IN_CURVES[name]) if snapshot(run, "after") else math.nan
        return _known(value_of(run, _IN_CURVES[name], 0)), _known(after)
    return _known(_measures(run, "before").get(name)), _known(_measures(run, "after").get(name))


def _measures(run: RunResult, moment: str) -> dict[str, float]:
    return dict(snapshot(run, moment).get("measures", {}))


def notes(collection: Collection) -> list[NoteSummary]:
    """Every remark on the data of every learning arm, by task, budget, label and text."""
    found = []
    for arm, runs in sorted(collection.of_kind("learning").items()):
        counts: dict[str, list[float]] = {}
        for moment in (moment for run in runs for moment in run.snapshots.values()):
            for text, count in moment.get("notes", {}).items():
                counts.setdefault(text, []).append(float(count))
        found += [NoteSummary(arm, text, min(counts[text]), max(counts[text])) for text in sorted(counts)]
    return found


def _known(value: object) -> float:
    """NaN for what is not known or no finite number."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan
