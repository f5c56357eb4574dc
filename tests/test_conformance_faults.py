"""Faults of methods and tasks, planted one at a time: each fails exactly the check that is meant for it."""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_conformance import Ranked

from polobench import ForeignMethod, Method, Task, Update
from polobench.core.budget import Budget, BudgetExhausted, Ledger
from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.core.seeding import SeedAxes
from polobench.registry import find_task
from polobench.tasks.control import ControlTask
from polobench.tasks.probes import ContinuousTarget, DelayedReward
from polobench.testing import MethodConformance, TaskConformance

Updates = Iterator[Update]
MANY = Budget(samples=10**6)


def checks(suite: type) -> list[str]:
    return [name for name in dir(suite) if name.startswith("test_")]


def failed_checks(suite: type) -> set[str]:
    failed = set()
    for name in checks(suite):
        try:
            getattr(suite(), name)()
        except Exception:
            failed.add(name)
    return failed


class Sound(Method):
    """REINFORCE with the batch's mean as its baseline."""

    name = "sound"
    sign = 1.0

    def learn(self, task, rng):
        policy = task.make_policy(self.hp, critic=False)
        optimizer = torch.optim.Adam(policy.actor_parameters, lr=0.02)
        while True:
            rollout = task.episodes(policy, groups=16, size=1)
            log_probs = policy.distribution.log_prob(policy.outputs(rollout), rollout.actions)
            advantages = rollout.returns - rollout.returns.mean()
            loss = -self.sign * ((log_probs * rollout.mask).sum(1) * advantages).mean()
            policy.gradient_step(optimizer, [loss])
            yield Update(loss.item(), policy, {"reward": float(rollout.returns.mean())})


class Short(MethodConformance):
    budgets = (1, 37, 211)


class Library(ForeignMethod):
    """Draws from the global generators, which `run` seeds, as a library may."""

    name = "library"

    def train(self, task, rng, record):
        for update in Sound(task).learn(task, rng):
            record(replace(update, metrics={"noise": random.random() + np.random.rand() + float(torch.rand(()))}))


def metric(name: str, value: Callable[[], float]) -> Callable[[Updates, Task], Updates]:
    """In place of the sound one."""
    return lambda updates, task: (replace(update, metrics={name: value()}) for update in updates)


def first(do: Callable[[Task], object], most: int = 10**9) -> Callable[[Updates, Task], Updates]:
    """Before it learns; `most` updates end a method that its budget would not end."""

    def learn(updates: Updates, task: Task) -> Updates:
        do(task)
        yield from (update for _, update in zip(range(most), updates))

    return learn


def at_last(do: Callable[[], object]) -> Callable[[Updates, Task], Updates]:
    """When the budget is spent: what would slow the learning down or break it."""

    def learn(updates: Updates, task: Task) -> Updates:
        try:
            yield from updates
        finally:
            do()

    return learn


def gives_samples_back(updates: Updates, task: Task) -> Updates:
    for _, update in zip(range(20), updates):
        task.ledger.samples_generated -= 8
        yield update


def peeks(updates: Updates, task: Task) -> Updates:
    for update in updates:
        task.evaluate(update.policy, 0, range(2))
        yield update


def refuse_a_small_budget(task: Task) -> None:
    if task.ledger.budget.samples < 16:
        raise ValueError("a batch does not fit")


def learns_with_seed_0(self, task, rng):
    bound = task.bind(SeedAxes(0), task.ledger, task.device, task._on_policy)
    return Sound.learn(self, bound, SeedAxes(0))


def never_learns(self, task, rng):
    policy = task.make_policy(self.hp, critic=False)
    while True:
        task.episodes(policy, groups=16, size=1)
        yield Update(0.0, policy)


@dataclass(frozen=True, kw_only=True)
class SetOfSizes(Hyperparameters):
    sizes: frozenset[int] = hyperparameter(frozenset({1, 2}), "of a type that JSON lacks")


BUDGET, METRICS, RANDOM = "test_keeps_to_the_budget", "test_metrics_are_finite", "test_beats_random"
GLOBALS = "test_global_state_is_untouched"
# what is made of the sound method's updates, or attributes in place of its own; then the check that has to fail
METHOD_FAULTS: dict[str, tuple[Any, str]] = {
    "gives samples back": (gives_samples_back, BUDGET),
    "raises its limit": (first(lambda task: setattr(task.ledger, "budget", MANY), most=20), BUDGET),
    "keeps a ledger of its own": (first(lambda task: setattr(task, "ledger", Ledger(MANY)), most=20), BUDGET),
    "peeks at the held-out evaluation": (peeks, BUDGET),
    "fails where no update fits": (first(refuse_a_small_budget), BUDGET),
    "draws from python's generator": (metric("noise", random.random), GLOBALS),
    "draws from numpy's generator": (metric("noise", np.random.rand), GLOBALS),
    "draws from torch's generator": (metric("noise", lambda: float(torch.rand(()))), GLOBALS),
    "changes the threads": (at_last(lambda: torch.set_num_threads(torch.get_num_threads() + 1)), GLOBALS),
    "changes the default dtype": (at_last(lambda: torch.set_default_dtype(torch.float64)), GLOBALS),
    "changes the working directory": (first(lambda task: os.chdir("/")), GLOBALS),
    "changes the environment": (first(lambda task: os.environ.update(POLOBENCH_PLANTED="1")), GLOBALS),
    "changes the warnings filters": (first(lambda task: warnings.simplefilter("ignore", BytesWarning)), GLOBALS),
    "NaN metric": (metric("kl", lambda: math.nan), METRICS),
    "infinite metric": (metric("kl", lambda: math.inf), METRICS),
    "metric with a column's name": (metric("return_mean", lambda: 1.0), METRICS),
    "is not deterministic": (
        metric("noise", lambda: np.random.default_rng().random()),
        "test_same_seed_gives_the_same_digest",
    ),
    "ignores the seed": ({"learn": learns_with_seed_0}, "test_another_seed_gives_another_digest"),
    "hyper-parameter that JSON lacks": ({"Hyperparameters": SetOfSizes}, "test_result_survives_the_store"),
    "climbs its loss": ({"sign": -1.0}, RANDOM),
    "never learns": ({"learn": never_learns}, RANDOM),
}


