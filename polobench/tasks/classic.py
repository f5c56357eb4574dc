"""Acrobot-v1, CartPole-v1 and Pendulum-v1 side by side: gymnasium's equations on the columns of one array.

gymnasium steps the first and the last one by one; here a step of any number takes what one or two of them take there.
Each environment has its own seed and generator, as in a `SyncVectorEnv`, and goes the same way
(`tests/test_classic.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

Columns = np.ndarray[Any, Any]  # `[numbers of a state, N]`
CHECKED = 15  # environments and steps


class SideBySide(VectorEnv[Any, Any, Any]):
    """N environments whose states are the columns of `state`."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "one_seed_each": True}  # noqa: RUF012
    one: type[gymnasium.Env[Any, Any]]

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 500) -> None:
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        single = self.one()
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)
        self._generators = [np_random()[0]] * num_envs

    @abstractmethod
    def first(self, generator: np.random.Generator) -> Columns:
        """The state in which an episode begins."""

    @abstractmethod
    def advance(self, actions: Any) -> tuple[Columns, Columns]:
        """Moves `state` on; gives rewards and whether the episode is over, `[N]`."""

    @abstractmethod
    def observe(self, state: Columns) -> Columns:
        """`[N, numbers of an observation]`."""

    def reset(self, *, seed: int | Sequence[int] | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
        if seeds is not None:
            self._generators = [np_random(each)[0] for each in seeds]
        drawn = np.stack([self.first(generator) for generator in self._generators], 1)
        self.state, self._steps = drawn.astype(np.float64), np.zeros(self.num_envs, int)
        self._over = np.zeros(self.num_envs, bool)
        return self.observe(drawn), {}

    def step(self, actions: Any) -> tuple[Any, Columns, Columns, Columns, dict[str, Any]]:
        anew = self._over.nonzero()[0]
        self._steps += 1
        rewards, terminated = self.advance(actions)
        observations = self.observe(self.state)
        truncated = self._steps >= self.max_episode_steps
        if anew.size:
            drawn = np.stack([self.first(self._generators[index]) for index in anew], 1)
            self.state[:, anew], observations[anew] = drawn, self.observe(drawn)
            self._steps[anew] = rewards[anew] = 0
            terminated[anew] = truncated[anew] = False
        self._over = terminated | truncated
        return observations, rewards, terminated, truncated, {}


class AcrobotSideBySide(SideBySide):
    """`AcrobotEnv`, whose masses and lengths are 1 and whose centres of mass are at 0.5."""

    one = AcrobotEnv

    def first(self, generator: np.random.Generator) -> Columns:
        return generator.uniform(-0.1, 0.1, 4).astype(np.float32)

    def advance(self, actions: Any) -> tuple[Columns, Columns]:
        torque, start = np.asarray(actions) - 1.0, self.state
        k1 = _derivatives(start, torque)
        k2 = _derivatives(start + 0.1 * k1, torque)
        k3 = _derivatives(start + 0.1 * k2, torque)
        k4 = _derivatives(start + 0.2 * k3, torque)
        self.state = state = start + 0.2 / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles, speeds = state[:2], state[2:]
        while np.count_nonzero(above := angles > np.pi):
            angles -= 2 * np.pi * above
        while np.count_nonzero(below := angles < -np.pi):
            angles += 2 * np.pi * below
        np.minimum(np.maximum(speeds, -_FASTEST, out=speeds), _FASTEST, out=speeds)
        over = -np.cos(state[0]) - np.cos(state[1] + state[0]) > 1.0
        return over - 1.0, over

    def observe(self, state: Columns) -> Columns:
        found = np.empty((state.shape[1], 6), np.float32)
        found[:, 0:4:2], found[:, 1:4:2], found[:, 4:] = np.cos(state[:2]).T, np.sin(state[:2]).T, state[2:].T
        return found


_FASTEST = np.array([[AcrobotEnv.MAX_VEL_1], [AcrobotEnv.MAX_VEL_2]])


def _square(values: Columns) -> Columns:
    """By the power function, which is what a scalar's `** 2` is, and rounds otherwise than a product once in 1,000."""
    return np.float_power(values, 2)


def _derivatives(state: Columns, torque: Columns) -> Columns:
    """`AcrobotEnv._dsdt` with its constants multiplied out, sums in its order."""
    angle1, angle2, speed1, speed2 = state
    cos2, sin2 = np.cos(angle2), np.sin(angle2)
    d1 = 0.25 + (1.25 + cos2) + 1.0 + 1.0
    d2 = 0.25 + 0.5 * cos2 + 1.0
    turned1, turned2 = 0.5 * _square(state[2:]) * sin2
    phi2 = 4.9 * np.cos(angle1 + angle2 - np.pi / 2.0)
    phi1 = -turned2 - speed2 * speed1 * sin2 + 1.5 * 9.8 * np.cos(angle1 - np.pi / 2) + phi2
    found = np.empty_like(state)
    found[:2] = state[2:]
    found[3] = (torque + d2 / d1 * phi1 - turned1 - phi2) / (1.25 - _square(d2) / d1)
    found[2] = -(d2 * found[3] + phi1) / d1
    return found


class PendulumSideBySide(SideBySide):
    """`PendulumEnv`."""

    one = PendulumEnv

    def first(self, generator: np.random.Generator) -> Columns:
        high = np.array([np.pi, 1.0])
        return generator.uniform(-high, high)

    def advance(self, actions: Any) -> tuple[Columns, Columns]:
        torque = np.minimum(np.maximum(actions[:, 0], -2.0), 2.0)
        angle, speed = self.state[0], self.state[1]
        turned = (angle + np.pi) % (2 * np.pi) - np.pi
        costs = _square(turned) + 0.1 * _square(speed) + 0.001 * torque**2
        speed = speed + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05
        speed = np.minimum(np.maximum(speed, -8.0), 8.0)
        self.state = np.array([angle + speed * 0.05, speed])
        return -costs, np.zeros(self.num_envs, bool)

    def observe(self, state: Columns) -> Columns:
        found = np.empty((state.shape[1], 3), np.float32)
        found[:, 0], found[:, 1], found[:, 2] = np.cos(state[0]), np.sin(state[0]), state[1]
        return found


class CartPoleSideBySide(CartPoleVectorEnv):
    """gymnasium's own with half of its calls, on constants that numpy need not convert at each."""

    # an episode ends long before a state could overflow, so that observations need no check
    metadata = CartPoleVectorEnv.metadata | {"always_finite": True}

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 500) -> None:
        super().__init__(num_envs, max_episode_steps)
        limits = [[self.x_threshold], [np.inf], [self.theta_threshold_radians], [np.inf]]
        self._limits, self._longest = np.repeat(np.array(limits), num_envs, 1), np.array(max_episode_steps, np.int32)
        self._rates, self._ones = np.empty((4, num_envs)), np.ones(num_envs, np.float32)
        self._ones.flags.writeable = False  # since every step gives the same ones

    def step(self, action: Any) -> tuple[Any, Columns, Columns, Columns, dict[str, Any]]:
        state: Columns = self.state  # type: ignore[assignment]
        rates, angle, turn = self._rates, state[2], state[3]
        cos, sin, turning = np.cos(angle), np.sin(angle), rates[3]
        push = (_FORCES[action] + _POLE * np.square(turn) * sin) / _MASS
        np.divide(_GRAVITY * sin - cos * push, _HALF * (_SHAPE - _POLE_MASS * np.square(cos) / _MASS), out=turning)
        np.subtract(push, _POLE * turning * cos / _MASS, out=rates[1])
        rates[::2] = state[1::2]
        state = state + _TAU * rates
        beyond = np.abs(state) > self._limits
        self.steps += _ONE
        terminated, truncated, rewards = beyond[0] | beyond[2], self.steps >= self._longest, self._ones
        if np.count_nonzero(self.prev_done):  # of a few numbers a quarter of what `any` takes
            anew, rewards = self.prev_done.nonzero()[0], rewards.copy()
            state[:, anew] = self.np_random.uniform(self.low, self.high, (4, anew.size))
            self.steps[anew] = rewards[anew] = 0
            terminated[anew] = truncated[anew] = False
        self.state, self.prev_done = state, terminated | truncated  # type: ignore[assignment]
        return state.T.astype(np.float32), rewards, terminated, truncated, {}


