"""Multilayer perceptrons for control: an actor and a critic that share nothing, so that no loss leaks over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from polobench.core.arrays import Array, Values, cat, spread
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import Distribution, Optimizer, Policy
from polobench.core.rollout import Rollout
from polobench.policies.distributions import Categorical, DiagonalGaussian
from polobench.policies.layers import blank_linear
from polobench.policies.perceptrons import FlatAdam, FlatPerceptrons

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
ACTOR, CRITIC = 0, 1  # the flat networks' numbers


def perceptron(sizes: list[int], activation: str, output_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Linear layers with orthogonal weights (gain sqrt 2, `output_gain` last) and zero biases."""
    layers: list[nn.Module] = []
    for depth, (width_in, width_out) in enumerate(pairwise(sizes)):
        last = depth == len(sizes) - 2
        linear = blank_linear(width_in, width_out)
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

    def keep(self) -> Callable[[], None]:
        """What puts mean and scale back as they are now."""
        mean, scale = self.mean.clone(), self.scale.clone()

        def put_back() -> None:
            self.mean.copy_(mean)
            self.scale.copy_(scale)

        return put_back

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.mean) / self.scale).clamp(-10, 10)

    def of_rows(self, rows: Values) -> Values:
        """The same of `[M, D]` in numpy."""
        found: Values = rows - self.mean.numpy()
        found /= self.scale.numpy()
        np.maximum(found, -10, out=found)
        return np.minimum(found, 10, out=found)


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
        self.flat = FlatPerceptrons([self.actor, *([] if self.critic is None else [self.critic])], self.log_std)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.flat.flatten()
        return self

    @property
    def actor_parameters(self) -> list[nn.Parameter]:
        return [*self.actor.parameters(), *([] if self.log_std is None else [self.log_std])]

    @property
    def critic_parameters(self) -> list[nn.Parameter]:
        return [] if self.critic is None else list(self.critic.parameters())

    def _through(self, number: int, observations: Any) -> Any:
        """The outputs `[..., O]` of the actor, or values `[...]` of the critic, counted; arrays go through the flat
        networks, tensors through torch.
        """
        shape = observations.shape[:-1]
        if isinstance(observations, Tensor):
            inputs = observations if self.statistics is None else self.statistics(observations)
            self.count_rows(math.prod(shape))
            return self.actor(inputs) if self.critic is None or number == ACTOR else self.critic(inputs).squeeze(-1)
        rows = self._rows(observations)
        self.count_rows(len(rows))
        states = self.flat.forward(rows, number)
        found = states[-1].reshape((*shape, -1) if number == ACTOR else shape)
        if not torch.is_grad_enabled():
            return Array(found)

        def pull(cotangent: Any) -> None:
            self.flat.backward(states, spread(cotangent, found).reshape(states[-1].shape), number)

        return Array(found, [(None, pull)])

    def _rows(self, observations: Array) -> Values:
        """`[M, D]`, what the flat networks read."""
        rows: Values = observations.value.reshape(-1, observations.shape[-1])
        return rows if self.statistics is None else self.statistics.of_rows(rows)

    def _actor_outputs(self, observations: Tensor) -> Tensor:
        outputs: Tensor = self._through(ACTOR, observations)
        if not isinstance(outputs, Tensor) or self.log_std is None:
            return outputs
        return torch.cat([outputs, self.log_std.expand_as(outputs)], -1)

    def _critic_values(self, observations: Tensor) -> Tensor:
        if self.critic is None:
            raise RuntimeError("this policy was made without a critic")
        values: Tensor = self._through(CRITIC, observations)
        return values

    def outputs(self, rollout: Rollout) -> Tensor:
        """At masked steps of arrays they are 0: nobody asks for them, and the pass is spared."""
        mask: Any = rollout.mask
        if isinstance(mask, Tensor) or mask.is_full():
            return self._actor_outputs(rollout.observations)
        decided: Any = self._actor_outputs(rollout.observations[mask])
        return cast(Tensor, decided.spread_over(mask))

    def values(self, rollout: Rollout) -> Tensor:
        return self._critic_values(cat([rollout.observations, rollout.final_observations.unsqueeze(1)], 1))

    def state_values(self, rollout: Rollout) -> Tensor:
        return self._critic_values(rollout.observations)

    @property
    def takes_arrays(self) -> bool:
        return self.flat.usable

    def act(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.distribution.sample(self._actor_outputs(observations), noise)

    def act_greedily(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.distribution.mode(self._actor_outputs(observations))

    def adam(self, parameters: Sequence[nn.Parameter], lr: float, eps: float = 1e-8) -> Optimizer:
        chosen = [i for i, block in enumerate(self.flat.parameters) if parameters and block[0] in set(parameters)]
        whole = [parameter for number in chosen for parameter in self.flat.parameters[number]]
        if self.flat.usable and list(map(id, whole)) == list(map(id, parameters)):
            return FlatAdam(self.flat, chosen, lr, eps)
        return super().adam(parameters, lr, eps)

    def _clip(self, optimizer: Optimizer, max_norm: float) -> Tensor | float:
        return optimizer.clip(max_norm) if isinstance(optimizer, FlatAdam) else super()._clip(optimizer, max_norm)

    def _actor_gradient(self, objective: Tensor) -> Tensor:
        if isinstance(objective, Tensor):
            return super()._actor_gradient(objective)
        self._forget_gradients()
        objective.backward()
        gradient = torch.from_numpy(self.flat.gradient[self.flat.blocks[ACTOR]].copy())
        self._forget_gradients()
        return gradient

    def _forget_gradients(self) -> None:
        for parameter in self.actor_parameters:
            parameter.grad = None

    def linearize(self, rollout: Rollout) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        observations: Any = rollout.observations
        if isinstance(observations, Tensor):
            return super().linearize(rollout)
        states = self.flat.forward(self._rows(observations), ACTOR)
        rows, shape = len(states[0]), (*observations.shape[:-1], states[-1].shape[-1])
        self.ledger.forward_rows += rows

        def jvp(tangent: Tensor) -> Any:
            self.ledger.forward_rows += rows
            return Array(self.flat.jvp(states, tangent.numpy(), ACTOR).reshape(shape))

        def vjp(cotangent: Any) -> Tensor:
            self.ledger.backward_rows += rows
            return torch.from_numpy(self.flat.vjp(states, cotangent.value.reshape(rows, -1), ACTOR).copy())

        return cast(Tensor, Array(states[-1].reshape(shape))), jvp, vjp

    def absorb(self, observations: Tensor) -> None:
        if self.statistics is not None:
            self.statistics.absorb(observations)

    def refresh_statistics(self) -> None:
        if self.statistics is not None:
            self.statistics.refresh()

    def keep_statistics(self) -> Callable[[], None]:
        return super().keep_statistics() if self.statistics is None else self.statistics.keep()
