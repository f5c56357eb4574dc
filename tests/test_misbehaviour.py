"""What environments and methods do that they should not is their own cell's outcome, and no other cell notices."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from children import plug_in, started, write_study

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

    class NeverEnds(Toy):
        def step(self, action):
            return np.zeros(2, np.float32), 1.0, False, False, {}

    def maker(name, make):
        return lambda: ControlTask(name, make)

    dies, long_reward = maker("dies", DiesOnReset), maker("long-reward", LongReward)
    nan_reward, inf_reward = maker("nan-reward", NanReward), maker("inf-reward", InfReward)
    nan_observation = maker("nan-observation", NanObservation)
    inf_observation = maker("inf-observation", InfObservation)
    long_observation = maker("long-observation", LongObservation)
    never_ends = maker("never-ends", NeverEnds)
"""
# what a cell may leave behind in its process
NAP = f"9{os.getpid()}"  # seconds that no other sleep of this machine takes
MEDDLERS = """
    import os, random, sys, threading, time
    import numpy as np, torch
    from polobench import Method
    from polobench.methods.random import Random

    class Meddler(Random):
        def learn(self, task, rng):
            self.meddle()
            yield from super().learn(task, rng)

    class Draws(Meddler):
        name = "draws"
        def meddle(self):
            random.random(), np.random.random(), torch.rand(1)
            random.seed(1), np.random.seed(2), torch.manual_seed(3)

    class Threads(Meddler):
        name = "threads"
        def meddle(self):
            torch.set_num_threads(3)
            threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()

    class Settings(Meddler):
        name = "settings"
        def meddle(self):
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            np.seterr(all="raise")
            os.chdir("/")

    class Forks(Meddler):
        name = "forks"
        def meddle(self):
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "{NAP}"])

    class Fails(Meddler):
        name = "fails"
        def meddle(self):
            raise KeyError("lost")

    class Floods(Meddler):
        name = "floods"
        def meddle(self):
            for _ in range(2048):
                sys.stdout.write("x" * 2**20)
""".replace("{NAP}", NAP)
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
    done = started("run", str(study), "--jobs", "2", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    table = polobench.load(tmp_path / "results" / "mini").set_index("task")
    found = {name: (table.status[name], table.reason[name]) for name in table.index}
    assert {name: status for name, (status, _) in found.items()} == {name: end for name, (end, _) in ENDINGS.items()}, (
        found
    )
    for name, (_, word) in ENDINGS.items():
        assert word in found[name][1], found[name]


def test_an_environment_that_never_ends_is_ended_by_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(tmp_path, "endless", ENVIRONMENTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = importlib.import_module("endless").never_ends()
    for method in ("ppo", "reinforce"):
        result = polobench.make(method, task=task).run(seed=0, budget=2_000_000, timeout_seconds=0.5)
        assert (result.status, result.reason) == ("timeout", "the run did not finish within its time limit")


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_what_a_cell_changes_in_its_process_is_not_seen_by_the_next(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["draws", "threads", "settings", "fails"] if executor == "serial" else ["forks", "floods", "fails"]
    plug_in(tmp_path, "meddlers", MEDDLERS, *(f"methods:{name}=meddlers:{name.capitalize()}" for name in names))
    methods = ['"ppo"', *(f'"{name}", {{method = "ppo", label = "after {name}"}}' for name in names)]
    grid = f'[[grid]]\nmethods = [{", ".join(methods)}]\ntasks = ["probe-bandit"]\nseeds = 1\nbudget = 600\n'
    study = write_study(tmp_path, 'devices = ["cpu"]\n' + grid)
    with (tmp_path / "said").open("w") as said:
        whole = [sys.executable, "-m", "polobench", "run", str(study), "--executor", executor]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        subprocess.run(whole, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=said, check=False)
    table = polobench.load(tmp_path / "results" / "mini").set_index("label")
    assert len(table) == 2 * len(names) + 1, (tmp_path / "said").read_text()
    ends = table.status.to_dict()
    assert {name for name in ends if ends[name] != "ok"} == {"fails"}, table.reason.to_dict()
    assert set(table[table.method == "ppo"].digest) == {table.digest["ppo"]}
    assert not [found for found in psutil.process_iter(["cmdline"]) if found.info["cmdline"] == ["sleep", NAP]]
