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
        """Medians over the rounds; the ratio is theirs over ours, with the 95 % percentile bootstrap of its median."""
        ours, theirs = np.asarray(self.ours_seconds), np.asarray(self.theirs_seconds)
        ratios = theirs / ours
        interval = bootstrap((ratios,), np.median, method="percentile", random_state=0).confidence_interval
        limit = float(np.median(theirs / np.asarray(self.limit_seconds))) if len(self.limit_seconds) else None
        needed = self.goal if limit is None else min(self.goal, LIMIT_SHARE * limit)
        return {
            "work": self.work,
            "peer": self.peer,
            "unit": self.unit,
            "ours_per_second": self.amount / float(np.median(ours)),
            "theirs_per_second": self.amount / float(np.median(theirs)),
            "ratio": float(np.median(ratios)),
            "ratio_low": float(interval.low),
            "ratio_high": float(interval.high),
            "rounds": len(ratios),
            "goal": self.goal,
            "limit": limit,
            "met": bool(np.median(ratios) >= needed),
        }
