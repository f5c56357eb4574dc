"""The random policy: every action equally likely, whatever it sees. It has nothing to train and no mode."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from polobench.core.policy import Policy
from polobench.core.rollout import Rollout


class UniformActions:
    """Uniform over A integers, or over [-1, 1]^D; the noise is the action. `outputs` are never looked at."""

    def __init__(self, actions: int, continuous: bool) -> None:
        self._actions, self._continuous = actions, continuous

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self._continuous:
            return generator.uniform(-1.0, 1.0, (*shape, self._actions)).astype(np.float32)
        return generator.integers(self._actions, size=shape)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return noise

    def mode(self, outputs: Tensor) -> Tensor:
        raise TypeError("a uniform distribution has no mode")

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        volume = 2.0**self._actions if self._continuous else float(self._actions)
        return torch.full(outputs.shape[:-1], -float(np.log(volume)))

    def entropy(self, outputs: Tensor) -> Tensor:
        return -self.log_prob(outputs, outputs)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return torch.zeros(old.shape[:-1])

    def fisher(self, outputs: Tensor, tangent: Tensor) -> Tensor:
        return torch.zeros_like(tangent)


class UniformPolicy(Policy):
    """Acts by `UniformActions`; its evaluation samples, too."""

    def __init__(self, actions: int, continuous: bool) -> None:
        super().__init__()
        self.distribution = UniformActions(actions, continuous)

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
