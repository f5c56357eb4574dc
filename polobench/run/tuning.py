"""A tuning file: between what the arms of a study are tuned (docs/studies.md). Every mistake is one line.

Its trials are cells like any other, known before the first one runs: random configurations, each on all tuning seeds,
with a share of the study's budget (half of it, unless the file says another), evaluated on the task's tuning split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from polobench.cells.runner import PreparedCell
from polobench.core.budget import Budget
from polobench.core.errors import UsageError, unknown
from polobench.core.hyperparameters import Hyperparameters, build
from polobench.core.seeding import SeedAxes
from polobench.kinds.cell import Cell
from polobench.kinds.parsing import check_keys, parse_count, parse_list, parse_text, parse_truth
from polobench.registry import method_class
from polobench.run.library import find_study
from polobench.run.study import Study, load_study, parse_seeds, read_toml

TUNING_SEEDS = range(1000, 1100)
TRIALS = 16
BUDGET_SHARE = 0.5
DIGITS = 3
KEYS = ("title", "study", "seeds", "draw_seed", "trials", "budget_share", "fixed", "space")
RANGE_KEYS = ("low", "high", "log")
_OF_WHAT = ("labels", "tasks")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The number below which this share of the range lies, rounded to what a person would write."""
        scale, back = (math.log, math.exp) if self.log else (float, float)
        value = back(scale(self.low) + share * (scale(self.high) - scale(self.low)))
        return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Choice:
    """Values that are equally likely."""

    values: Sequence[Any]

    def at(self, share: float) -> Any:
        """The value that this share of the list ends in."""
        return self.values[int(share * len(self.values))]


Arm = tuple[str, str]  # its label and its task


def load_tuning(path: Path | str, trials: int | None = None) -> Study:
    """The trials of a tuning file, as a study.

    Args:
        path: of the TOML file, or its name.
        trials: configurations of each arm, in place of the file's. The first ones stay the same.

    Raises:
        UsageError: no such file or study, no TOML, an unknown key, arm, task or hyper-parameter, or a bad value.
        Unavailable: a method's plug-in does not load.
    """
    path = find_study(path, "tuning file")
    text = read_toml(path, "tuning file")
    try:
        return parse_tuning(path.stem, text if trials is None else text | {"trials": trials})
    except UsageError as error:
        raise UsageError(f"tuning file {str(path)!r}: {error}") from error


def parse_tuning(name: str, text: Mapping[str, Any]) -> Study:
    """The same from parsed TOML; raises as `load_tuning`."""
    check_keys("key", text, KEYS)
    seeds = sorted(set(parse_seeds(text.get("seeds"))))
    if not set(seeds) <= set(TUNING_SEEDS):
        allowed = f"{TUNING_SEEDS.start} to {TUNING_SEEDS.stop - 1}; others are for evaluation"
        raise UsageError(f"seeds are {text['seeds']!r} (allowed: tuning seeds, {allowed})")
    trials = parse_count("trials", text.get("trials", TRIALS))
    share = _share(text.get("budget_share", BUDGET_SHARE))
    rng = SeedAxes(parse_count("draw_seed", text.get("draw_seed", 0), least=0))
    study = load_study(parse_text("study", text.get("study")))
    arms = {(cell.label, cell.task): cell for cell in study.cells if cell.plan.learns}
    spaces, fixed = _spaces(text.get("space"), arms), _fixed(text.get("fixed", {}), arms)
    cells = [
        replace(trial, seed=seed, study=name)
        for arm, cell in arms.items()
        for trial in _trials(cell, spaces[arm], fixed.get(cell.task, {}), trials, share, rng)
        for seed in seeds
    ]
    return Study(name, cells, str(text.get("title", "")))


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise UsageError(f"budget_share is {value!r} (allowed: a number above 0, at most 1)")
    return float(value)


def check_scored(cells: Iterable[PreparedCell]) -> None:
    """Raise `UsageError` for a task without a target, and so without a score."""
    for item in cells:
        if item.method is not None and item.method.task.target is None:
            raise UsageError(f"{item.cell.task} cannot be tuned on: the task has no target and so no score")


