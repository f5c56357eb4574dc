"""Stored batches on which one update of a method is repeated: a safetensors file a task, with a rollout for each verb.

    python -m polobench.cells.stored_batches polobench/studies/batches CartPole-v1 sort-digits

samples TASK.safetensors from the policy before any update, on a tuning seed. In control a time limit of
`STEPS_TO_TRUNCATION` steps cuts some of the episodes, so that a batch holds both ends, terminated and truncated; and
TASK-policy.safetensors holds the policy that is updated. In language that is the task's own checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium
from torch import Tensor

from polobench.cells.fixed_policy import FixedPolicy, critic_names, network_of, tensors_of
from polobench.cells.job import bound
from polobench.cells.stored import make_files, path_of, reading, write
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError
from polobench.core.rollout import Rollout
from polobench.core.task import Task
from polobench.registry import find_task, make
from polobench.tasks.control import ControlTask
from polobench.tasks.language import LanguageTask

COMMAND = "python -m polobench.cells.stored_batches"
SEED = 1000
VERBS = ("fragments", "episodes")
GROUPS, GROUP_SIZE = 8, 4
ROWS, STEPS = 8, 64
STEPS_TO_TRUNCATION = 30


@dataclass(frozen=True)
class StoredBatch:
    """A task's stored rollouts by verb, and the SHA-256 of their file."""

    rollouts: Mapping[str, Rollout]
    sha256: str


def find_batch(folder: Path | str, task: str) -> StoredBatch:
    """The stored batch of a task; raises `UsageError` unless there is a file that `make_batch` has written for it."""
    path, command = path_of(folder, task), f"{COMMAND} {folder} {task}"
    with reading(path, "stored batch", command, task=task) as (tensors, about, sha256):
        return StoredBatch({verb: _rollout(verb, tensors, bool(about["rows_independent"])) for verb in VERBS}, sha256)


def find_policy(folder: Path | str, task: Task) -> FixedPolicy:
    """The policy to update on the task's batch; raises `UsageError` unless `make_policy` has written its file."""
    if isinstance(task, LanguageTask):
        return FixedPolicy({"temperature": 1.0})
    path, command = path_of(folder, task.name, "policy"), f"{COMMAND} {folder} {task.name}"
    with reading(path, "stored policy", command, task=task.name) as (tensors, about, sha256):
        return FixedPolicy(dict(about["network"]), tensors, frozenset(about["critic"]), sha256)


def _rollout(verb: str, tensors: Mapping[str, Tensor], rows_independent: bool) -> Rollout:
    columns: dict[str, Any] = {
        name.removeprefix(f"{verb}."): value for name, value in tensors.items() if name.startswith(f"{verb}.")
    }
    return Rollout(**columns, rows_independent=rows_independent)


def make_batch(task_name: str, folder: Path) -> Path:
    """Sample a task's batch and write it; raises `UsageError` if no group of it has a ranking, or as `write`."""
    method = make("reinforce", _with_early_cuts(find_task(task_name)), baseline="batch_mean")
    with bound(method, SEED, Ledger(Budget(updates=1))) as task:
        policy = task.make_policy(method.hp, critic=False)
        rollouts = {
            "fragments": task.fragments(policy, ROWS, STEPS),
            "episodes": task.episodes(policy, GROUPS, GROUP_SIZE),
        }
    if not rollouts["episodes"].has_ranking:
        raise UsageError(f"task {task_name!r}: every group of the batch has equal returns")
    tensors = {
        f"{verb}.{item.name}": value.contiguous().clone()
        for verb, rollout in rollouts.items()
        for item in fields(rollout)
        if isinstance(value := getattr(rollout, item.name), Tensor)
    }
    about = {"task": task_name, "seed": SEED, "rows_independent": rollouts["episodes"].rows_independent}
    return write(path_of(folder, task_name), tensors, about | {"commit": method.provenance()["commit"]})


def make_policy(task_name: str, folder: Path) -> Path:
    """Write the policy that ppo begins with on a task; raises as `write`."""
    method = make("ppo", find_task(task_name))
    with bound(method, SEED, Ledger(Budget(updates=1))) as task:
        policy = task.make_policy(method.hp, critic=True)
    about = {"task": task_name, "seed": SEED, "network": network_of(method), "critic": sorted(critic_names(policy))}
    tensors = {name: tensor.clone() for name, tensor in tensors_of(policy).items()}
    return write(path_of(folder, task_name, "policy"), tensors, about | {"commit": method.provenance()["commit"]})


def _make(task_name: str, folder: Path) -> list[Path]:
    speaks = isinstance(find_task(task_name), LanguageTask)
    return [make_batch(task_name, folder), *([] if speaks else [make_policy(task_name, folder)])]


def _with_early_cuts(task: Task) -> Task:
    """The same environment under a time limit that some episodes reach; a language task as it is."""
    if not isinstance(task, ControlTask):
        return task
    return ControlTask(
        task.name,
        lambda: gymnasium.make(task.name, max_episode_steps=STEPS_TO_TRUNCATION),
        floor=task.floor,
        target=task.target,
    )


if __name__ == "__main__":
    make_files(COMMAND, _make)
