"""A tuning file: which methods are tuned on which tasks, and between what (docs/studies.md). Every mistake is one line.

What neither a start nor a space names is the method's default, and `methods/tuned.toml` has no say: the file alone
decides what is run, also after its winners have gone there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polobench.core.budget import Budget
from polobench.core.errors import UsageError, unknown
from polobench.core.hyperparameters import Hyperparameters, build
from polobench.kinds.parsing import check_keys, parse_truth
from polobench.registry import method_class
from polobench.run.library import find_study
from polobench.run.study import read_toml

TUNING_SEEDS = range(1000, 1100)
PLAN_KEYS = ("title", "seed", "trials", "budgets", "space", "start")
RANGE_KEYS = ("low", "high", "log")
_OF_WHAT = ("method", "tasks")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; integers where the hyper-parameter is one."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


Space = Mapping[str, Range | tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Pair:
    """A method on a task: what is tried (`space`), and the first trial (`start`, the space's names among others)."""

    method: str
    task: str
    budget: Budget
    start: Mapping[str, Any]
    space: Space


@dataclass(frozen=True)
class TuningPlan:
    """What a tuning file asks for; the pairs are in the order of its budgets, then of its spaces."""

    name: str
    seed: int
    trials: int
    pairs: Sequence[Pair]
    title: str = ""


def load_plan(path: Path | str) -> TuningPlan:
    """Read a tuning file.

    Raises:
        UsageError: no such file, no TOML, an unknown key, method, task or hyper-parameter, or a bad value.
        Unavailable: a method's plug-in does not load.
    """
    path = find_study(path, "tuning file")
    text = read_toml(path, "tuning file")
    try:
        return parse_plan(path.stem, text)
    except UsageError as error:
        raise UsageError(f"tuning file {str(path)!r}: {error}") from error


def parse_plan(name: str, text: Mapping[str, Any]) -> TuningPlan:
    """A plan from parsed TOML; raises as `load_plan`."""
    check_keys("key", text, PLAN_KEYS)
    seed, trials, budgets = text.get("seed"), text.get("trials"), text.get("budgets")
    if type(seed) is not int or seed not in TUNING_SEEDS:
        allowed = f"{TUNING_SEEDS.start} to {TUNING_SEEDS.stop - 1}; others are for evaluation"
        raise UsageError(f"seed is {seed!r} (allowed: a tuning seed, {allowed})")
    if type(trials) is not int or trials < 1:
        raise UsageError(f"trials is {trials!r} (allowed: an integer from 1)")
    if not isinstance(budgets, dict) or not budgets:
        raise UsageError("it has no [budgets] (allowed: samples a trial, by task)")
    spaces, starts = (_by_pair(kind, text.get(kind, []), budgets) for kind in ("space", "start"))
    if not spaces:
        raise UsageError("it has no [[space]] (allowed: one or more)")
    for method, task in starts:
        if (method, task) not in spaces:
            raise UsageError(f"a [[start]] of {method!r} on {task!r} has no [[space]]")
    pairs = [
        _pair(method, task, budget, starts.get((method, task), {}), values)
        for task, budget in budgets.items()
        for (method, of_task), values in spaces.items()
        if of_task == task
    ]
    return TuningPlan(name, seed, trials, pairs, str(text.get("title", "")))


def _by_pair(kind: str, tables: object, budgets: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The values of each method and task, of the tables of one kind."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{kind} is {tables!r:.40} (allowed: [[{kind}]], one or more)")
    for table in tables:
        method, tasks = table.get("method"), table.get("tasks")
        if not isinstance(method, str) or not isinstance(tasks, list) or not tasks:
            raise UsageError(f'a [[{kind}]] needs method = "name" and tasks = ["name", ...]')
        method_class(method)  # says so, if there is none
        values = {key: value for key, value in table.items() if key not in _OF_WHAT}
        if not values:
            raise UsageError(f"the [[{kind}]] of {method!r} names no hyper-parameter")
        for task in tasks:
            if task not in budgets:
                raise unknown(f"task of [budgets], in a [[{kind}]] of {method!r},", task, budgets)
            if (method, task) in found:
                raise UsageError(f"{method!r} on {task!r} has two [[{kind}]]")
            found[method, task] = values
    return found


def _pair(method: str, task: str, budget: object, start: Mapping[str, Any], values: Mapping[str, Any]) -> Pair:
    cls = method_class(method).Hyperparameters
    space = {name: _dimension(cls, method, name, value) for name, value in values.items()}
    first = build(cls, method, start)
    for name, allowed in space.items():
        value = getattr(first, name)
        if value not in allowed:
            said = f"{method!r} on {task!r}: the first trial's {name} = {value!r} is not in its space"
            raise UsageError(f"{said} (allowed: {_said(allowed)})")
    known = {name: getattr(first, name) for name in (*start, *space)}
    return Pair(method, task, Budget.of(budget), known, space)


def _dimension(cls: type[Hyperparameters], method: str, name: str, value: object) -> Range | tuple[Any, ...]:
    """One hyper-parameter's range or choices, as values that it allows."""
    what = f"{method}: {name}"
    if isinstance(value, list) and len(value) > 1:
        if any(isinstance(item, (list, dict)) for item in value):
            raise UsageError(f"{what} is {value!r:.60} (allowed: a list of numbers, texts or truth values)")
        return tuple(_checked(cls, method, name, value))
    if not isinstance(value, dict) or not {"low", "high"} <= set(value):
        raise UsageError(f"{what} is {value!r:.60} (allowed: {{low = ..., high = ...}} or a list of two or more)")
    check_keys(f"key of {what}", value, RANGE_KEYS)
    low, high = _checked(cls, method, name, [value["low"], value["high"]])
    log = parse_truth(f"{what}: log", value.get("log", False))
    if type(low) not in (int, float) or type(high) not in (int, float) or not low < high:
        raise UsageError(f"{what} is from {low!r} to {high!r} (allowed: numbers, low below high)")
    if log and low <= 0:
        raise UsageError(f"{what} is from {low!r} on a log scale (allowed: a positive low)")
    return Range(low, high, log)


def _checked(cls: type[Hyperparameters], method: str, name: str, values: Sequence[Any]) -> Iterator[Any]:
    """The values as the hyper-parameter holds them (an integer where it is a float becomes one)."""
    return (getattr(build(cls, method, {name: value}), name) for value in values)


def _said(allowed: Range | tuple[Any, ...]) -> str:
    return f"{allowed.low} to {allowed.high}" if isinstance(allowed, Range) else ", ".join(map(str, allowed))
