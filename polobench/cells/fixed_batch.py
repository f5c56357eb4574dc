"""One update of a method on a stored batch, and one rollout at a stored policy: what returns hide, without noise.

- The method's own `learn` runs up to its first update, from a stored policy, on a task whose verbs hand out the stored
  rollouts whatever size is asked for. All of it computes in float64, so that what platforms round differently stays
  below any tolerance. Kept are the update's metrics, a sketch of how each tensor moved, and what the ledger counted.
- On the task itself, what the method's first rollout takes is counted: environment calls, tokens and rows through the
  policy.

A sketch of a tensor's change d: its norm, and `PROJECTIONS` sums of d with random signs. Two changes that differ by e
differ in each such sum by |e| in the mean square, so that a wrong one does not pass; and it needs five numbers, not n.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from polobench.cells.fixed_policy import FixedPolicy, on_policies, tensors_of
from polobench.cells.job import Enough, Job, Watch, bound
from polobench.cells.stored_batches import VERBS, StoredBatch, find_batch, find_policy
from polobench.core.budget import Budget, Counts, Ledger
from polobench.core.errors import PoloError, Unavailable
from polobench.core.method import ForeignMethod, Method
from polobench.core.policy import Policy
from polobench.core.provenance import code_hash
from polobench.core.recorder import Update
from polobench.core.result import RunResult
from polobench.core.rollout import Rollout
from polobench.core.task import Task
from polobench.kinds.cell import Cell
from polobench.kinds.fixed_batch import FixedBatch

PROJECTIONS = 4
COUNTED = tuple(item.name for item in fields(Counts) if item.name not in ("updates", "rollout_seconds"))

Verb = Callable[..., Rollout]


def _on_batch(method: Method, stored: FixedPolicy, batch: StoredBatch, seed: int) -> dict[str, Any]:
    before: dict[str, Tensor] = {}

    def load(policy: Policy) -> None:
        stored.load_into(policy)
        policy.double()

    def begin(task: Task) -> None:
        on_policies(task, load)
        for verb in VERBS:
            setattr(task, verb, _replay(task, batch.rollouts[verb]))

    def note(policy: Policy) -> None:
        before.update({name: tensor.clone() for name, tensor in tensors_of(policy).items()})

    update, ledger = _first_update(method, seed, begin, note)
    numbers = {"loss": update.loss} | dict(update.metrics)
    return {
        "metrics": {name: float(value) for name, value in sorted(numbers.items())},
        "changes": {
            name: sketch(name, after - before[name])
            for name, after in sorted(tensors_of(update.policy).items())
            if after.is_floating_point()
        },
        "batch_counts": _counts(ledger),
    }


def _on_task(method: Method, stored: FixedPolicy, seed: int) -> dict[str, Any]:
    """What the first rollout of the method takes, on the task itself; its update is not made."""
    taken: dict[str, int] = {}

    def begin(task: Task) -> None:
        on_policies(task, stored.load_into)
        for verb in VERBS:
            setattr(task, verb, _counted(task, getattr(task, verb), taken))

    with suppress(Enough):
        _first_update(method, seed, begin, lambda policy: None)
    return {"rollout_counts": taken}


def _first_update(
    method: Method, seed: int, begin: Callable[[Task], None], on_policy: Callable[[Policy], None]
) -> tuple[Update, Ledger]:
    ledger = Ledger(Budget(updates=2))
    with bound(method, seed, ledger, on_policy) as task:
        begin(task)
        update = next(iter(method.learn(task, task.rng)), None)
    if update is None:
        raise PoloError(f"method {method.name!r} ended without an update")
    return update, ledger


def _replay(task: Task, rollout: Rollout) -> Verb:
    """A verb that hands out this rollout in float64, charged as if it had been sampled."""
    columns = {name: value.to(task.device) for name, value in vars(rollout).items() if isinstance(value, Tensor)}
    columns = {name: part.double() if part.is_floating_point() else part for name, part in columns.items()}
    in_doubles = rollout.attach(**columns)

    def replayed(*asked: object) -> Rollout:
        task.ledger.charge_generated(in_doubles.n_samples)
        return in_doubles

    return replayed


def _counted(task: Task, verb: Verb, taken: dict[str, int]) -> Verb:
    """The verb, whose call leaves in `taken` what the ledger counted meanwhile and ends the run."""

    def counted(*asked: Any) -> Rollout:
        before = _counts(task.ledger)
        verb(*asked)
        taken.update({name: count - before[name] for name, count in _counts(task.ledger).items()})
        raise Enough

    return counted


def _counts(ledger: Ledger) -> dict[str, int]:
    return {name: int(getattr(ledger, name)) for name in COUNTED}


def sketch(name: str, change: Tensor) -> list[float]:
    """The norm of a tensor's change, and its sums with signs that the name decides."""
    flat = change.detach().double().flatten().cpu().numpy()
    signs = np.random.default_rng(zlib.crc32(name.encode())).choice((-1.0, 1.0), (PROJECTIONS, flat.size))
    return [float(np.linalg.norm(flat)), *(signs @ flat).tolist()]


class FixedBatchJob(Job[FixedBatch]):
    """The running half of a fixed-batch cell; nobody times it."""

    def __init__(self, plan: FixedBatch, task: Task) -> None:
        super().__init__(plan, task)
        folder = Path(plan.folder) / "batches"
        self._policy, self._batch = find_policy(folder, task), find_batch(folder, task.name)
        self.hyperparameters = self._policy.network
        self.hashes = {"policy": self._policy.sha256, "batch": self._batch.sha256}
        self.code = code_hash(__name__)

    def measure(self, method: Method, cell: Cell, result: RunResult, watch: Watch) -> RunResult:
        if isinstance(method, ForeignMethod):
            raise Unavailable(f"method {method.name!r} owns its loop, so it cannot be given a stored batch")
        result.fixed_batch |= _on_batch(method, self._policy, self._batch, cell.seed)
        result.fixed_batch |= _on_task(method, self._policy, cell.seed)
        result.reason = "the update was made"
        return result
