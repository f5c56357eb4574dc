"""Multilayer perceptrons in numpy, with their derivatives written out on one flat vector of parameters.

    h_0 = x,   h_l = f(h_(l-1) W_l' + b_l),   y = h_L W' + b
    vjp:  d_L = (u W) * f'(h_L),   d_(l-1) = (d_l W_l) * f'(h_(l-1)),   dW_l = d_l' h_(l-1),   db_l = sum of d_l
    jvp:  t_l = (t_(l-1) W_l' + h_(l-1) V_l' + v_l) * f'(h_l)

At the widths of control tasks a call of torch costs more than its arithmetic. So on a CPU a pass is a handful of
numpy's calls, and Adam steps one vector. The modules keep their parameters, as views of that vector: state dicts, other
optimizers and autograd (what other devices use, and the reference of the tests) work as they do for any network.

Shapes: M rows, D inputs, O outputs, n parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polobench.core.arrays import Values

Layer = tuple[Values, Values]  # weight `[O, D]` and bias `[O]`


def _through_tanh(flow: Values, state: Values, work: Values) -> None:
    np.multiply(state, state, out=work)
    np.subtract(1, work, out=work)
    flow *= work


def _through_relu(flow: Values, state: Values, work: Values) -> None:
    flow *= state > 0


_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Values], object], Callable[[Values, Values, Values], None]]] = {
    nn.Tanh: (lambda state: np.tanh(state, out=state), _through_tanh),
    nn.ReLU: (lambda state: np.maximum(state, 0, out=state), _through_relu),
}


class FlatPerceptrons:
    """Networks whose parameters lie in one vector, a block of it each.

    Args:
        networks: each is linear layers with activations of one kind between them.
        tail: further outputs of the first network that are the same in every row (log deviations), or None.

    Attributes:
        usable: whether they are on a CPU; elsewhere nothing below is.
        vector: `[n]`, the parameters of all networks; the tail ends the first one's block.
        gradient: `[n]`, into which `backward` adds.
        with_gradients: the parameters of each network with their views of the gradient.
        parameters: the modules' own, in that order, for each network.
    """

    def __init__(self, networks: Sequence[nn.Sequential], tail: nn.Parameter | None) -> None:
        self._networks, self._tail = networks, tail
        self.parameters = [list(network.parameters()) for network in networks]
        self.parameters[0] += [] if tail is None else [tail]
        activation = next((layer for layer in networks[0] if not isinstance(layer, nn.Linear)), nn.Tanh())
        self._activate, self._back_through = _ACTIVATIONS[type(activation)]
        ends = list(accumulate((sum(p.numel() for p in block) for block in self.parameters), initial=0))
        self.blocks = [slice(*bounds) for bounds in pairwise(ends)]
        self.flatten()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made of copied modules, since copied parameters are no views."""
        return FlatPerceptrons, (self._networks, self._tail)

    def flatten(self) -> None:
        """Move the parameters into one vector: at first, and after their type or device has changed."""
        flat = [parameter for block in self.parameters for parameter in block]
        whole = torch.cat([parameter.detach().flatten() for parameter in flat])
        self.usable = whole.device.type == "cpu"
        if not self.usable:
            return
        gradient = torch.zeros_like(whole)
        sizes = [parameter.numel() for parameter in flat]
        for parameter, data in zip(flat, torch.split(whole, sizes), strict=True):
            parameter.data = data.view_as(parameter)
        views = (part.view_as(parameter) for parameter, part in zip(flat, torch.split(gradient, sizes), strict=True))
        self.with_gradients = [[(parameter, next(views)) for parameter in block] for block in self.parameters]
        self.vector, self.gradient = whole.numpy(), gradient.numpy()
        self._scratch, self._ones = np.zeros_like(self.vector), self.vector[:0]
        self._layers, self._slopes = self._views(self.vector), self._views(self._scratch)

    def _views(self, vector: Values) -> list[tuple[list[Layer], Values]]:
        """Each network's layers and tail (empty if it has none)."""
        found = []
        for block, parameters in zip(self.blocks, self.parameters, strict=True):
            ends = accumulate((p.numel() for p in parameters), initial=block.start)
            views = [vector[a:b].reshape(p.shape) for (a, b), p in zip(pairwise(ends), parameters, strict=True)]
            tail = views.pop() if len(views) % 2 else vector[:0]
            found.append((list(zip(views[::2], views[1::2], strict=True)), tail))
        return found

    def forward(self, rows: Values, number: int) -> list[Values]:
        """The inputs of each layer of a network, then its outputs `[M, O]`, at rows `[M, D]`."""
        layers, tail = self._layers[number]
        states = [rows]
        for weight, bias in layers:
            if len(states) > 1:
                self._activate(states[-1])
            state = np.dot(states[-1], weight.T)
            state += bias
            states.append(state)
        if tail.size:
            states[-1] = _with_tail(state, tail)
        return states

    def vjp(self, states: list[Values], cotangent: Values, number: int, keep: bool = True) -> Values:
        """`[n of its block]`, until the next call: the sum over rows of a cotangent `[M, O]` times the Jacobian.

        States that need not be kept become the slopes in place, which saves a buffer's way through the cache.
        """
        (layers, tail), (slopes, of_tail) = self._layers[number], self._slopes[number]
        if len(self._ones) < len(cotangent):
            self._ones = np.ones(len(cotangent), self.vector.dtype)
        ones = self._ones[: len(cotangent)]
        if tail.size:
            np.dot(ones, cotangent[:, -tail.size :], out=of_tail)
            cotangent = np.ascontiguousarray(cotangent[:, : -tail.size])
        for depth in range(len(layers) - 1, -1, -1):
            of_weight, of_bias = slopes[depth]
            np.dot(cotangent.T, states[depth], out=of_weight)
            np.dot(ones, cotangent, out=of_bias)
            if depth:
                cotangent, state = np.dot(cotangent, layers[depth][0]), states[depth]
                self._back_through(cotangent, state, np.empty_like(state) if keep else state)
        return self._scratch[self.blocks[number]]

    def backward(self, states: list[Values], cotangent: Values, number: int) -> None:
        """As autograd's: the vjp is added to what the parameters have as `grad`, or becomes it; uses up `states`."""
        self.collect(self.with_gradients[number])
        self.gradient[self.blocks[number]] += self.vjp(states, cotangent, number, keep=False)
        states.clear()  # a second call fails

    def collect(self, pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
        """Let the `grad` of parameters be the views of the flat gradient, with the numbers that it has."""
        if pairs[0][0].grad is pairs[0][1]:  # then all are
            return
        for parameter, view in pairs:
            view.zero_() if parameter.grad is None else view.copy_(parameter.grad)
            parameter.grad = view

    def jvp(self, states: list[Values], tangent: Values, number: int) -> Values:
        """`[M, O]`: the Jacobian, at the rows that `states` come from, times a tangent `[n of its block]`."""
        self._scratch[self.blocks[number]] = tangent
        (layers, _), (moved, of_tail) = self._layers[number], self._slopes[number]
        flow = np.zeros_like(states[0])
        for depth, ((weight, _), (of_weight, of_bias)) in enumerate(zip(layers, moved, strict=True)):
            found = np.dot(states[depth], of_weight.T)
            found += of_bias
            if depth:
                self._back_through(flow, states[depth], np.empty_like(flow))
                found += np.dot(flow, weight.T)
            flow = found
        if of_tail.size:
            return _with_tail(flow, of_tail)
        return flow


def _with_tail(outputs: Values, tail: Values) -> Values:
    found = np.empty((len(outputs), outputs.shape[1] + tail.size), outputs.dtype)
    found[:, : -tail.size] = outputs
    found[:, -tail.size :] = tail
    return found


class FlatAdam:
    """Adam on neighbouring networks of a flat vector: what `torch.optim.Adam` does, on one array.

    Source: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1.
    """

    def __init__(self, networks: FlatPerceptrons, chosen: Sequence[int], lr: float, eps: float) -> None:
        self._networks, self._steps = networks, 0
        self._block = block = slice(networks.blocks[chosen[0]].start, networks.blocks[chosen[-1]].stop)
        self._pairs = [networks.with_gradients[number] for number in chosen]
        parameters = [parameter for pairs in self._pairs for parameter, _ in pairs]
        self.param_groups: list[dict[str, Any]] = [{"params": parameters, "lr": lr, "betas": (0.9, 0.999), "eps": eps}]
        self._mean, self._square, self._work = (np.zeros_like(networks.vector[block]) for _ in range(3))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Autograd, too, adds into the views that the gradients become."""
        for pairs in self._pairs:
            self._networks.collect(pairs)
        self._networks.gradient[self._block].fill(0)

    def clip(self, max_norm: float) -> float:
        """Scale the gradient to this norm at most; gives the norm before."""
        gradient = self._networks.gradient[self._block]
        norm = math.sqrt(gradient @ gradient)
        if not norm <= max_norm:
            gradient *= max_norm / (norm + 1e-6)
        return norm

    def step(self) -> None:
        self._steps += 1
        group, gradient, work = self.param_groups[0], self._networks.gradient[self._block], self._work
        beta1, beta2 = group["betas"]
        unbiased = math.sqrt(1 - beta2**self._steps)
        np.subtract(gradient, self._mean, out=work)
        work *= 1 - beta1
        self._mean += work
        np.multiply(gradient, gradient, out=work)
        work -= self._square
        work *= 1 - beta2
        self._square += work
        np.sqrt(self._square, out=work)
        work += group["eps"] * unbiased
        np.divide(self._mean, work, out=work)
        work *= group["lr"] * unbiased / (1 - beta1**self._steps)
        self._networks.vector[self._block] -= work
