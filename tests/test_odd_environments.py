"""What people bring: odd spaces, limits and ids run a minimal budget, or are refused in one line that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

import polobench
from polobench.core.errors import UsageError
from polobench.registry import find_task
from polobench.tasks.control import ControlTask
from polobench.tasks.spaces import ActionCodec

SMALL = {"n_envs": 2, "n_steps": 8, "epochs": 1}
BUDGET = 50
TAXI = next(name for name in ("Taxi-v4", "Taxi-v3") if name in gymnasium.registry)
TWO, THREE = Discrete(2), Discrete(3)


def environment(
    observation: gymnasium.Space[Any] = THREE,
    action: gymnasium.Space[Any] = TWO,
    length: int = 5,
    truncates: bool = True,
    reward: Any = 1.0,
) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Makes environments that give members of the observation space, and refuse what is no action."""

    class Odd(gymnasium.Env[Any, Any]):
        observation_space, action_space = observation, action

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            self.observation_space.seed(int(self.np_random.integers(2**31)))
            self.steps = 0
            return self.observation_space.sample(), {}

        def step(self, chosen: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            assert chosen in self.action_space, f"{chosen!r} is not in {self.action_space}"
            self.steps += 1
            ended = self.steps >= length
            return self.observation_space.sample(), reward, ended and not truncates, ended and truncates, {}

    return Odd


HALF_OPEN = Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, np.inf], np.float32))
RUN: dict[str, Any] = {
    "image 64x64x3": environment(Box(0, 255, (64, 64, 3), np.uint8)),
    "image 8x8x1": environment(Box(0, 255, (8, 8, 1), np.uint8)),
    "stacked frames": environment(Box(0, 255, (4, 10, 10), np.uint8)),
    "Dict": environment(Dict(a=Box(-1, 1, (2,)), b=Discrete(3))),
    "nested Dict": environment(Dict(a=Dict(c=MultiBinary(2)), b=Tuple((Discrete(2), Box(0, 1, (1, 2)))))),
    "Tuple": environment(Tuple((Discrete(3), Box(-1, 1, (2,))))),
    "MultiDiscrete observation": environment(MultiDiscrete([3, 4])),
    "MultiBinary observation": environment(MultiBinary((2, 3))),
    "Discrete from -2": environment(Discrete(5, start=-2), Discrete(3, start=-1)),
    "integer Box": environment(Box(-5, 5, (3,), np.int64)),
    "float64 Box": environment(Box(-5, 5, (3,), np.float64)),
    "unbounded Box": environment(Box(-np.inf, np.inf, (3,))),
    "half-open Box": environment(HALF_OPEN),
    "scalar Box": environment(Box(-1, 1, ())),
    "one observation": environment(Discrete(1)),
    "MultiDiscrete action": environment(action=MultiDiscrete([3, 2])),
    "MultiDiscrete matrix": environment(action=MultiDiscrete([[2, 3], [2, 2]])),
    "MultiBinary action": environment(action=MultiBinary(4)),
    "one action": environment(action=Discrete(1)),
    "matrix action": environment(action=Box(-1, 1, (2, 2))),
    "integer action": environment(action=Box(0, 7, (2,), np.int32)),
    "half-open action": environment(action=HALF_OPEN),
    "odd action bounds": environment(action=Box(np.array([0, -3], np.float32), np.array([1e-3, 1e4], np.float32))),
    "unbounded action": environment(action=Box(-np.inf, np.inf, (1,))),
    "ends at once": environment(length=1, truncates=False),
    "ends early": environment(length=3, truncates=False),
    "huge reward": environment(reward=1e12),
    "integer reward": environment(reward=np.int64(-3)),
    "boolean reward": environment(reward=True),
    "array reward": environment(reward=np.array(0.5)),
    **{name: name for name in ("Blackjack-v1", "FrozenLake8x8-v1", TAXI, "MountainCarContinuous-v0", "CartPole-v0")},
}
REFUSED: dict[str, tuple[Any, str]] = {
    "image 96x96x3": (environment(Box(0, 255, (96, 96, 3), np.uint8)), "ResizeObservation"),
    "Text": (environment(Text(5)), "TransformObservation"),
    "Sequence": (environment(Sequence(Discrete(3))), "TransformObservation"),
    "Graph inside": (environment(Dict(g=Graph(Box(-1, 1, (2,)), None))), "TransformObservation"),
    "Dict action": (environment(action=Dict(a=Discrete(2))), "TransformAction"),
    "many choices": (environment(action=MultiBinary(20)), "1,048,576 actions.*TransformAction"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOBENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", RUN)
def test_it_runs(name: str) -> None:
    made = RUN[name]
    task = find_task(made) if isinstance(made, str) else ControlTask(name, made, floor=0.0, target=1e31)
    task.evaluation_episodes, task.final_episodes = 2, 3
    if not np.isfinite(task.floor):
        task.floor = -1.0
    result = polobench.make("ppo", task=task, **SMALL).run(seed=0, budget=BUDGET)
    assert result.status == "ok", result.reason
    assert result.ledger.updates >= 3


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_wrapper_that_helps(name: str) -> None:
    made, helps = REFUSED[name]
    with pytest.raises(UsageError, match=helps) as refused:
        ControlTask(name, made)
    assert "\n" not in str(refused.value)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("method", ["reinforce", "trpo", "dpo", "grpo"])
@pytest.mark.parametrize("name", ["image 64x64x3", "Dict", "MultiDiscrete action", "half-open action"])
def test_it_runs_under_every_method(name: str, method: str) -> None:
    class Varied(gymnasium.RewardWrapper):  # type: ignore[type-arg]  # groups need returns that differ
        def reward(self, reward: Any) -> float:
            return float(self.unwrapped.np_random.random())

    task = ControlTask(name, lambda: Varied(RUN[name]()), floor=0.0)
    task.evaluation_episodes, task.final_episodes = 2, 3
    result = polobench.make(method, task=task).run(seed=0, budget=1500)
    assert result.status == "ok", result.reason


def recorded(task: ControlTask, numbers: list[list[float]]) -> np.ndarray:
    """What reaches the environment when the policy says these numbers."""
    return task._action_codec.decode(np.array(numbers, np.float32))


def test_an_infinite_bound_leaves_the_other_dimensions_scaled() -> None:
    bounds = np.array([0.0, -np.inf, -4.0]), np.array([10.0, np.inf, np.inf])
    task = ControlTask("half", environment(action=Box(*bounds, dtype=np.float64)))
    np.testing.assert_allclose(recorded(task, [[-1, 7, -9], [0.5, -7, 3]]), [[0, 7, -4], [7.5, -7, 3]])


SPACES = [Discrete(3), Discrete(3, start=1), MultiDiscrete([2, 3]), MultiBinary(2), Box(-1.0, 1.0, (2,))]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_an_environment_that_changes_its_actions_does_not_change_the_recorded_ones(space):
    codec = ActionCodec("odd", space)
    actions = np.ones((4, codec.size), np.float32) if codec.continuous else np.ones(4, np.int64)
    decoded = codec.decode(actions)
    decoded[...] = 0
    assert np.array_equal(actions, np.ones_like(actions))


def test_choices_are_one_number_for_each_combination() -> None:
    task = ControlTask("choices", environment(action=MultiDiscrete([2, 3], start=[5, -1])))
    seen = {tuple(row) for row in task._action_codec.decode(np.arange(6)).tolist()}
    assert seen == {(first, second) for first in (5, 6) for second in (-1, 0, 1)}


def test_observations_become_what_gymnasium_flattens_them_to() -> None:
    space = Dict(a=Discrete(3, start=4), b=Box(-1, 1, (2,)))
    task = ControlTask("flat", environment(space))
    batch = {"a": np.array([4, 6]), "b": np.array([[0.5, -1], [0.25, 0]], np.float32)}
    rows = task._observation_codec.encode(batch, gymnasium.vector.utils.batch_space(space, 2))
    np.testing.assert_array_equal(rows, [[1, 0, 0, 0.5, -1], [0, 0, 1, 0.25, 0]])


def test_images_are_divided_by_255() -> None:
    space = Box(0, 255, (2, 2, 1), np.uint8)
    task = ControlTask("image", environment(space))
    rows = task._observation_codec.encode(np.full((1, 2, 2, 1), 51, np.uint8), space)
    np.testing.assert_allclose(rows, 0.2)


def value_of(cls: type, **changes: Any) -> str:
    """The reason with which a run on a changed environment fails."""
    task = ControlTask("changed", type("Changed", (cls,), changes), floor=0.0)
    result = polobench.make("ppo", task=task, **SMALL).run(seed=0, budget=BUDGET)
    assert result.status == "failed", result.status
    return result.reason


def stepping(value: Callable[[Any], Any]) -> Any:
    """A `step` whose fourth observation and reward come from `value`."""

    def step(self: Any, action: Any) -> Any:
        self.steps += 1
        observation, reward = value(self) if self.steps == 4 else (0, 1.0)
        return observation, reward, False, self.steps > 8, {}

    return step


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((0, np.array([1.0])), r"the reward is array\(\[1\.\]\)"),
        ((0, None), "the reward is None"),
        ((0, float("nan")), "the reward is nan"),
        ((0, -float("inf")), "the reward is -inf"),
        ((0, "1"), "the reward is '1'"),
        ((-1, 1.0), r"the observation is -1 .*Discrete\(3\)"),
        ((3, 1.0), "the observation is 3"),
        ((None, 1.0), "the observation is None"),
    ],
)
def test_a_value_that_is_none_is_named_with_environment_and_step(value: Any, said: str) -> None:
    reason = value_of(environment(), step=stepping(lambda env: value))  # type: ignore[arg-type]
    assert "task 'changed', step 4 of an episode: " in reason
    assert re.search(said, reason), reason


