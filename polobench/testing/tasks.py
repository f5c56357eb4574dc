"""The contract of a task, as tests that its author inherits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import ClassVar

from polobench.core.budget import BudgetExhausted
from polobench.core.provenance import code_hash
from polobench.core.result import RunResult
from polobench.core.task import Task
from polobench.store.validation import problem
from polobench.testing.rollouts import check_episodes, check_mask, check_readable, check_shapes, differing, ends
from polobench.testing.use import CALLS, EVALUATION_SEED, GROUPS, SIZE, Use, bound, in_a_run, task_of

SCARCE = (1, 331)  # samples: too few for a step of two environments, and a prime, so a multiple of no batch


class TaskConformance:
    """Inherit it, name your task, and pytest collects the checks.

        class TestMine(TaskConformance):
            task = "mine"

    Attributes:
        task: the registered name, a `Task`, or a class or function without arguments that gives one.
        budget: samples that are enough for six whole episodes and for four fragments of 16 steps.
    """

    task: ClassVar[str | Task | Callable[[], Task]]
    budget: ClassVar[int] = 10_000

    @classmethod
    @cache
    def description(cls) -> Task:
        """The task as its author wrote it, not bound to any run."""
        return task_of(cls.task)

    @classmethod
    @cache
    def first_use(cls) -> Use:
        """What one run of it showed."""
        return Use(cls.description(), cls.budget, evaluates_first=False)

    @classmethod
    @cache
    def second_use(cls) -> Use:
        """Another run of the same seed, which evaluates before it samples."""
        cls.first_use()
        return Use(cls.description(), cls.budget, evaluates_first=True)

    def test_description_is_valid(self) -> None:
        task, floor, given = self.description(), self.first_use().floor, type(self).task
        if isinstance(given, str):
            assert task.name == given, f"the task registered as {given!r} calls itself {task.name!r}"
        for name, text in (("name", task.name), ("unit", task.unit)):
            printable = isinstance(text, str) and bool(text) and text.isprintable()
            assert printable, f"{name} is {text!r} (allowed: text that can be printed)"
        for name in ("evaluation_episodes", "final_episodes", "horizon"):
            assert getattr(task, name) >= 1, f"{name} is {getattr(task, name)} (allowed: an integer from 1)"
        assert math.isfinite(floor), f"the floor is {floor} once a run has begun (allowed: a finite number)"
        if task.target is not None:
            assert math.isfinite(task.target), f"the target is {task.target} (allowed: a finite number, or None)"
            assert task.target > floor, f"the target {task.target} is not above the floor {floor}"

    def test_identity_can_be_stored(self) -> None:
        task = self.description()
        identity = task.identity()
        assert identity == task.identity(), "two calls of `identity` gave different answers"
        texts = all(isinstance(text, str) for pair in identity.items() for text in pair)
        assert texts, f"identity is {identity!r} (allowed: texts by name)"
        assert type(task).__module__ in task.modules(), "`modules` leaves out the task's own, whose edits go unnoticed"
        code_hash(*sorted(task.modules()))

    def test_snapshot_can_be_stored(self) -> None:
        snapshot = self.first_use().snapshot
        result = RunResult("random", "random", "any", 0, "cpu", {"samples": 1})
        result.snapshots = {"before": snapshot, "after": snapshot} if snapshot else {}
        plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        wrong = problem(RunResult.from_dict(plain))
        assert not wrong, f"a reader would refuse the snapshot: {wrong}"

    def test_charges_what_it_hands_out(self) -> None:
        use = self.first_use()
        for name, rollout in use.rollouts.items():
            generated, read = use.charged[name]
            wanted = (0, rollout.n_samples) if name == "preferences" else (rollout.n_samples, 0)
            charged = f"charged {generated} generated, {read} read ones"
            assert (generated, read) == wanted, f"`{name}` handed out {rollout.n_samples} samples and {charged}"

    def test_never_overspends(self) -> None:
        verbs = tuple(self.first_use().rollouts)
        for budget in SCARCE:
            with in_a_run(), bound(self.description(), budget) as task:
                ended_by = _spend(task, verbs, budget)
                used = task.ledger.samples
            assert used <= budget, f"{' and '.join(verbs)} used {used} samples of {budget}"
            for name in verbs:
                end = ended_by.get(name, "nothing")
                assert end == "samples", f"`{name}` with {budget} samples was ended by {end} (allowed: BudgetExhausted)"

    def test_rollouts_are_well_formed(self) -> None:
        for name, rollout in self.first_use().rollouts.items():
            check_shapes(name, rollout)
            check_mask(name, rollout)
            check_readable(name, rollout, self.first_use().policy)

    def test_episodes_are_whole_and_grouped(self) -> None:
        if rollout := self.first_use().rollouts.get("episodes"):
            check_episodes(rollout, GROUPS, SIZE, self.description().horizon)

    def test_preferences_are_ranked_groups(self) -> None:
        if rollout := self.first_use().rollouts.get("preferences"):
            found = len(set(rollout.groups.tolist()))
            assert found == GROUPS, f"`preferences({GROUPS})` gave {found} groups"
            assert rollout.has_ranking, "no group of `preferences` has two different scores"

    def test_finished_returns_are_drained_once(self) -> None:
        use = self.first_use()
        for name in use.drained.keys() - {"preferences"}:
            found, ended = len(use.drained[name]), int(ends(use.rollouts[name]).sum())
            assert found == ended, f"`{name}` ended {ended} episodes, and {found} returns were drained"
        if "episodes" in use.drained:
            drained, shown = sorted(use.drained["episodes"]), sorted(use.rollouts["episodes"].returns.tolist())
            close = all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) for a, b in zip(drained, shown, strict=True))
            assert close, f"the drained returns {drained} are not the sums of the rewards handed out, {shown}"

    def test_evaluation_is_valid(self) -> None:
        evaluation = self.first_use().evaluations[0]
        assert math.isfinite(evaluation.mean), f"the evaluation's mean is {evaluation.mean}"
        assert not evaluation.std < 0, f"the evaluation's std is {evaluation.std}"
        assert evaluation.episodes >= 1, f"the evaluation is of {evaluation.episodes} episodes"
        wrong = {name: value for name, value in evaluation.measures.items() if not isinstance(value, float)}
        assert not wrong, f"measures that are no floats: {wrong}"

    def test_evaluation_is_neither_charged_nor_timed(self) -> None:
        for use in (self.first_use(), self.second_use()):
            assert not use.evaluation_cost, f"an evaluation changed the ledger by {use.evaluation_cost}"
            left = use.drained_after_evaluation
            assert not left, f"an evaluation left {len(left)} returns among those of training"

    def test_same_seed_gives_the_same_evaluation(self) -> None:
        found = {str(item) for use in (self.first_use(), self.second_use()) for item in use.evaluations}
        assert len(found) == 1, f"one policy and seed {EVALUATION_SEED} gave several evaluations: {sorted(found)}"

    def test_same_seed_gives_the_same_samples(self) -> None:
        first, second = self.first_use(), self.second_use()
        for name, rollout in first.rollouts.items():
            columns = differing(rollout, second.rollouts[name])
            runs = "two runs of one seed, the second of which evaluated first,"
            assert not columns, f"{runs} differ in `{name}`: {columns}"

    def test_a_run_leaves_the_task_as_it_was(self) -> None:
        changes = self.first_use().description_changes
        assert not changes, f"a run changed the task itself (allowed: its bound copy): {', '.join(changes)}"

    def test_closes(self) -> None:
        error = self.first_use().closing_error or self.second_use().closing_error
        assert error is None, f"`close` raised {error!r}"

    def test_global_state_is_untouched(self) -> None:
        changed = self.second_use().changed  # the first one imports things
        assert not changed, f"a run changed {', '.join(changed)}"


def _spend(task: Task, verbs: Sequence[str], budget: int) -> dict[str, str]:
    """Call the verbs in turn with the policy whose score is 0; gives the limit that ended each of them."""
    try:
        policy = task.floor_policy()  # a task may have something to learn first
    except BudgetExhausted as end:
        return dict.fromkeys(verbs, end.limit)
    ended_by: dict[str, str] = {}
    for _ in range(budget + 1):
        for name in [name for name in verbs if name not in ended_by]:
            try:
                CALLS[name](task, policy)
            except BudgetExhausted as end:
                ended_by[name] = end.limit
    return ended_by
