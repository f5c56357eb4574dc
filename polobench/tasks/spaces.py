"""From gymnasium's spaces to tensors and back: Box or Discrete observations, Box or Discrete actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from polobench.core.errors import UsageError


class ObservationCodec:
    """Observations as rows `[N, width]` of float32: a Box is flattened, a Discrete becomes one-hot."""

    def __init__(self, task: str, space: Space[Any]) -> None:
        if isinstance(space, Box):
            self.width = int(np.prod(space.shape))
        elif isinstance(space, Discrete):
            self.width = int(space.n)
        else:
            raise UsageError(f"task {task!r}: observation space {space} is not supported (allowed: Box, Discrete)")
        self._space = space

    def encode(self, observations: Any) -> np.ndarray:
        if isinstance(self._space, Discrete):
            one_hot: np.ndarray = np.eye(self.width, dtype=np.float32)[np.asarray(observations) - self._space.start]
            return one_hot
        flat: np.ndarray = np.asarray(observations, dtype=np.float32).reshape(len(observations), self.width)
        return flat


class ActionCodec:
    """Actions from a policy's numbers: integers from 0, or reals that -1 and 1 map to the bounds of a bounded Box."""

    def __init__(self, task: str, space: Space[Any]) -> None:
        if isinstance(space, Box):
            self.size = int(np.prod(space.shape))
        elif isinstance(space, Discrete):
            self.size = int(space.n)
        else:
            raise UsageError(f"task {task!r}: action space {space} is not supported (allowed: Box, Discrete)")
        self._space = space
        self.continuous = isinstance(space, Box)

    def decode(self, actions: np.ndarray) -> np.ndarray:
        """`[N]` or `[N, size]` to what the environment takes; out of bounds is clipped."""
        if isinstance(self._space, Discrete):
            return np.asarray(actions + self._space.start)
        box = self._space
        assert isinstance(box, Box)
        shaped = actions.reshape(len(actions), *box.shape)
        low, high = box.low.astype(np.float64), box.high.astype(np.float64)
        if box.is_bounded():
            shaped = (high + low) / 2 + (high - low) / 2 * shaped
        clipped = np.clip(shaped, low, high)
        return np.asarray(np.rint(clipped) if np.issubdtype(box.dtype, np.integer) else clipped, dtype=box.dtype)