@pytest.mark.parametrize(
    ("space", "observation", "is_member"),
    [
        (Box(-1, 1, (2,)), np.array([0.5, np.nan]), False),
        (Box(-np.inf, np.inf, (2,)), np.array([0.5, np.inf]), False),
        (Box(-1, 1, (2,)), np.array([0.5, 5.0]), True),  # LunarLander-v3 leaves its own by more than its width
        (Box(-1, 1, (2,)), np.array([0.5]), False),
        (Box(-1, 1, (2,)), [0.5, 0.5], True),
        (Box(-1, 1, (2,)), np.array(["a", "b"]), False),
        (Box(0, 255, (1,), np.uint8), np.array([300]), False),
        (Dict(a=Discrete(2)), {"a": 2}, False),
        (Dict(a=Discrete(2)), {"b": 1}, False),
        (Tuple((Discrete(2), Discrete(2))), (1,), False),
        (Tuple((Discrete(2), Discrete(2))), (1, 0), True),
    ],
)
def test_observations_are_compared_with_their_space(space: Any, observation: Any, is_member: bool) -> None:
    assert ControlTask("any", environment(space))._contains(observation) is is_member


def test_the_old_api_is_named() -> None:
    def reset(self: Any) -> Any:
        return 0

    with pytest.raises(UsageError, match=r"`reset` takes no seed .*GymV21CompatibilityV0"):
        ControlTask("old", type("Old", (environment(),), {"reset": reset}))  # type: ignore[arg-type]
    assert "`step` gives four values" in value_of(environment(), step=lambda self, action: (0, 1.0, False, {}))  # type: ignore[arg-type]
    gives = {"reset": lambda self, *, seed=None, options=None: np.zeros(2)}
    assert "`reset` gives no (observation, info)" in value_of(environment(), **gives)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"builtins.object is no gymnasium.Env"):
        ControlTask("none", object)  # type: ignore[arg-type]


