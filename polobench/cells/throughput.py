"""How fast a method iterates: warmed-up rounds, the device synchronised inside the timed call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from operator import sub
from typing import Any, Self

import torch

from polobench.cells.job import Job, Watch, bound
from polobench.core.budget import Budget, Ledger
from polobench.core.device import PeakMemory, synchronize
from polobench.core.errors import Unavailable
from polobench.core.method import ForeignMethod, Method
from polobench.core.recorder import Update
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.kinds.throughput import WARMUP_ROUNDS, Throughput


class ThroughputProbe(ExitStack):
    """Iterations (a rollout and its update) of one method, timed one at a time. A context manager.

    Args:
        method: to time; a `ForeignMethod` owns its loop and cannot be.
        seed: of the run.
        iterations: at most so many steps will be asked for.
        wait: waits for the device.
        clock: seconds.

    Raises:
        Unavailable: the method is a `ForeignMethod`.
    """

    def __init__(
        self,
        method: Method,
        seed: int,
        iterations: int,
        *,
        wait: Callable[[torch.device], None] = synchronize,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if isinstance(method, ForeignMethod):
            raise Unavailable(f"method {method.name!r} owns its loop, so its iterations cannot be timed apart")
        super().__init__()
        self._method, self._seed, self._wait, self._clock = method, seed, wait, clock
        self.ledger = Ledger(Budget(updates=iterations))
        self.iteration_seconds: list[float] = []
        self.rollout_seconds: list[float] = []
        self.samples: list[int] = []

    def __enter__(self) -> Self:
        task = self.enter_context(bound(self._method, self._seed, self.ledger))
        self.memory = PeakMemory(self._method.device)
        self._updates: Iterator[Update] = self._method.learn(task, task.rng)
        self.ledger.clock.start()
        return self

    def step(self) -> None:
        """One iteration, and the wait for whatever it left queued on the device."""
        start, samples, rollout = self._clock(), self.ledger.samples, self.ledger.rollout_seconds
        next(self._updates)
        self._wait(self._method.device)
        self.iteration_seconds.append(self._clock() - start)
        self.rollout_seconds.append(self.ledger.rollout_seconds - rollout)
        self.samples.append(self.ledger.samples - samples)
        self.ledger.count_update()
        self.memory.sample()

    def summary(self, rounds: int) -> dict[str, Any]:
        """The last `rounds` steps; keys in docs/results-format.md. Raises `ValueError` if fewer steps were taken.

        Rates of samples are None where none was new: a method may update several times on a batch.
        """
        if len(self.iteration_seconds) < rounds:
            raise ValueError(f"only {len(self.iteration_seconds)} of {rounds} rounds were timed")
        iteration, rollout = self.iteration_seconds[-rounds:], self.rollout_seconds[-rounds:]
        update = list(map(sub, iteration, rollout))
        samples = sum(self.samples[-rounds:])
        return {
            "rounds": rounds,
            "warmup_rounds": len(self.iteration_seconds) - rounds,
            "iteration_seconds": iteration,
            "rollout_seconds": rollout,
            "update_seconds": update,
            "samples_per_second": _rate(samples, iteration),
            "updates_per_second": _rate(rounds, iteration),
            "rollout_samples_per_second": _rate(samples, rollout),
            "update_samples_per_second": _rate(samples, update),
        }


class ThroughputJob(Job[Throughput]):
    """The running half of a throughput cell."""

    def measure(self, method: Method, cell: Cell, result: RunResult, watch: Watch) -> RunResult:
        rounds = self.plan.rounds
        with ThroughputProbe(method, cell.seed, WARMUP_ROUNDS + rounds) as probe:
            watch.drive(probe.step, rounds, WARMUP_ROUNDS)
            result.throughput = probe.summary(rounds)
            result.reason = "all rounds were timed"
            if not any(probe.samples[-rounds:]):
                result.reason = f"the {rounds} timed rounds took no new samples: more throughput_rounds are needed"
            result.ledger, result.peak_memory_mib = probe.ledger.totals(), probe.memory.mib
        return result


def _rate(count: int, seconds: list[float]) -> float | None:
    return count / sum(seconds) if count and sum(seconds) > 0 else None
