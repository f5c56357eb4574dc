"""How noisy a method's gradient is at a policy that stays as it is, over equal batches.

The method's own `learn` runs, on a task that gives it a trainer's policy (`trained_policies.py`) in place of a fresh
one. That policy notes the actor's gradient where an optimizer would follow it (`Policy.gradient_step`, or
`Policy.actor_gradient` of a method that goes its own way), and does not move; its critic begins fresh and is fitted as
always. The gradient is the raw one, before it is clipped or an optimizer or a Fisher matrix has turned it.

- An update's gradient is the mean over its gradient steps, weighted by their rows. Since the policy does not move,
  every epoch repeats the first (up to what is standardised over minibatches), and every ratio is 1.
- A batch is as many updates as reach the asked-for samples, its gradient the mean over them, as it would be of one
  larger update. An update that took no samples repeats the one before and is left out.
- The first batches, `WARMUP_BATCHES` times the samples of one, only fit the critic (and the scale of the rewards).
- The run began with the trainer's policy, so that is the reference of methods that have one.
- Every policy has random streams of its own, the same for all methods: policies that are equal, such as a checkpoint
  before training, are measured on other samples.

core/gradient_noise.py has the formulas and their source.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from polobench.cells.fixed_policy import FixedPolicy, on_policies
from polobench.cells.job import Job, Watch, bound
from polobench.cells.trained_policies import Trainer
from polobench.core.budget import BudgetExhausted, Ledger
from polobench.core.device import PeakMemory
from polobench.core.errors import PoloError, Unavailable
from polobench.core.gradient_noise import Batches
from polobench.core.method import ForeignMethod, Method
from polobench.core.policy import Policy
from polobench.core.provenance import code_hash
from polobench.core.recorder import Diverged, Progress
from polobench.core.result import RunResult
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.kinds.cell import Cell
from polobench.kinds.gradient_noise import LEAST_BATCHES, WARMUP_BATCHES, GradientNoise

Hear = Callable[[Tensor, int], None]


class _Held(Policy):
    """Stands before a policy's class: the actor stays as it is, and `hear` is told its gradients and their rows."""

    hear: Hear
    rows_before: int

    def _rows_since(self) -> int:
        """Rows backward since the gradient before."""
        counted, self.rows_before = self.rows_before, self.ledger.backward_rows
        return self.rows_before - counted

    def _gradients_complete(self) -> None:
        parameters, rows = self.actor_parameters, self._rows_since()
        if all(parameter.grad is None for parameter in parameters):
            return  # a step of the critic alone
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.hear(torch.cat([gradient.flatten() for gradient in found]), rows)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()  # where it is a view, as `MLPPolicy`'s are
            parameter.grad = None  # which torch's optimizers pass over

    def actor_gradient(self, objectives: Iterable[Tensor]) -> Tensor:
        """None to follow: a method that would turn it into a step (by a Fisher matrix, say) need not."""
        gradient = super().actor_gradient(objectives)
        self.hear(gradient, self._rows_since())
        return torch.zeros_like(gradient)

    def set_actor_vector(self, vector: Tensor) -> None: ...

    def absorb(self, observations: Tensor) -> None: ...

    def refresh_statistics(self) -> None: ...


def hold(policy: Policy, hear: Hear) -> None:
    """Keep the policy's actor and statistics as they are from now on."""
    members = {"hear": staticmethod(hear)}
    held = type(f"Held{type(policy).__name__}", (_Held, type(policy)), members)
    policy.__class__ = cast(Any, held)
    cast(_Held, policy).rows_before = policy.ledger.backward_rows


