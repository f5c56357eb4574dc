"""Environments from people's own files and arguments: found, told apart, and measured in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from children import plug_in
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from test_odd_environments import BUDGET, SMALL, environment

import polobench
from polobench.cells.runner import prepare
from polobench.core.budget import Budget, Ledger, RunTimeout
from polobench.core.errors import UsageError
from polobench.core.seeding import SeedAxes
from polobench.kinds.environment import parse_task
from polobench.registry import find_task
from polobench.run.estimate import estimate
from polobench.run.study import parse_study
from polobench.tasks import control
from polobench.tasks.control import ControlTask
from polobench.tasks.environments import ById
from polobench.tasks.vector import has_equal_vector_version

MINE = """
import gymnasium, helper

class Mine(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        return 0, helper.sign() * float(action), False, self.steps == 10, {}

gymnasium.register("Mine-v0", Mine)
gymnasium.register("ns/Mine-v0", Mine)
"""
HELPER = "def sign(): return +1.0\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an environment, and a plug-in `myplug` that makes it a task."""
    (tmp_path / "myenv.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER)
    source = "import myenv\nfrom polobench.tasks.control import ControlTask\n"
    source += "def task():\n    return ControlTask('Mine-v0')\n"
    plug_in(tmp_path, "myplug", source, "tasks:Mine-v0=myplug:task")
    return tmp_path


def command(folder: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": path}
    line = [str(Path(sys.executable).with_name("polobench")), *arguments]
    return subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True, check=False)


def study(folder: Path, task: str) -> None:
    (folder / "s.toml").write_text(
        f'devices = ["cpu"]\n[[grid]]\nmethods = ["random"]\ntasks = ["{task}"]\nseeds = 1\nbudget = 2000\n'
    )


def test_a_module_in_the_current_folder_is_found_by_the_command_and_by_its_workers(folder: Path) -> None:
    study(folder, "myenv:ns/Mine-v0")
    done = command(folder, "run", "s.toml")
    assert done.returncode == 0, done.stderr
    (row,) = polobench.load(folder / "results" / "s").to_dict("records")
    assert (row["task"], row["status"]) == ("myenv:ns/Mine-v0", "ok")


def test_a_module_without_the_id_says_what_there_is(folder: Path) -> None:
    study(folder, "myenv:Mine-v1")
    done = command(folder, "run", "s.toml", "--dry-run")
    assert done.returncode == 2
    assert "unknown task 'myenv:Mine-v1'; did you mean" in done.stderr


def test_an_edited_source_makes_new_cells(folder: Path) -> None:
    study(folder, "Mine-v0")
    done = command(folder, "run", "s.toml", path=str(folder))
    assert done.returncode == 0, done.stderr
    edits = ("helper.py", "+1.0", "-1.0"), ("myenv.py", "== 10", "== 9"), ("myplug.py", "'Mine-v0'", "'Mine-v0' ")
    for file, before, after in (("helper.py", "+1.0", "+1.0"), *edits):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace(before, after))
        plan = command(folder, "run", "s.toml", "--dry-run", path=str(folder)).stdout
        (folder / file).write_text(text)
        assert ("[finished]" if before == after else "[to run]") in plan, file


NOISY = MINE.replace("import gymnasium, helper", "import gymnasium, helper, warnings, numpy").replace(
    "        self.steps += 1\n",
    "        self.steps += 1\n        numpy.float32(3e38) * numpy.float32(10)\n"
    "        gymnasium.logger.warn(f'step {self.steps}')\n",
)


def test_warnings_of_cells_do_not_reach_the_terminal(folder: Path) -> None:
    (folder / "myenv.py").write_text(NOISY)
    study(folder, "Mine-v0")
    done = command(folder, "run", "s.toml", path=str(folder))
    assert done.returncode == 0, done.stderr
    for word in ("overflow", "WARN", "Warning", "step 3"):
        assert word not in done.stdout + done.stderr


def test_warnings_of_mujoco_are_shown_by_python_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setitem(sys.modules, "mujoco", SimpleNamespace(set_mju_user_warning=taken.append))
    ById("CartPole-v1")()
    say = taken[-1]
    unstable = "Nan, Inf or huge value in QACC at DOF 0. The simulation is unstable."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for time in range(1000):
            say(f"{unstable} Time = {time / 10:.4f}.")
    assert [str(warning.message) for warning in caught] == [f"MuJoCo: {unstable}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say("another")  # C calls it: no exception may leave it


def test_verify_speaks_of_other_code_where_the_environment_changed(folder: Path) -> None:
    study(folder, "Mine-v0")
    command(folder, "run", "s.toml", path=str(folder))
    (folder / "helper.py").write_text(HELPER.replace("+1.0", "-1.0"))
    done = command(folder, "verify", "results/s", path=str(folder))
    assert done.returncode == 1
    assert "1 with other code" in done.stdout + done.stderr
    assert "equal code" not in done.stdout + done.stderr


DRY: dict[str, Any] = {
    "id": "FrozenLake-v1", "label": "FrozenLake, dry", "kwargs": {"is_slippery": False},
    "wrappers": ["FlattenObservation"], "max_episode_steps": 20, "floor": 0.0, "target": 0.9,
}  # fmt: skip


def cells(*tasks: Any) -> list[Any]:
    grid = {"methods": ["random"], "tasks": list(tasks), "seeds": 1, "budget": 200}
    return [prepare(cell) for cell in parse_study("s", {"devices": ["cpu"], "grid": [grid]}).cells]


def test_a_study_describes_an_environment() -> None:
    task = cells(DRY)[0].method.task
    assert (task.name, task.floor, task.target, task.horizon) == ("FrozenLake, dry", 0.0, 0.9, 20)
    env = task._make_env()
    assert env.unwrapped.P[0][1][0][0] == 1.0  # one outcome: not slippery
    assert "FlattenObservation" in str(env)
    result = polobench.make("ppo", task=DRY, **SMALL).run(seed=0, budget=BUDGET)
    assert (result.status, result.task) == ("ok", "FrozenLake, dry")


@pytest.mark.parametrize(
    "change",
    [
        {"kwargs": {"is_slippery": True}}, {"wrappers": []}, {"max_episode_steps": 21}, {"floor": 0.1}, {"target": 0.8},
        {"wrappers": [{"name": "FlattenObservation"}, {"name": "TimeAwareObservation", "flatten": False}]},
    ],
)  # fmt: skip
def test_every_argument_is_part_of_the_cell(change: dict[str, Any]) -> None:
    assert cells(DRY)[0].cell_id == cells(DRY)[0].cell_id != cells(DRY | change)[0].cell_id


def test_an_unlabelled_environment_is_called_by_what_differs() -> None:
    assert parse_task({"id": "FrozenLake-v1", "kwargs": {"map_name": "8x8"}})[0] == "FrozenLake-v1 (map_name='8x8')"
    assert parse_task({"id": "FrozenLake-v1"}) == ("FrozenLake-v1", {})


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"id": "FrozenLake-v1", "slippery": False}, "unknown key of a task 'slippery'"),
        ({"label": "x"}, "tasks: id: None"),
        ({"id": "FrozenLake-v1", "kwargs": 3}, "kwargs of 'FrozenLake-v1': 3 .*a table"),
        ({"id": "FrozenLake-v1", "floor": float("nan")}, "floor of 'FrozenLake-v1': nan"),
        ({"id": "FrozenLake-v1", "max_episode_steps": 0}, "max_episode_steps: 0 .*an integer from 1"),
        ({"id": "FrozenLake-v1", "label": "CartPole-v1", "floor": 0.0}, "'CartPole-v1' is the name of another task"),
        ({"id": "FrozenLake-v1", "label": "FrozenLake-v1", "floor": 0.0}, "needs a label of its own"),
        ({"id": "FrozenLake-v9", "floor": 0.0}, "unknown task 'FrozenLake-v9'"),
        ({"id": "FrozenLake-v1", "wrappers": ["Flatten"]}, "unknown wrapper 'Flatten'.*FlattenObservation"),
        ({"id": "Pendulum-v1", "action_scaling": "squash"}, "action_scaling is 'squash' .*bounds, none"),
    ],
)
def test_a_wrong_description_is_one_line(item: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cells(item)


def test_a_described_environment_runs_in_workers_and_is_verified(folder: Path) -> None:
    text = "[[grid]]\nmethods = ['random']\nseeds = 1\nbudget = 2000\n"
    table = "{id = 'FrozenLake-v1', label = 'dry', kwargs = {is_slippery = false}, max_episode_steps = 50}"
    (folder / "s.toml").write_text(f"devices = ['cpu']\n{text}tasks = [{table}]\n")
    done = command(folder, "run", "s.toml")
    assert done.returncode == 0, done.stderr
    verified = command(folder, "verify", "results/s")
    assert "1 of 1 digests hold" in verified.stdout + verified.stderr


# time


def test_floors_and_evaluations_obey_the_deadline() -> None:
    task = ControlTask("endless", environment(length=10**9), floor=0.0)
    ledger = Ledger(Budget(samples=10), deadline=time.perf_counter() - 1)
    bound = task.bind(SeedAxes(0), ledger, torch.device("cpu"), lambda policy: None)
    policy = bound.build_floor_policy()
    policy.ledger = ledger
    with pytest.raises(RunTimeout):
        bound.evaluate(policy, 0, range(2))
    with pytest.raises(RunTimeout):
        bound.measured_floor(2, ledger.deadline)
    result = polobench.make("random", task=ControlTask("endless", environment(length=10**9))).run(
        seed=0, budget=10, timeout_seconds=1e-9
    )
    assert (result.status, result.digest) == ("timeout", None)


def test_an_evaluation_ends_after_so_many_steps_of_each_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "EVALUATED_STEPS", 30)
    task = ControlTask("endless", environment(length=10**9), floor=0.0)
    task.final_episodes = 3
    result = polobench.make("random", task=task).run(seed=0, budget=2000)
    assert (result.status, result.final_return) == ("ok", 30.0)


