"""Entry points: built-ins and strangers use the same door, and a broken plug-in is listed and stops nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from children import plug_in, started

import polobench
from polobench import ForeignMethod, Method, registry
from polobench.core.errors import Unavailable, UsageError
from polobench.core.hyperparameters import Hyperparameters, hyperparameter

PLUGIN = '''
from polobench import Method, Update

class Idle(Method):
    """Does nothing, by rollouts."""

    name = "idle"

    def learn(self, task, rng):
        policy = task.make_policy(self.hp, critic=False)
        while True:
            task.fragments(policy, 4, 8)
            yield Update(0.0, policy)

NOT_A_METHOD = 3
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a distribution `stranger`; some of its entries are broken."""
    entries = ("idle=stranger:Idle", "absent=stranger_absent:X", "number=stranger:NOT_A_METHOD", "ppo=stranger:Idle")
    methods = (f"methods:{entry}" for entry in entries)
    plug_in(tmp_path, "stranger", PLUGIN, *methods, "tasks:broken-task=stranger:Idle")
    return tmp_path


def test_a_stranger_is_listed_with_its_source_and_the_broken_with_their_reason(folder: Path) -> None:
    listed = json.loads(started("list", "methods", "--json", cwd=folder, PYTHONPATH=str(folder)).stdout)
    rows = {(row["name"], row["source"]): row["reason"] for row in listed}
    assert rows["idle", "stranger"] == ""
    assert rows["ppo", "polobench"] == ""
    assert "taken by polobench" in rows["ppo", "stranger"]
    assert "stranger_absent" in rows["absent", "stranger"]
    assert "subclass" in rows["number", "stranger"]
    tasks = json.loads(started("list", "tasks", "--json", cwd=folder, PYTHONPATH=str(folder)).stdout)
    assert any(row["name"] == "broken-task" and row["reason"] for row in tasks)


def test_a_stranger_runs_and_a_broken_one_is_skipped_with_its_reason(folder: Path) -> None:
    (folder / "s.toml").write_text(
        'devices = ["cpu"]\n[[grid]]\nmethods = ["idle", "absent"]\ntasks = ["probe-bandit"]\nseeds = 1\nbudget = 100\n'
    )
    done = started("run", "s.toml", cwd=folder, PYTHONPATH=str(folder))
    assert done.returncode == 0, done.stderr
    table = polobench.load(folder / "results" / "s").set_index("method")
    assert table.loc["idle", "status"] == "ok"
    assert table.loc["absent", "status"] == "skipped"
    assert "stranger_absent" in table.loc["absent", "reason"]


def test_unknown_names_say_what_is_allowed() -> None:
    with pytest.raises(UsageError, match=r"'ppoo'.*did you mean 'ppo'.*trpo"):
        polobench.make("ppoo", task="CartPole-v1")
    with pytest.raises(UsageError, match=r"'CartPole-v9'.*CartPole-v1"):
        polobench.make("ppo", task="CartPole-v9")
    with pytest.raises(UsageError, match=r"'tpu'.*cpu, cuda, mps"):
        polobench.make("ppo", task="CartPole-v1", device="tpu")
    with pytest.raises(UsageError, match=r"'clip'.*clip_eps"):
        polobench.make("ppo", task="CartPole-v1", clip=0.1)
    with pytest.raises(UsageError, match="no_such_module"):
        registry.find_task("no_such_module:Env-v0")


def test_unsupported_spaces_are_named() -> None:
    import gymnasium

    class Odd(gymnasium.Env):  # type: ignore[type-arg]
        observation_space = gymnasium.spaces.Text(3)
        action_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(2))

    gymnasium.register("Odd-v0", Odd)
    try:
        with pytest.raises(UsageError, match=r"Odd-v0.*Text.*allowed: Box, Discrete.*TransformObservation"):
            registry.find_task("Odd-v0")
        Odd.observation_space = gymnasium.spaces.Discrete(2)  # type: ignore[assignment]
        with pytest.raises(UsageError, match=r"Odd-v0.*Dict.*allowed: Box, Discrete.*TransformAction"):
            registry.find_task("Odd-v0")
    finally:
        del gymnasium.registry["Odd-v0"]


def test_an_environment_that_does_not_start_is_unavailable() -> None:
    import gymnasium

    def refuse() -> None:
        raise ImportError("no such simulator")

    gymnasium.register("Heavy-v0", refuse)
    try:
        with pytest.raises(Unavailable, match="no such simulator"):
            registry.find_task("Heavy-v0")
    finally:
        del gymnasium.registry["Heavy-v0"]


@pytest.mark.parametrize("task", ["MountainCarContinuous-v0", "FrozenLake-v1"])
def test_any_registered_gymnasium_id_works_by_name(task: str) -> None:
    result = polobench.make("ppo", task=task, n_envs=2, n_steps=16, epochs=1).run(seed=0, budget=40)
    assert result.status == "ok", result.traceback
    assert result.ledger.updates == 1


@dataclass(frozen=True, kw_only=True)
class Mine(Hyperparameters):
    width: int = hyperparameter(3, "Width", low=1)


class Named(Method[Mine]):
    name = "named"


class Child(Named):
    name = "child"


class Foreign(ForeignMethod[Mine]):
    name = "foreign"


class Assigned(Method):  # a plug-in that names its class of values without the brackets
    name = "assigned"
    Hyperparameters = Mine


class Unsaid(Method):
    name = "unsaid"


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        pytest.param(Named, Mine, id="in brackets"),
        pytest.param(Child, Mine, id="inherited"),
        pytest.param(Foreign, Mine, id="foreign method"),
        pytest.param(Assigned, Mine, id="assigned"),
        pytest.param(Unsaid, Hyperparameters, id="not said"),
    ],
)
def test_a_method_has_the_hyper_parameters_that_its_class_names(cls: type[Method], values: type) -> None:
    assert cls.Hyperparameters is values
