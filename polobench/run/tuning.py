"""Tuning by Optuna under one protocol: the same number of trials, on one tuning seed, for every method and task.

- A trial is a cell like any other (label "ppo trial 3"), run and stored as `polobench run` does it. An interrupted
  tuning goes on where it stopped: asked again, the sampler suggests the same, and the cells are found by their ids.
- The objective is the mean score (0 = floor, 1 = target) of the evaluations in the second half of the budget: steadier
  than one final evaluation, and it rewards what learns early. A trial that did not end ok counts as -1, as far below
  the floor as the target is above it. The winner is the best that ended ok; of equals, the earliest.
- Trial 0 is the file's start. The sampler is TPE (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"),
  seeded by seed, method and task, which draws at random until it knows four trials: of eight, half look everywhere and
  half near the best so far. Optuna's own default, ten, would make all eight random. Hyper-parameters are modelled one
  by one, since so few trials say nothing about how they interact.
- Trial k of all methods and tasks is one sweep, so that they run side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from polobench.cells.runner import PreparedCell, prepare
from polobench.core.errors import PoloError, Unavailable
from polobench.core.result import RunResult
from polobench.core.seeding import SeedAxes
from polobench.kinds.cell import Cell
from polobench.run.progress import Display
from polobench.run.sweep import pending, run_sweep
from polobench.run.tuning_plan import Pair, Range, TuningPlan
from polobench.store.folder import Store

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 4
COUNTED_FROM = 0.5
FAILED = -1.0
DIGITS = 3
TABLE_NAME, VALUES_NAME = "tuning.csv", "tuned.toml"

Announce = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Trial:
    """A finished trial: the values that it set, and what came of it."""

    pair: Pair
    number: int
    values: Mapping[str, Any]
    result: RunResult

    @property
    def objective(self) -> float:
        return objective(self.result)


def objective(result: RunResult) -> float:
    """What a trial is judged by; see the top of this module."""
    if result.status != "ok":
        return FAILED
    counted = result.curve["progress"] >= COUNTED_FROM
    return float(result.curve["score"][counted].mean())


def winner(trials: Sequence[Trial]) -> Trial:
    """The best of a method's trials on a task."""
    return max(trials, key=lambda trial: (trial.result.status == "ok", trial.objective, -trial.number))


def tune(plan: TuningPlan, store: Store, jobs: int, announce: Announce) -> dict[Pair, list[Trial]]:
    """Run all trials, or those that the store does not hold yet.

    Args:
        plan: what to tune.
        store: must be prepared; the trials' cells go there.
        jobs: worker processes side by side.
        announce: hears `(number, cells, cells to run)` before trial `number` of every pair.

    Returns:
        The trials of each pair, in order.

    Raises:
        UsageError: a cell cannot exist, or its task has no target and so no score.
        Unavailable: Optuna is not installed, or a task or a method cannot be used here.
        SweepStopped, KeyboardInterrupt: as `run_sweep`.
    """
    searches = [_Search(plan, pair) for pair in plan.pairs]
    for number in range(plan.trials):
        asked = [search.ask() for search in searches]
        todo = pending(asked, store)
        announce(number, len(asked), len(todo))
        if todo:
            with Display(len(todo)) as display:
                run_sweep(todo, store, jobs, display)
        for search, prepared in zip(searches, asked, strict=True):
            search.tell(_result(store, prepared))
    return {search.pair: search.trials for search in searches}


def _result(store: Store, prepared: PreparedCell) -> RunResult:
    found = store.load(prepared.cell_id)
    if not isinstance(found, RunResult):
        raise PoloError(f"the result of {prepared.cell} is gone from {str(store.folder)!r}; run it again")
    return found


