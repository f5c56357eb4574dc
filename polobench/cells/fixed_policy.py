"""A policy as tensors by name, that a cell puts in the place of each policy that its task makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.task import Task


@dataclass(frozen=True)
class FixedPolicy:
    """A policy from a file, or the checkpoint that a language task begins with.

    Attributes:
        network: the hyper-parameters that every method builds its network by, as this policy's network was built.
        tensors: by name; none for a task's own checkpoint.
        critic: names of those that belong to the critic.
        sha256: of the file; empty without one.
    """

    network: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    critic: frozenset[str] = frozenset()
    sha256: str = ""

    def load_into(self, policy: Policy) -> None:
        """Overwrite the policy's parameters and statistics; a critic that one of the two lacks stays as it is.

        Raises `UsageError` if the policy is of another shape.
        """
        if not self.tensors:
            return
        mine = tensors_of(policy)
        common = mine.keys() & self.tensors.keys()
        wrong = (mine.keys() ^ self.tensors.keys()) - self.critic - critic_names(policy)
        wrong |= {name for name in common if mine[name].shape != self.tensors[name].shape}
        if wrong:
            raise UsageError(f"a policy of another network does not fit this task and method: {min(wrong)}")
        with torch.no_grad():
            for name in common:
                mine[name].copy_(self.tensors[name])


def tensors_of(policy: Policy) -> dict[str, Tensor]:
    """What a policy is made of: parameters and lasting buffers by name, one that has two names once."""
    lasting = policy.state_dict().keys()
    named = [*policy.named_parameters(), *policy.named_buffers()]
    return {name: tensor.detach() for name, tensor in named if name in lasting}


def critic_names(policy: Policy) -> set[str]:
    """Names of the critic's parameters."""
    of_critic = {id(parameter) for parameter in policy.critic_parameters}
    return {name for name, parameter in policy.named_parameters() if id(parameter) in of_critic}


def network_of(method: Method) -> dict[str, Any]:
    """The hyper-parameters by which the method builds its network."""
    values = asdict(method.hp)
    return {item.name: values[item.name] for item in fields(Hyperparameters)}


def on_policies(task: Task, change: Callable[[Policy], object]) -> None:
    """Let this bound task, and no other, change every policy that it builds."""
    build = task.build_policy

    def changed(hyperparameters: Hyperparameters, *, critic: bool) -> Policy:
        policy = build(hyperparameters, critic=critic)
        change(policy)
        return policy

    task.build_policy = changed  # type: ignore[method-assign]