def test_a_unit_says_that_only_the_first_steps_count() -> None:
    assert find_task("CliffWalking-v1").unit == "return of an episode's first 2,000 steps"
    assert find_task("CartPole-v1").unit == "episode return"


class Walk(environment(length=7, reward=-1.0)):  # type: ignore[misc]
    """Has a name of its own, so that its floor is stored."""


def test_a_floor_is_measured_once_for_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    measure = ControlTask.measured_floor
    monkeypatch.setattr(
        ControlTask, "measured_floor", lambda self, *rest: measured.append(self.name) or measure(self, *rest)
    )
    for seed in (0, 1):
        result = polobench.make("random", task=ControlTask("walk", Walk)).run(seed=seed, budget=10)
        assert result.floor == -7.0
    assert measured == ["walk"]
    assert [path.read_text() for path in (tmp_path / "cache" / "floors").iterdir()] == ["-7.0"]


def test_a_floor_of_what_has_no_name_is_measured_each_time() -> None:
    for reward in (1.0, 2.0):
        task = ControlTask("unnamed", lambda reward=reward: environment(reward=reward)())  # type: ignore[misc]
        assert polobench.make("random", task=task).run(seed=0, budget=10).floor == 5 * reward


def test_an_estimate_counts_evaluations_and_floors() -> None:
    known, unknown = cells("MountainCar-v0"), cells({"id": "MountainCar-v0", "max_episode_steps": 1500})
    # 11 x 32 + 500 episodes of 200 steps, 200 samples and the overhead; 100 more for the floor, of 1,500 steps
    assert estimate(known, [], 1).startswith(f"about {(5 + 0.05 + 852 * 200 / 100_000) / 60:.1f} minutes")
    assert estimate(unknown, [], 1).startswith(f"about {(5 + 0.05 + 952 * 1500 / 100_000) / 60:.1f} minutes")


