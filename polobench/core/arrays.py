"""Numpy under the names of torch's methods, with derivatives: a formula written for tensors takes an `Array` too.

On the few hundred numbers of a minibatch in control, a call of torch costs many times its arithmetic, and its graph
more than the call. An `Array` notes with each operation how a cotangent goes back to the operands (reverse mode), for a
fraction of that. It offers what our formulas use and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

Values = np.ndarray[Any, Any]
Pull = Callable[[Any], Any]  # from a result's cotangent, or a number that stands for all its entries, to an operand's


class Array:
    """Numbers, and how they came about.

    Args:
        value: of numpy.
        links: the operands, each with its pull; None stands for parameters, whose pull keeps what it is given.
    """

    __slots__ = ("cotangent", "counted", "depth", "links", "log_odds", "places", "value")
    __array_ufunc__ = None  # numpy leaves mixed operations to the methods below

    def __init__(self, value: Any, links: Sequence[tuple[Array | None, Pull]] = ()) -> None:
        self.value, self.links = value, links
        self.log_odds: Values | None = None  # what `log_softmax` found
        self.counted: int | None = None  # what `count` found
        self.places: tuple[Values, Values] | None = None  # what `_places` found
        self.cotangent: Any = None  # during `backward`, what has come back so far
        self.depth: int = 0  # the most operations between this and a number without a past
        for operand, _ in links:
            if operand is not None and operand.depth >= self.depth:
                self.depth = operand.depth + 1

    def backward(self) -> None:
        """Carry the derivatives of a scalar back to the parameters, deeper results first: theirs are whole."""
        self.cotangent = 1.0
        waiting, found = [(-self.depth, 0, self)], 0
        while waiting:
            node = heappop(waiting)[2]
            cotangent, node.cotangent = node.cotangent, None
            for operand, pull in node.links:
                part = pull(cotangent)
                if operand is None:
                    continue
                if operand.cotangent is None:
                    found += 1
                    operand.cotangent = part
                    heappush(waiting, (-operand.depth, found, operand))
                else:
                    operand.cotangent = operand.cotangent + part

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.value.shape
        return shape

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def numel(self) -> int:
        return int(self.value.size)

    def count(self) -> int:
        """How many entries are not 0; kept, since a formula asks its mask again and again."""
        if self.counted is None:
            self.counted = int(np.count_nonzero(self.value))
        return self.counted

    def is_full(self) -> bool:
        """Whether no entry is 0."""
        return self.count() == self.numel()

    def numpy(self) -> Values:
        value: Values = self.value
        return value

    def cpu(self) -> Array:
        return self

    def detach(self) -> Array:
        return Array(self.value)

    def to(self, dtype: Any) -> Array:
        return Array(self.value.astype(dtype))

    def item(self) -> Any:
        return self.value.item()

    def __float__(self) -> Any:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def _of_two(self, value: Any, pull: Pull, other: Any, pull_other: Pull) -> Array:
        if not isinstance(other, Array) or not other.links:
            return Array(value, ((self, pull),) if self.links else ())
        return Array(value, ((self, pull), (other, pull_other)) if self.links else ((other, pull_other),))

    def __add__(self, other: Any) -> Array:
        return self._of_two(self.value + _value(other), _same, other, _same)

    __radd__ = __add__

    def __neg__(self) -> Array:
        return self.function(-self.value, lambda g: -g)

    def __sub__(self, other: Any) -> Array:
        return self._of_two(self.value - _value(other), _same, other, lambda g: -g)

    def __rsub__(self, other: Any) -> Array:
        return self.function(other - self.value, lambda g: -g)

    def __mul__(self, other: Any) -> Array:
        if isinstance(other, float) and other in (0, 1):  # a term with coefficient 0 is worth no way back
            return self if other else Array(self.value * other)
        left, right = _alike(self.value, _value(other))
        return self._of_two(left * right, lambda g: g * right, other, lambda g: g * left)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Array:
        left, right = _alike(self.value, _value(other))
        return self._of_two(left / right, lambda g: g / right, other, lambda g: -g * left / right**2)

    def __pow__(self, power: Any) -> Array:
        value = self.value
        if power == 2:  # the bits of the general rule in fewer calls
            return self.function(value * value, lambda g: (2 * g) * value)
        return self.function(value**power, lambda g: g * (power * value ** (power - 1)))

    def __lt__(self, other: Any) -> Array:
        return Array(self.value < _value(other))

    def __le__(self, other: Any) -> Array:
        return Array(self.value <= _value(other))

    def __gt__(self, other: Any) -> Array:
        return Array(self.value > _value(other))

    def __and__(self, other: Any) -> Array:
        return Array(self.value & other.value)

    def __or__(self, other: Any) -> Array:
        return Array(self.value | other.value)

    def __eq__(self, other: object) -> Array:  # type: ignore[override]
        return Array(self.value == _value(other))

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.value)

    def nonzero(self, as_tuple: bool) -> tuple[Array, ...]:
        return tuple(map(Array, self.value.nonzero()))

    def __invert__(self) -> Array:
        return Array(~self.value)

    def exp(self) -> Array:
        value = np.exp(self.value)
        return self.function(value, lambda g: g * value)

    def expm1(self) -> Array:
        value = np.expm1(self.value)
        return self.function(value, lambda g: g * (value + 1))

    def sum(self, dim: int | None = None, keepdim: bool = False) -> Array:
        if dim is None:
            return self.function(self._total(), _same)
        kept = self.value.sum(dim, keepdims=True)
        value = kept if keepdim else kept.squeeze(dim)
        return self.function(value, lambda g: spread(g, value).reshape(kept.shape))

    def _total(self) -> Any:
        return self.count() if self.value.dtype == bool else np.add.reduce(self.value, None)

    def mean(self, dim: int | None = None) -> Array:
        count: int = self.value.size if dim is None else self.value.shape[dim]
        return self.sum(dim) / count

    def var(self, correction: int) -> Array:
        """Without a way back."""
        centred = (self.value - self.value.mean()).ravel()
        return Array((centred @ centred) / (self.value.size - correction))

    def mean_where(self, mask: Array) -> Array:
        """Of the entries where a mask of this shape is True."""
        value, count = self.value, mask.count()
        if count == value.size:
            return self.function(self._total() / count, lambda g: g / count)
        weights = mask.value.astype(value.dtype) / count
        return self.function(np.vdot(value, weights), lambda g: g * weights)

    def standardized_where(self, mask: Array) -> Array:
        """All entries, by the mean and the deviation of those where a mask of this shape is True; a constant."""
        chosen = self.value if mask.is_full() else mask._gathered(self.value)
        mean = np.add.reduce(chosen, None) / chosen.size
        centred = chosen - mean
        deviation = math.sqrt(np.vdot(centred, centred) / chosen.size)
        return Array((self.value - mean) / (deviation + 1e-8))

    def known(self, value: Values, slope: Callable[[], Values]) -> Array:
        """A function of each entry, and its derivative, which is only computed when it is needed."""
        return self.function(value, lambda g: g * slope())

    def function(self, value: Any, pull: Pull) -> Array:
        """The value of a function of this, and how a cotangent goes back through it; constants keep nothing."""
        return Array(value, ((self, pull),) if self.links else ())

    def argmax(self, dim: int) -> Array:
        return Array(self.value.argmax(dim))

    def _shaped(self, value: Values) -> Array:
        return self.function(value, lambda g: spread(g, value).reshape(self.value.shape))

    def unsqueeze(self, dim: int) -> Array:
        return self._shaped(self.value[..., None] if dim == -1 else self.value[(slice(None),) * dim + (None,)])

    def flatten(self, first: int = 0, last: int = -1) -> Array:
        shape = self.value.shape
        return self._shaped(self.value.reshape(*shape[:first], -1, *(shape[last + 1 :] if last != -1 else ())))

    def _places(self) -> tuple[Values, Values]:
        """Of a mask: the flat indices of its True entries, and of each entry its number among these, else -1; kept."""
        if self.places is None:
            true = self.value.ravel()
            self.places = np.flatnonzero(true), np.where(true, np.add.accumulate(true, dtype=int) - 1, -1)
        return self.places

    def _gathered(self, values: Values) -> Values:
        """Of values `[B, T, ...]` the rows `[M, ...]` where this mask is True, in a tenth of the time of an index."""
        return values.reshape(-1, *values.shape[self.value.ndim :]).take(self._places()[0], 0)

    def _scattered(self, rows: Values) -> Values:
        """`[B, T, ...]` with the rows `[M, ...]` where this mask is True, and 0 elsewhere."""
        then_zero = np.zeros((len(rows) + 1, *rows.shape[1:]), rows.dtype)
        then_zero[:-1] = rows
        return then_zero.take(self._places()[1], 0).reshape(*self.value.shape, *rows.shape[1:])

    def __getitem__(self, index: Any) -> Array:
        if isinstance(index, Array) and index.value.dtype == bool:
            chosen = index._gathered(self.value)
            return self.function(chosen, lambda g: index._scattered(spread(g, chosen)))
        index = tuple(map(_value, index)) if isinstance(index, tuple) else _value(index)

        def pull(g: Any) -> Values:
            found: Values = np.zeros_like(self.value)
            if basic:
                found[index] = g
            else:
                np.add.at(found, index, g)
            return found

        parts = index if isinstance(index, tuple) else (index,)
        basic = all(part is Ellipsis or isinstance(part, (slice, int)) for part in parts)
        return self.function(self.value[index], pull)

    def spread_over(self, mask: Array) -> Array:
        """`[B, T, ...]` with the rows `[M, ...]` of this where a mask is True, and 0 elsewhere."""
        found = mask._scattered(self.value)
        return self.function(found, lambda g: mask._gathered(spread(g, found)))

    def chunk(self, count: int, dim: int) -> list[Array]:
        width = self.value.shape[dim] // count
        return [self[..., width * part : width * (part + 1)] for part in range(count)]

    def log_softmax(self, dim: int = -1) -> Array:
        """Over the last dimension."""
        value = self._log_odds()

        def pull(g: Any) -> Values:
            g = spread(g, value)
            return cast(Values, g - np.exp(value) * g.sum(-1, keepdims=True))

        return self.function(value, pull)

    def softmax(self, dim: int = -1) -> Array:
        return self.log_softmax().exp()

    def softmax_entropy(self) -> Array:
        """`[...]` in nats; the slope in a logit is -p (log p + H)."""
        log_probs = self._log_odds()
        probs = np.exp(log_probs)
        entropy = -np.einsum("...i,...i->...", probs, log_probs)
        return self.function(
            entropy, lambda g: -spread(g, entropy)[..., None] * probs * (log_probs + entropy[..., None])
        )

    def log_softmax_at(self, index: Array) -> Array:
        """`[...]` the entries of `log_softmax` at these places of its last dimension."""
        flat, width = self._log_odds().ravel(), self.value.shape[-1]
        at = np.arange(0, len(flat), width) + index.value.ravel()
        chosen = flat.take(at).reshape(index.value.shape)

        def pull(g: Any) -> Values:
            g = spread(g, chosen).ravel()
            found = np.exp(flat)
            found *= np.repeat(-g, width)
            found[at] += g
            return found.reshape(self.value.shape)

        return self.function(chosen, pull)

    def _log_odds(self) -> Values:
        """Computed on the transpose: numpy reduces a long first axis in a tenth of the time of a short last one."""
        if self.log_odds is None:
            columns = np.ascontiguousarray(self.value.reshape(-1, self.value.shape[-1]).T)
            columns -= np.maximum.reduce(columns)
            columns -= np.log(np.add.reduce(np.exp(columns)))
            self.log_odds = np.ascontiguousarray(columns.T).reshape(self.value.shape)
        return self.log_odds


def cat(parts: Sequence[Any], dim: int) -> Any:
    """Tensors, or arrays that are constants, joined along a dimension."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts), dim)
    assert not any(part.links for part in parts)
    return Array(np.concatenate([part.value for part in parts], dim))


