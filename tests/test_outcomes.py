"""Whatever ends a run is told apart and recorded; what a result says about itself is right and survives its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pandas as pd
import pytest
import torch

import polobench
from polobench import Budget, ForeignMethod, Method, RunResult, UsageError
from polobench.core.convergence import loss_convergence, time_to_target
from polobench.core.recorder import Update
from polobench.registry import find_task
from polobench.tasks.control import ControlTask


def run(learn: Callable, budget: object = 1_000, **options: object) -> RunResult:
    """A method whose `learn` is `learn(task, policy)`, on the bandit."""

    class Planted(Method):
        name = "planted"

        def learn(self, task, rng):
            yield from learn(task, task.make_policy(self.hp, critic=False))

    return Planted(find_task("probe-bandit")).run(seed=0, budget=budget, **options)


def raises(error: BaseException) -> Callable:
    def learn(task, policy):
        yield Update(loss=0.0, policy=policy)
        raise error

    return learn


def never_ends(task, policy):
    while True:
        yield Update(loss=0.0, policy=policy)


def ends_at_once(task, policy):
    yield from ()


def loses_its_loss(task, policy):
    for loss in (1.0, 0.5, math.nan):
        yield Update(loss=loss, policy=policy)


def loses_a_parameter(task, policy):
    yield Update(loss=1.0, policy=policy)
    policy.actor[0].bias.data[3] = torch.inf
    yield Update(loss=1.0, policy=policy)


FAILURES = {
    "raises": (raises(KeyError("gone")), {}, "failed", "KeyError: 'gone'"),
    "raises many lines": (raises(ValueError("first\nsecond")), {}, "failed", "ValueError: first second"),
    "ends without an update": (ends_at_once, {}, "failed", "without an update"),
    "loss": (loses_its_loss, {}, "diverged", "the loss is nan after update 3"),
    "parameter": (loses_a_parameter, {}, "diverged", "parameter actor.0.bias is not finite after update 2"),
    "memory": (raises(MemoryError()), {}, "out_of_memory", "MemoryError"),
    "device memory": (raises(torch.OutOfMemoryError("CUDA out of memory")), {}, "out_of_memory", "CUDA out of memory"),
    "exits": (raises(SystemExit(3)), {}, "failed", "SystemExit: 3"),
    "time": (never_ends, {"timeout_seconds": 0.0}, "timeout", "time limit"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failed_run_has_a_status_and_a_reason_and_scores_the_floor_or_what_is_below(name):
    learn, options, status, reason = FAILURES[name]
    result = run(learn, **options)
    assert result.status == status
    assert reason in result.reason
    assert "\n" not in result.reason
    assert result.floor == 0.425
    assert result.final_return == min([0.425, *result.curve.get("return_mean", [])])
    assert result.final_score == (result.final_return - 0.425) / (1 - 0.425)
    assert math.isnan(result.final_return_std)
    # the evaluation before the first update is kept, and obeys the time limit
    assert len(result.curve) == (0 if name == "time" else 1)
    assert bool(result.traceback) == name.startswith(("raises", "memory", "device", "exits"))
    assert (result.digest is None) == (name == "time")  # the machine's speed decided where it ended


def test_a_task_that_cannot_be_closed_fails_its_run_and_keeps_the_curve(monkeypatch):
    def broken(self):
        raise OSError("not connected")

    monkeypatch.setattr(ControlTask, "close", broken)
    result = run(lambda task, policy: iter([Update(loss=0.0, policy=policy)]))
    assert (result.status, result.reason) == ("failed", "closing the task: OSError: not connected")
    assert result.final_return == min([result.floor, *result.curve["return_mean"]])
    assert len(result.curve) == 2
    assert "closing" not in run(raises(ValueError("first"))).reason


def test_the_users_interrupt_goes_through():
    with pytest.raises(KeyboardInterrupt):
        run(raises(KeyboardInterrupt()))


def test_method_that_ends_by_itself_after_an_update_is_ok():
    result = run(lambda task, policy: iter([Update(loss=0.0, policy=policy)]))
    assert (result.status, result.ledger.updates) == ("ok", 1)
    assert result.reason == "the method ended by itself"


@pytest.mark.parametrize("seed", [-1, 0.0, True, "0", None])
def test_impossible_seed_is_refused(seed):
    with pytest.raises(UsageError, match="seed"):
        polobench.make("random", task="probe-bandit").run(seed=seed, budget=10)


class Library(ForeignMethod):
    """A loop of its own that reports by a callback and does not know about budgets."""

    name = "library"

    def train(self, task, rng, record):
        policy = task.make_policy(self.hp, critic=False)
        for _ in range(1_000):
            task.fragments(policy, 4, 8)
            record(Update(loss=0.0, policy=policy, metrics={"kl": 0.25}))


def test_foreign_method_goes_through_the_same_run():
    result = Library(find_task("probe-bandit"), "cpu", "a library").run(seed=0, budget=100)
    assert (result.status, result.method, result.label) == ("ok", "library", "a library")
    assert (result.ledger.samples, result.ledger.samples_unspent, result.ledger.updates) == (100, 0, 6)
    assert result.updates["kl"].tolist() == [0.25] * 6
    assert len(result.trail) == 6


def test_evaluations_stand_at_the_start_at_each_tenth_and_at_the_end():
    result = run(never_ends, Budget(updates=40))
    assert result.curve["updates"].tolist() == [*range(0, 40, 4), 40]
    assert result.curve["progress"].tolist() == pytest.approx([step / 10 for step in range(11)])
    assert len(result.updates) == 40


def test_result_survives_strict_json():
    result = run(loses_its_loss)
    result.curve["return_std"] = [math.inf]
    result.throughput = {"rounds": 2, "iteration_seconds": [1.5, math.nan]}
    text = json.dumps(result.to_dict(), allow_nan=False)
    back = RunResult.from_dict(json.loads(text))
    assert json.dumps(back.to_dict(), allow_nan=False) == text
    assert math.isnan(back.final_return_std)
    assert math.isnan(back.throughput["iteration_seconds"][1])
    assert back.curve["return_std"].tolist() == [math.inf]
    assert back.ledger == result.ledger
    assert back.trail == result.trail
    pd.testing.assert_frame_equal(back.updates, result.updates)


def test_result_of_an_unknown_status_is_refused():
    plain = run(loses_its_loss).to_dict()
    with pytest.raises(ValueError, match="fine"):
        RunResult.from_dict(plain | {"status": "fine"})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("clip_epss", 0.2, "did you mean 'clip_eps'"),
        ("epochs", 2.5, "allowed: int"),
        ("epochs", True, "allowed: int"),
        ("epochs", 0, "1 <= epochs"),
        ("gamma", 1.5, "0 <= gamma <= 1"),
        ("gamma", math.nan, "finite"),
        ("learning_rate", math.inf, "finite"),
        ("learning_rate", "fast", "allowed: float"),
        ("learning_rate", None, "allowed: float"),
        pytest.param("learning_rate", 10**400, "finite", id="learning_rate-huge"),
        ("activation", "gelu", "tanh, relu"),
        ("hidden_sizes", 64, "a list"),
        ("hidden_sizes", (64, 0), "1 <= hidden_sizes"),
        ("normalize_rewards", 1, "allowed: bool"),
    ],
)
def test_impossible_hyperparameter_is_refused_in_one_line_that_names_it(name, value, allowed):
    with pytest.raises(UsageError) as refused:
        polobench.make("ppo", find_task("probe-bandit"), **{name: value})
    assert name in str(refused.value)
    assert allowed in str(refused.value)
    assert "\n" not in str(refused.value)


def test_hyperparameters_are_kept_in_their_own_types():
    hp = polobench.make("ppo", task="probe-bandit", learning_rate=1, hidden_sizes=[3, 4], target_kl=None).hp
    assert (hp.learning_rate, hp.hidden_sizes, hp.target_kl) == (1.0, (3, 4), None)
    assert isinstance(hp.learning_rate, float)


def curve(*returns: float) -> pd.DataFrame:
    steps = [float(step) for step in range(len(returns))]
    samples = [10 * step for step in steps]
    times = {"wall_seconds": steps, "cpu_seconds": steps}
    return pd.DataFrame({"return_mean": returns, "samples": samples, "updates": steps} | times)


@pytest.mark.parametrize(
    ("returns", "samples"),
    [
        ((0, 1, 2, 2), 20),  # at the target counts
        ((0, 3, 0, 3, 3, 0), 30),  # one alone does not
        ((0, 2, 2, 0, 0), 10),  # lost again later, but sustained
        ((2, 2, 0, 0), None),  # what an untrained policy reaches does not count
        ((2, 2, 2, 0), 10),
        ((0, 3, 0, 3, 0), None),
        ((0, 0, 0, 3), None),  # nothing after the last one
        ((3,), None),
        ((0, math.nan, math.nan), None),
    ],
)
def test_target_counts_when_two_evaluations_in_a_row_reach_it(returns, samples):
    found = time_to_target(curve(*returns), 2.0)
    assert found["samples"] == samples
    assert found["wall_seconds"] == found["cpu_seconds"] == (None if samples is None else samples / 10)


def test_task_without_a_target_has_no_time_to_it():
    assert set(time_to_target(curve(1, 1), None).values()) == {None}
    assert set(time_to_target(pd.DataFrame(), 1.0).values()) == {None}


def test_loss_converges_where_it_stays_within_a_tenth_of_its_range():
    samples = list(range(0, 100, 10))
    assert loss_convergence(samples, [10, 8, 6, 4, 2, 0.5, 0, 0, 0, 0]) == {"start": 10, "end": 0, "samples": 50}
    assert loss_convergence(samples, [10, 0, 0, 0, 5, 0, 0, 0, 0, 0])["samples"] == 50  # it left once more
    assert loss_convergence(samples, [0, 1] * 5)["samples"] == 90
    assert loss_convergence(samples, [3] * 10) == {"start": 3, "end": 3, "samples": 0}
    assert loss_convergence([0, 10, 20], [math.nan, 4, 4]) == {"start": 4, "end": 4, "samples": 10}
    assert set(loss_convergence([], []).values()) == {None}


def test_loss_is_smoothed_over_a_twentieth_of_the_updates():
    losses = [10.0] * 50 + [0.0] * 50
    losses[80] = 4.0  # a fifth of it, over five updates, is within a tenth of the range
    found = loss_convergence(list(range(100)), losses)
    assert (found["start"], found["end"]) == (10, 0)
    assert 48 < found["samples"] < 53
