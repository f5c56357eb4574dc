"""The budget of a run and the ledger that is charged against it.

A budget is reached by whichever of its limits comes first. The *task* charges the ledger, before it takes a step, so
that no method can spend what it does not have; `Recorder` charges updates. Evaluation is never charged or timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

from polobench.core.errors import UsageError, unknown

LIMITS = ("samples", "updates", "seconds")
LARGEST = 2**63


class BudgetExhausted(Exception):
    """The next step does not fit into the budget. `limit` is one of `samples`, `updates`, `seconds`."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the budget of {limit} is spent")
        self.limit = limit


class RunTimeout(Exception):
    """The run, evaluation included, took longer than the seconds that it was given to finish."""


@dataclass(frozen=True)
class Budget:
    """How much a run may use; at least one limit, the first one reached ends the run.

    Attributes:
        samples: transitions in control, completion tokens in language.
        updates: calls of `record`.
        seconds: wall seconds of training, evaluation excluded; a run stops within one update of it.

    Raises:
        UsageError: no limit, or one that is not a positive finite number.
    """

    samples: int | None = None
    updates: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.as_dict():
            raise UsageError("a budget needs at least one of samples, updates, seconds")
        for name, value in self.as_dict().items():
            object.__setattr__(self, name, _positive(name, value))

    @classmethod
    def of(cls, value: object) -> Budget:
        """A budget from a `Budget`, an int (samples) or a mapping of limits; raises `UsageError` for anything else."""
        if isinstance(value, Budget):
            return value
        if isinstance(value, Mapping):
            for name in value:
                if name not in LIMITS:
                    raise unknown("budget limit", name, LIMITS)
            return cls(**value)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UsageError(f"budget {value!r} is not a number of samples (allowed: a positive integer)")
        return cls(samples=value)  # type: ignore[arg-type]  # __post_init__ says what is wrong with a fraction

    def as_dict(self) -> dict[str, float]:
        """The limits that are set."""
        return {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}

    def __str__(self) -> str:
        return budget_text(self.as_dict())


def budget_text(limits: Mapping[str, Any]) -> str:
    """`50,000 samples, 60 seconds`: the limits that are set."""
    texts = [f"{limit:,.12g} {name}" for name, limit in sorted(limits.items()) if limit is not None]
    return ", ".join(texts) or "no budget"


def _positive(name: str, value: Any) -> int | float:
    kind = "a positive number" if name == "seconds" else "a positive integer"
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < LARGEST or (name != "seconds" and value != int(value)):
        raise UsageError(f"budget of {name} is {value!r} (allowed: {kind})")
    return float(value) if name == "seconds" else int(value)


