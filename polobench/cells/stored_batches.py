"""Stored batches on which one update of a method is repeated: a safetensors file per task, a rollout for each verb.

    python -m polobench.cells.stored_batches polobench/studies/batches CartPole-v1 sort-digits

samples TASK.safetensors from the policy before any update, on a tuning seed. In control a time limit of
`STEPS_TO_TRUNCATION` steps cuts some of the episodes, so that a batch holds both ends, terminated and truncated; and
TASK-policy.safetensors holds the policy that is updated. In language that is the task's own checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from polobench.cells.fixed_policy import FixedPolicy, critic_names, network_of, tensors_of
from polobench.cells.job import bound
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError, ending_in_one_line, first_line
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
_ABOUT = "polobench"


@dataclass(frozen=True)
class StoredBatch:
    """A task's stored rollouts by verb, and the SHA-256 of their file."""

    rollouts: Mapping[str, Rollout]
    sha256: str


def find_batch(folder: Path | str, task: str) -> StoredBatch:
    """The stored batch of a task; raises `UsageError` unless there is a file that `make_batch` has written for it."""
    with _reading(Path(folder), task, "batch") as (tensors, about, sha256):
        return StoredBatch({verb: _rollout(verb, tensors, bool(about["rows_independent"])) for verb in VERBS}, sha256)


def find_policy(folder: Path | str, task: Task) -> FixedPolicy:
    """The policy to update on the task's batch; raises as `find_batch`."""
    if isinstance(task, LanguageTask):
        return FixedPolicy({"temperature": 1.0})
    with _reading(Path(folder), task.name, "policy") as (tensors, about, sha256):
        return FixedPolicy(dict(about["network"]), tensors, frozenset(about["critic"]), sha256)


def _path(folder: Path, task: str, what: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", task)
    return folder / f"{name}{'' if what == 'batch' else f'-{what}'}.safetensors"


@contextmanager
def _reading(folder: Path, task: str, what: str) -> Iterator[tuple[dict[str, Tensor], dict[str, Any], str]]:
    """The tensors of a stored file, what it says of itself, and its SHA-256.

    Raises `UsageError` if there is no such file, it is another task's, or the block cannot read it.
    """
    path = _path(folder, task, what)
    try:
        content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        if about["task"] != task:
            raise UsageError(f"{str(path)!r} is the stored {what} of {about['task']!r}, not of {task!r}")
        yield tensors, about, hashlib.sha256(content).hexdigest()
    except UsageError:
        raise
    except FileNotFoundError:
        made = f"`{COMMAND} {folder} {task}` makes it"
        raise UsageError(f"no stored {what} at {str(path)!r} ({made})") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is no stored {what}: {first_line(error)}") from error


def _rollout(verb: str, tensors: Mapping[str, Tensor], rows_independent: bool) -> Rollout:
    columns: dict[str, Any] = {
        name.removeprefix(f"{verb}."): value for name, value in tensors.items() if name.startswith(f"{verb}.")
    }
    return Rollout(**columns, rows_independent=rows_independent)


def make_batch(task_name: str, folder: Path) -> list[Path]:
    """Sample a task's batch and write it, and in control the policy that it is from.

    Raises `UsageError` if no group of it has a ranking, or the folder cannot be written to.
    """
    method = make("ppo", _with_early_cuts(find_task(task_name)))
    with bound(method, SEED, Ledger(Budget(updates=1))) as task:
        policy = task.make_policy(method.hp, critic=True)
        rollouts = {
            "fragments": task.fragments(policy, ROWS, STEPS),
            "episodes": task.episodes(policy, GROUPS, GROUP_SIZE),
        }
    if not rollouts["episodes"].has_ranking:
        raise UsageError(f"task {task_name!r}: every group of the batch has equal returns")
    tensors = {
        f"{verb}.{item.name}": value
        for verb, rollout in rollouts.items()
        for item in fields(rollout)
        if isinstance(value := getattr(rollout, item.name), Tensor)
    }
    about = {"task": task_name, "seed": SEED, "commit": method.provenance()["commit"]}
    rows_independent = rollouts["episodes"].rows_independent
    made = [_write(_path(folder, task_name, "batch"), tensors, about | {"rows_independent": rows_independent})]
    if not isinstance(method.task, LanguageTask):
        about |= {"network": network_of(method), "critic": sorted(critic_names(policy))}
        made.append(_write(_path(folder, task_name, "policy"), tensors_of(policy), about))
    return made


def _write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    held = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save(held, {_ABOUT: json.dumps(about, sort_keys=True)}))
    except OSError as error:
        raise UsageError(f"folder {str(path.parent)!r} cannot be written to: {error.strerror}") from error
    return path


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
    with ending_in_one_line():
        if len(sys.argv) < 3:
            raise UsageError(f"usage: {COMMAND} FOLDER TASK...")
        for name in sys.argv[2:]:
            for made in make_batch(name, Path(sys.argv[1])):
                print(f"{made}: {made.stat().st_size:,} bytes")