def _spaces(tables: object, arms: Mapping[Arm, Cell]) -> dict[Arm, dict[str, Any]]:
    """What each arm has of all tables together, by label and task; nothing twice, and no arm without any."""
    found: dict[Arm, dict[str, Any]] = {arm: {} for arm in arms}
    for table in parse_list("space", tables):
        if not isinstance(table, dict):
            raise UsageError(f"space: {table!r} (allowed: [[space]], one or more)")
        labels, tasks = (map(partial(parse_text, key), parse_list(key, table.get(key))) for key in _OF_WHAT)
        for arm in product(labels, tasks):
            if arm not in arms:
                raise unknown("arm of the study", " on ".join(arm), map(" on ".join, arms))
            for name in table.keys() - set(_OF_WHAT):
                if name in found[arm]:
                    raise UsageError(f"{arm[0]!r} on {arm[1]!r} has two spaces of {name!r}")
            found[arm] |= {name: value for name, value in table.items() if name not in _OF_WHAT}
    for (label, task), space in found.items():
        if not space:
            raise UsageError(f"{label!r} on {task!r} has no [[space]] (all arms of the study are tuned alike)")
    return found


def _fixed(tables: object, arms: Mapping[Arm, Cell]) -> dict[str, Mapping[str, Any]]:
    """What all arms on a task have in common, by task; a hyper-parameter that one method lacks is refused."""
    tasks = {task for _, task in arms}
    if not isinstance(tables, dict) or not all(isinstance(values, dict) for values in tables.values()):
        raise UsageError(f"fixed is {tables!r:.40} (allowed: [fixed.TASK], with values that all arms on it have)")
    check_keys("task of [fixed]", tables, sorted(tasks))
    for (_, task), cell in arms.items():
        build(method_class(cell.method).Hyperparameters, cell.method, tables.get(task, {}))
    return dict(tables)


def _trials(
    arm: Cell, space: Mapping[str, Any], fixed: Mapping[str, Any], trials: int, share: float, rng: SeedAxes
) -> Iterator[Cell]:
    """The trials of an arm, without a seed; each hyper-parameter of each trial has a random stream of its own."""
    cls = method_class(arm.method).Hyperparameters
    for name in (*arm.overrides, *fixed):
        if name in space:
            raise UsageError(f"{arm.label!r} on {arm.task!r}: {name!r} has a space and a fixed value")
    allowed = {name: _dimension(cls, arm.method, name, value) for name, value in space.items()}
    limits = {name: share * limit for name, limit in arm.budget.as_dict().items()}
    budget = Budget.of({name: limit if name == "seconds" else max(1, int(limit)) for name, limit in limits.items()})
    for number in range(trials):
        axes = {name: f"tuning/{arm.label}/{arm.task}/{name}" for name in allowed}
        drawn = {name: values.at(rng.numpy(axes[name], number).random()) for name, values in allowed.items()}
        yield replace(
            arm,
            label=f"{arm.label} trial {number:02}",
            budget=budget,
            overrides={**arm.overrides, **fixed, **drawn},
            tuned=False,
            split="tuning",
            facts={"split": "tuning", "trial": number, "arm": arm.label},
        )


def _dimension(cls: type[Hyperparameters], method: str, name: str, value: object) -> Range | Choice:
    """One hyper-parameter's range or choices, as values that it allows."""
    what = f"{method}: {name}"
    if isinstance(value, list) and len(value) > 1:
        if any(isinstance(item, (list, dict)) for item in value):
            raise UsageError(f"{what} is {value!r:.60} (allowed: a list of numbers, texts or truth values)")
        return Choice(_checked(cls, method, name, value))
    if not isinstance(value, dict) or not {"low", "high"} <= set(value):
        raise UsageError(f"{what} is {value!r:.60} (allowed: {{low = ..., high = ...}} or a list of two or more)")
    check_keys(f"key of {what}", value, RANGE_KEYS)
    low, high = _checked(cls, method, name, [value["low"], value["high"]])
    log = parse_truth(f"{what}: log", value.get("log", False))
    if type(low) is not float or type(high) is not float or not low < high:
        raise UsageError(f"{what} is from {low!r} to {high!r} (allowed: fractions, low below high; integers as a list)")
    if log and low <= 0:
        raise UsageError(f"{what} is from {low!r} on a log scale (allowed: a positive low)")
    return Range(low, high, log)


def _checked(cls: type[Hyperparameters], method: str, name: str, values: Sequence[Any]) -> list[Any]:
    return [getattr(build(cls, method, {name: value}), name) for value in values]
