"""One batch of experience, in the shape that every method and both worlds share.

Shapes: B rows (environments, or completions), T columns (time steps, or token positions). A row may cross episodes in
control; `mask` is False where nothing was decided: the autoreset step after an episode's end, and padding.

The columns are tensors, or all of them are `core.arrays.Array`, which formulas take as they take tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from polobench.core.arrays import Array, cat, like, numbers


@dataclass(frozen=True)
class Rollout:
    """Experience `[B, T]` with a mask.

    Attributes:
        observations: `[B, T, ...]` the states in which the actions were taken. The column after an episode's end holds
            its final state (masked), so the state after column t is always column t + 1.
        final_observations: `[B, ...]` the states after column T - 1.
        actions: `[B, T, ...]`.
        rewards: `[B, T]`.
        terminated: `[B, T]` bool; no value beyond this step.
        truncated: `[B, T]` bool; cut by a time limit, the value of the next state goes on.
        mask: `[B, T]` bool.
        groups: `[B]` rows with the same number share a start state or a prompt.
        rows_independent: True if every transition may be used alone (control), False if a row stays whole (language).
        prompts: `[B, P]` tokens, padded on the left, so that column P - 1 holds the first observation; None in control.
        prompt_mask: `[B, P]` bool, False where `prompts` is padded.
        advantages, value_targets, weights, old_log_probs, reference_log_probs: `[B, T]`, attached by a method that
            splits a rollout; `weights` are weights in a sum, so that the parts' losses add up to the whole's.
        critic_inputs: `[B, T, H]` what the critic of a language model reads, attached while the model stays as it is.
    """

    observations: Tensor
    final_observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    groups: Tensor
    rows_independent: bool = True
    prompts: Tensor | None = None
    prompt_mask: Tensor | None = None
    advantages: Tensor | None = None
    value_targets: Tensor | None = None
    weights: Tensor | None = None
    old_log_probs: Tensor | None = None
    reference_log_probs: Tensor | None = None
    critic_inputs: Tensor | None = None

    @property
    def n_samples(self) -> int:
        return int(self.mask.sum())

    @property
    def has_ranking(self) -> bool:
        """Whether some group has rows with different returns."""
        groups, returns = numbers(self.groups), numbers(self.returns)
        one = np.zeros(groups.max() + 1, returns.dtype)
        one[groups] = returns
        return bool((one[groups] != returns).any())

    @property
    def mean_length(self) -> float:
        """Mean number of steps per row."""
        return self.n_samples / self.mask.shape[0]

    @property
    def returns(self) -> Tensor:
        """`[B]` undiscounted returns of the rows, which must be whole episodes."""
        return (self.rewards * self.mask).sum(1)

    def attach(self, **columns: Tensor) -> Rollout:
        """The same rollout with these columns beside it."""
        changed = object.__new__(Rollout)  # `dataclasses.replace` takes ten times as long
        changed.__dict__.update(self.__dict__, **columns)
        return changed

    def rows(self) -> Rollout:
        """The units that may be shuffled: `[M, 1]` valid transitions in control, the same `[B, T]` in language."""
        if not self.rows_independent:
            return self
        numbers_kept = np.flatnonzero(numbers(self.mask))
        keep, row_of = (like(self.mask, index) for index in (numbers_kept, numbers_kept // self.mask.shape[1]))
        columns = {
            name: value.flatten(0, 1)[keep].unsqueeze(1)
            for name, value in self._tensors()
            if name not in ("final_observations", "groups")
        }
        return self.attach(**columns, final_observations=self.final_observations[row_of], groups=self.groups[row_of])

    def as_arrays(self) -> Rollout:
        """The rollout, on a CPU, with arrays that share the tensors' memory."""
        columns: dict[str, Any] = {name: Array(numbers(value)) for name, value in self._tensors()}
        return self.attach(**columns)

    def select(self, index: Tensor | slice) -> Rollout:
        """The rows of these indices."""
        if isinstance(index, Array) or isinstance(self.mask, Array):
            chosen = index.value if isinstance(index, Array) else index
            taken = (lambda v: v[chosen]) if isinstance(chosen, slice) else (lambda v: v.take(chosen, 0))
            arrays: dict[str, Any] = {name: Array(taken(column.numpy())) for name, column in self._tensors()}
            return self.attach(**arrays)
        return self.attach(**{name: value[index] for name, value in self._tensors()})

    def split(self, size: int | None) -> list[Rollout]:
        """The rows in order, `size` at a time, columns cut back to the longest row of each; all at once for None."""
        count = self.mask.shape[0]
        if size is None or size >= count:
            return [self]
        return [self.select(slice(start, start + size))._trimmed() for start in range(0, count, size)]

    def split_groups(self, size: int | None) -> list[Rollout]:
        """As `split`, in whole groups of at most `size` rows together, at least one group each."""
        if size is None or size >= self.mask.shape[0]:
            return [self]
        counts = np.bincount(numbers(self.groups)).tolist()
        bounds, start = [0], 0
        for number, count in enumerate(counts):
            end = sum(counts[: number + 1])
            if end - start > size and end - count > start:
                start = end - count
                bounds.append(start)
        return [self.select(slice(a, b))._trimmed() for a, b in pairwise([*bounds, self.mask.shape[0]])]

    def minibatch_bounds(self, size: int | None) -> list[int]:
        """The rows at which minibatches of `size` steps begin and end."""
        count, width = self.mask.shape
        return minibatch_bounds(count, None if size is None else max(1, size // width))

    def minibatches(self, size: int | None, generator: np.random.Generator, epochs: int = 1) -> Iterator[Rollout]:
        """The rows in random order, as many at a time as hold `size` steps (None: all, in their order), `epochs` times.

        A last minibatch below half the size would be mostly noise, so it joins the one before.
        """
        bounds = self.minibatch_bounds(size)
        for _ in range(epochs):
            order = None if size is None else generator.permutation(self.mask.shape[0])
            if order is None or (len(bounds) == 2 and isinstance(self.mask, Array)):  # which would only move rounding
                yield self
                continue
            shuffled = self.select(like(self.mask, order))
            for start, end in pairwise(bounds):
                yield shuffled.select(slice(start, end))

    def group_minibatches(self, size: int | None, generator: np.random.Generator, epochs: int = 1) -> Iterator[Rollout]:
        """As `minibatches`, in whole groups, `size` at a time; each minibatch numbers its groups from 0."""
        counts = np.bincount(numbers(self.groups))
        rows_of = np.split(np.arange(counts.sum()), counts.cumsum()[:-1])
        bounds = minibatch_bounds(len(counts), size)
        for _ in range(epochs):
            if len(bounds) == 2:
                yield self
                continue
            order = generator.permutation(len(counts))
            for chosen in (order[start:end] for start, end in pairwise(bounds)):
                batch = self.select(like(self.mask, np.concatenate([rows_of[group] for group in chosen])))
                yield batch.attach(groups=like(self.groups, np.repeat(np.arange(len(chosen)), counts[chosen])))

    def _trimmed(self) -> Rollout:
        if self.rows_independent:
            return self
        width = int(self.mask.any(0).nonzero().max()) + 1
        whole = ("final_observations", "groups", "prompts", "prompt_mask")
        return self.attach(**{name: value[:, :width] for name, value in self._tensors() if name not in whole})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = [(name, getattr(self, name)) for name in COLUMNS]
        return [(name, value) for name, value in pairs if value is not None]


COLUMNS = tuple(item.name for item in fields(Rollout) if item.name != "rows_independent")


def minibatch_bounds(count: int, size: int | None) -> list[int]:
    """Where minibatches of `size` out of `count` begin and end; None: one minibatch."""
    pieces = 1 if size is None else max(1, (count + size // 2) // size)
    return [(size or 0) * piece for piece in range(pieces)] + [count]


def joined(parts: Sequence[Tensor], width: int) -> Tensor:
    """`[B, width]` from what was computed of each part of a `split`, with 0 behind a part's own columns."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Array):
        return cast(Tensor, cat(parts, 0))
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])
