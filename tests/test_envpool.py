"""EnvPool as a simulator: the same dynamics as gymnasium's, under the same rules, as tasks of their own."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from polobench.core.budget import Budget, Ledger
from polobench.core.errors import Unavailable, UsageError
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.registry import find_task, make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOBENCH_CACHE", str(tmp_path / "cache"))


def test_what_to_install_is_said_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(Unavailable, match=r"'envpool:Acrobot-v1' needs EnvPool .*pip install 'polobench\[envpool\]'"):
        find_task("envpool:Acrobot-v1")


@pytest.fixture(name="envpool")
def _envpool() -> Any:
    return pytest.importorskip("envpool")


def test_an_id_that_it_lacks_is_refused(envpool: Any) -> None:
    with pytest.raises(UsageError, match=r"unknown id of EnvPool 'Acrobat-v1'.*Acrobot-v1"):
        find_task("envpool:Acrobat-v1")


def acrobot(row: np.ndarray) -> np.ndarray:
    return np.array([np.arctan2(row[1], row[0]), np.arctan2(row[3], row[2]), row[4], row[5]])


def pendulum(row: np.ndarray) -> np.ndarray:
    return np.array([np.arctan2(row[1], row[0]), row[2]])


STATES = {
    "Acrobot-v1": acrobot,
    "Pendulum-v1": pendulum,
    "CartPole-v1": np.array,
    "MountainCar-v0": np.array,
    "MountainCarContinuous-v0": np.array,
}


@pytest.mark.parametrize("env_id", STATES)
def test_a_step_is_gymnasiums(envpool: Any, env_id: str) -> None:
    """From the state that EnvPool's first observation tells; a step of random actions in each of 16 environments."""
    find_task(f"envpool:{env_id}")
    spec = gymnasium.spec(f"envpool:{env_id}")
    with closing(gymnasium.make_vec(spec, num_envs=16, vectorization_mode="vector_entry_point")) as many:
        starts, _ = many.reset(seed=list(range(16)))
        many.action_space.seed(0)
        actions = many.action_space.sample()
        found = many.step(actions)
    with closing(gymnasium.make(env_id)) as env:
        for row, (start, action) in enumerate(zip(starts, actions, strict=True)):
            env.reset(seed=0)
            env.unwrapped.state = STATES[env_id](start.astype(np.float64))  # type: ignore[attr-defined]
            observation, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_allclose(found[0][row], observation, rtol=0, atol=1e-5)
            np.testing.assert_allclose(found[1][row], reward, rtol=0, atol=1e-5)
            assert (found[2][row], found[3][row]) == (terminated, truncated)


def bound(name: str, seed: int = 0) -> tuple[Any, Any]:
    """A task on its way, and a policy."""
    task = find_task(name)
    made: list[Any] = []
    ledger = Ledger(Budget(samples=100_000))
    task.floor = 0.0  # measured otherwise
    running = task.bind(SeedAxes(seed), ledger, torch.device("cpu"), made.append)
    return running, running.make_policy(make("ppo", task=task).hp, critic=True)


def test_finished_episodes_reset_on_the_next_step(envpool: Any) -> None:
    """The step that resets is masked, and the state before it is the one that the episode ended in."""
    task, policy = bound("envpool:MountainCar-v0")
    rollout: Rollout = task.fragments(policy, batch=2, n_steps=203)
    assert rollout.truncated[:, 199].all()
    assert (~rollout.mask).nonzero()[:, 1].tolist() == [200, 200]
    assert (rollout.rewards[:, 200] == 0).all()
    velocities = rollout.observations[:, :, 1]
    assert (velocities[:, 200] != 0).all()  # column 200 observes the end of the first episode
    assert (velocities[:, 201] == 0).all()  # the second one starts at rest


def test_episodes_share_their_start_and_nothing_else(envpool: Any) -> None:
    task, policy = bound("envpool:Acrobot-v1")
    first = task.episodes(policy, groups=2, size=3)
    starts = first.observations[:, 0]
    assert torch.equal(starts[:3], starts[0].expand(3, -1))
    assert torch.equal(starts[3:], starts[3].expand(3, -1))
    assert not torch.equal(starts[0], starts[3])
    assert not torch.equal(first.observations[0, 50], first.observations[1, 50])
    assert not torch.equal(task.episodes(policy, groups=2, size=3).observations[0, 0], starts[0])


def test_an_episode_without_a_time_limit_goes_on(envpool: Any) -> None:
    task, policy = bound("envpool:Pendulum-v1")
    task.ledger.budget = Budget(samples=300)
    with pytest.raises(Exception, match="budget"):
        task.untruncated_episode(policy)
    assert task.ledger.samples_generated == 300


def test_runs_repeat_and_are_other_cells_than_gymnasiums(envpool: Any) -> None:
    small: dict[str, Any] = {"n_envs": 2, "n_steps": 64, "epochs": 1}
    digests = {
        (name, seed): [make("ppo", task=name, **small).run(seed=seed, budget=300).digest for _ in range(2)]
        for name, seed in (("envpool:CartPole-v1", 0), ("envpool:CartPole-v1", 1), ("CartPole-v1", 0))
    }
    assert all(one == two for one, two in digests.values())
    assert len({one for one, _ in digests.values()}) == 3
    ours = find_task("envpool:CartPole-v1").identity()["environment"]
    assert f'"num_threads": 1, "release": "{envpool.__version__}"' in ours


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "CartpoleBalance-v1", "Blackjack-v1"])
def test_other_spaces(envpool: Any, env_id: str) -> None:
    task, policy = bound(f"envpool:{env_id}")
    assert task.fragments(policy, batch=3, n_steps=5).observations.isfinite().all()


def test_a_study_may_wrap_it(envpool: Any) -> None:
    table = {"id": "envpool:FrozenLake-v1", "wrappers": ["NormalizeReward"], "max_episode_steps": 5, "floor": 0.0}
    result = make("reinforce", task=table, n_episodes=2).run(seed=0, budget=100)
    assert result.status == "ok", result.reason
    assert result.updates["samples"].iloc[0] <= 10


def test_learning_is_compared_at_equal_settings(envpool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learning, made = pytest.importorskip("benchmarks.peers.learning"), list[Any]()

    def keep(*args: Any, **settings: Any) -> Any:
        made.append(make(*args, **settings))
        return made[-1]

    monkeypatch.setattr(learning, "make", keep)
    monkeypatch.setitem(learning.SIMULATED, "CartPole-v1", 3_000)
    found = learning._simulated("CartPole-v1", 2).row()
    tuned, through_envpool, through_gymnasium = made
    assert tuned.hp == through_envpool.hp == through_gymnasium.hp
    assert [method.task.name for method in made[1:]] == ["envpool:CartPole-v1", "CartPole-v1"]
    assert (found["peer"], found["rounds"]) == ("gymnasium", 2)
