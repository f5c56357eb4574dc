"""One batch of experience, in the shape that every method and both worlds share.

Shapes: B rows (environments, or completions), T columns (time steps, or token positions). A row may cross episodes in
control; `mask` is False where nothing was decided: the autoreset step after an episode's end, and padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
    def n_rows(self) -> int:
        """Rows in one pass of a network over it, padding and prompts included."""
        return self.mask.numel() + (0 if self.prompts is None else self.prompts.numel())

    @property
    def has_ranking(self) -> bool:
        """Whether some group has rows with different returns."""
        first = torch.zeros(int(self.groups.max()) + 1, dtype=self.rewards.dtype, device=self.mask.device)
        first[self.groups] = self.returns
        return bool((first[self.groups] != self.returns).any())

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
        return self._with(columns)

    def rows(self) -> Rollout:
        """The units that may be shuffled: `[M, 1]` valid transitions in control, the same `[B, T]` in language."""
        if not self.rows_independent:
            return self
        keep = self.mask.flatten()
        row_of = torch.arange(self.mask.shape[0], device=keep.device).repeat_interleave(self.mask.shape[1])[keep]
        columns = {
            name: value.flatten(0, 1)[keep].unsqueeze(1)
            for name, value in self._tensors()
            if name not in ("final_observations", "groups")
        }
        return self._with(columns, final_observations=self.final_observations[row_of], groups=self.groups[row_of])

    def select(self, index: Tensor) -> Rollout:
        """The rows of these indices."""
        return self._with({name: value[index] for name, value in self._tensors()})

    def split(self, size: int | None) -> list[Rollout]:
        """The rows in order, `size` at a time, columns cut back to the longest row of each; all at once for None."""
        count = self.mask.shape[0]
        if size is None or size >= count:
            return [self]
        index = torch.arange(count, device=self.mask.device)
        return [self.select(rows)._trimmed() for rows in torch.split(index, size)]

    def split_groups(self, size: int | None) -> list[Rollout]:
        """As `split`, in whole groups of at most `size` rows together, at least one group each."""
        if size is None or size >= self.mask.shape[0]:
            return [self]
        counts = torch.bincount(self.groups).tolist()
        bounds, start = [0], 0
        for number, count in enumerate(counts):
            end = sum(counts[: number + 1])
            if end - start > size and end - count > start:
                start = end - count
                bounds.append(start)
        index = torch.arange(self.mask.shape[0], device=self.mask.device)
        return [self.select(index[a:b])._trimmed() for a, b in pairwise([*bounds, len(index)])]

    def minibatches(self, size: int, generator: np.random.Generator) -> Iterator[Rollout]:
        """The rows in random order, as many at a time as hold `size` steps; the last minibatch may be smaller.

        A last minibatch below half the size would be mostly noise, so it joins the one before.
        """
        count, width = self.mask.shape
        size = max(1, size // width)
        order = torch.from_numpy(generator.permutation(count)).to(self.mask.device)
        pieces = max(1, (count + size // 2) // size)
        bounds = [size * piece for piece in range(pieces)] + [count]
        for start, end in pairwise(bounds):
            yield self.select(order[start:end])

    def _trimmed(self) -> Rollout:
        if self.rows_independent:
            return self
        width = int(self.mask.any(0).nonzero().max()) + 1
        whole = ("final_observations", "groups", "prompts", "prompt_mask")
        return self._with({name: value[:, :width] for name, value in self._tensors() if name not in whole})

    def _with(self, columns: dict[str, Tensor], **more: Tensor) -> Rollout:
        changes: dict[str, Any] = columns | more
        return replace(self, **changes)

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = [(item.name, getattr(self, item.name)) for item in fields(self)]
        return [(name, value) for name, value in pairs if isinstance(value, Tensor)]