def method_suite(fault: Any) -> type:
    if not isinstance(fault, dict):
        fault = {"learn": lambda self, task, rng, change=fault: change(Sound.learn(self, task, rng), task)}
    return type("Suite", (Short,), {"method": type("Faulty", (Sound,), {"__module__": __name__} | fault)})


@pytest.mark.parametrize("name", METHOD_FAULTS)
def test_a_faulty_method_fails_the_one_check(name):
    fault, check = METHOD_FAULTS[name]
    assert failed_checks(method_suite(fault)) == {check}


@pytest.mark.parametrize("method", [Sound, Sound(find_task("probe-bandit")), Library])
def test_a_sound_method_passes(method):
    assert failed_checks(type("Suite", (Short,), {"method": method})) == set()


class Sampled(ControlTask):
    """Episodes of five steps, or of one that begins in different states; sound until something is changed."""

    def __init__(self, env: Any = DelayedReward) -> None:
        super().__init__("sampled", env, floor=-1.0, target=1.0)


def after(base: type, verb: str, change: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """The verb, whose answer `change(task, answer)` replaces."""
    return {verb: lambda self, *arguments: change(self, getattr(base, verb)(self, *arguments))}


def fragments(**columns: Callable[[Any], torch.Tensor]) -> dict[str, Any]:
    """`fragments` whose columns of these names are made by functions of the rollout."""
    return after(Sampled, "fragments", lambda task, rollout: replaced(rollout, columns))


def episodes(**columns: Callable[[Any], torch.Tensor]) -> dict[str, Any]:
    return after(Sampled, "episodes", lambda task, rollout: replaced(rollout, columns))


def preferences(change: Callable[[Any, Any], Any]) -> dict[str, Any]:
    return after(Ranked, "preferences", change)


def replaced(rollout: Any, columns: dict[str, Callable[[Any], torch.Tensor]]) -> Any:
    return replace(rollout, **{name: make(rollout) for name, make in columns.items()})


def begins(do: Callable[[Any], object]) -> dict[str, Any]:
    """`begin`, and then this."""
    return after(Sampled, "begin", lambda task, _: do(task))


def evaluates(do: Callable[[Any], object]) -> dict[str, Any]:
    """`evaluate`, and then this."""

    def change(task: Any, evaluation: Any) -> Any:
        do(task)
        return evaluation

    return after(Sampled, "evaluate", change)


def with_mean(mean: Callable[[], float]) -> dict[str, Any]:
    return after(Sampled, "evaluate", lambda task, evaluation: replace(evaluation, mean=mean()))


def fixed(value: object) -> property:
    """An attribute that stays what it is."""
    return property(lambda self: value, lambda self, other: None)


def charges_less(task: Any, rollout: Any) -> Any:
    task.ledger.samples_generated -= 1
    return rollout


def charges_as_generated(task: Any, rollout: Any) -> Any:
    task.ledger.samples_read -= rollout.n_samples
    task.ledger.samples_generated += rollout.n_samples
    return rollout


def goes_on(self, policy, batch, n_steps):
    with suppress(BudgetExhausted):
        self.last = Sampled.fragments(self, policy, batch, n_steps)
    return self.last


def raises_another_error(self, policy, batch, n_steps):
    try:
        return Sampled.fragments(self, policy, batch, n_steps)
    except BudgetExhausted:
        raise StopIteration from None


def binds_itself(self, rng, ledger, device, on_policy):
    self.rng, self.ledger, self.device, self._on_policy = rng, ledger, device, on_policy
    self.begin()
    return self


def fails_to_close(self):
    raise OSError("busy")


SHAPES, WHOLE = "test_rollouts_are_well_formed", "test_episodes_are_whole_and_grouped"
DESCRIPTION, IDENTITY = "test_description_is_valid", "test_identity_can_be_stored"
CHARGES, SPENDS = "test_charges_what_it_hands_out", "test_never_overspends"
SNAPSHOT, FREE = "test_snapshot_can_be_stored", "test_evaluation_is_neither_charged_nor_timed"
# attributes in place of the sound task's own; then the check that has to fail
TASK_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "charges too little": (after(Sampled, "fragments", charges_less), CHARGES),
    "charges data as generated": (preferences(charges_as_generated), CHARGES),
    "raises the limit": (begins(lambda task: setattr(task.ledger, "budget", MANY)), SPENDS),
    "goes on without a budget": ({"fragments": goes_on, "last": None}, SPENDS),
    "ends by another error": ({"fragments": raises_another_error}, SPENDS),
    "evaluation is charged": (evaluates(lambda task: task.ledger.charge_generated(1)), FREE),
    "evaluation is timed": (evaluates(lambda task: task.ledger.clock.start()), FREE),
    "evaluation among the training returns": (evaluates(lambda task: task._finished_returns.append(1.0)), FREE),
    "evaluation without a seed": (
        with_mean(lambda: float(np.random.default_rng().random())),
        "test_same_seed_gives_the_same_evaluation",
    ),
    "evaluation is NaN": (with_mean(lambda: math.nan), "test_evaluation_is_valid"),
    "evaluation draws from the training's stream": (
        evaluates(lambda task: task._actions_rng.random()),
        "test_same_seed_gives_the_same_samples",
    ),
    "samples without a seed": (
        begins(lambda task: setattr(task, "_actions_rng", np.random.default_rng())),
        "test_same_seed_gives_the_same_samples",
    ),
    "mask a step late": (fragments(mask=lambda rollout: rollout.mask.roll(1, 1)), SHAPES),
    "mask of integers": (fragments(mask=lambda rollout: rollout.mask.long()), SHAPES),
    "end a step late": (fragments(terminated=lambda rollout: rollout.terminated.roll(1, 1)), SHAPES),
    "reward a row": (fragments(rewards=lambda rollout: rollout.rewards.sum(1)), SHAPES),
    "infinite observation": (fragments(observations=lambda rollout: rollout.observations + math.inf), SHAPES),
    "final observations of another shape": (
        fragments(final_observations=lambda rollout: rollout.final_observations[:, :1]),
        SHAPES,
    ),
    "groups in another order": (episodes(groups=lambda rollout: rollout.groups.flip(0)), WHOLE),
    "groups of several starts": (
        episodes(observations=lambda rollout: rollout.observations + torch.arange(6.0).view(6, 1, 1)),
        WHOLE,
    ),
    "episode beyond the horizon": ({"horizon": fixed(3)}, WHOLE),
    "scores that tie": (
        preferences(lambda task, rollout: replace(rollout, rewards=torch.zeros_like(rollout.rewards))),
        "test_preferences_are_ranked_groups",
    ),
    "returns are lost": ({"drain_episode_returns": lambda self: []}, "test_finished_returns_are_drained_once"),
    "floor is not known": (begins(lambda task: setattr(task, "floor", math.nan)), DESCRIPTION),
    "target below the floor": ({"target": fixed(-2.0)}, DESCRIPTION),
    "no unit": ({"unit": ""}, DESCRIPTION),
    "name of two lines": ({"name": fixed("two\nlines")}, DESCRIPTION),
    "identity that JSON lacks": ({"identity": lambda self: {"data": Path("file")}}, IDENTITY),
    "identity that changes": ({"identity": lambda self: {"data": str(np.random.default_rng().random())}}, IDENTITY),
    "code that is not hashed": ({"modules": lambda self: {"polobench.core.task"}}, IDENTITY),
    "snapshot that JSON lacks": ({"snapshot": lambda self, policy: {"notes": torch.zeros(1)}}, SNAPSHOT),
    "snapshot that no reader knows": ({"snapshot": lambda self, policy: {"pairs": 3}}, SNAPSHOT),
    "binds itself": ({"bind": binds_itself}, "test_a_run_leaves_the_task_as_it_was"),
    "does not close": ({"close": fails_to_close}, "test_closes"),
    "seeds numpy's generator": (begins(lambda task: np.random.seed(0)), GLOBALS),
    "changes the environment": (begins(lambda task: os.environ.update(POLOBENCH_PLANTED="1")), GLOBALS),
}  # fmt: skip


def task_suite(fault: dict[str, Any]) -> type:
    base = Ranked if "preferences" in fault else Sampled
    return type("Suite", (TaskConformance,), {"task": type("Faulty", (base,), {"__module__": __name__} | fault)})


@pytest.mark.parametrize("name", TASK_FAULTS)
def test_a_faulty_task_fails_the_one_check(name):
    fault, check = TASK_FAULTS[name]
    assert failed_checks(task_suite(fault)) == {check}


@pytest.mark.parametrize("task", [Sampled, lambda: Sampled(ContinuousTarget), Ranked])
def test_a_sound_task_passes(task):
    assert failed_checks(type("Suite", (TaskConformance,), {"task": staticmethod(task)})) == set()


def test_every_check_has_a_fault_that_it_catches():
    caught = {check for _, check in [*METHOD_FAULTS.values(), *TASK_FAULTS.values()]}
    assert caught == {*checks(MethodConformance), *checks(TaskConformance)}
