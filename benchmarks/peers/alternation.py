"""Two loops in turns: each round takes one step of ours and one of a peer's, in an order drawn for the round.

On a shared machine a step's time moves by a third from minute to minute. Two neighbouring steps meet the same machine,
so what is reported is the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

LIMIT_SHARE = 0.75


class Alternation:
    """Takes our steps between those of a peer's loop, which calls `begin` once and `after_step` after each of its own.

    So a peer that owns its loop keeps it, and everything it does from one step's end to the next one's counts.

    Args:
        ours: takes one step.
        rounds: to time.
        warmup: rounds before these.
        seed: of the order within each round.
        check: called when the warm-up is over; raises if the two sides do not do the same.
        on_round: called after each round, outside of what is timed.
        clock: seconds.

    Attributes:
        ours_seconds, theirs_seconds: `[rounds]`.
    """

    def __init__(
        self,
        ours: Callable[[], None],
        rounds: int,
        warmup: int,
        seed: int,
        check: Callable[[], None],
        on_round: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        draw = random.Random(seed)
        self.total = warmup + rounds
        self._ours_first = [draw.random() < 0.5 for _ in range(self.total)]
        self._ours, self._warmup, self._check, self._on_round, self._clock = ours, warmup, check, on_round, clock
        self._ours_taken: list[float] = []
        self._theirs_taken: list[float] = []

    @property
    def ours_seconds(self) -> list[float]:
        return self._ours_taken[self._warmup :]

    @property
    def theirs_seconds(self) -> list[float]:
        return self._theirs_taken[self._warmup :]

    def begin(self) -> None:
        if self._ours_first[0]:
            self._take_ours()
        self._resumed = self._clock()

    def after_step(self) -> None:
        self._theirs_taken.append(self._clock() - self._resumed)
        done = len(self._theirs_taken)
        if not self._ours_first[done - 1]:
            self._take_ours()
        self._on_round()
        if done == self._warmup:
            self._check()
        if done < self.total and self._ours_first[done]:
            self._take_ours()
        self._resumed = self._clock()

    def _take_ours(self) -> None:
        start = self._clock()
        self._ours()
        self._ours_taken.append(self._clock() - start)


Start = Callable[[Callable[[], None], Callable[[], None]], Alternation]  # of a step of ours, and of the check


def row(
    work: str, unit: str, ours: float | None, wanted: str, met: bool | None, spread: Sequence[float] = (), **more: Any
) -> dict[str, Any]:
    """A line of the table.

    Args:
        unit: of what is measured, in which `theirs` and `ours` are given.
        wanted: the goal as it is shown, such as "5 times" or "at most 4".
        met: whether it is; None where nothing was measured.
        spread: the 95 % interval of the ratio; of `ours` where there is no ratio, or of what `interval_of` says.
        more: `peer`, `theirs`, `ratio`, `limit` (another ratio), `rounds`, `interval_of` and `note`.
    """
    known = {"work": work, "peer": None, "unit": unit, "theirs": None, "ours": ours, "ratio": None}
    low, high = map(float, spread) if len(spread) else (None, None)
    known |= {"low": low, "high": high, "interval_of": "", "goal": wanted, "limit": None, "met": met, "note": ""}
    return known | more


def middle(values: Any) -> tuple[float, tuple[float, ...]]:
    """The median, with its 95 % percentile bootstrap where there are several values."""
    values = np.asarray(values)
    if len(values) < 2:
        return float(values[0]), ()
    interval = bootstrap((values,), np.median, method="percentile", random_state=0).confidence_interval
    return float(np.median(values)), (float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Comparison:
    """What one alternation found.

    Attributes:
        work, peer: what was compared with what.
        unit, amount: what one step makes, such as 1024 "tokens".
        goal: the ratio that the project holds itself to, or `LIMIT_SHARE` of the limit's where that is less.
        ours_seconds, theirs_seconds: `[rounds]`.
        limit_seconds: `[rounds]` what the work alone takes, without any library; empty where it is not measured.
    """

    work: str
    peer: str
    unit: str
    amount: int
    goal: float
    ours_seconds: Sequence[float]
    theirs_seconds: Sequence[float]
    limit_seconds: Sequence[float] = ()

    def row(self) -> dict[str, Any]:
        """Medians over the rounds; the ratio is theirs over ours."""
        ours, theirs = np.asarray(self.ours_seconds), np.asarray(self.theirs_seconds)
        ratio, interval = middle(theirs / ours)
        limit = float(np.median(theirs / np.asarray(self.limit_seconds))) if len(self.limit_seconds) else None
        needed = self.goal if limit is None else min(self.goal, LIMIT_SHARE * limit)
        per_second = (self.amount / float(np.median(seconds)) for seconds in (theirs, ours))
        return row(
            self.work, f"{self.unit}/s", **dict(zip(("theirs", "ours"), per_second)), peer=self.peer, ratio=ratio,
            spread=interval, wanted=f"{self.goal:.3g} times", limit=limit, met=ratio >= needed, rounds=len(ours),
        )  # fmt: skip


@dataclass(frozen=True)
class Ceiling:
    """What should be small: seconds that a user waits, or a share of the CPU seconds.

    Attributes:
        values: `[rounds]`, in `unit`.
        goal: the most that their median may be.
        note: what a reader must know of these numbers.
    """

    work: str
    unit: str
    values: Sequence[float]
    goal: float
    note: str = ""

    def row(self) -> dict[str, Any]:
        value, interval = middle(self.values)
        return row(
            self.work, self.unit, value, f"at most {self.goal:g}", value <= self.goal, interval, note=self.note,
            rounds=len(self.values),
        )  # fmt: skip
