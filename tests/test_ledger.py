"""The budget is checked, and the ledger equals what counters of the tests' own see; fake clocks stand in for time."""

from __future__ import annotations

import math
from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch

import polobench
from polobench import Budget, Method, Update, UsageError
from polobench.core.budget import Stopwatch
from polobench.core.recorder import Recorder
from polobench.policies.perceptrons import FlatPerceptrons
from polobench.tasks.classic import CartPoleSideBySide
from polobench.tasks.control import ControlTask
from polobench.tasks.probes import Truncation

FRAGMENTS = {"n_envs": 3, "n_steps": 16, "hidden_sizes": (4,), "epochs": 1}
EPISODES = {"n_episodes": 3, "hidden_sizes": (4,), "critic_epochs": 1}


IMPOSSIBLE = [0, -1, math.nan, math.inf, "5", True, [5]]
HUGE = 10**400  # more than a float can hold


@pytest.mark.parametrize(
    ("limit", "value"),
    [(limit, value) for limit in ("samples", "updates", "seconds") for value in IMPOSSIBLE]
    + [("samples", 2.5), ("updates", 2.5), pytest.param("seconds", HUGE, id="seconds-huge")],
)
def test_impossible_limit_is_refused_in_one_line_that_names_it(limit, value):
    with pytest.raises(UsageError) as refused:
        Budget(**{limit: value})
    assert limit in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "named"),
    [({}, "samples, updates, seconds"), ({"sample": 5}, "'sample'"), ("5", "'5'"), (True, "True"), (None, "None")],
)
def test_impossible_budget_is_refused_in_one_line(value, named):
    with pytest.raises(UsageError) as refused:
        Budget.of(value)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_limits_are_kept_as_what_they_count():
    assert Budget.of(5) == Budget(samples=5) == Budget.of({"samples": 5.0})
    assert Budget(samples=1e5).as_dict() == {"samples": 100_000}
    assert isinstance(Budget(samples=1e5).samples, int)
    assert Budget(updates=3, seconds=2.5).as_dict() == {"updates": 3, "seconds": 2.5}


class CountedEnv(gymnasium.Wrapper):
    """Counts steps and autoresets; a reset with a seed starts what the run asked for, one without is an autoreset."""

    def __init__(self, world, seconds):
        super().__init__(Truncation())
        self.world, self.seconds = world, seconds

    @property
    def seen(self):
        return self.world.seen[self.world.evaluating]

    def reset(self, *, seed=None, options=None):
        self.seeded = seed is not None
        self.seen["autoresets"] += not self.seeded
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.world.now += 0.0 if self.world.evaluating else self.seconds
        self.seen["steps of seeded episodes" if self.seeded else "other steps"] += 1
        return super().step(action)


class World:
    """What a task and its copies share: the time, whether an evaluation is on, and what was seen in and out of one."""

    now, evaluating = 0.0, False

    def __init__(self):
        self.seen = {False: Counter(), True: Counter()}

    def stopwatch(self):
        return Stopwatch(wall=lambda: self.now, cpu=lambda: self.now)


class CountedTask(ControlTask):
    def __init__(self, seconds_a_step=0.0, seconds_an_evaluation=0.0):
        self.world, self.seconds_an_evaluation = World(), seconds_an_evaluation
        super().__init__("counted", lambda: CountedEnv(self.world, seconds_a_step), floor=9.0, target=10.0)

    def evaluate(self, policy, seed, episodes):
        self.world.now += self.seconds_an_evaluation
        return super().evaluate(policy, seed, episodes)

    def _held_out(self, *asked):
        self.world.evaluating = True
        try:
            return super()._held_out(*asked)
        finally:
            self.world.evaluating = False


@pytest.mark.parametrize("budget", [1, 7, 10_001])
def test_fragments_are_charged_what_the_environments_saw(budget):
    task = CountedTask()
    ledger = polobench.make("ppo", task=task, **FRAGMENTS).run(seed=0, budget=budget).ledger
    seen = task.world.seen[False]
    assert ledger.samples == ledger.reward_calls == seen["steps of seeded episodes"] + seen["other steps"]
    assert ledger.discarded_transitions == seen["autoresets"]
    assert ledger.samples + ledger.samples_unspent == budget
    assert 0 <= ledger.samples_unspent < FRAGMENTS["n_envs"]


