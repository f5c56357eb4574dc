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
        name: what was compared.
        unit, amount: what one step makes, such as 1024 "tokens".
        target: the ratio that the project holds itself to.
        ours_seconds, theirs_seconds: `[rounds]`.
    """

    name: str
    unit: str
    amount: int
    target: float
    ours_seconds: Sequence[float]
    theirs_seconds: Sequence[float]

    def row(self) -> dict[str, Any]:
        """Medians over the rounds; the ratio is theirs over ours, with the 95 % percentile bootstrap of its median."""
        ours, theirs = np.asarray(self.ours_seconds), np.asarray(self.theirs_seconds)
        ratios = theirs / ours
        interval = bootstrap((ratios,), np.median, method="percentile", random_state=0).confidence_interval
        return {
            "comparison": self.name,
            "unit": self.unit,
            "ours_ms": 1e3 * float(np.median(ours)),
            "theirs_ms": 1e3 * float(np.median(theirs)),
            "ours_per_second": self.amount / float(np.median(ours)),
            "theirs_per_second": self.amount / float(np.median(theirs)),
            "ratio_median": float(np.median(ratios)),
            "ratio_low": interval.low,
            "ratio_high": interval.high,
            "rounds": len(ratios),
            "target": self.target,
        }
