"""Stored policies at which gradients are measured: a safetensors file a policy, whose metadata rebuild its network.

    python -m polobench.cells.stored_policies polobench/studies/policies CartPole-v1 sort-digits

makes TASK-initial.safetensors, the policy before any update, and TASK-trained.safetensors, the same policy where it was
first evaluated half of the way from the task's floor to its target or beyond: trained by ppo in control, by reinforce
in language, on a tuning seed. In language the initial policy is the task's own checkpoint and needs no file.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from polobench.core.budget import Budget, BudgetExhausted, Ledger
from polobench.core.errors import UsageError, ending_in_one_line, first_line
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.recorder import Recorder
from polobench.core.seeding import SeedAxes, isolated
from polobench.core.task import Task
from polobench.registry import find_task, make
from polobench.tasks.language import LanguageTask

COMMAND = "python -m polobench.cells.stored_policies"
SEED = 1000
BUDGET = 150_000
HALFWAY = 0.5
_ABOUT = "polobench"


@dataclass(frozen=True)
class StoredPolicy:
    """A policy from a file, or the checkpoint that a language task begins with.

    Attributes:
        name: "initial" or "trained".
        network: the hyper-parameters that every method builds its network by, as this policy's network was built.
        tensors: by name; none for a task's own checkpoint.
        critic: names of those that belong to the critic.
        path: of the file; empty without one, as is `sha256`.
    """

    name: str
    network: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    critic: frozenset[str] = frozenset()
    path: str = ""
    sha256: str = ""

    def load_into(self, policy: Policy) -> None:
        """Overwrite the policy's parameters and statistics; a critic that one of the two lacks stays as it is.

        Raises:
            UsageError: the policy is of another shape.
        """
        if not self.tensors:
            return
        mine = tensors_of(policy)
        critic = _critic_names(policy)
        wrong = [name for name in self.tensors.keys() - mine.keys() if name not in self.critic]
        wrong += [name for name in mine.keys() - self.tensors.keys() if name not in critic]
        common = sorted(mine.keys() & self.tensors.keys())
        wrong += [name for name in common if mine[name].shape != self.tensors[name].shape]
        if wrong:
            raise UsageError(f"the stored policy {self.path!r} does not fit this task and method: {sorted(wrong)[0]}")
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


def file_name(task: str) -> str:
    """A task's name as that of a file."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", task)


def path_of(folder: Path | str, task: str, name: str) -> Path:
    """Where the policy of this task and name lies."""
    return Path(folder) / f"{file_name(task)}-{name}.safetensors"


@contextmanager
def reading(path: Path, what: str, command: str) -> Iterator[tuple[dict[str, Tensor], dict[str, Any], str]]:
    """The tensors of a stored file, what it says of itself, and its SHA-256.

    Raises:
        UsageError: there is no such file, which the command makes, or the block cannot read it as `what` it should be.
    """
    try:
        content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        yield tensors, about, hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        raise UsageError(f"no {what} at {str(path)!r} (`{command}` makes it)") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is no {what}: {first_line(error)}") from error


def write(path: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Store tensors and what is said of them; raises `UsageError` where the folder cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)}))
    except OSError as error:
        raise UsageError(f"folder {str(path.parent)!r} cannot be written to: {error.strerror}") from error
    return path


def find_policy(folder: Path | str, task: Task, name: str) -> StoredPolicy:
    """The stored policy of a task.

    Raises:
        UsageError: there is no such file, or it is none that this module has written for this task.
    """
    if isinstance(task, LanguageTask) and name == "initial":
        return StoredPolicy(name, {"temperature": 1.0})
    path = path_of(folder, task.name, name)
    with reading(path, "stored policy", f"{COMMAND} {folder} {task.name}") as (tensors, about, sha256):
        named, network, critic = (about["task"], about["policy"]), dict(about["network"]), frozenset(about["critic"])
    if named != (task.name, name):
        raise UsageError(f"{str(path)!r} is the policy {named[1]!r} of {named[0]!r}, not {name!r} of {task.name!r}")
    return StoredPolicy(name, network, tensors, critic, str(path), sha256)


def make_policies(task_name: str, folder: Path, budget: int = BUDGET) -> list[Path]:
    """Train a policy of the task until it is halfway, and write what it was before and what it is then.

    Raises:
        UsageError: the task has no target, the budget does not reach halfway, or the folder cannot be written to.
        Unavailable: the task is not available here.
    """
    task = find_task(task_name)
    speaks = isinstance(task, LanguageTask)
    method = make("reinforce" if speaks else "ppo", task)
    if task.target is None:
        raise UsageError(f"task {task_name!r} has no target, so that no policy is halfway to it")
    before, after = _train(method, budget)
    kept = [after] if speaks else [before, after]
    return [_write(folder, method, snapshot) for snapshot in kept]


@dataclass(frozen=True)
class _Snapshot:
    name: str
    tensors: dict[str, Tensor]
    critic: list[str]
    samples: int
    held_out_return: float


def _train(method: Method, budget: int) -> tuple[_Snapshot, _Snapshot]:
    """The policy before its first update, and at the first evaluation that is halfway."""
    rng, ledger = SeedAxes(SEED), Ledger(Budget(samples=budget))
    seen: list[_Snapshot] = []
    with isolated(rng, method.threads), Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(f"training {method.task.name}", total=budget)
        recorder = Recorder(method.task, rng, ledger, method.device)

        def keep(name: str, policy: Policy) -> _Snapshot:
            tensors = {key: tensor.cpu().clone() for key, tensor in tensors_of(policy).items()}
            latest = float(recorder.curve()["return_mean"].iloc[-1])
            return _Snapshot(name, tensors, sorted(_critic_names(policy)), ledger.samples, latest)

        def start(policy: Policy) -> None:
            recorder.start(policy)
            seen.append(keep("initial", policy))

        with closing(method.task.bind(rng, ledger, method.device, start)) as task:
            recorder.task = task
            try:
                for update in method.learn(task, rng):
                    recorder(update)
                    bars.update(bar, completed=ledger.samples)
                    if (task.score(float(recorder.curve()["return_mean"].iloc[-1])) or 0.0) >= HALFWAY:
                        return seen[0], keep("trained", update.policy)
            except BudgetExhausted:
                pass
    raise UsageError(f"{method.name} was not halfway to the target of {method.task.name!r} in {budget:,} samples")


def _write(folder: Path, method: Method, snapshot: _Snapshot) -> Path:
    values = asdict(method.hp)
    about = {
        "task": method.task.name,
        "policy": snapshot.name,
        "network": {item.name: values[item.name] for item in fields(Hyperparameters)},
        "critic": snapshot.critic,
        "method": method.name,
        "hyperparameters": values,
        "seed": SEED,
        "samples": snapshot.samples,
        "held_out_return": snapshot.held_out_return,
        "commit": method.provenance()["commit"],
    }
    return write(path_of(folder, method.task.name, snapshot.name), snapshot.tensors, about)


def make_files(command: str, make: Callable[[str, Path], Sequence[Path]]) -> None:
    """The command that makes files into a folder, those of each named task by `make`."""
    with ending_in_one_line():
        if len(sys.argv) < 3:
            raise UsageError(f"usage: {command} FOLDER TASK...")
        for task in sys.argv[2:]:
            for path in make(task, Path(sys.argv[1])):
                print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    make_files(COMMAND, make_policies)
