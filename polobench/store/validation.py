"""Checks every value that readers of a result rely on; what a kind of cell adds to a result, its kind checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from polobench.core.budget import LIMITS
from polobench.core.errors import first_line
from polobench.core.result import RunResult
from polobench.kinds import checks
from polobench.kinds.checks import is_amount, is_count, is_finite, is_list_of, is_number, is_object, or_null, wrong
from polobench.kinds.kind import DRAWN_METRICS
from polobench.kinds.table import kind_of, kinds

_BY_TYPE = {
    "str": ("a text", checks.is_text),
    "str | None": ("a text or null", or_null(checks.is_text)),
    "bool": ("true or false", checks.is_truth),
    "int": ("an integer", checks.is_integer),
    "float": ("a number", is_number),
    "float | None": ("a number or null", or_null(is_number)),
    "dict": ("an object", is_object),
}
DRAWN_CURVES = (
    "heldout_accuracy", "heldout_accuracy_normalised", "train_accuracy", "train_accuracy_normalised", "heldout_margin",
    "heldout_kl", "heldout_entropy", "heldout_completion_length", "heldout_greedy_return",
)  # fmt: skip
TIMES = ("samples", "wall_seconds", "cpu_seconds")
_SECTIONS = ("throughput", "gradient_noise", "fixed_batch")  # each of the cells of the kind of this name alone
_SHALLOW = ("hyperparameters", "measured", "provenance", "snapshots")
PAIR_LOG_PROBS = ("chosen_log_prob", "rejected_log_prob")
PAIR_SETS = ("heldout", "train")
_PAIR_COUNTS = ("prompt", "chosen_tokens", "rejected_tokens")
_SNAPSHOTS = ("before", "after")
_DEEPEST = 20


def problem(result: RunResult) -> str:
    """The first thing that is wrong with a result, its key named; empty if nothing is."""
    try:
        return next(_problems(result), "")
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        return first_line(error)


def _problems(result: RunResult) -> Iterator[str]:
    """One by one: a later check may rely on the earlier ones."""
    for item in fields(RunResult):
        what, test = _BY_TYPE.get(str(item.type).partition("[")[0], ("", lambda value: True))
        yield from wrong(result, (item.name,), what, test)
    yield from wrong(result, _SHALLOW, "a shallow object", _is_shallow)
    yield from wrong(result, ("kind",), " or ".join(kinds()), lambda value: value in kinds())
    yield from _outcome(result)
    yield from _spent(result)
    yield from _tables(result)
    for name in _SECTIONS:
        if name != result.kind and getattr(result, name):
            yield f"{name} is not empty, although the kind is {result.kind}"
    yield from kind_of(result).problems(result)
    if result.snapshots:
        yield from _snapshots(result.snapshots)


def _outcome(result: RunResult) -> Iterator[str]:
    yield from wrong(result, ("target",), "a finite number or null", or_null(is_finite))
    time, loss = result.time_to_target, result.loss_convergence
    yield from wrong(time, TIMES, "an amount or null", or_null(is_amount), "time_to_target.")
    yield from wrong(loss, ("start", "end"), "a number or null", or_null(is_number), "loss_convergence.")
    yield from wrong(loss, ("samples",), "an amount or null", or_null(is_amount), "loss_convergence.")


def _spent(result: RunResult) -> Iterator[str]:
    budget, ledger = result.budget, result.ledger
    for name in budget:
        if name not in LIMITS:
            yield f"budget.{name} is no limit"
    yield from wrong(budget, budget, "an amount or null", or_null(is_amount), "budget.")
    counted = [name for name in vars(ledger) if name != "samples_unspent"]
    yield from wrong(ledger, counted, "an amount", is_amount, "ledger.")
    yield from wrong(ledger, ("samples_unspent",), "an amount or null", or_null(is_amount), "ledger.")


def _tables(result: RunResult) -> Iterator[str]:
    """The columns that are drawn; these may hold NaN and infinity, as the losses of a run that diverged."""
    drawn = [name for name in DRAWN_METRICS if name in result.updates]
    curves = [name for name in DRAWN_CURVES if name in result.curve]
    for where, table, columns in (
        ("curve", result.curve, [*TIMES, "return_mean", *curves]),
        ("updates", result.updates, ["samples", *drawn]),
    ):
        if table.empty:
            continue
        floats = table.to_numpy().dtype == np.float64  # all of them are numbers, at a glance
        for name in columns:
            if name not in table or not (floats or all(map(or_null(is_number), table[name].tolist()))):
                yield f"{where}.{name} is not a list of numbers"


def _snapshots(snapshots: Mapping[str, Any]) -> Iterator[str]:
    """What the policy said before and after; the pairs of both have to be the same ones in the same order."""
    found = [name for name in _SNAPSHOTS if name == "before" or name in snapshots]
    yield from wrong(snapshots, found, "an object", is_object, "snapshots.")
    for name in found:
        yield from _snapshot(snapshots[name], f"snapshots.{name}.")
    before, after = (snapshots.get(name, {}).get("pairs", {}) for name in _SNAPSHOTS)
    for name in PAIR_SETS:
        if name in before and name in after and any(before[name][key] != after[name][key] for key in _PAIR_COUNTS):
            yield f"snapshots.after.pairs.{name} is not of the pairs of before"


def _snapshot(snapshot: Mapping[str, Any], section: str) -> Iterator[str]:
    completions, pairs = snapshot.get("completions", []), snapshot.get("pairs", {})
    if not isinstance(completions, list) or not all(map(_is_completion, completions)):
        yield f"{section}completions is not a list of prompt and completion, texts, and reward, a number or null"
    parts = {"measures": snapshot.get("measures", {}), "notes": snapshot.get("notes", {}), "pairs": pairs}
    yield from wrong(parts, parts, "an object", is_object, section)
    yield from wrong(parts["measures"], parts["measures"], "a number", is_number, f"{section}measures.")
    yield from wrong(parts["notes"], parts["notes"], "an amount", is_amount, f"{section}notes.")
    for name in pairs:
        if name not in PAIR_SETS:
            yield f"{section}pairs.{name} is not {' or '.join(PAIR_SETS)}"
        yield from _pairs(pairs[name], f"{section}pairs.{name}")


def _pairs(columns: Any, section: str) -> Iterator[str]:
    if not isinstance(columns, dict):
        yield f"{section} is not an object"
    yield from wrong(columns, _PAIR_COUNTS, "a list of counts", is_list_of(is_count), f"{section}.")
    yield from wrong(columns, PAIR_LOG_PROBS, "a list of numbers", is_list_of(is_number), f"{section}.")
    if len({len(columns[name]) for name in (*_PAIR_COUNTS, *PAIR_LOG_PROBS)}) > 1:
        yield f"{section}: the columns are not equally long"


def _is_completion(value: Any) -> bool:
    if not isinstance(value, dict) or not or_null(is_number)(value.get("reward")):
        return False
    return all(isinstance(value.get(name), str) for name in ("prompt", "completion"))


def _is_shallow(value: Any, depth: int = 0) -> bool:
    """What is nested for ever would break whatever walks over it."""
    if not isinstance(value, (dict, list)):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth < _DEEPEST and all(_is_shallow(item, depth + 1) for item in items)
