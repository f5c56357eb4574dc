"""Environments side by side go as gymnasium's do, and are used only where they do."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from polobench.tasks import classic
from polobench.tasks.control import ControlTask
from polobench.tasks.environments import ById

COUNT, STEPS = 6, 1_100  # beyond two time limits of Acrobot-v1


def reference(name: str) -> gymnasium.vector.VectorEnv:
    if name == "CartPole-v1":
        return gymnasium.make_vec(name, COUNT, vectorization_mode="vector_entry_point")
    return SyncVectorEnv([lambda: gymnasium.make(name)] * COUNT, autoreset_mode=AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize("name", classic.VERSIONS)
def test_every_step_is_gymnasiums(name):
    limit = gymnasium.spec(name).max_episode_steps
    ours, theirs = classic.VERSIONS[name][0](COUNT, limit), reference(name)
    ours.action_space.seed(0)
    np.testing.assert_array_equal(ours.reset(seed=7)[0], theirs.reset(seed=7)[0])
    ends = np.zeros(2, int)
    for _ in range(STEPS):
        actions = ours.action_space.sample()
        found, known = ours.step(actions), theirs.step(actions)
        for mine, other in zip(found[:4], known[:4], strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)
        ends += [int(each.sum()) for each in found[2:4]]
    assert found[0].dtype == known[0].dtype
    assert ends.sum() >= 2 * COUNT  # so that resets were compared, too


@pytest.mark.parametrize("name", classic.VERSIONS)
def test_a_task_is_stepped_side_by_side(name):
    version = classic.VERSIONS[name][0]
    assert classic.with_vector_version(gymnasium.spec(name)).vector_entry_point is version
    assert ControlTask(name)._vector_spec.vector_entry_point is version


def test_other_arguments_and_limits_go_one_by_one():
    for settings in ({"kwargs": {"g": 9.81}}, {"max_episode_steps": 50}):
        assert ControlTask("heavier", ById("Pendulum-v1", **settings))._vector_spec is None
    spec = replace(gymnasium.spec("Pendulum-v1"), kwargs={"g": 9.81})  # the registry's own stays as it is
    assert classic.with_vector_version(spec) is spec


def test_a_version_that_goes_another_way_is_not_used(monkeypatch):
    classic.goes_as_gymnasium.cache_clear()
    monkeypatch.setattr(classic.AcrobotEnv, "LINK_MASS_1", 1.001)
    spec = gymnasium.spec("Acrobot-v1")
    assert classic.with_vector_version(spec) is spec
    classic.goes_as_gymnasium.cache_clear()
