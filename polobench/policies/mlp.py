"""Multilayer perceptrons for control: an actor and a critic that share nothing, so that no loss leaks over."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import Distribution, Policy
from polobench.core.rollout import Rollout
from polobench.policies.distributions import Categorical, DiagonalGaussian

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def perceptron(sizes: list[int], activation: str, output_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Linear layers with orthogonal weights (gain sqrt 2, `output_gain` last) and zero biases."""
    layers: list[nn.Module] = []
    for depth, (width_in, width_out) in enumerate(pairwise(sizes)):
        last = depth == len(sizes) - 2
        linear = nn.Linear(width_in, width_out, device="meta").to_empty(device="cpu")  # draws nothing globally
        nn.init.orthogonal_(linear.weight, output_gain if last else math.sqrt(2), generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class InputStatistics(nn.Module):
    """Running mean and deviation of observations `[..., D]`: absorbed at once, in use from `refresh` on."""

    mean: Tensor
    scale: Tensor
    count: Tensor
    seen_mean: Tensor
    seen_squares: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, value in (("mean", torch.zeros(width)), ("scale", torch.ones(width))):
            self.register_buffer(name, value)
        for name, value in (("count", torch.zeros(())), ("seen_mean", torch.zeros(width))):
            self.register_buffer(name, value.double())
        self.register_buffer("seen_squares", torch.zeros(width).double())

    def absorb(self, observations: Tensor) -> None:
        """Merge the moments of `[M, D]` (Chan et al. 1983)."""
        batch, new = observations.double(), observations.shape[0]
        total, shift = self.count + new, batch.mean(0) - self.seen_mean
        self.seen_squares += ((batch - batch.mean(0)) ** 2).sum(0) + shift**2 * self.count * new / total
        self.seen_mean += shift * new / total
        self.count.copy_(total)

    def refresh(self) -> None:
        if self.count > 1:
            self.mean.copy_(self.seen_mean)
            self.scale.copy_((self.seen_squares / self.count + 1e-8).sqrt())

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.mean) / self.scale).clamp(-10, 10)


class MLPPolicy(Policy):
    """Observations `[..., D]` to logits (discrete actions) or means and log deviations (continuous actions).

    Args:
        observation_width: D.
        actions: the number of discrete actions, or of continuous dimensions.
        continuous: which of the two.
        hyperparameters: sizes, activation, first log deviation, normalisation.
        critic: with a value network.
        generator: of the initial weights.
    """

    def __init__(
        self,
        observation_width: int,
        actions: int,
        continuous: bool,
        hyperparameters: Hyperparameters,
        critic: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        hp = hyperparameters
        sizes = [observation_width, *hp.hidden_sizes]
        self.distribution: Distribution = DiagonalGaussian(actions) if continuous else Categorical()
        self.actor = perceptron([*sizes, actions], hp.activation, 0.01, generator)
        self.log_std = nn.Parameter(torch.full((actions,), hp.initial_log_std)) if continuous else None
        self.critic = perceptron([*sizes, 1], hp.activation, 1.0, generator) if critic else None
        self.statistics = InputStatistics(observation_width) if hp.normalize_observations else None

    @property
    def actor_parameters(self) -> list[nn.Parameter]:
        return [*self.actor.parameters(), *([] if self.log_std is None else [self.log_std])]

    @property
    def critic_parameters(self) -> list[nn.Parameter]:
        return [] if self.critic is None else list(self.critic.parameters())

    def _count(self, observations: Tensor) -> None:
        self.ledger.forward_rows += observations.shape[:-1].numel()

    def _actor_outputs(self, observations: Tensor) -> Tensor:
        self._count(observations)
        outputs: Tensor = self.actor(observations if self.statistics is None else self.statistics(observations))
        return outputs if self.log_std is None else torch.cat([outputs, self.log_std.expand_as(outputs)], -1)

    def _critic_values(self, observations: Tensor) -> Tensor:
        if self.critic is None:
            raise RuntimeError("this policy was made without a critic")
        self._count(observations)
        values: Tensor = self.critic(observations if self.statistics is None else self.statistics(observations))
        return values.squeeze(-1)

    def outputs(self, rollout: Rollout) -> Tensor:
        return self._actor_outputs(rollout.observations)

    def values(self, rollout: Rollout) -> Tensor:
        return self._critic_values(torch.cat([rollout.observations, rollout.final_observations.unsqueeze(1)], 1))

    def state_values(self, rollout: Rollout) -> Tensor:
        return self._critic_values(rollout.observations)

    def act(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.distribution.sample(self._actor_outputs(observations), noise)

    def act_greedily(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.distribution.mode(self._actor_outputs(observations))

    def absorb(self, observations: Tensor) -> None:
        if self.statistics is not None:
            self.statistics.absorb(observations)

    def refresh_statistics(self) -> None:
        if self.statistics is not None:
            self.statistics.refresh()
