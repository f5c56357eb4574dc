"""Environments that give nonsense or die fail their own cell, with a reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from test_sweep import command, plug_in, write_study

import polobench

ENVIRONMENTS = """
    import gymnasium as gym, numpy as np
    from polobench.tasks.control import ControlTask

    class Toy(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gym.spaces.Discrete(2)
        observation, reward = np.zeros(2, np.float32), 1.0

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.t += 1
            late = self.t > 3
            observation = self.observation if late else np.zeros(2, np.float32)
            return observation, self.reward if late else 1.0, False, self.t >= 20, {}

    class DiesOnReset(Toy):
        def reset(self, **options):
            raise OSError("no simulator")

    class NanReward(Toy):
        reward = float("nan")

    class InfReward(Toy):
        reward = float("inf")

    class LongReward(Toy):
        reward = np.zeros(2)

    class NanObservation(Toy):
        observation = np.full(2, np.nan, np.float32)

    class InfObservation(Toy):
        observation = np.full(2, np.inf, np.float32)

    class LongObservation(Toy):
        observation = np.zeros(3, np.float32)

    def maker(name, make):
        return lambda: ControlTask(name, make)

    dies, long_reward = maker("dies", DiesOnReset), maker("long-reward", LongReward)
    nan_reward, inf_reward = maker("nan-reward", NanReward), maker("inf-reward", InfReward)
    nan_observation = maker("nan-observation", NanObservation)
    inf_observation = maker("inf-observation", InfObservation)
    long_observation = maker("long-observation", LongObservation)
"""
ENDINGS = {
    "dies": ("failed", "no simulator"), "nan-reward": ("failed", "reward"),
    "inf-reward": ("failed", "reward"), "long-reward": ("failed", "reward"),
    "nan-observation": ("failed", "observation"), "inf-observation": ("failed", "observation"),
    "long-observation": ("failed", "observation"),
}  # fmt: skip


def test_an_environment_that_gives_nonsense_or_dies_fails_its_own_cell(tmp_path: Path) -> None:
    entries = (f"tasks:{name}=odd_ones:{name.replace('-', '_')}" for name in ENDINGS)
    plug_in(tmp_path, "odd_ones", ENVIRONMENTS, *entries)
    text = 'devices = ["cpu"]\n[[grid]]\nmethods = ["ppo"]\nseeds = 1\nbudget = 600\n'
    study = write_study(tmp_path, text + f"tasks = {json.dumps(list(ENDINGS))}\n")
    done: subprocess.CompletedProcess[str] = command(
        "run", str(study), "--jobs", "2", cwd=tmp_path, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    table = polobench.load(tmp_path / "results" / "mini").set_index("task")
    found = {name: (table.status[name], table.reason[name]) for name in table.index}
    assert {name: status for name, (status, _) in found.items()} == {name: end for name, (end, _) in ENDINGS.items()}, (
        found
    )
    for name, (_, word) in ENDINGS.items():
        assert word in found[name][1], found[name]
