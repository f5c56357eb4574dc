"""The policies at which gradients are measured: those of a trainer's run, at some shares of its budget.

A trainer is a method with the task's tuned values. Its run is made once, on the CPU whatever the cell's device, and its
policies are kept in the cache folder under what decides them, each behind the SHA-256 of its bytes. Where one is absent
or damaged the run is made again; two that make it at the same time write the same bytes. A critic is not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from polobench.cells.fixed_policy import FixedPolicy, critic_names, network_of, tensors_of
from polobench.cells.job import Enough, bound
from polobench.core.budget import BudgetExhausted, Ledger
from polobench.core.kept import cache_root
from polobench.core.policy import Policy
from polobench.core.provenance import code_hash
from polobench.core.recorder import Update
from polobench.core.task import Task
from polobench.kinds.gradient_noise import GradientNoise
from polobench.registry import make
from polobench.store.folder import replacing

_HASH_BYTES, _KEY_DIGITS = 32, 32


class Trainer:
    """What makes the policies of a plan.

    Attributes:
        network: the hyper-parameters by which the policies are built.
        key: a hash of all that decides them, but for seed and stage.
    """

    def __init__(self, task: Task, plan: GradientNoise) -> None:
        self._method = make(plan.trainer, task)
        self._budget, self._stages = plan.training, {plan.stage, *plan.stages}
        self.network = network_of(self._method)
        origin = self._method.provenance()
        decided_by = {
            "method": plan.trainer,
            "hyperparameters": asdict(self._method.hp),
            "task": task.name,
            "budget": plan.training.as_dict(),
            "identity": task.identity(),
            "code": [origin["code_hash"], code_hash(__name__), origin["platform_fingerprint"]],
        }
        self.key = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]

    def policy(
        self, seed: int, stage: float, deadline: float | None = None, on_update: Callable[[], None] = lambda: None
    ) -> FixedPolicy:
        """The policy of a run of this seed where it has first used this share of its budget; else where it ended.

        Raises what ends a run: `RunTimeout` past the deadline, or an error of the method.
        """
        with suppress(OSError, SafetensorError, ValueError):
            return self._fixed(_intact(self._path(seed, stage).read_bytes()))
        found = self._run(seed, Ledger(self._budget, deadline=deadline), on_update)
        with suppress(OSError):  # a folder that cannot be written to: the next cell makes the run again
            self._path(seed, stage).parent.mkdir(parents=True, exist_ok=True)
            for passed, content in found.items():
                with replacing(self._path(seed, passed)) as file:
                    file.write(hashlib.sha256(content).digest() + content)
        return self._fixed(found[stage])

    def _path(self, seed: int, stage: float) -> Path:
        return cache_root() / "policies" / f"{self.key}-{seed}-{stage:g}"

    def _fixed(self, content: bytes) -> FixedPolicy:
        return FixedPolicy(self.network, load(content), sha256=hashlib.sha256(content).hexdigest())

    def _run(self, seed: int, ledger: Ledger, on_update: Callable[[], None]) -> dict[float, bytes]:
        """The policy at each stage; a run is left where no stage is ahead."""
        found: dict[float, bytes] = {}
        latest: list[Policy] = []

        def keep(policy: Policy) -> None:
            latest[:] = [policy]
            found.update({stage: _content(policy) for stage in self._ahead(found) if ledger.progress() >= stage})
            if not self._ahead(found):
                raise Enough

        def record(update: Update) -> None:
            ledger.count_update()
            keep(update.policy)
            on_update()
            ledger.check_updates()
            ledger.check_time()

        with (
            suppress(BudgetExhausted, Enough),
            bound(self._method, seed, ledger, lambda policy: None if latest else keep(policy)) as task,
        ):
            self._method.train(task, task.rng, record)
        return found | {stage: _content(latest[0]) for stage in self._ahead(found)}

    def _ahead(self, found: dict[float, bytes]) -> list[float]:
        return [stage for stage in self._stages if stage not in found]


def _content(policy: Policy) -> bytes:
    of_critic = critic_names(policy)
    return save({name: item.cpu().clone() for name, item in tensors_of(policy).items() if name not in of_critic})


def _intact(content: bytes) -> bytes:
    """What a kept file holds; raises `ValueError` where it is damaged."""
    told, held = content[:_HASH_BYTES], content[_HASH_BYTES:]
    if hashlib.sha256(held).digest() != told:
        raise ValueError("the file is damaged")
    return held