@pytest.mark.parametrize("budget", [1, 7, 10_001])
def test_episodes_are_charged_until_each_ends_and_none_is_stepped_while_it_waits_for_the_longest(budget):
    task = CountedTask()
    ledger = polobench.make("reinforce", task=task, **EPISODES).run(seed=0, budget=budget).ledger
    seen = task.world.seen[False]
    assert ledger.samples == ledger.reward_calls == seen["steps of seeded episodes"]
    assert ledger.discarded_transitions == seen["autoresets"] == seen["other steps"] == 0
    assert ledger.samples + ledger.samples_unspent == budget
    assert 0 <= ledger.samples_unspent < EPISODES["n_episodes"]


@pytest.mark.parametrize("budget", [1, 7, 10_001, 100_000])
def test_cartpoles_own_vector_environment_agrees(budget, monkeypatch):
    seen, step = Counter(), CartPoleSideBySide.step

    def counted(env, action):
        seen[env.num_envs, "live"] += int(np.sum(~env.prev_done))
        seen[env.num_envs, "autoreset"] += int(np.sum(env.prev_done))
        return step(env, action)

    monkeypatch.setattr(CartPoleSideBySide, "step", counted)
    ledger = polobench.make("random", task="CartPole-v1", n_envs=8).run(seed=0, budget=budget).ledger
    assert ledger.samples == seen[8, "live"]
    assert ledger.discarded_transitions == seen[8, "autoreset"]
    assert ledger.samples + ledger.samples_unspent == budget
    assert 0 <= ledger.samples_unspent < 8


@pytest.mark.parametrize(("method", "settings"), [("ppo", FRAGMENTS), ("reinforce", EPISODES)])
def test_forward_rows_are_what_the_networks_saw_in_training(method, settings, monkeypatch):
    task, rows = CountedTask(), Counter()

    def count(module, inputs, outputs):
        if isinstance(module, torch.nn.Sequential):
            rows[task.world.evaluating] += inputs[0].shape[:-1].numel()

    def counted(networks, inputs, number, forward=FlatPerceptrons.forward):
        rows[task.world.evaluating] += len(inputs)
        return forward(networks, inputs, number)

    monkeypatch.setattr(FlatPerceptrons, "forward", counted)
    with torch.nn.modules.module.register_module_forward_hook(count):
        ledger = polobench.make(method, task=task, **settings).run(seed=0, budget=500).ledger
    assert rows[True] > 0
    assert ledger.forward_rows == rows[False]


@pytest.mark.parametrize(
    ("method", "settings"), [("ppo", FRAGMENTS), ("reinforce", EPISODES), ("dpo", {"n_groups": 3}), ("grpo", {})]
)
def test_backward_rows_are_what_came_back_through_the_networks(method, settings, monkeypatch):
    """Steps after an episode's end are padding, which these networks are spared."""
    rows = []

    def counted(networks, states, cotangent, number, backward=FlatPerceptrons.backward):
        rows.append(len(states[0]))
        return backward(networks, states, cotangent, number)

    monkeypatch.setattr(FlatPerceptrons, "backward", counted)
    ledger = polobench.make(method, task="CartPole-v1", **settings).run(seed=0, budget=2_000).ledger
    assert ledger.gradient_steps > 0
    assert ledger.backward_rows == sum(rows)


@pytest.mark.parametrize("method", ["reinforce", "grpo"])
def test_the_last_evaluation_is_of_the_policy_of_the_last_update(method, monkeypatch):
    """Fault: a rollout in which the budget ended had moved the statistics of observations already."""
    kept, finish = [], Recorder.finish

    def counted(recorder):
        kept.append([tensor.clone() for tensor in (recorder.policy.statistics.mean, recorder.policy.statistics.scale)])
        return finish(recorder)

    def seen(recorder, update, record=Recorder.__call__):
        kept[:] = [[tensor.clone() for tensor in (update.policy.statistics.mean, update.policy.statistics.scale)]]
        return record(recorder, update)

    monkeypatch.setattr(Recorder, "finish", counted)
    monkeypatch.setattr(Recorder, "__call__", seen)
    learner = polobench.make(method, task="CartPole-v1", normalize_observations=True)
    assert learner.run(seed=0, budget=3_001).status == "ok"
    last_update, end = kept
    assert all(map(torch.equal, last_update, end))
    assert not torch.equal(end[0], torch.zeros(4))