_FORCES, _ONE = np.array([-10.0, 10.0]), np.array(1, np.int32)
_POLE, _POLE_MASS, _MASS, _GRAVITY, _TAU = map(np.array, (0.1 * 0.5, 0.1, 0.1 + 1.0, 9.8, 0.02))
_HALF, _SHAPE = map(np.array, (0.5, 4.0 / 3.0))


VERSIONS: dict[str, tuple[Callable[..., VectorEnv[Any, Any, Any]], Callable[[], VectorEnv[Any, Any, Any]]]] = {
    "Acrobot-v1": (AcrobotSideBySide, lambda: SyncVectorEnv([AcrobotEnv] * CHECKED)),
    "CartPole-v1": (CartPoleSideBySide, lambda: CartPoleVectorEnv(CHECKED)),
    "Pendulum-v1": (PendulumSideBySide, lambda: SyncVectorEnv([PendulumEnv] * CHECKED)),
}


def with_vector_version(spec: EnvSpec) -> EnvSpec:
    """The spec, with a version from here where it is gymnasium's own and both go the same way."""
    known = spec.id in VERSIONS and not spec.kwargs and str(spec.entry_point).startswith("gymnasium.envs.classic")
    return replace(spec, vector_entry_point=VERSIONS[spec.id][0]) if known and goes_as_gymnasium(spec.id) else spec


@cache
def goes_as_gymnasium(name: str) -> bool:
    """Whether a few steps are the same to rounding: another release may have other equations."""
    version, reference = VERSIONS[name]
    with suppress(AttributeError, TypeError, ValueError):  # or other names
        ours, theirs = version(CHECKED), reference()
        ours.action_space.seed(0)
        pairs: list[tuple[Any, Any]] = [(ours.reset(seed=0)[:1], theirs.reset(seed=0)[:1])]
        for _ in range(CHECKED):
            actions = ours.action_space.sample()
            pairs.append((ours.step(actions)[:3], theirs.step(actions)[:3]))
        return all(np.allclose(a, b, rtol=0, atol=1e-5) for both in pairs for a, b in zip(*both, strict=True))
    return False