# vector entry points


class Many(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Integrators `[D, N]`, with a step limit; flags spoil one thing each."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    scale, transposed, state_name = 1.0, False, "state"

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 10) -> None:
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.single_observation_space = gymnasium.spaces.Box(-9, 9, (2,))
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        values = np.random.default_rng(seed).uniform(-1, 1, (2, self.num_envs)).astype(np.float32)
        setattr(self, self.state_name, values.T.copy() if self.transposed else values)
        return values.T * self.scale, {}

    def step(self, actions: Any) -> Any:
        observations, never = np.zeros((self.num_envs, 2), np.float32), np.zeros(self.num_envs, bool)
        return observations, np.zeros(self.num_envs), never, never.copy(), {}


class Reused(Many):
    """Writes every step into the same arrays."""

    def step(self, actions: Any) -> Any:
        self.given = getattr(self, "given", super().step(actions))
        self.given[2][...] = actions
        return self.given


class Single(environment(gymnasium.spaces.Box(-9, 9, (2,)))):  # type: ignore[misc]
    pass


def accepted(single: Any = Single, many: Any = Many, **options: Any) -> bool:
    spec = EnvSpec("Many-v0", single, vector_entry_point=many, **{"max_episode_steps": 10, **options})
    return has_equal_vector_version(spec, gymnasium.make(spec))


