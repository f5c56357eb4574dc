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
        groups: `[B]` rows of equal number share a start state or a prompt.
        rows_independent: True if every transition may be used alone (control), False if a row stays whole (language).
        advantages, value_targets, old_log_probs: `[B, T]`, attached by a method that splits a rollout in minibatches.
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
    advantages: Tensor | None = None
    value_targets: Tensor | None = None
    old_log_probs: Tensor | None = None

    @property
    def n_samples(self) -> int:
        return int(self.mask.sum())

    def attach(self, **columns: Tensor) -> Rollout:
        """The same rollout with `advantages`, `value_targets` or `old_log_probs` beside it."""
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

    def minibatches(self, size: int, generator: np.random.Generator) -> Iterator[Rollout]:
        """The rows in random order, `size` at a time; the last one may be smaller.

        A last minibatch below half the size would be mostly noise, so it joins the one before.
        """
        count = self.mask.shape[0]
        order = torch.from_numpy(generator.permutation(count)).to(self.mask.device)
        pieces = max(1, (count + size // 2) // size)
        bounds = [size * piece for piece in range(pieces)] + [count]
        for start, end in pairwise(bounds):
            yield self.select(order[start:end])

    def _with(self, columns: dict[str, Tensor], **more: Tensor) -> Rollout:
        changes: dict[str, Any] = columns | more
        return replace(self, **changes)

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = [(item.name, getattr(self, item.name)) for item in fields(self)]
        return [(name, value) for name, value in pairs if isinstance(value, Tensor)]
