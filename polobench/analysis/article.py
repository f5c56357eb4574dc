"""The source article's single runs beside ours: where each published figure lies in what our seeds give."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.columns import column
from polobench.analysis.preferences import has_after, pairs_of
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.summary import ArmSummary, summarize
from polobench.core.result import RunResult

EPISODE_RETURN = "episode_return"
SHOWN_EPISODES = range(50, 501, 50)


@dataclass(frozen=True)
class PublishedClaim:
    """What the article shows of something, in words."""

    of: str
    words: str


@dataclass(frozen=True)
class PublishedReturn:
    """What the article shows of its run at one episode: `low` and `high` are equal, or ends, or infinite, or unknown.

    Where nothing but `words` is known both are NaN.
    """

    low: float
    high: float
    words: str = ""


@dataclass(frozen=True)
class Published:
    """What the article publishes of one method.

    Attributes:
        sound: the method of polobench to be set beside it.
        task: of `returns`; None in language.
        returns: by training episode.
        epochs: of the training; None in control.
        claims: about that training.
    """

    sound: str
    task: str | None
    returns: dict[int, PublishedReturn]
    epochs: int | None
    claims: tuple[PublishedClaim, ...]


@cache
def published() -> dict[str, Published]:
    """What the article publishes, by the name of our version of its method; `published.toml` holds it."""
    content = tomllib.loads(resources.files("polobench.analysis").joinpath("published.toml").read_text("utf-8"))
    return {
        method: Published(
            sound=found["sound"],
            task=found.get("task"),
            returns={at: _published_return(item) for item in found.get("returns", []) for at in item["at"]},
            epochs=found.get("epochs"),
            claims=tuple(PublishedClaim(**claim) for claim in found.get("claims", [])),
        )
        for method, found in content.items()
    }


def _published_return(item: dict[str, float | str]) -> PublishedReturn:
    if "words" in item:
        return PublishedReturn(math.nan, math.nan, str(item["words"]))
    if "value" in item:
        return PublishedReturn(float(item["value"]), float(item["value"]))
    return PublishedReturn(float(item["low"]), float(item.get("high", math.inf)))


@dataclass(frozen=True)
class Placement:
    """One episode of an arm's runs, with what the article shows of it.

    Attributes:
        article: None where the article shows nothing.
        values: `[n]` the returns of that training episode, of the runs that had one.
    """

    arm: Arm
    episode: int
    article: PublishedReturn | None
    values: Array

    @property
    def n_below(self) -> int:
        """Runs below the article's value, or range."""
        return 0 if self.article is None else int((self.values < self.article.low).sum())

    @property
    def n_above(self) -> int:
        """Runs above it."""
        return 0 if self.article is None else int((self.values > self.article.high).sum())


@dataclass(frozen=True)
class EpisodeArm:
    """An arm whose updates are episodes.

    Attributes:
        returns: of the training episodes of each run, in their order.
        cut: the seeds whose last episode the budget of samples cut, with the steps that it had had by then.
    """

    arm: Arm
    returns: tuple[Array, ...]
    placements: tuple[Placement, ...]
    cut: dict[int, int]


def _with_sound(collection: Collection, method: str) -> list[tuple[Arm, list[RunResult]]]:
    """The learning arms of one of the article's methods, and those of its sound version on the same tasks."""
    arms = sorted(collection.of_kind("learning").items())
    tasks = sorted({arm.task for arm, _ in arms if arm.method == method})
    names = (method, published()[method].sound)
    return [
        (arm, runs) for task in tasks for name in names for arm, runs in arms if (arm.task, arm.method) == (task, name)
    ]


def episode_arms(collection: Collection) -> list[EpisodeArm]:
    """The learning arms of the article's methods for control on its own task, in its order."""
    control = [(shown.task, method) for method, shown in published().items() if shown.returns]
    arms = sorted(collection.of_kind("learning").items())
    return [_episode_arm(arm, runs) for place in control for arm, runs in arms if (arm.task, arm.method) == place]


def _episode_arm(arm: Arm, runs: Sequence[RunResult]) -> EpisodeArm:
    known = [_episode_returns(run) for run in runs]
    shown = published()[arm.method].returns
    placements = tuple(
        Placement(
            arm, episode, shown.get(episode), np.array([run[episode - 1] for run in known if len(run) >= episode])
        )
        for episode in SHOWN_EPISODES
    )
    return EpisodeArm(arm, tuple(known), placements, {run.seed: steps for run in runs if (steps := _cut_steps(run))})


