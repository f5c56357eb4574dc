"""The contract of a method, as tests that its author inherits."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import Any, ClassVar

from polobench.core.budget import Budget, BudgetExhausted, Ledger
from polobench.core.method import NO_UPDATE_FITS, ForeignMethod, Method
from polobench.core.recorder import Update
from polobench.core.result import RunResult
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes, isolated
from polobench.core.task import Task
from polobench.registry import make
from polobench.store.folder import Store
from polobench.testing.shared_state import watched_state
from polobench.testing.use import task_of

VERBS = ("fragments", "episodes", "untruncated_episode", "preferences")
CURVE_COLUMNS = (
    "progress", "samples", "updates", "wall_seconds", "cpu_seconds", "return_mean", "return_std", "score",
    "change_error", "start_error", "train_return",
)  # fmt: skip
LEARNING_SEEDS = range(4)
LEAST_SCORE = 0.5


class MethodConformance:
    """Inherit it, name your method, and pytest collects the checks.

        class TestMine(MethodConformance):
            method = "mine"

    Attributes:
        method: the registered name, the class, or an instance, which brings its task and hyper-parameters along.
        task: where it runs, as in `TaskConformance`. The method has to learn there, so it is a task whose floor and
            target are known; "token-bandit" is such a task in language.
        hyperparameters: values other than the tuned ones and the defaults.
        budgets: numbers of samples, from too few for an update to enough to learn; primes, so that none is a multiple
            of a batch.

    A method that need not beat the random policy, such as a baseline, sets `test_beats_random = None`.
    """

    method: ClassVar[str | type[Method] | Method]
    task: ClassVar[str | Task | Callable[[], Task]] = "probe-bandit"
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    budgets: ClassVar[tuple[int, ...]] = (1, 331, 997)

    @classmethod
    def make(cls) -> Method:
        """The method as it is checked."""
        if isinstance(cls.method, Method):
            return cls.method
        if isinstance(cls.method, str):
            return make(cls.method, task_of(cls.task), **cls.hyperparameters)
        return cls.method(task_of(cls.task), **cls.hyperparameters)

    @classmethod
    def run(cls, seed: int, budget: int) -> RunResult:
        """A whole run that has to end ok, if an update fits; the process's global state is restored."""
        with watched_state():
            result = cls.make().run(seed, budget)
        ended = f"with seed {seed} and {budget} samples it ended {result.status}: {result.reason}\n{result.traceback}"
        assert result.status == "ok" or result.reason.startswith(NO_UPDATE_FITS), ended
        return result

    @classmethod
    @cache
    def result(cls, seed: int, budget: int) -> RunResult:
        """As `run`, but cached."""
        return cls.run(seed, budget)

    @classmethod
    @cache
    def inside(cls) -> Inside:
        """The training loop, watched with the largest budget; not in the first run, which imports modules."""
        cls.result(0, max(cls.budgets))
        return Inside(cls.make(), max(cls.budgets))

    def test_same_seed_gives_the_same_digest(self) -> None:
        first, again = self.result(0, max(self.budgets)), self.run(0, max(self.budgets))
        at = f"seed 0 twice gave two digests; the first update that differs is {first.first_difference(again)}"
        assert first.digest == again.digest, at

    def test_another_seed_gives_another_digest(self) -> None:
        """One of three others differs: if little is random, such as the order of two prompts, two seeds may agree."""
        first = self.result(0, max(self.budgets)).digest
        differs = any(self.result(seed, max(self.budgets)).digest != first for seed in (1, 2, 3))
        assert differs, "seeds 0 to 3 gave one digest (draw from `rng`, and train on what the task gives)"

    def test_keeps_to_the_budget(self) -> None:
        for budget in self.budgets:
            ledger = self.result(0, budget).ledger
            assert ledger.samples <= budget, f"it used {ledger.samples} samples of {budget}"
            sums = f"{ledger.samples} samples and {ledger.samples_unspent} unspent ones are not the budget of {budget}"
            assert ledger.samples + (ledger.samples_unspent or 0) == budget, sums
        inside = self.inside()
        charged = inside.ledger.samples
        assert inside.samples <= charged, f"the task handed out {inside.samples} samples, and {charged} stayed charged"
        budget_now = inside.ledger.budget
        assert budget_now == inside.budget, f"its budget was {inside.budget} and became {budget_now}"
        assert not inside.evaluations, "it looked at the held-out evaluation, which is free (allowed: the task's verbs)"

    def test_metrics_are_finite(self) -> None:
        """The loss is always a number; a metric without a value is NaN, never infinite, and not NaN in every update."""
        updates = self.inside().updates
        assert updates, f"no update fits into {max(self.budgets)} samples (set larger `budgets`)"
        values = defaultdict(list)
        for number, update in enumerate(updates, 1):
            assert math.isfinite(update.loss), f"the loss of update {number} is {update.loss}"
            for name, value in update.metrics.items():
                assert name not in ("loss", *CURVE_COLUMNS), f"metric {name!r} has the name of a column of the curve"
                assert not math.isinf(value), f"metric {name!r} of update {number} is {value}"
                values[name].append(float(value))
        for name, series in values.items():
            assert not all(map(math.isnan, series)), f"metric {name!r} is NaN in every update"

    def test_result_survives_the_store(self) -> None:
        result = dataclasses.replace(self.result(0, max(self.budgets)), cell_id="conformance")
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            store.save(result)
            back = store.load("conformance")
        assert isinstance(back, RunResult), f"the stored result cannot be read: {back}"
        texts = [json.dumps(item.to_dict()) for item in (back, result)]
        assert texts[0] == texts[1], "the stored result differs from the original"

    def test_beats_random(self) -> None:
        """Every seed gets at least half of the way from the random policy to the target.

        On the bandit only the best of four arms is that good: a method that learns nothing passes once in 4^4 times.
        """
        scores = {seed: self.result(seed, max(self.budgets)).final_score for seed in LEARNING_SEEDS}
        assert None not in scores.values(), "the task has no target (allowed: a probe, where learning can be seen)"
        low = {seed: score for seed, score in scores.items() if score is not None and not score >= LEAST_SCORE}
        assert not low, f"final scores below {LEAST_SCORE} by seed: {low} (0 is the random policy, 1 the target)"

    def test_global_state_is_untouched(self) -> None:
        changed = self.inside().changed
        assert not changed, f"the training loop changed {', '.join(changed)}"


