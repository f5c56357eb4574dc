"""Every method reaches the known answer of every probe task; settings were chosen on seeds 1000 to 1003."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch

import polobench
from polobench.core.result import RunResult
from polobench.registry import find_task

SMALL = {"hidden_sizes": (16,)}
CRITIC = {"critic_learning_rate": 1e-2, "critic_minibatch_size": 64}
FRAGMENTS = {"n_envs": 8, "n_steps": 32}
SETTINGS = {
    "ppo": FRAGMENTS | {"learning_rate": 1e-2, "learning_rate_schedule": "linear", "minibatch_size": 64, "epochs": 5},
    "trpo": FRAGMENTS | CRITIC | {"max_kl": 0.05},
    "reinforce": CRITIC | {"n_episodes": 16, "learning_rate": 1e-2, "baseline": "value"},
}
LEAVE_ONE_OUT = {"n_episodes": 16, "learning_rate": 1e-2, "baseline": "leave_one_out"}
PROBES = {
    "probe-bandit": (2_000, {}),
    "probe-delayed-reward": (4_000, {}),
    "probe-truncation": (12_000, {"gamma": 0.9}),
    "probe-continuous-target": (10_000, {}),
}


def run_probe(method: str, probe: str, seed: int) -> RunResult:
    budget, changes = PROBES[probe]
    if (method, probe) == ("reinforce", "probe-continuous-target"):
        changes = {"n_episodes": 32}
    return polobench.make(method, task=probe, **SMALL | SETTINGS[method] | changes).run(seed=seed, budget=budget)


def check_probe(method: str, probe: str, seed: int) -> None:
    """The most likely actions reach the target, and so nearly do the sampled ones of the last twentieth of the run."""
    result = run_probe(method, probe, seed)
    assert result.status == "ok", result.reason
    assert result.final_return >= result.target
    assert find_task(probe).score(result.curve["train_return"].iloc[-1]) > 0.9
    if probe == "probe-truncation":
        staying = torch.tensor([0.0, 1.0])
        assert float(result.policy.critic(staying).detach()) == pytest.approx(10, abs=0.1)  # taken for an end: <= 6.5


@cache
def passes(check: Callable[..., None], *arguments: object) -> None:
    """Run a check of the sound code, once however many tests ask for it."""
    check(*arguments)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("method", SETTINGS)
def test_method_reaches_the_known_answer(method, probe, seed):
    passes(check_probe, method, probe, seed)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("probe", ["probe-bandit", "probe-delayed-reward"])
def test_reinforce_with_a_leave_one_out_baseline_reaches_it_too(probe, seed):
    budget, _ = PROBES[probe]
    result = polobench.make("reinforce", task=probe, **SMALL | LEAVE_ONE_OUT).run(seed=seed, budget=budget)
    assert (result.status, result.final_return >= result.target) == ("ok", True)


@pytest.mark.parametrize("probe", PROBES)
def test_random_stays_at_the_floor(probe):
    task = find_task(probe)
    task.final_episodes = 1_000
    result = polobench.make("random", task=task).run(seed=0, budget=2_000)
    standard_error = result.final_return_std / math.sqrt(task.final_episodes)
    assert 0 < standard_error < 0.1 * (task.target - task.floor)
    assert abs(result.final_return - task.floor) < 4 * standard_error
