"""What every method may ask of a policy, on an MLP and on a language model alike.

Shapes: `[B, T]` as in `Rollout`; P parameters of the action distribution per step.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from polobench.core.adam import FusedAdam, clip
from polobench.core.arrays import stack
from polobench.core.budget import Budget, Ledger
from polobench.core.rollout import Rollout


class Distribution(Protocol):
    """Functions of the distribution's parameters `[..., P]`; no state but the shape of an action."""

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """`[...]`, in nats."""

    def entropy(self, outputs: Tensor) -> Tensor:
        """`[...]`, in nats."""

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """`[...]` KL(old || new), in nats."""

    def fisher(self, outputs: Tensor, tangent: Tensor) -> Tensor:
        """`[..., P]` the Fisher information of one action, in these parameters, times `tangent`."""

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """`[*shape, ...]` what `sample` turns into actions."""

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """`[...]` actions."""

    def mode(self, outputs: Tensor) -> Tensor:
        """`[...]` the most likely actions."""


class Optimizer(Protocol):
    """What a gradient step needs of torch's optimizers."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> Any: ...


@dataclass(frozen=True)
class GradientStep:
    """The loss of a gradient step, and the norm of its gradient before clipping (NaN without clipping)."""

    loss: Tensor
    gradient_norm: Tensor | float


class Policy(nn.Module, ABC):
    """An actor and, if asked for, a critic; counts its rows in the ledger that the task attaches."""

    distribution: Distribution
    ledger: Ledger

    @property
    @abstractmethod
    def actor_parameters(self) -> list[nn.Parameter]:
        """The parameters that the policy gradient changes."""

    @property
    @abstractmethod
    def critic_parameters(self) -> list[nn.Parameter]:
        """The parameters that the value loss changes; empty without a critic."""

    @property
    def takes_arrays(self) -> bool:
        """Whether it computes from an `Array` wherever it does so from a tensor, and gives one then; `act` too."""
        return False

    @abstractmethod
    def outputs(self, rollout: Rollout) -> Tensor:
        """The distribution's parameters `[B, T, P]` at the rollout's observations."""

    @abstractmethod
    def values(self, rollout: Rollout) -> Tensor:
        """State values `[B, T + 1]`; the last column belongs to the final observations."""

    @abstractmethod
    def state_values(self, rollout: Rollout) -> Tensor:
        """State values `[B, T]` at the rollout's observations, for the value loss."""

    def outputs_and_values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """`outputs` and `state_values`, in one pass where actor and critic share their layers."""
        return self.outputs(rollout), self.state_values(rollout)

    def outputs_and_all_values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """`outputs` and `values`, `[B, T, P]` and `[B, T + 1]`, without gradients, and in one pass as above."""
        with torch.no_grad():
            return self.outputs(rollout), self.values(rollout)

    def prepare(self, rollout: Rollout) -> Rollout:
        """The rollout in the form from which this policy computes fastest."""
        return rollout.as_arrays() if self.takes_arrays else rollout

    def with_critic_inputs(self, rollout: Rollout) -> Rollout:
        """The rollout with the critic's inputs attached, where these are expensive; valid until the actor changes."""
        return rollout

    @abstractmethod
    def act(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Actions sampled at observations `[N, ...]`, from `noise` drawn by `distribution.noise`."""

    @abstractmethod
    def act_greedily(self, observations: Tensor, noise: Tensor) -> Tensor:
        """The actions of the held-out evaluation: the mode, or `noise` where a policy has none."""

    def absorb(self, observations: Tensor) -> None:
        """Take observations `[M, ...]` into the input statistics; they are used from `refresh_statistics` on."""

    def refresh_statistics(self) -> None:
        """Start using the absorbed statistics. Only between rollouts: within one the policy must not move."""

    def keep_statistics(self) -> Callable[[], None]:
        """What puts the statistics in use back as they are now."""
        return lambda: None

    def adam(self, parameters: Sequence[nn.Parameter], lr: float, eps: float = 1e-8) -> Optimizer:
        """Adam (Kingma and Ba 2015, algorithm 1) for parameters of this policy."""
        return FusedAdam(parameters, lr, eps)

    def gradient_step(
        self,
        optimizer: Optimizer,
        losses: Iterable[Tensor],
        max_gradient_norm: float | None = None,
    ) -> GradientStep:
        """One step down the gradient of the sum of `losses`.

        An iterator's losses are differentiated one by one, so that only one of their graphs is in memory at a time.
        """
        optimizer.zero_grad(set_to_none=True)
        parts = []
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            parts.append(loss.detach())
        self._gradients_complete()
        norm = math.nan if max_gradient_norm is None else self._clip(optimizer, max_gradient_norm)
        optimizer.step()
        self._parameters_changed()
        self.ledger.gradient_steps += 1
        return GradientStep(parts[0] if len(parts) == 1 else stack(parts).sum(), norm)

    def _clip(self, optimizer: Optimizer, max_norm: float) -> Tensor | float:
        """Scale the gradient of all that the optimizer steps to this norm at most; gives the norm before."""
        return clip((item for group in optimizer.param_groups for item in group["params"]), max_norm)

    def actor_gradient(self, objectives: Iterable[Tensor]) -> Tensor:
        """The gradient `[n]` of the sum of scalars in the actor's parameters.

        An iterator's scalars are differentiated one by one, as in `gradient_step`.
        """
        return cast(Tensor, sum(map(self._actor_gradient, objectives)))

    def _actor_gradient(self, objective: Tensor) -> Tensor:
        return torch.cat([piece.flatten() for piece in _gradients(objective, self.actor_parameters)])

    def _gradients_complete(self) -> None:
        """Called once the gradients of a step are complete, before they are clipped or used."""

    def count_rows(self, rows: int) -> None:
        """Count what goes through a network; with gradients enabled it comes back through it, too."""
        self.ledger.forward_rows += rows
        if torch.is_grad_enabled():
            self.ledger.backward_rows += rows

    def _parameters_changed(self) -> None:
        """Called after the parameters were changed, for a policy that computes on a copy of them."""

    def frozen_copy(self) -> Self:
        """The policy as it is now, without gradients: a reference, or the one that sampled the data."""
        ledger = self.ledger
        frozen = copy.deepcopy(self, {id(ledger): ledger})
        return frozen.requires_grad_(False)

    def linearize(self, rollout: Rollout) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The outputs `[B, T, P]` and the products with their Jacobian J in the actor's parameters (n of them).

        Returns:
            outputs: `[B, T, P]`, with gradient.
            jvp: `[n] -> [B, T, P]`, J v, by differentiating the vector-Jacobian product (Pearlmutter 1994; the double
                backward trick), so that any policy that autograd can handle has it.
            vjp: `[B, T, P] -> [n]`, J' u.
        """
        counted = self.ledger.backward_rows
        outputs = self.outputs(rollout)
        parameters = self.actor_parameters
        rows = self.ledger.backward_rows - counted
        dummy = torch.zeros_like(outputs, requires_grad=True)
        pulled = _gradients(outputs, parameters, dummy, create_graph=True)
        pulled_vector = parameters_to_vector(pulled)

        def jvp(tangent: Tensor) -> Tensor:
            self.ledger.forward_rows += rows
            return torch.autograd.grad(pulled_vector, dummy, tangent, retain_graph=True)[0]

        def vjp(cotangent: Tensor) -> Tensor:
            self.ledger.backward_rows += rows
            return parameters_to_vector(_gradients(outputs, parameters, cotangent, retain_graph=True))

        return outputs, jvp, vjp

    def fisher_product(self, parts: Sequence[Rollout], damping: float) -> Callable[[Tensor], Tensor]:
        """Products with the mean Fisher matrix of all steps, J' M J, M being that of a step's distribution.

        Source: Schulman et al. 2015, "Trust Region Policy Optimization", appendix C.1.

        Args:
            parts: of a rollout. The graph of a single one is kept for all products; those of several are made anew in
                every product, so that only one of them is in memory at a time.

        Returns:
            `[n] -> [n]`, v -> (J' M J + damping I) v in the actor's parameters.
        """
        kept = self.linearize(parts[0]) if len(parts) == 1 else None
        steps = sum(part.n_samples for part in parts)

        def product(vector: Tensor) -> Tensor:
            found = damping * vector
            for part in parts:
                outputs, jvp, vjp = kept or self.linearize(part)
                fixed = outputs.detach()
                weight = (part.mask.to(fixed.dtype) / steps).unsqueeze(-1)
                found = found + vjp(self.distribution.fisher(fixed, jvp(vector)) * weight)
            return found

        return product

    def actor_vector(self) -> Tensor:
        """A copy of the actor's parameters `[n]`."""
        return parameters_to_vector(self.actor_parameters).detach().clone()

    def set_actor_vector(self, vector: Tensor) -> None:
        """Overwrite the actor's parameters with `[n]`."""
        sizes = [parameter.numel() for parameter in self.actor_parameters]
        with torch.no_grad():
            for parameter, piece in zip(self.actor_parameters, torch.split(vector, sizes), strict=True):
                parameter.copy_(piece.view_as(parameter))
        self._parameters_changed()


def _gradients(
    outputs: Tensor, parameters: list[nn.Parameter], weights: Tensor | None = None, **settings: bool
) -> tuple[Tensor, ...]:
    """Of each parameter; 0 where one takes no part, as what a model reads images with takes none in a text."""
    return torch.autograd.grad(outputs, parameters, weights, allow_unused=True, materialize_grads=True, **settings)


@contextmanager
def unmetered(*policies: Policy) -> Iterator[None]:
    """Let the policies count their rows into a ledger that nobody reads."""
    ledgers = [policy.ledger for policy in policies]
    for policy in policies:
        policy.ledger = Ledger(Budget(updates=1))
    try:
        yield
    finally:
        for policy, ledger in zip(policies, ledgers, strict=True):
            policy.ledger = ledger
