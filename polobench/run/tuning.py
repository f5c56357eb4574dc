"""Tuning by Optuna under one protocol (docs/studies.md): the same trials, on one seed, for every method and task.

An interrupted tuning goes on: asked again, the sampler suggests the same, and the cells are found by their ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from polobench.cells.runner import PreparedCell, prepare
from polobench.core.errors import PoloError, Unavailable
from polobench.core.result import RunResult
from polobench.core.seeding import SeedAxes
from polobench.kinds.cell import Cell
from polobench.run.processes import Processes
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
    """What a trial is judged by."""
    if result.status != "ok":
        return FAILED
    counted = result.curve["progress"] >= COUNTED_FROM
    return float(result.curve["score"][counted].mean())


def winner(trials: Sequence[Trial]) -> Trial:
    """The best of a method's trials on a task."""
    return max(trials, key=lambda trial: (trial.result.status == "ok", trial.objective, -trial.number))


def tune(plan: TuningPlan, store: Store, jobs: int, announce: Announce) -> dict[Pair, list[Trial]]:
    """Run all trials, or those that the prepared store does not hold yet; gives those of each pair, in order.

    Args:
        announce: hears `(number, cells, cells to run)` before trial `number` of every pair.

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
                run_sweep(todo, store, display, partial(Processes, jobs))
        for search, prepared in zip(searches, asked, strict=True):
            found = store.load(prepared.cell_id)
            if not isinstance(found, RunResult):
                raise PoloError(f"the result of {prepared.cell} is gone from {str(store.folder)!r}; run it again")
            search.tell(found)
    return {search.pair: search.trials for search in searches}


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
        pair, plan = self.pair, self._plan
        suggested = {name: _suggest(self._asked, name, allowed) for name, allowed in pair.space.items()}
        self._values = {**pair.start, **suggested}
        label = f"{pair.method} trial {len(self.trials)}"
        cell = Cell(pair.method, label, pair.task, plan.seed, "cpu", pair.budget, self._values, tuned=False)
        prepared = prepare(replace(cell, study=plan.name))
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
    """A row per trial: what it tried (`values`, JSON), what its training cost, and what came of it."""
    return pd.DataFrame([_row(trial, winner(found)) for found in trials.values() for trial in found])


def _row(trial: Trial, best: Trial) -> dict[str, Any]:
    result, ledger = trial.result, trial.result.ledger
    return {
        "method": trial.pair.method,
        "task": trial.pair.task,
        "trial": trial.number,
        "seed": result.seed,
        "budget_samples": trial.pair.budget.samples,
        "status": result.status,
        "objective": round(trial.objective, 4),
        "samples": ledger.samples,
        "wall_seconds": round(ledger.wall_seconds, 1),
        "cpu_seconds": round(ledger.cpu_seconds, 1),
        "chosen": trial is best,
        "values": json.dumps(dict(trial.values)),
    }


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