class _Search:
    """One Optuna study, in memory: a method on a task."""

    def __init__(self, plan: TuningPlan, pair: Pair) -> None:
        optuna = _optuna()
        seed = SeedAxes(plan.seed).integer(f"tuning/{pair.method}/{pair.task}") % 2**32
        # said aloud since Optuna 4 and 5 differ in what they do otherwise
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=False)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._study.enqueue_trial({name: pair.start[name] for name in pair.space})
        self._plan, self.pair = plan, pair
        self.trials: list[Trial] = []

    def ask(self) -> PreparedCell:
        """The next trial's cell."""
        self._asked = self._study.ask()
        suggested = {name: _suggest(self._asked, name, allowed) for name, allowed in self.pair.space.items()}
        self._values = {**self.pair.start, **suggested}
        pair, plan = self.pair, self._plan
        label = f"{pair.method} trial {len(self.trials)}"
        more: dict[str, Any] = {"overrides": self._values, "tuned": False, "study": plan.name}
        prepared = prepare(Cell(pair.method, label, pair.task, plan.seed, "cpu", pair.budget, **more))
        if prepared.method is None:
            raise Unavailable(f"{pair.method} on {pair.task} cannot be tuned here: {prepared.unavailable}")
        if prepared.method.task.target is None:
            raise Unavailable(f"{pair.method} on {pair.task} cannot be tuned: the task has no target and so no score")
        return prepared

    def tell(self, result: RunResult) -> None:
        """What came of the trial that was asked for last."""
        trial = Trial(self.pair, len(self.trials), self._values, result)
        self.trials.append(trial)
        self._study.tell(self._asked, trial.objective)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise Unavailable('tuning needs Optuna: pip install "polobench[tune]" (in a checkout: -e ".[tune]")') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _suggest(asked: optuna.Trial, name: str, allowed: Range | tuple[Any, ...]) -> Any:
    """A value; numbers are rounded to what a person would write, as the bounds are."""
    if not isinstance(allowed, Range):
        return asked.suggest_categorical(name, allowed)
    if isinstance(allowed.low, int) and isinstance(allowed.high, int):
        return asked.suggest_int(name, allowed.low, allowed.high, log=allowed.log)
    return float(f"{asked.suggest_float(name, allowed.low, allowed.high, log=allowed.log):.{DIGITS}g}")


def table(trials: Mapping[Pair, Sequence[Trial]]) -> pd.DataFrame:
    """A row a trial: what it tried, what it cost and what came of it.

    Columns: method, task, trial, seed, budget_samples, status, objective, samples, wall_seconds, cpu_seconds (of
    training; wall seconds say little where trials ran side by side), chosen (the winner), values (JSON: what the
    trial set; the rest are defaults).
    """
    rows = []
    for pair, found in trials.items():
        best = winner(found)
        for trial in found:
            ledger = trial.result.ledger
            rows.append(
                {
                    "method": pair.method,
                    "task": pair.task,
                    "trial": trial.number,
                    "seed": trial.result.seed,
                    "budget_samples": pair.budget.samples,
                    "status": trial.result.status,
                    "objective": round(trial.objective, 4),
                    "samples": ledger.samples,
                    "wall_seconds": round(ledger.wall_seconds, 1),
                    "cpu_seconds": round(ledger.cpu_seconds, 1),
                    "chosen": trial is best,
                    "values": json.dumps(dict(trial.values)),
                }
            )
    return pd.DataFrame(rows)


def tuned_toml(plan: TuningPlan, trials: Mapping[Pair, Sequence[Trial]], command: str) -> str:
    """The winners in the form of `methods/tuned.toml`, under a comment that says how `command` found them."""
    budgets = ", ".join(dict.fromkeys(f"{pair.task} {pair.budget}" for pair in plan.pairs))
    lines = [
        f"# Found by `{command}` (Optuna {_optuna().__version__}, TPE): {plan.trials} trials a method and task,",
        f"# each on seed {plan.seed} with a budget of: {budgets}.",
        "# Trial 0 is the file's start. The winner has the largest mean score over the evaluations in the second half",
        "# of its budget; every trial is a row of tuning_trials.csv.",
    ]
    for pair, found in trials.items():
        best = winner(found)
        lines += ["", f"# trial {best.number}, objective {best.objective:.3f} (trial 0: {found[0].objective:.3f})"]
        lines.append(f"[{pair.method}.{json.dumps(pair.task)}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in best.values.items()]
    return "\n".join(lines) + "\n"
