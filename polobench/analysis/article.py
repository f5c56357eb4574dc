"""The source article's single runs beside ours: where each published figure lies in what our seeds give."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from polobench.analysis.collection import Arm, Collection, has_smoke_run
from polobench.analysis.columns import column, finite
from polobench.analysis.language import has_after, pairs_of
from polobench.analysis.measures import early_share, start_third_end
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.summary import ArmSummary, summarize
from polobench.core.result import RunResult

EPISODE_RETURN = "episode_return"
SHOWN_EPISODES = range(50, 501, 50)


@dataclass(frozen=True)
class PublishedReturn:
    """What the article shows of its run at one episode: a value (`low` = `high`), a range, or a lower bound."""

    low: float = math.nan
    high: float = math.nan
    words: str = ""  # where nothing else is known


@dataclass(frozen=True)
class Published:
    """What the article publishes of one method."""

    sound: str  # the method of polobench to be set beside it
    task: str | None  # of `returns`; None in language
    returns: dict[int, PublishedReturn]  # by training episode
    epochs: int | None  # of the training; None in control
    claims: dict[str, str]  # what the article shows of that training, in words


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
            claims={claim["of"]: claim["words"] for claim in found.get("claims", [])},
        )
        for method, found in content.items()
    }


def _published_return(item: dict[str, Any]) -> PublishedReturn:
    value = float(item.get("value", math.nan))
    return PublishedReturn(
        low=float(item.get("low", value)),
        high=float(item.get("high", math.inf if "low" in item else value)),
        words=item.get("words", ""),
    )


@dataclass(frozen=True)
class Placement:
    """One episode of an arm's runs, with what the article shows of it."""

    arm: Arm
    episode: int
    article: PublishedReturn | None  # None where the article shows nothing
    values: Array  # `[n]` the returns of that training episode, of the runs that had one

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
    """An arm whose updates are episodes."""

    arm: Arm
    returns: tuple[Array, ...]  # of the training episodes of each run, in their order
    placements: tuple[Placement, ...]
    cut: dict[int, int]  # the seeds whose last episode the budget of samples cut, and the steps that it had had by then


def _with_sound(collection: Collection, method: str) -> list[tuple[Arm, list[RunResult]]]:
    """The learning arms of one of the article's methods, each task's followed by those of its sound version."""
    arms = collection.learning.items()
    pairs = [
        (arm.task, name) for arm, _ in arms if arm.method == method for name in (method, published()[method].sound)
    ]
    return [(arm, runs) for pair in dict.fromkeys(pairs) for arm, runs in arms if (arm.task, arm.method) == pair]


def episode_arms(collection: Collection) -> list[EpisodeArm]:
    """The learning arms of the article's methods for control on its own task, in its order."""
    control = [(shown.task, method) for method, shown in published().items() if shown.returns]
    arms = collection.learning.items()
    return [_episode_arm(arm, runs) for place in control for arm, runs in arms if (arm.task, arm.method) == place]


def _episode_arm(arm: Arm, runs: Sequence[RunResult]) -> EpisodeArm:
    returns = tuple(map(_episode_returns, runs))
    shown = published()[arm.method].returns
    placements = tuple(
        Placement(arm, at, shown.get(at), np.array([run[at - 1] for run in returns if len(run) >= at]))
        for at in SHOWN_EPISODES
    )
    return EpisodeArm(arm, returns, placements, {run.seed: steps for run in runs if (steps := _cut_steps(run))})


def _episode_returns(run: RunResult) -> Array:
    """`[episodes]`; where a store keeps means over stretches of updates, each episode has that of its stretch."""
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
    """How an arm's loss falls over the epochs, and for how many training pairs the chosen response is more likely."""

    arm: Arm
    n: int  # runs; those with fewer updates than epochs have no part in `losses`
    losses: Array  # `[n, epochs]` means over each epoch
    early_shares: Array  # of the runs that fell: the share of the whole fall in the first third of the epochs
    pairs: int  # training pairs
    in_order: Array  # `[n, 2]` of them with a more likely chosen response, before and after
    smoke: bool  # nothing is to be concluded

    @property
    def moments(self) -> Array:
        """`[3]` the median loss in the first epoch, a third of the way from it to the last, and in the last."""
        return np.median([start_third_end(values) for values in self.losses], axis=0)


def loss_shapes(collection: Collection) -> dict[str, list[LossShape]]:
    """The article's methods for language and what is to be set beside them, by the article's method."""
    return {
        method: [_loss_shape(arm, runs, shown.epochs) for arm, runs in arms]
        for method, shown in published().items()
        if shown.epochs is not None and (arms := _with_sound(collection, method))
    }


def _loss_shape(arm: Arm, runs: Sequence[RunResult], epochs: int) -> LossShape:
    losses = [column(run.updates, "loss") for run in runs if len(run.updates) >= epochs]
    by_epoch = np.array([[part.mean() for part in np.array_split(values, epochs)] for values in losses])
    trained = [pairs for run in runs if has_after(run, "train") and (pairs := pairs_of(run, "train")) is not None]
    return LossShape(
        arm=arm,
        n=len(runs),
        losses=by_epoch.reshape(len(losses), epochs),
        early_shares=finite(map(early_share, by_epoch)),
        pairs=max((len(pairs.prompt) for pairs in trained), default=0),
        in_order=np.array([(pairs.chosen > pairs.rejected).sum(axis=0) for pairs in trained], float).reshape(-1, 2),
        smoke=has_smoke_run(runs),
    )


def beside_sound(collection: Collection) -> list[tuple[ArmSummary, list[RunResult]]]:
    """The arms of each of the article's methods, and the sound ones that are to be set beside them, with their runs."""
    return [(summarize(arm, runs), runs) for method in published() for arm, runs in _with_sound(collection, method)]
