"""Stored policies at which gradients are measured: a safetensors file a policy, whose metadata rebuild its network.

    python -m polobench.cells.stored_policies polobench/studies/policies CartPole-v1 sort-digits

makes TASK-initial.safetensors, the policy before any update, and TASK-trained.safetensors, the same policy where it was
first evaluated half of the way from the task's floor to its target or beyond: trained by ppo in control, by reinforce
in language, on a tuning seed. In language the initial policy is the task's own checkpoint and needs no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from polobench.cells.job import bound
from polobench.cells.stored import make_files, path_of, reading, write
from polobench.core.budget import Budget, BudgetExhausted, Ledger
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.recorder import Recorder
from polobench.core.task import Task
from polobench.registry import find_task, make
from polobench.tasks.language import LanguageTask

COMMAND = "python -m polobench.cells.stored_policies"
SEED = 1000
BUDGET = 150_000
HALFWAY = 0.5


@dataclass(frozen=True)
class StoredPolicy:
    """A policy from a file, or the checkpoint that a language task begins with.

    Attributes:
        network: the hyper-parameters that every method builds its network by, as this policy's network was built.
        tensors: by name; none for a task's own checkpoint.
        critic: names of those that belong to the critic.
        path: of the file; empty without one, as is `sha256`.
    """

    network: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    critic: frozenset[str] = frozenset()
    path: str = ""
    sha256: str = ""

    def load_into(self, policy: Policy) -> None:
        """Overwrite the policy's parameters and statistics; a critic that one of the two lacks stays as it is.

        Raises `UsageError` if the policy is of another shape.
        """
        if not self.tensors:
            return
        mine = tensors_of(policy)
        common = mine.keys() & self.tensors.keys()
        wrong = (mine.keys() ^ self.tensors.keys()) - self.critic - _critic_names(policy)
        wrong |= {name for name in common if mine[name].shape != self.tensors[name].shape}
        if wrong:
            raise UsageError(f"the stored policy {self.path!r} does not fit this task and method: {min(wrong)}")
        with torch.no_grad():
            for name in common:
                mine[name].copy_(self.tensors[name])


def tensors_of(policy: Policy) -> dict[str, Tensor]:
    """What a policy is made of: parameters and lasting buffers by name, one that has two names once."""
    lasting = policy.state_dict().keys()
    named = [*policy.named_parameters(), *policy.named_buffers()]
    return {name: tensor.detach() for name, tensor in named if name in lasting}


def _critic_names(policy: Policy) -> set[str]:
    of_critic = {id(parameter) for parameter in policy.critic_parameters}
    return {name for name, parameter in policy.named_parameters() if id(parameter) in of_critic}


def on_policies(task: Task, change: Callable[[Policy], object]) -> None:
    """Let this bound task, and no other, change every policy that it builds."""
    build = task.build_policy

    def changed(hyperparameters: Hyperparameters, *, critic: bool) -> Policy:
        policy = build(hyperparameters, critic=critic)
        change(policy)
        return policy

    task.build_policy = changed  # type: ignore[method-assign]


def find_policy(folder: Path | str, task: Task, name: str) -> StoredPolicy:
    """The stored policy of a task; raises `UsageError` unless there is a file that `make_policies` wrote for it."""
    if isinstance(task, LanguageTask) and name == "initial":
        return StoredPolicy({"temperature": 1.0})
    path, command = path_of(folder, task.name, name), f"{COMMAND} {folder} {task.name}"
    with reading(path, "stored policy", command, task=task.name, policy=name) as (tensors, about, sha256):
        return StoredPolicy(dict(about["network"]), tensors, frozenset(about["critic"]), str(path), sha256)


def make_policies(task_name: str, folder: Path, budget: int = BUDGET) -> list[Path]:
    """Train a policy of the task until it is halfway, and write what it was before and what it is then.

    Raises `UsageError` if the task has no target, or the budget does not reach halfway, and as `write`.
    """
    task = find_task(task_name)
    speaks = isinstance(task, LanguageTask)
    method = make("reinforce" if speaks else "ppo", task)
    if task.target is None:
        raise UsageError(f"task {task_name!r} has no target, so that no policy is halfway to it")
    stages = _train(method, budget)
    kept = stages[1:] if speaks else stages
    return [write(path_of(folder, task_name, about["policy"]), tensors, about) for tensors, about in kept]


_Stage = tuple[dict[str, Tensor], dict[str, Any]]


def _train(method: Method, budget: int) -> list[_Stage]:
    """The policy before its first update, and at the first evaluation that is halfway; as they are stored."""
    ledger = Ledger(Budget(samples=budget))
    recorder = Recorder(method.task, ledger, method.device)
    stages: list[_Stage] = []

    def latest_return() -> float:
        return float(recorder.curve()["return_mean"].iloc[-1])

    def keep(name: str, policy: Policy) -> None:
        tensors = {key: tensor.cpu().clone() for key, tensor in tensors_of(policy).items()}
        reached = {"policy": name, "samples": ledger.samples, "held_out_return": latest_return()}
        stages.append((tensors, _about(method, policy) | reached))

    def start(policy: Policy) -> None:
        recorder.start(policy)
        keep("initial", policy)

    with (
        Progress(console=Console(stderr=True), transient=True) as bars,
        bound(method, SEED, ledger, start) as task,
        suppress(BudgetExhausted),
    ):
        recorder.task = task
        bar = bars.add_task(f"training {task.name}", total=budget)
        for update in method.learn(task, task.rng):
            recorder(update)
            bars.update(bar, completed=ledger.samples)
            if (task.score(latest_return()) or 0.0) >= HALFWAY:
                keep("trained", update.policy)
                return stages
    raise UsageError(f"{method.name} was not halfway to the target of {method.task.name!r} in {budget:,} samples")


def _about(method: Method, policy: Policy) -> dict[str, Any]:
    values = asdict(method.hp)
    return {
        "task": method.task.name,
        "network": {item.name: values[item.name] for item in fields(Hyperparameters)},
        "critic": sorted(_critic_names(policy)),
        "method": method.name,
        "hyperparameters": values,
        "seed": SEED,
        "commit": method.provenance()["commit"],
    }


if __name__ == "__main__":
    make_files(COMMAND, make_policies)
