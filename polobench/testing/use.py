"""One watched run of a task without a method: its verbs, its evaluation and its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch

from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import Policy, unmetered
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes, isolated
from polobench.core.task import Evaluation, Task
from polobench.registry import find_task
from polobench.testing.shared_state import watched_state

BATCH, STEPS, GROUPS, SIZE = 4, 16, 3, 2
SEED, EVALUATION_SEED, EPISODES = 0, 7, 4
CALLS: dict[str, Callable[[Task, Policy], Rollout]] = {
    "fragments": lambda task, policy: task.fragments(policy, BATCH, STEPS),
    "episodes": lambda task, policy: task.episodes(policy, GROUPS, SIZE),
    "preferences": lambda task, policy: task.preferences(GROUPS),
}


def task_of(given: str | Task | Callable[[], Task]) -> Task:
    """A task by its registered name, as it is, or from a class or function that gives one."""
    if isinstance(given, str):
        return find_task(given)
    return given if isinstance(given, Task) else given()


def in_a_run() -> AbstractContextManager[None]:
    """Generators and threads as `Method.run` sets them."""
    return isolated(SeedAxes(SEED), threads=1)


@contextmanager
def bound(description: Task, budget: int) -> Iterator[Task]:
    """The task, bound to a run with that many samples; whether it closes is checked elsewhere."""
    ledger = Ledger(Budget(samples=budget))
    task = description.bind(SeedAxes(SEED), ledger, torch.device("cpu"), lambda policy: None)
    try:
        yield task
    finally:
        with suppress(Exception):
            task.close()


class Use:
    """A run of a task with a budget in samples; it evaluates before it samples, or after that.

    Attributes:
        floor, policy: once the run had begun; the policy has a critic.
        rollouts, charged, drained: by verb, what it handed out, the samples generated and read that it charged, and
            the returns of finished episodes. A task of preference data alone has no other verb.
        evaluations: two of the same seed.
        evaluation_cost: what they changed in the ledger, by name.
        drained_after_evaluation: returns that they left among those of training.
        snapshot: for the store.
        closing_error: what `close` raised.
        description_changes, changed: attributes of the task itself, and global state, that are others than before.
    """

    def __init__(self, description: Task, budget: int, *, evaluates_first: bool) -> None:
        self.rollouts: dict[str, Rollout] = {}
        self.charged: dict[str, tuple[int, int]] = {}
        self.drained: dict[str, list[float]] = {}
        self.closing_error: Exception | None = None
        before = _attributes(description)
        with in_a_run(), watched_state() as self.changed, bound(description, budget) as task:
            self.floor = task.floor
            self.policy = task.make_policy(Hyperparameters(), critic=True)
            for step in (self._evaluate, self._sample) if evaluates_first else (self._sample, self._evaluate):
                step(task)
            with torch.no_grad(), unmetered(self.policy):
                self.snapshot = {"pairs": dict(self.evaluations[-1].pairs)} | task.snapshot(self.policy)
            self._close(task)
        after = _attributes(description)
        self.description_changes = sorted(name for name in before | after if before.get(name) != after.get(name))

    def _sample(self, task: Task) -> None:
        calls = {name: call for name, call in CALLS.items() if name != "preferences" or task.has_preferences}
        for name, call in calls.items():
            task.drain_episode_returns()
            generated, read = task.ledger.samples_generated, task.ledger.samples_read
            try:
                self.rollouts[name] = call(task, self.policy)
            except UsageError:
                if not task.has_preferences or name == "preferences":
                    raise
                continue
            self.charged[name] = task.ledger.samples_generated - generated, task.ledger.samples_read - read
            self.drained[name] = task.drain_episode_returns()

    def _evaluate(self, task: Task) -> None:
        task.drain_episode_returns()
        before = dataclasses.asdict(task.ledger.totals())
        with torch.no_grad(), unmetered(self.policy):
            self.evaluations: list[Evaluation] = [
                task.evaluate(self.policy, EVALUATION_SEED, range(EPISODES)) for _ in "ab"
            ]
        after = dataclasses.asdict(task.ledger.totals())
        self.evaluation_cost = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        self.drained_after_evaluation = task.drain_episode_returns()

    def _close(self, task: Task) -> None:
        try:
            task.close()
        except Exception as error:
            self.closing_error = error


def _attributes(task: Task) -> dict[str, Any]:
    """Which object each attribute is, and how many things are in it."""
    return {
        name: (id(value), len(value) if isinstance(value, (list, dict, set)) else None)
        for name, value in vars(task).items()
    }
