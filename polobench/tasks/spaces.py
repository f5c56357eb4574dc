"""From gymnasium's spaces to tensors and back.

Observations: a Box is flattened, a Discrete becomes one-hot, and Dict, Tuple, MultiDiscrete and MultiBinary become what
`gymnasium.spaces.flatten` makes of them. An image (three dimensions of uint8) is divided by 255, as
stable-baselines3 does.

Actions: a Discrete is a number from 0; MultiDiscrete and MultiBinary are one number that stands for a combination of
choices. A Box takes the policy's numbers by one of `ACTION_SCALINGS`:

- "bounds": -1 and 1 are a bounded dimension's bounds, as behind `gymnasium.wrappers.RescaleAction(env, -1, 1)`.
- "none": the numbers are the action, as in stable-baselines3 without that wrapper.

Both clip to the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector.utils import iterate

from polobench.core.errors import UsageError

ACTION_SCALINGS = ("bounds", "none")
LARGEST_OBSERVATION = 64 * 64 * 3
MOST_ACTIONS = 1024
SIMPLE = (Box, Discrete, MultiBinary, MultiDiscrete)
ALLOWED = "Box, Discrete, MultiBinary, MultiDiscrete"


def _unsupported(space: Space[Any]) -> Space[Any] | None:
    """The first space inside of this one, or itself, that cannot be flattened."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return next((found for part in parts if (found := _unsupported(part)) is not None), None)
    return None if isinstance(space, SIMPLE) else space


def _is_image(space: Space[Any]) -> bool:
    return isinstance(space, Box) and len(space.shape) == 3 and space.dtype == np.uint8


def membership(space: Space[Any]) -> Callable[[Any], bool]:
    """Whether a value lies in the space.

    Real numbers must be finite and may leave their bounds: those of LunarLander-v3 and other standard environments
    do, by any amount, and no policy depends on them. Integers may not.
    """
    if isinstance(space, Box):
        low, high, real = space.low, space.high, space.dtype.kind == "f"

        def inside(value: Any) -> bool:
            array = np.asarray(value)
            if array.shape != space.shape or array.dtype.kind not in "biuf":
                return False
            good = np.isfinite(array) if real else (array >= low) & (array <= high)
            return int(np.count_nonzero(good)) == array.size

        return inside
    if isinstance(space, spaces.Dict):
        inner = {key: membership(part) for key, part in space.spaces.items()}
        return lambda value: (
            isinstance(value, Mapping)
            and value.keys() == inner.keys()
            and all(check(value[key]) for key, check in inner.items())
        )
    if isinstance(space, spaces.Tuple):
        checks = [membership(part) for part in space.spaces]
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(checks)
            and all(check(item) for check, item in zip(checks, value))
        )
    return space.contains


class ObservationCodec:
    """Observations as rows `[N, width]` of float32."""

    def __init__(self, task: str, space: Space[Any]) -> None:
        odd = _unsupported(space)
        if odd is not None:
            raise UsageError(
                f"task {task!r}: observation space {odd} is not supported (allowed: {ALLOWED}, and Dict and Tuple of "
                "these; gymnasium.wrappers.TransformObservation or FilterObservation makes one of another)"
            )
        self.width = spaces.flatdim(space)
        if self.width > LARGEST_OBSERVATION:
            raise UsageError(
                f"task {task!r}: an observation has {self.width:,} numbers (allowed: {LARGEST_OBSERVATION:,}, an image "
                "of 64 x 64 x 3; gymnasium.wrappers.ResizeObservation and GrayscaleObservation make images smaller)"
            )
        self._space = space
        self._scale = np.float32(255 if _is_image(space) else 1)

    def encode(self, observations: Any, batched: Space[Any]) -> np.ndarray:
        """The rows of `observations`, which lie in the space `batched` of a vector environment."""
        if isinstance(self._space, Discrete):
            one_hot: np.ndarray = np.eye(self.width, dtype=np.float32)[np.asarray(observations) - self._space.start]
            return one_hot
        if isinstance(self._space, Box):
            flat: np.ndarray = np.asarray(observations, dtype=np.float32).reshape(len(observations), self.width)
            return flat if self._scale == 1 else flat / self._scale
        rows = [np.asarray(spaces.flatten(self._space, item)) for item in iterate(batched, observations)]
        return np.stack(rows).astype(np.float32)


class ActionCodec:
    """Actions from a policy's numbers.

    Attributes:
        continuous: the numbers are reals, `size` of them; else one integer below `size`.
        center, half: `[size]` the middle and half the width of what the random policy draws its reals from.
    """

    def __init__(self, task: str, space: Space[Any], scaling: str = "bounds") -> None:
        if scaling not in ACTION_SCALINGS:
            raise UsageError(f"task {task!r}: action_scaling is {scaling!r} (allowed: {', '.join(ACTION_SCALINGS)})")
        self._space, self.continuous = space, isinstance(space, Box)
        if isinstance(space, Box):
            self.size = prod(space.shape)
            bounds = space.low.astype(np.float64), space.high.astype(np.float64)
            bounded = np.isfinite(bounds[0]) & np.isfinite(bounds[1])
            self._low, self._high = bounds
            low, high = np.where(bounded, bounds[0], -1.0), np.where(bounded, bounds[1], 1.0)
            wide: tuple[np.ndarray, np.ndarray] = (high + low) / 2, (high - low) / 2
            identity: tuple[np.ndarray, np.ndarray] = np.zeros_like(low), np.ones_like(low)
            (self._center, self._half), drawn = (wide, identity) if scaling == "bounds" else (identity, wide)
            self.center, self.half = drawn[0].ravel(), drawn[1].ravel()
            return
        self.center, self.half = np.zeros(0), np.ones(0)
        if not isinstance(space, SIMPLE):
            raise UsageError(
                f"task {task!r}: action space {space} is not supported (allowed: {ALLOWED}; "
                "gymnasium.wrappers.TransformAction makes one of another)"
            )
        choices = [space.n] if isinstance(space, Discrete) else space.nvec if isinstance(space, MultiDiscrete) else 2
        self._choices = tuple(int(count) for count in np.broadcast_to(choices, space.shape or (1,)).ravel())
        self.size = prod(self._choices)
        if self.size > MOST_ACTIONS:
            raise UsageError(
                f"task {task!r}: action space {space} has {self.size:,} actions (allowed: {MOST_ACTIONS:,}; "
                "gymnasium.wrappers.TransformAction offers fewer, or a Box that it rounds)"
            )

    def decode(self, actions: np.ndarray) -> np.ndarray:
        """`[N]` or `[N, size]` to what the environment takes, in memory of its own; out of bounds is clipped."""
        space = self._space
        if isinstance(space, Discrete):
            return actions + space.start if space.start else actions.copy()
        if not isinstance(space, Box):
            chosen = np.stack(np.unravel_index(actions, self._choices), -1).reshape(len(actions), *(space.shape or ()))
            return np.asarray(chosen + (space.start if isinstance(space, MultiDiscrete) else 0), dtype=space.dtype)
        shaped = self._center + self._half * actions.reshape(len(actions), *space.shape)
        clipped = np.minimum(np.maximum(shaped, self._low), self._high)  # twice as fast as `np.clip`
        return np.asarray(np.rint(clipped) if np.issubdtype(space.dtype, np.integer) else clipped, dtype=space.dtype)
