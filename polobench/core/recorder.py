"""`record(update)`: the one place that receives every method's updates.

It owns the clock, the budget, evaluation, hashing and recording, so that these cannot differ between methods.
"""

from __future__ import annotations

import hashlib
import math
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from polobench.core.budget import Ledger
from polobench.core.device import PeakMemory, synchronize
from polobench.core.errors import first_line
from polobench.core.policy import Policy, unmetered
from polobench.core.seeding import SeedAxes
from polobench.core.task import Evaluation, Task

STORED_UPDATES = 500
EVALUATION_SEED = 0  # of every run: the same held-out episodes everywhere, so that differences are the policies' own


class Diverged(Exception):
    """A loss or a parameter is no longer a finite number."""


@dataclass(frozen=True)
class Update:
    """What a method yields after each update.

    Attributes:
        loss: the objective that was minimised, averaged over the update.
        metrics: further finite or NaN numbers by name, such as `kl` or `entropy` [nats].
        policy: the policy after the update.
    """

    loss: float
    policy: Policy
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a run has come, for a display."""

    fraction: float
    samples: int
    latest_return: float | None


class Recorder:
    """Records one run; call it with each `Update`.

    Raises (from a call):
        BudgetExhausted: the budget's updates or seconds are over.
        Diverged: the loss or a parameter is not finite.
        RunTimeout: past the ledger's deadline.
    """

    def __init__(self, task: Task, ledger: Ledger, device: torch.device) -> None:
        self.task, self._ledger, self._device = task, ledger, device
        self._hash = hashlib.sha256()
        self._curve: list[dict[str, float]] = []
        self._updates: list[dict[str, float]] = []
        self._since_evaluation = 0
        self._returns_sum, self._returns_count = 0.0, 0
        self._next_due = 1
        self._first_returns: tuple[float, ...] = ()
        self._last_returns: tuple[float, ...] = ()
        self.memory = PeakMemory(device)
        self.policy: Policy | None = None
        self.trail: list[str] = []
        self.snapshots: dict[str, Any] = {}
        self.on_progress: Callable[[Progress], None] = lambda progress: None

    def start(self, policy: Policy) -> None:
        """Evaluate the policy as it is before its first update."""
        if self.policy is None:
            self.policy = policy
            with self._ledger.clock.paused():
                self._take_snapshot("before", self._evaluate(0.0, self._measures_at_ends))

    def __call__(self, update: Update) -> None:
        synchronize(self._device)
        with self._ledger.clock.paused():
            self._record(update)
        self._ledger.check_updates()
        self._ledger.check_time()

    def _record(self, update: Update) -> None:
        self.policy = update.policy
        self._ledger.count_update()
        self.memory.sample()
        numbers = {"loss": float(update.loss)} | {name: float(value) for name, value in update.metrics.items()}
        self._take_returns()
        self._updates.append({"samples": float(self._ledger.samples)} | numbers)
        self._hash.update(struct.pack("<Q", self._ledger.samples))
        for name in sorted(numbers):
            self._hash.update(name.encode() + struct.pack("<d", numbers[name]))
        self._check_finite(numbers["loss"], update.policy)
        progress = self._ledger.progress()
        if progress >= self._next_due / self.task.evaluations and progress < 1:
            self._next_due = math.floor(progress * self.task.evaluations) + 1
            self._evaluate(progress)
        self.trail.append(self._hash.hexdigest()[:8])
        latest = self._curve[-1]["return_mean"] if self._curve else None
        self._show(Progress(progress, self._ledger.samples, latest))

    def _show(self, progress: Progress) -> None:
        """Tell whoever watches; a display that breaks is no fault of the method."""
        try:
            self.on_progress(progress)
        except Exception as error:
            self.on_progress = lambda progress: None
            warnings.warn(f"on_progress failed and is called no more: {first_line(error)}", stacklevel=2)

    def _take_returns(self) -> None:
        returns = self.task.drain_episode_returns()
        self._returns_sum += sum(returns)
        self._returns_count += len(returns)

    def _check_finite(self, loss: float, policy: Policy) -> None:
        where = f"after update {self._ledger.updates} ({self._ledger.samples} samples)"
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} {where}")
        for name, parameter in policy.named_parameters():
            if not _is_finite(parameter.detach()):
                raise Diverged(f"parameter {name} is not finite {where}")

    def _evaluate(self, progress: float, more: Callable[[Policy, int], dict[str, float]] | None = None) -> Evaluation:
        """A row of the curve; all rows are of the same held-out episodes.

        Args:
            progress: how far the run has come.
            more: gives further measures.
        """
        assert self.policy is not None
        for name, tensor in sorted(self.policy.state_dict().items()):
            self._hash.update(name.encode() + _bytes(tensor))
        evaluation = self._evaluated(range(self.task.evaluation_episodes))
        measures = dict(evaluation.measures)
        if more is not None:
            with torch.no_grad(), unmetered(self.policy):
                measures |= more(self.policy, self._evaluation_seed)
        for name, value in sorted(measures.items()):
            self._hash.update(name.encode() + struct.pack("<d", value))
        score = self.task.score(evaluation.mean)
        self._curve.append(
            {
                "progress": progress,
                "samples": float(self._ledger.samples),
                "updates": float(self._ledger.updates),
                "wall_seconds": self._ledger.wall_seconds,
                "cpu_seconds": self._ledger.cpu_seconds,
                "return_mean": evaluation.mean,
                "return_std": evaluation.std,
                "change_error": _error_of_change(self._last_returns, evaluation.returns),
                "start_error": _error_of_change(self._first_returns, evaluation.returns),
                "score": math.nan if score is None else score,
                "train_return": self._returns_sum / self._returns_count if self._returns_count else math.nan,
                **measures,
                **_means(self._updates[self._since_evaluation :]),
            }
        )
        self._last_returns = evaluation.returns
        if len(self._curve) == 1:
            self._first_returns = evaluation.returns
        self._since_evaluation = len(self._updates)
        self._returns_sum, self._returns_count = 0.0, 0
        return evaluation

    def _measures_at_ends(self, policy: Policy, seed: int) -> dict[str, float]:
        """Those of the task; none of a trial, by which nothing would be chosen."""
        return {} if self.task.split == "tuning" else self.task.measures_at_ends(policy, seed)

    def _evaluated(self, episodes: range) -> Evaluation:
        assert self.policy is not None
        self._ledger.check_deadline()
        with torch.no_grad(), unmetered(self.policy):
            evaluation = self.task.evaluate(self.policy, self._evaluation_seed, episodes)
        self._hash.update(struct.pack("<Qdd", self._ledger.samples, evaluation.mean, evaluation.std))
        return evaluation

    @property
    def _evaluation_seed(self) -> int:
        return SeedAxes(EVALUATION_SEED).integer(f"evaluation/{self.task.split}")

    def finish(self) -> Evaluation | None:
        """The last held-out evaluation, of the policy as it is at the end; None if there never was a policy.

        The curve's last row is of the episodes of its other rows; the evaluation is of these and all others.
        """
        if self.policy is None:
            return None
        with self._ledger.clock.paused():
            self._take_returns()
            evaluation = self._evaluate(1.0, self._measures_at_ends)
            self._take_snapshot("after", evaluation)
            rest = range(self.task.evaluation_episodes, self.task.final_episodes)
            return evaluation.with_more(self._evaluated(rest)) if rest else evaluation

    def _take_snapshot(self, when: str, evaluation: Evaluation) -> None:
        """Store the policy's answers and preferences; its pairs were read for the evaluation just before."""
        assert self.policy is not None
        with torch.no_grad(), unmetered(self.policy):
            snapshot = self.task.snapshot(self.policy)
        if snapshot:
            self.snapshots[when] = {"pairs": dict(evaluation.pairs)} | snapshot

    def digest(self) -> str | None:
        """SHA-256 over what was recorded, times excluded; None if the seconds decided where it ended."""
        return None if self._ledger.budget.seconds is not None else self._hash.hexdigest()

    def curve(self) -> pd.DataFrame:
        return pd.DataFrame(self._curve)

    def losses(self) -> tuple[list[float], list[float]]:
        """Samples and loss at each update."""
        return [row["samples"] for row in self._updates], [row["loss"] for row in self._updates]

    def updates(self) -> pd.DataFrame:
        """Means over at most `STORED_UPDATES` equal stretches of the updates."""
        table = pd.DataFrame(self._updates)
        if len(table) <= STORED_UPDATES:
            return table
        stretch = np.arange(len(table)) * STORED_UPDATES // len(table)
        return table.groupby(stretch).mean().reset_index(drop=True)


def _error_of_change(before: Sequence[float], now: Sequence[float]) -> float:
    """Standard error of the change of the mean return between evaluations of the same episodes; NaN if they are not."""
    if len(before) != len(now) or len(before) < 2:
        return math.nan
    changes = np.subtract(now, before)
    return float(changes.std(ddof=1) / math.sqrt(len(changes)))


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each metric over the rows in which it is a number, NaN if it is none in all; pandas takes 3 ms for this."""
    found: dict[str, list[float]] = {name: [] for row in rows for name in row if name != "samples"}
    for row in rows:
        for name in found.keys() & row.keys():
            if not math.isnan(row[name]):
                found[name].append(row[name])
    return {name: float(np.mean(values)) if values else math.nan for name, values in found.items()}


def _bytes(tensor: torch.Tensor) -> bytes:
    """The bits of a tensor of any type; numpy has no bfloat16."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _is_finite(tensor: torch.Tensor) -> bool:
    """Asked after every update: of small tensors numpy knows in a quarter of torch's time, if it knows their type."""
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        return bool(np.isfinite(tensor.numpy()).all())
    return bool(torch.isfinite(tensor).all())
