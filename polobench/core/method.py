"""`Method.run(seed, budget)`, written once for every method.

A method writes only `learn`, a generator that is a natural training loop and yields an `Update` after each update. A
library that owns its own loop is a `ForeignMethod` and calls `record` from the library's callback.
"""

from __future__ import annotations

import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from numbers import Integral
from typing import Any, ClassVar, Generic, cast, get_args

from polobench.core import provenance
from polobench.core.budget import Budget, BudgetExhausted, Ledger, Stopwatch
from polobench.core.convergence import loss_convergence, time_to_target
from polobench.core.device import TORCH_COMPILER, resolve_device, warm_up
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import HP, Hyperparameters, build
from polobench.core.outcome import outcome_into
from polobench.core.recorder import Progress, Recorder, Update
from polobench.core.result import RunResult, utc_now
from polobench.core.seeding import SeedAxes, isolated
from polobench.core.task import Task

Record = Callable[[Update], None]
NO_UPDATE_FITS = "no update fits the budget of"


class Method(ABC, Generic[HP]):
    """A policy-optimization method with its hyper-parameters, on a task and a device.

    Args:
        task: the task to learn.
        device: "cpu", "cuda" or "mps".
        label: the name of this variant; `default_label` where it is not given, or is the method's name.
        threads: number of torch threads; recorded, since another number changes bits.
        hyperparameters: fields of `Hyperparameters`.

    Raises:
        UsageError: an unknown or impossible hyper-parameter or device name, or one that does not fit the task.
        Unavailable: the device is absent; the text is the reason.
    """

    name: ClassVar[str]
    Hyperparameters: ClassVar[type[Hyperparameters]] = Hyperparameters
    hp: HP

    def __init_subclass__(cls) -> None:
        """`class Mine(Method[MyHyperparameters])` says what the hyper-parameters are, for mypy and for `run`."""
        super().__init_subclass__()
        for argument in (found for base in cls.__dict__.get("__orig_bases__", ()) for found in get_args(base)):
            if isinstance(argument, type) and issubclass(argument, Hyperparameters):
                cls.Hyperparameters = argument

    def __init__(
        self, task: Task, device: str = "cpu", label: str | None = None, threads: int = 1, /, **hyperparameters: Any
    ) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise UsageError(f"threads is {threads!r} (allowed: an integer from 1)")
        self.task, self.device, self.threads = task, resolve_device(device), threads
        self.hp = cast(HP, build(self.Hyperparameters, self.name, hyperparameters))
        self.check()
        self.label = self.default_label() if label is None or label == self.name else label

    def check(self) -> None:
        """Raise `UsageError` where hyper-parameters do not fit each other or the task."""

    def default_label(self) -> str:
        """What reports call it where the study gives no label."""
        return self.name

    def code_hash(self) -> str:
        """The hash of the code that this method and its task reach."""
        return provenance.code_hash(*sorted(provenance.modules_of(type(self)) | self.task.modules()))

    @property
    def libraries(self) -> set[str]:
        """Slow modules that a run imports late: the task's, and with an optimizer of torch's its compiler.

        Our own methods take theirs from the policy, and that of a control task has its own on a CPU.
        """
        spared = type(self).__module__.startswith("polobench.methods.") and self.device.type == "cpu"
        return {*self.task.libraries, *(() if spared else (TORCH_COMPILER,))}

    def provenance(self) -> dict[str, Any]:
        """Where a result of this method on this machine comes from."""
        return provenance.collect(self.code_hash(), self.device, self.threads)

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        """Train on the metered `task` and yield an `Update` after each update, for as long as the budget lasts."""
        raise NotImplementedError(f"{self.name} has no learn(task, rng)")

    def train(self, task: Task, rng: SeedAxes, record: Record) -> None:
        """Drain `learn` into `record`."""
        for update in self.learn(task, rng):
            record(update)

    def run(
        self,
        seed: int,
        budget: Budget | int,
        *,
        clock: Stopwatch | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> RunResult:
        """Train once and evaluate; a run that fails is a result too.

        Args:
            seed: a non-negative integer.
            budget: a `Budget`, or a number of samples.
            clock: the stopwatch of the ledger, if the caller wants to read it.
            on_progress: called after every update.
            timeout_seconds: give the run up after this many wall seconds, evaluation included.

        Raises:
            UsageError: an impossible seed or budget.
            KeyboardInterrupt: as it came.
        """
        if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
            raise UsageError(f"seed {seed!r} is not allowed (allowed: an integer from 0)")
        seed = int(seed)
        deadline = None if timeout_seconds is None else time.perf_counter() + timeout_seconds
        ledger = Ledger(Budget.of(budget), clock or Stopwatch(), deadline)
        result = self._blank(seed, ledger.budget)
        rng = SeedAxes(seed)
        with isolated(rng, self.threads):
            if TORCH_COMPILER in self.libraries:
                warm_up(self.device)
            recorder = Recorder(self.task, ledger, self.device)
            recorder.on_progress = on_progress or recorder.on_progress
            with outcome_into(result, "closing the task: "), ExitStack() as cleanup:
                with outcome_into(result):
                    self._attempt(result, rng, ledger, recorder, cleanup)
                if result.status == "ok":
                    with outcome_into(result, "evaluation: "):
                        self._evaluate_finally(result, recorder)
            self._fill(result, ledger, recorder)
        if result.status == "out_of_memory" and (advice := self.task.memory_advice(self.hp)):
            result.reason += f" ({advice})"
        return result

    def _attempt(
        self, result: RunResult, rng: SeedAxes, ledger: Ledger, recorder: Recorder, cleanup: ExitStack
    ) -> None:
        """Train until something ends it."""
        try:
            task = recorder.task = self.task.bind(rng, ledger, self.device, recorder.start, self.hp.generation_batch)
            cleanup.callback(task.close)
            ledger.clock.start()
            self.train(task, rng, recorder)
            result.reason = "the method ended by itself"
            if ledger.updates == 0:
                result.status = "failed"
                result.reason = "the method ended without an update although its budget was not spent"
        except BudgetExhausted as end:
            result.reason = str(end)
            if ledger.updates == 0 and recorder.policy is not None and recorder.policy.actor_parameters:
                result.status, result.reason = "failed", f"{NO_UPDATE_FITS} {ledger.budget}"
        finally:
            ledger.clock.stop()

    def _blank(self, seed: int, budget: Budget) -> RunResult:
        return RunResult(
            method=self.name,
            label=self.label,
            task=self.task.name,
            seed=seed,
            device=self.device.type,
            budget=budget.as_dict(),
            hyperparameters=dataclasses.asdict(self.hp),
            unit=self.task.unit,
            target=self.task.target,
            started_at=utc_now(),
            provenance=self.provenance(),
        )

    def _fill(self, result: RunResult, ledger: Ledger, recorder: Recorder) -> None:
        task = recorder.task
        result.floor, result.target, result.unit = task.floor, task.target, task.unit
        if result.status == "ok" and task.unscored:
            result.reason += f"; {task.unscored}"
        result.curve, result.updates = recorder.curve(), recorder.updates()
        if result.status != "ok":
            result.score_as_failed()
        result.time_to_target = time_to_target(result.curve, result.target)
        result.loss_convergence = loss_convergence(*recorder.losses())
        result.ledger = ledger.totals()
        result.peak_memory_mib = recorder.memory.mib
        result.snapshots = recorder.snapshots
        result.trail = recorder.trail
        result.digest = None if result.status == "timeout" else recorder.digest()
        result.policy = recorder.policy

    def _evaluate_finally(self, result: RunResult, recorder: Recorder) -> None:
        evaluation = recorder.finish()
        if evaluation is None:
            result.status, result.reason = "failed", "the method made no policy before its budget was spent"
        elif not math.isfinite(evaluation.mean):
            result.status, result.reason = "diverged", f"the held-out evaluation is {evaluation.mean}"
        else:
            result.final_return, result.final_return_std = evaluation.mean, evaluation.std
            result.final_score = recorder.task.score(evaluation.mean)
            result.provenance["final_episodes"] = recorder.task.final_episodes


class ForeignMethod(Method[HP]):
    """A library with a loop of its own: `train` calls `record` from the library's callback."""

    @abstractmethod
    def train(self, task: Task, rng: SeedAxes, record: Record) -> None:
        """Run the library's loop; call `record(Update(...))` after each update and let what it raises through."""
