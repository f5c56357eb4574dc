"""What does not learn measures as nothing: the numbers of a comparison, run through what changes no skill.

A temperature alone is in test_language_methods.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from synthetic import make_result, save_all

import polobench
from polobench import Method
from polobench.analysis.claims import Claims, Column
from polobench.analysis.collection import collect
from polobench.analysis.measures import Observations
from polobench.analysis.reliability import drawdown_of_noise, largest_drawdown, scores
from polobench.analysis.verdicts import OPEN, SUPPORTED, column_verdict
from polobench.core.recorder import Update
from polobench.registry import find_task
from polobench.tasks.control import ControlTask

STATES, EVALUATIONS = 64, 11


FROZEN = {name: {"learning_rate": 0.0} for name in ("reinforce", "ppo", "dpo", "grpo")} | {"trpo": {"max_kl": 0.0}}
STEPS = {"n_envs": 8, "n_steps": 16}


@pytest.mark.parametrize("task_name", ["CartPole-v1", "probe-continuous-target"])
@pytest.mark.parametrize("method", FROZEN)
def test_a_run_that_changes_nothing_neither_rises_nor_falls(method: str, task_name: str) -> None:
    task = find_task(task_name)
    task.final_episodes = 40
    result = polobench.make(method, task=task, tuned=False, **FROZEN[method]).run(seed=0, budget=6_000)
    assert result.status == "ok"
    assert len(result.curve) > 5
    assert set(result.curve["return_mean"]) == {result.curve["return_mean"][0]}
    assert set(result.curve["change_error"][1:]) == set(result.curve["start_error"][1:]) == {0.0}
    assert largest_drawdown(scores(result)) == drawdown_of_noise(result) == 0


@pytest.mark.parametrize(
    ("method", "batch"),
    [("reinforce", {"n_episodes": 64}), ("ppo", STEPS), ("dpo", {}), ("grpo", {}), ("trpo", STEPS)],
    ids=FROZEN,
)
def test_a_run_that_changes_nothing_says_the_same_at_its_end(method: str, batch: dict[str, int]) -> None:
    learner = polobench.make(method, task="token-bandit", tuned=False, **FROZEN[method], **batch)
    result = learner.run(seed=0, budget=1_000)
    assert result.status == "ok"
    assert result.ledger.gradient_steps > 0
    assert set(result.curve["return_mean"]) == {result.curve["return_mean"][0]} == {result.final_return}
    assert largest_drawdown(scores(result)) == 0


def test_every_seed_and_method_is_evaluated_on_the_same_episodes() -> None:
    asked = []

    class Watched(ControlTask):
        def evaluate(self, policy: Any, seed: int, episodes: range) -> Any:
            asked.append((seed, episodes))
            return super().evaluate(policy, seed, episodes)

    task = Watched("CartPole-v1")
    for method, seed in (("ppo", 0), ("ppo", 1), ("reinforce", 0)):
        polobench.make(method, task=task).run(seed=seed, budget=3_000)
    assert len({seed for seed, _ in asked}) == 1
    assert {episodes for _, episodes in asked} == {range(32), range(32, 500)}
    polobench.make("random", task=task.for_tuning()).run(seed=0, budget=100)
    assert len({seed for seed, _ in asked}) == 2, "tuning sees other episodes"


class Tables(gymnasium.Env[Any, Any]):
    """One step: the reward is a table's, of the start state and the action; all actions have the same mean."""

    def __init__(self, rewards: np.ndarray) -> None:
        self.rewards, self.action_space = rewards, Discrete(rewards.shape[1])
        self.observation_space = Box(0, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(STATES))
        return np.array([self.state / STATES], np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(self.rewards[self.state, action]), True, False, {}


class InTurns(Method):
    """Takes one action after the other, whatever the state: policies of equal return."""

    name = "in-turns"

    def learn(self, task: Any, rng: Any) -> Iterator[Update]:
        policy = task.make_policy(self.hp, critic=False)
        with torch.no_grad():
            for parameter in policy.actor_parameters:
                parameter.zero_()
        bias = policy.actor_parameters[-1]
        for update in range(10_000):
            task.fragments(policy, 10, 1)
            bias.data.zero_()
            bias.data[(update + 1) % len(bias)] = 9.0
            yield Update(loss=0.0, policy=policy)


@pytest.mark.parametrize(("policies", "least", "most"), [(2, 0.3, 0.8), (EVALUATIONS, 0.85, 1.15)])
def test_policies_of_equal_return_in_turns_fall_as_far_as_noise(policies: int, least: float, most: float) -> None:
    """A few that come again fall less far than ever new ones, of which the noise is worked out."""
    falls, noise = [], []
    for table in range(60):
        rewards = np.random.default_rng(table).standard_normal((STATES, policies))
        rewards -= rewards.mean(0)
        task = ControlTask("tables", lambda rewards=rewards: Tables(rewards), floor=-1.0, target=1.0)
        task.final_episodes = task.evaluation_episodes
        result = InTurns(task).run(seed=0, budget=100)
        assert (result.status, len(result.curve)) == ("ok", EVALUATIONS)
        falls.append(largest_drawdown(scores(result)))
        noise.append(drawdown_of_noise(result))
    assert least < np.mean(falls) / np.mean(noise) < most


@pytest.mark.parametrize(("change_error", "verdict"), [(0.1, SUPPORTED), (60.0, OPEN)])
def test_stability_is_open_where_noise_alone_gives_more_than_the_smallest_effect(
    change_error: float, verdict: str, tmp_path: Path
) -> None:
    runs = []
    for task in ("CartPole-v1", "Acrobot-v1", "Pendulum-v1"):
        for seed in range(6):
            for method, fall in (("ppo", 0.1), ("reinforce", 0.5)):
                run = make_result(method, task, seed)
                path = np.full(len(run.curve), 1 - fall - 0.01 * seed)
                path[1] = 1.0
                run.curve["return_mean"] = run.floor + (run.target - run.floor) * path
                run.curve["change_error"] = change_error
                runs.append(run)
    column = Column("stability", "largest_drawdown", 0.05, (("high",), ("low",)), {"ppo": "high", "reinforce": "low"})
    rules = Claims(level=0.05, least_seeds_on_one_task=8, least_seeds=5, columns=(), claims=())
    found = column_verdict(Observations(collect(save_all(tmp_path, *runs))), column, rules)
    assert {pair.verdict for pair in found.pairs} == {verdict}
    said = "the noise of evaluations alone gives"
    assert all((said in pair.reason) == (verdict == OPEN) for pair in found.pairs)