class _Ear:
    """Adds up the gradients of one update."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._rows = 0

    def hear(self, gradient: Tensor, rows: int) -> None:
        rows = max(1, rows)  # a plug-in's policy may count none
        weighted = rows * gradient.detach().float().cpu()
        self._sum = weighted if self._sum is None else self._sum + weighted
        self._rows += rows

    def take(self) -> Tensor | None:
        """The mean `[n]` over what was heard since the last call, weighted by rows; None if nothing was."""
        found = None if self._sum is None else self._sum / self._rows
        self._sum, self._rows = None, 0
        return found


def _fixed_tensors(policy: Policy) -> list[Tensor]:
    return [*(parameter.detach() for parameter in policy.actor_parameters), *policy.buffers()]


def _updates(method: Method, task: Task, ear: _Ear, watch: Callable[[Ledger], None]) -> Iterator[tuple[Tensor, int]]:
    """The gradient `[n]` of each update that took samples, and how many, until the budget ends."""
    counted, ledger = 0, task.ledger
    with suppress(BudgetExhausted):
        for _ in method.learn(task, task.rng):
            ledger.count_update()
            ledger.check_time()
            gradient, taken = ear.take(), ledger.samples - counted
            if gradient is None:
                raise Unavailable(f"method {method.name!r} asks the policy for no gradient, so there is none to see")
            if not bool(torch.isfinite(gradient).all()):
                raise Diverged(f"the gradient is not finite after {ledger.samples} samples")
            watch(ledger)
            if taken:
                counted += taken
                yield gradient, taken


def _batches(updates: Iterator[tuple[Tensor, int]], samples: int) -> Iterator[tuple[Tensor, int]]:
    """Mean gradient `[n]` and samples of as many updates as reach `samples`; a last one that does not is dropped."""
    total: Tensor | None = None
    count, taken = 0, 0
    for gradient, of_update in updates:
        total = gradient if total is None else total + gradient
        count, taken = count + 1, taken + of_update
        if taken >= samples:
            yield total / count, taken
            total, count, taken = None, 0, 0


def _summary(found: list[tuple[Tensor, int]], plan: GradientNoise) -> dict[str, Any]:
    gradients = torch.stack([gradient for gradient, _ in found]).double()
    gram = (gradients @ gradients.T).numpy()
    squared_norms, taken = gram.diagonal(), [count for _, count in found]
    batches = Batches(squared_norms, gram.sum(1) - squared_norms, np.array(taken, np.float64), plan.samples)
    signal, trace = batches.signal_and_trace
    return {
        "batches": len(found),
        "batch_samples": taken,
        "squared_norms": squared_norms.tolist(),
        "products": batches.products.tolist(),
        "signal": signal,
        "trace": trace,
        "snr": batches.snr,
        "noise_scale": batches.noise_scale,
    }


class GradientNoiseJob(Job[GradientNoise]):
    """The running half of a gradient-noise cell: it measures at a trainer's policy, with the network of that policy."""

    def __init__(self, plan: GradientNoise, task: Task) -> None:
        super().__init__(plan, task)
        self._trainer = Trainer(task, plan)
        self.hyperparameters, self.hashes = self._trainer.network, {"policy": self._trainer.key}
        self.code = code_hash(__name__)

    def measure(self, method: Method, cell: Cell, result: RunResult, watch: Watch) -> RunResult:
        if isinstance(method, ForeignMethod):
            raise Unavailable(f"method {method.name!r} owns its loop, so its gradients cannot be seen")
        deadline = None if cell.timeout_seconds is None else time.perf_counter() + cell.timeout_seconds
        waits = Progress(0.0, 0, None)
        policy = self._trainer.policy(cell.seed, self.plan.stage, deadline, lambda: watch.on_progress(waits))
        result.gradient_noise["policy_sha256"] = policy.sha256
        ledger, memory = Ledger(cell.budget, deadline=deadline), PeakMemory(method.device)

        def follow(ledger: Ledger) -> None:
            memory.sample()
            done = min(1.0, ledger.samples / self.plan.planned_samples)
            watch.on_progress(Progress(done, ledger.samples, None))

        try:
            found = self._measured(method, cell.seed, policy, ledger, follow)
        finally:
            result.ledger, result.peak_memory_mib = ledger.totals(), memory.mib
        result.gradient_noise |= found
        result.reason = "all batches were measured"
        if found["batches"] < self.plan.batches:
            result.reason = f"the budget held {found['batches']} of {self.plan.batches} batches"
        return result

    def _measured(
        self, method: Method, seed: int, fixed: FixedPolicy, ledger: Ledger, follow: Callable[[Ledger], None]
    ) -> dict[str, Any]:
        """The batches and what follows from them; fewer than planned where the budget ends first."""
        plan, ear = self.plan, _Ear()
        before: list[tuple[Policy, list[Tensor]]] = []

        def on_policy(policy: Policy) -> None:
            hold(policy, ear.hear)
            before.append((policy, [tensor.clone() for tensor in _fixed_tensors(policy)]))

        with bound(method, SeedAxes(seed).integer(plan.policy(seed)), ledger, on_policy) as task:
            on_policies(task, fixed.load_into)
            ledger.clock.start()
            batches = _batches(_updates(method, task, ear, follow), plan.samples)
            warmup = _warmed_up(batches, WARMUP_BATCHES * plan.samples)
            found = list(islice(batches, plan.batches))
            ledger.clock.stop()
        for policy, tensors in before:
            if not all(map(torch.equal, tensors, _fixed_tensors(policy))):
                raise PoloError(f"method {method.name!r} moved the policy by other ways than the policy's own")
        if len(found) < LEAST_BATCHES:
            raise PoloError(
                f"the budget held {len(found)} of {plan.batches} batches (needed: {LEAST_BATCHES} at least)"
            )
        return {"warmup_samples": warmup} | _summary(found, plan)


def _warmed_up(batches: Iterator[tuple[Tensor, int]], samples: int) -> int:
    """Take batches until they reach so many samples; returns how many they held."""
    taken = 0
    while taken < samples and (batch := next(batches, None)):
        taken += batch[1]
    return taken