def test_a_maker_that_gives_one_environment_twice_is_refused() -> None:
    one = environment()()
    with pytest.raises(UsageError, match="'same': its maker gives the same environment twice"):
        ControlTask("same", lambda: gymnasium.wrappers.TimeLimit(one, 5))


def test_an_environment_in_place_of_a_task_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match=r"ControlTask\('name', lambda: gymnasium.make"):
        polobench.make("ppo", task=gymnasium.make("CartPole-v1"))  # type: ignore[arg-type]


def test_a_generator_of_another_type_is_left_alone() -> None:
    class Legacy(environment()):  # type: ignore[misc]
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.np_random = np.random.RandomState(seed)  # type: ignore[assignment]
            self.steps = 0
            return int(self.np_random.randint(3)), {}

        def step(self, action: Any) -> Any:
            self.steps += 1
            return int(self.np_random.randint(3)), float(self.np_random.rand()), False, self.steps > 4, {}

    result = polobench.make("grpo", task=ControlTask("legacy", Legacy, floor=0.0)).run(seed=0, budget=600)
    assert result.status == "ok", result.reason


@pytest.mark.parametrize(
    ("target", "said"), [(0.5, "0.5 is not above the floor 5"), (5.0, "5 is not above the floor 5")]
)
def test_a_target_that_is_not_above_the_floor_gives_no_score(target: float, said: str) -> None:
    task = ControlTask("easy", environment(), floor=5.0, target=target)
    result = polobench.make("ppo", task=task, **SMALL).run(seed=0, budget=BUDGET)
    assert (result.status, result.final_score, result.target) == ("ok", None, None)
    assert f"no score, as the target {said}" in result.reason
    assert f"no score, as the target {said}" in result.unit
    assert result.curve["score"].isna().all()
    assert task.target == target  # the description is as it was