class Stopwatch:
    """Wall and CPU seconds between `start` and `stop`, summed; calling it gives the wall seconds."""

    def __init__(
        self, wall: Callable[[], float] = time.perf_counter, cpu: Callable[[], float] = time.process_time
    ) -> None:
        self._clocks = (wall, cpu)
        self._spent = [0.0, 0.0]
        self._since: list[float] | None = None

    def start(self) -> None:
        self._since = self._since or [clock() for clock in self._clocks]

    def stop(self) -> None:
        self._spent, self._since = [self.wall_seconds, self.cpu_seconds], None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the stopwatch, if it runs, for the duration of the block."""
        running = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if running:
                self.start()

    def _read(self, index: int) -> float:
        if self._since is None:
            return self._spent[index]
        return self._spent[index] + self._clocks[index]() - self._since[index]

    @property
    def wall_seconds(self) -> float:
        return self._read(0)

    @property
    def cpu_seconds(self) -> float:
        return self._read(1)

    def __call__(self) -> float:
        return self.wall_seconds


@dataclass(kw_only=True)
class Counts:
    """The counts of a run.

    Attributes:
        samples_generated: transitions or completion tokens taken from the task.
        samples_read: samples read from a fixed data set, charged each time.
        reward_calls: calls of a reward function, or steps of an environment, discarded ones left out.
        reward_tokens: tokens that a learned reward has read, prompts included, in its training and as a reward.
        discarded_transitions: steps taken after an episode's end inside a rollout (the autoreset step, or a finished
            episode that waits for its batch); their actions have no effect, and they are never charged.
        gradient_steps: changes of parameters along a gradient.
        forward_rows: rows (one observation, or one token) through the actor or the critic, padding and prompts of a
            language model included; through a value head on hidden states that are at hand, none.
        backward_rows: those of them that go through with gradients and so come back (but for a minibatch at which PPO's
            `target_kl` ends the epochs), and those of products with a transposed Jacobian.
        rollout_seconds: the part of the wall seconds spent inside the task's verbs.
    """

    samples_generated: int = 0
    samples_read: int = 0
    updates: int = 0
    reward_calls: int = 0
    reward_tokens: int = 0
    gradient_steps: int = 0
    forward_rows: int = 0
    backward_rows: int = 0
    discarded_transitions: int = 0
    rollout_seconds: float = 0.0


@dataclass(kw_only=True)
class LedgerTotals(Counts):
    """The ledger at the end of a run, as it is stored: the counts and what follows from them.

    Attributes:
        samples: `samples_generated` + `samples_read`.
        samples_unspent: the budget's samples minus these; None without such a limit.
        wall_seconds, cpu_seconds: of training, evaluation excluded.
    """

    samples: int = 0
    samples_unspent: int | None = None
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class Ledger(Counts):
    """What a run has used, beside the budget that it may use.

    Attributes:
        deadline: `time.perf_counter()` after which the run is given up, or None.
    """

    budget: Budget
    clock: Stopwatch = field(default_factory=Stopwatch)
    deadline: float | None = None

    @property
    def samples(self) -> int:
        return self.samples_generated + self.samples_read

    @property
    def samples_unspent(self) -> int | None:
        return None if self.budget.samples is None else self.budget.samples - self.samples

    @property
    def wall_seconds(self) -> float:
        return self.clock.wall_seconds

    @property
    def cpu_seconds(self) -> float:
        return self.clock.cpu_seconds

    def charge_generated(self, count: int) -> None:
        """Charge `count` samples about to be taken, or none and raise `BudgetExhausted`, or as `check_time`."""
        self._admit(count)
        self.samples_generated += count

    def charge_read(self, count: int) -> None:
        """Charge `count` samples about to be read from a data set; raises as `charge_generated`."""
        self._admit(count)
        self.samples_read += count

    def _admit(self, count: int) -> None:
        self.check_time()
        if self.budget.samples is not None and self.samples + count > self.budget.samples:
            raise BudgetExhausted("samples")

    def check_time(self) -> None:
        """Raise `BudgetExhausted` past the budget's seconds, `RunTimeout` past the deadline."""
        if self.budget.seconds is not None and self.wall_seconds >= self.budget.seconds:
            raise BudgetExhausted("seconds")
        self.check_deadline()

    def check_deadline(self) -> None:
        """Raise `RunTimeout` past the deadline, in evaluations too, which no budget counts."""
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise RunTimeout("the run did not finish within its time limit")

    def count_update(self) -> None:
        self.updates += 1

    def check_updates(self) -> None:
        """Raise `BudgetExhausted` when the budget's updates are done."""
        if self.budget.updates is not None and self.updates >= self.budget.updates:
            raise BudgetExhausted("updates")

    def progress(self) -> float:
        """The fraction of the budget that is used, by the limit nearest to its end, in [0, 1]."""
        used = {"samples": self.samples, "updates": self.updates, "seconds": self.wall_seconds}
        return min(1.0, max(used[name] / limit for name, limit in self.budget.as_dict().items()))

    @contextmanager
    def timing_rollout(self) -> Iterator[None]:
        """Add the wall seconds spent inside to `rollout_seconds`."""
        start = self.wall_seconds
        try:
            yield
        finally:
            self.rollout_seconds += self.wall_seconds - start

    def totals(self) -> LedgerTotals:
        """Where the ledger stands now."""
        return LedgerTotals(**{item.name: getattr(self, item.name) for item in fields(LedgerTotals)})
