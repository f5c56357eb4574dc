"""Catch: move the paddle under the falling ball (Osband et al. 2020, "Behaviour Suite for RL", catch); best: 1."""

import gymnasium
import numpy as np

from polobench.tasks.control import ControlTask

LAST = np.array([9, 4, 4])  # of the rows, of the columns for the ball, and for the paddle


class Catch(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([0, self.np_random.integers(5), 2])
        return self.state / LAST, {}

    def step(self, action):
        self.state = np.clip(self.state + np.array([1, 0, action - 1]), 0, LAST)
        row, ball, paddle = self.state
        landed = bool(row == LAST[0])
        reward = 0.0 if not landed else 1.0 if ball == paddle else -1.0
        return self.state / LAST, reward, landed, False, {}


def catch():
    """Floor: whoever does not look catches one ball in five, each column being as likely, so 1/5 - 4/5."""
    return ControlTask("catch", Catch, floor=-0.6, target=0.9)