def logsigmoid(column: Any) -> Any:
    """log(1 / (1 + exp(-x)))."""
    if isinstance(column, Tensor):
        return torch.nn.functional.logsigmoid(column)
    value = -np.logaddexp(0, -column.value)
    return column.known(value, lambda: -np.expm1(value))


def stack(parts: Sequence[Any]) -> Any:
    """Scalars, tensors or arrays, without their past, in a row."""
    if isinstance(parts[0], Tensor):
        return torch.stack([part.detach() for part in parts])
    return Array(np.array([part.value for part in parts]))


def numbers(column: Any) -> Values:
    """The values of a tensor or an array."""
    return cast(Values, column.detach().cpu().numpy())


def like(column: Any, values: Values) -> Any:
    """Values of numpy as a tensor or an array: whichever the column is."""
    return torch.from_numpy(values).to(column.device) if isinstance(column, Tensor) else Array(values)


def _value(operand: Any) -> Any:
    return operand.value if isinstance(operand, Array) else operand


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Factors of which, as in torch, masks and counts change no type."""
    if isinstance(right, np.ndarray) and right.dtype != left.dtype:
        if right.dtype.kind in "bi":
            return left, right.astype(left.dtype)
        if left.dtype.kind in "bi":
            return left.astype(right.dtype), right
    return left, right


def _same(cotangent: Any) -> Any:
    return cotangent


def spread(cotangent: Any, result: Values) -> Values:
    """In full; an error where it has more entries than the result, which no formula of ours leads to."""
    if getattr(cotangent, "shape", None) == result.shape:
        return cast(Values, cotangent)
    return np.broadcast_to(np.asarray(cotangent, result.dtype), result.shape)
