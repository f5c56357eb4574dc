"""The random policy: every action equally likely, whatever it sees. It has nothing to train and no mode."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from polobench.core.policy import Policy
from polobench.core.rollout import Rollout


class UniformActions:
    """Uniform over A integers, or over [-1, 1]^D times `half` plus `center`; the noise is the action.

    `outputs` are never looked at.
    """

    def __init__(self, actions: int, continuous: bool, center: np.ndarray | float, half: np.ndarray | float) -> None:
        self._actions, self._continuous, self._center, self._half = actions, continuous, center, half

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self._continuous:
            unit = generator.uniform(-1.0, 1.0, (*shape, self._actions))
            return (self._center + self._half * unit).astype(np.float32)
        return generator.integers(self._actions, size=shape)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return noise

    def mode(self, outputs: Tensor) -> Tensor:
        raise TypeError("a uniform distribution has no mode")

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        sides = np.log(np.broadcast_to(2.0 * np.asarray(self._half), self._actions)).sum()
        volume = sides if self._continuous else np.log(self._actions)
        return torch.full(outputs.shape[:-1], -float(volume))

    def entropy(self, outputs: Tensor) -> Tensor:
        return -self.log_prob(outputs, outputs)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return torch.zeros(old.shape[:-1])

    def fisher(self, outputs: Tensor, tangent: Tensor) -> Tensor:
        return torch.zeros_like(tangent)


class UniformPolicy(Policy):
    """Acts by `UniformActions`; its evaluation samples, too."""

    def __init__(
        self, actions: int, continuous: bool, center: np.ndarray | float = 0.0, half: np.ndarray | float = 1.0
    ) -> None:
        super().__init__()
        self.distribution = UniformActions(actions, continuous, center, half)

    @property
    def actor_parameters(self) -> list[nn.Parameter]:
        return []

    @property
    def critic_parameters(self) -> list[nn.Parameter]:
        return []

    def outputs(self, rollout: Rollout) -> Tensor:
        return torch.zeros((*rollout.mask.shape, 0), device=rollout.mask.device)

    def values(self, rollout: Rollout) -> Tensor:
        raise RuntimeError("the random policy has no critic")

    state_values = values

    def act(self, observations: Tensor, noise: Tensor) -> Tensor:
        return noise

    act_greedily = act
