"""Checks every value that readers of a result rely on; what a kind of cell adds to a result, its kind checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from polobench.core.budget import LIMITS
from polobench.core.errors import first_line
from polobench.core.result import RunResult
from polobench.kinds.checks import AMOUNT, COUNT, FINITE, INTEGER, NUMBER, NUMBERS, OBJECT, TEXT, TRUTH, Rule, wrong
from polobench.kinds.kind import DRAWN_METRICS
from polobench.kinds.table import BUILT_IN, kind_of, kinds

_BY_TYPE = {
    "str": TEXT, "str | None": TEXT.or_null(), "bool": TRUTH, "int": INTEGER, "float": NUMBER,
    "float | None": NUMBER.or_null(), "dict": OBJECT,
}  # fmt: skip
_RULES = {
    item.name: _BY_TYPE[kind] for item in fields(RunResult) if (kind := str(item.type).partition("[")[0]) in _BY_TYPE
}
DRAWN_CURVES = (
    "heldout_accuracy", "heldout_accuracy_normalised", "train_accuracy", "train_accuracy_normalised", "heldout_margin",
    "heldout_kl", "heldout_entropy", "heldout_completion_length", "heldout_sampled_return",
    "heldout_response_kl", "heldout_learned_return", "heldout_accuracy_implicit", "heldout_best_of_4",
    "heldout_best_of_16",
)  # fmt: skip
_FROM_1 = Rule("a count from 1", lambda value: COUNT.holds(value) and value > 0)
_OF_STUDY = {
    "looks": _FROM_1,
    "seeds": _FROM_1,
    "trial": COUNT,
    "arm": TEXT,
    "overrides": OBJECT,
}
TIMES = ("samples", "wall_seconds", "cpu_seconds")
_SECTIONS = [kind.name for kind in BUILT_IN if kind.name in _RULES]  # each of the cells of the kind of this name alone
_SHALLOW = ("hyperparameters", "measured", "provenance", "snapshots")
PAIR_LOG_PROBS = ("chosen_log_prob", "rejected_log_prob")
PAIR_SETS = ("heldout", "train")
_PAIR_COUNTS = ("prompt", "chosen_tokens", "rejected_tokens")
_SNAPSHOTS = ("before", "after")
_MODEL_NUMBERS = ("cpu_seconds", "gradient_steps", "accuracy", "gold_accuracy", "calibration_error")
_MODEL_BINS = ("predicted", "observed", "counts")
_DEEPEST = 20
_NUMBERS_OR_NULL = NUMBER.or_null().listed("a list of numbers")


def problem(result: RunResult) -> str:
    """The first thing that is wrong with a result, its key named; empty if nothing is."""
    try:
        return next(_problems(result), "")
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        return first_line(error)


def _problems(result: RunResult) -> Iterator[str]:
    """One by one: a later check may rely on the earlier ones."""
    for name, rule in _RULES.items():
        if not rule.holds(getattr(result, name)):
            yield f"{name} is not {rule.words}"
    yield from wrong(result, _SHALLOW, Rule("a shallow object", _is_shallow))
    yield from wrong(result, ("kind",), Rule(" or ".join(kinds()), lambda value: value in kinds()))
    yield from _outcome(result)
    yield from _spent(result)
    yield from _tables(result)
    for name in _SECTIONS:
        if name != result.kind and getattr(result, name):
            yield f"{name} is not empty, although the kind is {result.kind}"
    yield from kind_of(result).problems(result)
    for name, rule in _OF_STUDY.items():
        yield from wrong(result.provenance, (name,), rule.or_null(), "provenance.")
    if result.snapshots:
        yield from _snapshots(result.snapshots)


def _outcome(result: RunResult) -> Iterator[str]:
    yield from wrong(result, ("target",), FINITE.or_null())
    time, loss = result.time_to_target, result.loss_convergence
    yield from wrong(time, TIMES, AMOUNT.or_null(), "time_to_target.")
    yield from wrong(loss, ("start", "end"), NUMBER.or_null(), "loss_convergence.")
    yield from wrong(loss, ("samples",), AMOUNT.or_null(), "loss_convergence.")


def _spent(result: RunResult) -> Iterator[str]:
    budget, ledger = result.budget, result.ledger
    for name in budget:
        if name not in LIMITS:
            yield f"budget.{name} is no limit"
    yield from wrong(budget, budget, AMOUNT.or_null(), "budget.")
    counted = [name for name in vars(ledger) if name != "samples_unspent"]
    yield from wrong(ledger, counted, AMOUNT, "ledger.")
    yield from wrong(ledger, ("samples_unspent",), AMOUNT.or_null(), "ledger.")


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
            if name not in table or not (floats or _NUMBERS_OR_NULL.holds(table[name].tolist())):
                yield f"{where}.{name} is not a list of numbers"


def _snapshots(snapshots: Mapping[str, Any]) -> Iterator[str]:
    """What the policy said before and after; the pairs of both have to be the same ones in the same order."""
    found = [name for name in _SNAPSHOTS if name == "before" or name in snapshots]
    yield from wrong(snapshots, found, OBJECT, "snapshots.")
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
    yield from wrong(parts, parts, OBJECT, section)
    yield from wrong(parts["measures"], parts["measures"], NUMBER, f"{section}measures.")
    yield from wrong(parts["notes"], parts["notes"], AMOUNT, f"{section}notes.")
    if "reward_model" in snapshot:
        yield from _reward_model(snapshot["reward_model"], f"{section}reward_model")
    for name in pairs:
        if name not in PAIR_SETS:
            yield f"{section}pairs.{name} is not {' or '.join(PAIR_SETS)}"
        yield from _pairs(pairs[name], f"{section}pairs.{name}")


def _reward_model(model: Any, section: str) -> Iterator[str]:
    if not isinstance(model, dict):
        yield f"{section} is not an object"
    yield from wrong(model, _MODEL_NUMBERS, FINITE, f"{section}.")
    yield from wrong(model, _MODEL_BINS, NUMBERS, f"{section}.")
    if len({len(model[name]) for name in _MODEL_BINS}) > 1 or not all(0 <= p <= 1 for p in model["predicted"]):
        yield f"{section}: its bins are not equally many probabilities"


def _pairs(columns: Any, section: str) -> Iterator[str]:
    if not isinstance(columns, dict):
        yield f"{section} is not an object"
    yield from wrong(columns, _PAIR_COUNTS, COUNT.listed("a list of counts"), f"{section}.")
    yield from wrong(columns, PAIR_LOG_PROBS, NUMBERS, f"{section}.")
    if len({len(columns[name]) for name in (*_PAIR_COUNTS, *PAIR_LOG_PROBS)}) > 1:
        yield f"{section}: the columns are not equally long"


def _is_completion(value: Any) -> bool:
    if not isinstance(value, dict) or not NUMBER.or_null().holds(value.get("reward")):
        return False
    return all(isinstance(value.get(name), str) for name in ("prompt", "completion"))


def _is_shallow(value: Any, depth: int = 0) -> bool:
    """What is nested for ever would break whatever walks over it."""
    if not isinstance(value, (dict, list)):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth < _DEEPEST and all(_is_shallow(item, depth + 1) for item in items)