@pytest.mark.parametrize("method", ["ppo", "trpo", "reinforce"])
def test_a_budget_that_holds_no_update_is_a_failure_which_says_so(method):
    result = polobench.make(method, task="probe-delayed-reward").run(seed=0, budget=9)
    assert (result.status, result.ledger.updates, result.trail) == ("failed", 0, [])
    assert result.reason == "no update fits the budget of 9 samples"
    assert (result.final_return, result.final_score) == (0.5, 0.0)


def test_what_has_nothing_to_train_needs_no_update():
    result = polobench.make("random", task="probe-delayed-reward").run(seed=0, budget=9)
    assert (result.status, result.ledger.updates) == ("ok", 0)


@pytest.mark.parametrize("updates", [1, 3])
def test_budget_of_updates_stops_exactly(updates):
    result = polobench.make("ppo", task="probe-bandit", **FRAGMENTS).run(seed=0, budget=Budget(updates=updates))
    assert (result.status, result.ledger.updates, len(result.trail)) == ("ok", updates, updates)
    assert result.ledger.samples == updates * FRAGMENTS["n_envs"] * FRAGMENTS["n_steps"] / 2  # every other is a reset
    assert result.ledger.samples_unspent is None


def test_seconds_end_a_run_at_the_first_step_that_begins_too_late():
    """16 steps a rollout, 3 environments, a second each: a rollout is 48 s, less its autoresets."""
    task = CountedTask(seconds_a_step=1.0)
    method = polobench.make("ppo", task=task, **FRAGMENTS)
    result = method.run(seed=0, budget=Budget(seconds=100), clock=task.world.stopwatch())
    ledger = result.ledger
    assert result.reason == "the budget of seconds is spent"
    assert 100 <= ledger.wall_seconds < 100 + FRAGMENTS["n_envs"]
    assert ledger.wall_seconds == ledger.cpu_seconds == ledger.rollout_seconds == ledger.samples
    assert result.digest is None


def test_seconds_of_an_update_end_the_run_within_it():
    task = CountedTask()

    class Slow(Method):
        name = "slow"

        def learn(self, task, rng):
            policy = task.make_policy(self.hp, critic=False)
            while True:
                task.world.now += 4.0
                yield Update(loss=0.0, policy=policy)

    ledger = Slow(task).run(seed=0, budget=Budget(seconds=10), clock=task.world.stopwatch()).ledger
    assert (ledger.updates, ledger.wall_seconds) == (3, 12.0)


def test_evaluation_is_neither_timed_nor_charged():
    ledgers = []
    for seconds, episodes in ((0.0, 1), (1000.0, 50)):
        task = CountedTask(seconds_a_step=1.0, seconds_an_evaluation=seconds)
        task.evaluation_episodes = task.final_episodes = episodes
        method = polobench.make("ppo", task=task, **FRAGMENTS)
        result = method.run(seed=0, budget=Budget(updates=20, seconds=5_000), clock=task.world.stopwatch())
        assert result.ledger.updates == 20
        assert task.world.now == result.ledger.wall_seconds + seconds * len(result.curve)
        assert task.world.seen[True]["steps of seeded episodes"] >= episodes * len(result.curve) > 10
        ledgers.append(result.ledger)
    assert ledgers[0] == ledgers[1]


@pytest.mark.parametrize("method", ["ppo", "trpo", "random"])
def test_rollout_of_nothing_but_autoresets_is_no_failure(method):
    """Bandit episodes all end at once: with one step a rollout, every other rollout is autoresets alone."""
    result = polobench.make(method, task="probe-bandit", n_envs=2, n_steps=1).run(seed=0, budget=20)
    assert (result.status, result.reason) == ("ok", "the budget of samples is spent")
    assert result.ledger.samples == 20