SPOILT: dict[str, Callable[[], bool]] = {
    "state of shape [N, D]": lambda: accepted(many=type("Rows", (Many,), {"transposed": True})),
    "scaled observation": lambda: accepted(many=type("Scaled", (Many,), {"scale": 0.5})),
    "no state": lambda: accepted(many=type("Hidden", (Many,), {"state_name": "hidden"})),
    "no time limit": lambda: accepted(max_episode_steps=None),
    "arrays that the next step writes into": lambda: accepted(many=Reused),
    "another reset": lambda: accepted(
        many=type("Same", (Many,), {"metadata": {"autoreset_mode": AutoresetMode.SAME_STEP}})
    ),
    "another observation space": lambda: accepted(single=environment(gymnasium.spaces.Box(-8, 9, (2,)))),
    "another action space": lambda: accepted(
        single=environment(gymnasium.spaces.Box(-9, 9, (2,)), gymnasium.spaces.Discrete(3))
    ),
    "a wrapper": lambda: accepted(additional_wrappers=(gymnasium.wrappers.FlattenObservation.wrapper_spec(),)),
    "it does not start": lambda: accepted(many=lambda **options: 1 / 0),
    "a limit that it does not know": lambda: accepted(
        many=type("Endless", (Many,), {"__init__": lambda self, num_envs=1, **rest: Many.__init__(self, num_envs, 99)})
    ),
}


def test_a_vector_version_that_agrees_is_used() -> None:
    assert accepted()
    assert find_task("CartPole-v1")._vector_spec is not None


@pytest.mark.parametrize("name", SPOILT)
def test_a_vector_version_that_differs_is_not(name: str) -> None:
    assert not SPOILT[name]()


def test_arguments_leave_the_vector_version_alone() -> None:
    task = find_task("a label", {"id": "CartPole-v1", "kwargs": {"sutton_barto_reward": True}})
    assert task._vector_spec is None  # type: ignore[attr-defined]


# what reaches the environment, beside stable-baselines3


class Recorder(environment(gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Box(-3, 5, (2,)))):  # type: ignore[misc]
    seen: list[Any] = []  # noqa: RUF012

    def step(self, action: Any) -> Any:
        self.seen.append(np.array(action))
        return super().step(action)


@pytest.mark.parametrize("scaling", ["bounds", "none"])
@pytest.mark.parametrize("numbers", [[0.0, 0.25], [-0.5, 1.5], [4.0, -9.0]])
def test_actions_are_those_of_stable_baselines3(scaling: str, numbers: list[float]) -> None:
    """Behind RescaleAction(-1, 1) for "bounds", as it is for "none"; the policy always says these numbers."""
    peers = pytest.importorskip("stable_baselines3")
    env: gymnasium.Env[Any, Any] = Recorder()
    env = gymnasium.wrappers.RescaleAction(env, -1.0, 1.0) if scaling == "bounds" else env
    model = peers.PPO("MlpPolicy", env, seed=0, device="cpu", n_steps=8, batch_size=8)
    with torch.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(torch.tensor(numbers))
    Recorder.seen.clear()
    model.get_env().step(model.predict(model.get_env().reset(), deterministic=True)[0])
    theirs = Recorder.seen[0]
    task = ControlTask("recorded", Recorder, floor=0.0, action_scaling=scaling)
    np.testing.assert_allclose(task._action_codec.decode(np.array([numbers], np.float32))[0], theirs, rtol=1e-6)


@pytest.mark.parametrize("scaling", ["bounds", "none"])
def test_the_random_policy_covers_the_bounds_under_either_scaling(scaling: str) -> None:
    task = ControlTask("recorded", Recorder, floor=0.0, action_scaling=scaling)
    drawn = task.build_floor_policy().distribution.noise(np.random.default_rng(0), (4000,))
    reached = task._action_codec.decode(drawn)
    np.testing.assert_allclose([reached.min(), reached.mean(), reached.max()], [-3, 1, 5], atol=0.1)


def test_the_scaling_is_part_of_the_cell() -> None:
    pair = [ControlTask("p", Recorder, action_scaling=scaling).identity() for scaling in ("bounds", "none")]
    assert pair[0] != pair[1]
    assert json.dumps(pair)


def test_environments_whose_only_episode_is_over_are_not_stepped() -> None:
    """In an evaluation and in whole episodes; a reset with a seed wakes them."""
    steps = []

    class Uneven(gymnasium.Env[Any, Any]):
        observation_space, action_space = gymnasium.spaces.Discrete(9), gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            self.left = int(self.np_random.integers(1, 9))
            return self.left, {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            steps.append(self.left)
            self.left -= 1
            return self.left, 1.0, self.left == 0, False, {}

    task = ControlTask("uneven", Uneven, floor=0.0)
    bound = task.bind(SeedAxes(0), Ledger(Budget(samples=10_000)), torch.device("cpu"), lambda made: None)
    policy = bound.make_policy(polobench.make("reinforce", task=task).hp, critic=False)
    first = bound.evaluate(policy, seed=0, episodes=range(30))
    assert len(steps) == round(first.mean * 30)
    assert bound.evaluate(policy, seed=0, episodes=range(30)) == first
    steps.clear()
    rollout = bound.episodes(policy, groups=15, size=2)
    assert len(steps) == rollout.n_samples == int(rollout.returns.sum())