class Inside:
    """A training loop, run on its own and watched.

    Attributes:
        updates: what it recorded.
        budget, ledger: at the beginning, and at the end.
        samples: samples that the task handed out, counted apart from the ledger, which a method could change.
        evaluations: how often the method asked for the held-out evaluation.
        changed: what of the process's global state it changed.
    """

    def __init__(self, method: Method, budget: int, seed: int = 0) -> None:
        self.updates: list[Update] = []
        self.budget = Budget(samples=budget)
        self.ledger = Ledger(self.budget)
        self.samples = self.evaluations = 0
        self._in_a_verb = False
        rng = SeedAxes(seed)
        with (
            _watched(method, rng) as self.changed,
            closing(method.task.bind(rng, self.ledger, method.device, lambda policy: None)) as task,
            suppress(BudgetExhausted),
        ):
            self._watch(task)
            method.train(task, rng, self._record)

    def _record(self, update: Update) -> None:
        self.updates.append(update)
        self.ledger.count_update()

    def _watch(self, task: Task) -> None:
        for name in VERBS:
            setattr(task, name, self._counted(getattr(task, name)))
        evaluate = task.evaluate

        def counted_evaluation(*arguments: Any, **named: Any) -> Any:
            self.evaluations += 1
            return evaluate(*arguments, **named)

        task.evaluate = counted_evaluation  # type: ignore[method-assign]

    def _counted(self, verb: Callable[..., Rollout]) -> Callable[..., Rollout]:
        def counted(*arguments: Any, **named: Any) -> Rollout:
            outermost, self._in_a_verb = not self._in_a_verb, True  # one verb may call another
            try:
                rollout = verb(*arguments, **named)
            finally:
                self._in_a_verb = not outermost
            self.samples += rollout.n_samples if outermost else 0
            return rollout

        return counted


@contextmanager
def _watched(method: Method, rng: SeedAxes) -> Iterator[list[str]]:
    """As `run` does it, with the watch inside; outside where a library may draw from the global generators."""
    if isinstance(method, ForeignMethod):
        with watched_state() as changed, isolated(rng, method.threads):
            yield changed
    else:
        with isolated(rng, method.threads), watched_state() as changed:
            yield changed
