"""Probe tasks: small enough that the right answer is known, each to catch one thing that returns elsewhere hide."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from polobench.tasks.control import ControlTask

BANDIT_REWARDS = (0.0, 0.2, 1.0, 0.5)
DELAY_STEPS = 5
TRUNCATION_STEPS = 10
STOP_REWARD = 8.0
TARGET_STATES = (-0.6, 0.0, 0.6)

Step = tuple[Any, float, bool, bool, dict[str, Any]]


class _Probe(gymnasium.Env[Any, Any]):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._start(), {}

    def _start(self) -> Any:
        """Begin an episode; gives its first observation."""
        return 0


class Bandit(_Probe):
    """Four arms of fixed rewards, one pull per episode. Catches a wrong sign or a wrong gradient; best: 1."""

    observation_space = Discrete(1)
    action_space = Discrete(len(BANDIT_REWARDS))

    def step(self, action: int) -> Step:
        return 0, BANDIT_REWARDS[action], True, False, {}


class DelayedReward(_Probe):
    """The first of five actions decides the last step's reward. Catches credit that does not travel back; best: 1."""

    observation_space = Discrete(DELAY_STEPS)
    action_space = Discrete(2)

    def _start(self) -> int:
        self._step, self._first = 0, 0
        return 0

    def step(self, action: int) -> Step:
        if self._step == 0:
            self._first = int(action)
        self._step += 1
        done = self._step == DELAY_STEPS
        return min(self._step, DELAY_STEPS - 1), float(done and self._first == 1), done, False, {}


class Truncation(_Probe):
    """Stop at once for 8, or stay for 1 a step in a task without end that a time limit cuts after 10 steps.

    With gamma = 0.9 staying is worth 1 / (1 - gamma) = 10 > 8 if the cut is bootstrapped, and
    (1 - gamma^10) / (1 - gamma) = 6.5 < 8 if it is taken for an end. Only the first action decides. Best: return 10;
    the fault: return 8. The critic's value of the staying state is known, too: 10.
    """

    observation_space = Discrete(2)
    action_space = Discrete(2)

    def _start(self) -> int:
        self._step = 0
        return 0

    def step(self, action: int) -> Step:
        self._step += 1
        if self._step == 1 and action == 1:
            return 0, STOP_REWARD, True, False, {}
        return 1, 1.0, False, self._step == TRUNCATION_STEPS, {}


class ContinuousTarget(_Probe):
    """Name the number you are shown (-0.6, 0 or 0.6); reward minus its squared error. Catches wrong scales; best: 0."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def _start(self) -> np.ndarray:
        self._shown = float(self.np_random.choice(TARGET_STATES))
        return np.array([self._shown], np.float32)

    def step(self, action: np.ndarray) -> Step:
        error = float(action[0]) - self._shown
        return np.array([self._shown], np.float32), -(error**2), True, False, {}


def bandit() -> ControlTask:
    """Floor: the mean of the arms."""
    return ControlTask("probe-bandit", Bandit, floor=float(np.mean(BANDIT_REWARDS)), target=1.0)


def delayed_reward() -> ControlTask:
    """Floor: a coin decides."""
    return ControlTask("probe-delayed-reward", DelayedReward, floor=0.5, target=1.0)


def truncation() -> ControlTask:
    """Floor: a coin decides between stopping and staying."""
    return ControlTask("probe-truncation", Truncation, floor=(STOP_REWARD + TRUNCATION_STEPS) / 2, target=10.0)


def continuous_target() -> ControlTask:
    """Floor: E[(u - s)^2] = 1/3 + E[s^2] for u uniform on [-1, 1]. Target: an error of 0.1."""
    floor = -(1 / 3 + float(np.mean(np.square(TARGET_STATES))))
    return ControlTask("probe-continuous-target", ContinuousTarget, floor=floor, target=-0.01)