def _episode_returns(run: RunResult) -> Array:
    """`[episodes]`; of a run of more updates than a store keeps, each is the mean over its stretch."""
    if EPISODE_RETURN not in run.updates:
        return np.empty(0)
    kept = column(run.updates, EPISODE_RETURN)
    return np.asarray(kept[np.arange(run.ledger.updates) * len(kept) // max(1, run.ledger.updates)])


def _cut_steps(run: RunResult) -> int:
    """Steps of a last episode that was never finished; 0 where the updates were spent, or the run failed."""
    wanted = run.budget.get("updates")
    if run.status != "ok" or wanted is None or run.ledger.updates >= wanted:
        return 0
    finished = 0 if run.updates.empty else run.updates["samples"].iloc[-1]
    return int(run.ledger.samples - finished)


@dataclass(frozen=True)
class LossShape:
    """How an arm's loss falls over the epochs, and which pairs it was trained on end in order.

    Attributes:
        n: runs; those with fewer updates than epochs have no part in `losses`.
        losses: `[n, epochs]` means over each epoch.
        early_shares: the share of the whole fall that the first third of the epochs has, of the runs that fell.
        pairs: training pairs.
        in_order: `[n, 2]` of them with the chosen response the likelier one, before and after.
        smoke: nothing is to be concluded.
    """

    arm: Arm
    n: int
    losses: Array
    early_shares: Array
    pairs: int
    in_order: Array
    smoke: bool

    @property
    def moments(self) -> Array:
        """`[3]` the median loss in the first epoch, a third of the way from it to the last, and in the last."""
        return np.median([_start_third_end(values) for values in self.losses], axis=0)


def loss_shapes(collection: Collection) -> dict[str, list[LossShape]]:
    """The article's methods for language and what is to be set beside them, by the article's method."""
    found: dict[str, list[LossShape]] = {}
    for method, shown in published().items():
        arms = _with_sound(collection, method)
        if shown.epochs is not None and arms:
            found[method] = [_loss_shape(arm, runs, shown.epochs) for arm, runs in arms]
    return found


def _loss_shape(arm: Arm, runs: Sequence[RunResult], epochs: int) -> LossShape:
    losses = [column(run.updates, "loss") for run in runs if len(run.updates) >= epochs]
    by_epoch = np.array([[part.mean() for part in np.array_split(values, epochs)] for values in losses])
    fallen = [_start_third_end(values) for values in by_epoch if values[0] > values[-1]]
    trained = [pairs for run in runs if has_after(run, "train") and (pairs := pairs_of(run, "train")) is not None]
    return LossShape(
        arm=arm,
        n=len(runs),
        losses=by_epoch.reshape(len(losses), epochs),
        early_shares=np.array([(start - third) / (start - end) for start, third, end in fallen], dtype=np.float64),
        pairs=max((len(pairs.prompt) for pairs in trained), default=0),
        in_order=np.array([(pairs.chosen > pairs.rejected).sum(axis=0) for pairs in trained], float).reshape(-1, 2),
        smoke=any(run.provenance.get("smoke") is True for run in runs),
    )


def _start_third_end(losses: Array) -> tuple[float, float, float]:
    """Of an epoch each, `[epochs]`; a third of the way may lie between two epochs."""
    last = len(losses) - 1
    return float(losses[0]), float(np.interp(last / 3, np.arange(last + 1), losses)), float(losses[last])


@dataclass(frozen=True)
class Spent:
    """An arm in numbers, with the medians over its runs of what they spent."""

    summary: ArmSummary
    samples: float
    updates: float


def beside_sound(collection: Collection) -> list[Spent]:
    """The arms of each of the article's methods, and the sound ones that are to be set beside them."""
    return [_spent(arm, runs) for method in published() for arm, runs in _with_sound(collection, method)]


def _spent(arm: Arm, runs: Sequence[RunResult]) -> Spent:
    samples, updates = ([getattr(run.ledger, name) for run in runs] for name in ("samples", "updates"))
    return Spent(summarize(arm, runs), float(np.median(samples)), float(np.median(updates)))
