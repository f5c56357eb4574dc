"""What makes a well-formed file no result: every value that a reader computes with is looked at here, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from polobench.core.budget import LARGEST, LIMITS
from polobench.core.errors import first_line
from polobench.core.result import RunResult

DRAWN_CURVES = (
    "heldout_accuracy", "heldout_accuracy_normalised", "train_accuracy", "train_accuracy_normalised", "heldout_margin",
    "heldout_kl", "heldout_entropy", "heldout_completion_length", "heldout_greedy_return",
)  # fmt: skip
DRAWN_METRICS = ("loss", "kl", "episode_return")
KINDS = ("learning", "throughput", "gradient_noise", "fixed_batch")
ROUND_SECONDS = ("iteration_seconds", "rollout_seconds", "update_seconds")
TIMES = ("samples", "wall_seconds", "cpu_seconds")
_TEXTS = ("kind", "method", "label", "task", "device", "status", "reason", "unit", "started_at", "cell_id")
_OBJECTS = (
    "budget", "hyperparameters", "loss_convergence", "time_to_target", "throughput", "gradient_noise", "fixed_batch",
    "provenance", "snapshots",
)  # fmt: skip
_SHALLOW = ("hyperparameters", "provenance", "snapshots")
_ROUNDS = ("rounds", "warmup_rounds")
_RATES = ("samples_per_second", "updates_per_second", "rollout_samples_per_second", "update_samples_per_second")
BATCH_COLUMNS = ("batch_samples", "squared_norms", "products")
_NOISE_MEASURES = ("signal", "trace", "snr", "noise_scale", "mean_cosine")
COUNTS = ("batch_counts", "rollout_counts")
PAIR_LOG_PROBS = ("chosen_log_prob", "rejected_log_prob")
PAIR_SETS = ("heldout", "train")
_PAIR_COUNTS = ("prompt", "chosen_tokens", "rejected_tokens")
_SNAPSHOTS = ("before", "after")
_DEEPEST = 20
Test = Callable[[Any], bool]


def problem(result: RunResult) -> str:
    """The first thing that is wrong with a result, its key named; empty if nothing is."""
    try:
        return next(_problems(result), "")
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        return first_line(error)


def _problems(result: RunResult) -> Iterator[str]:
    """One by one: a later check may rely on the earlier ones."""
    yield from _wrong(result, _TEXTS, "a text", lambda value: isinstance(value, str))
    yield from _wrong(result, _OBJECTS, "an object", lambda value: isinstance(value, dict))
    yield from _wrong(result, _SHALLOW, "a shallow object", _is_shallow)
    yield from _wrong(result, ("kind",), " or ".join(KINDS), lambda value: value in KINDS)
    yield from _wrong(result, ("seed",), "an integer", lambda value: isinstance(value, int) and _is_finite(value))
    yield from _wrong(result, ("ran_beside_others",), "true or false", lambda value: isinstance(value, bool))
    yield from _wrong(result, ("digest",), "a text or null", lambda value: value is None or isinstance(value, str))
    yield from _outcome(result)
    yield from _budget(result.budget)
    yield from _ledger(result)
    yield from _tables(result)
    if result.throughput:
        yield from _throughput(result.throughput)
    if result.gradient_noise:
        yield from _gradient_noise(result.gradient_noise)
    if result.fixed_batch:
        yield from _fixed_batch(result.fixed_batch)
    if result.snapshots:
        yield from _snapshots(result.snapshots)


def _outcome(result: RunResult) -> Iterator[str]:
    yield from _wrong(result, ("floor", "final_return", "final_return_std", "peak_memory_mib"), "a number", _is_number)
    yield from _wrong(result, ("target",), "a finite number or null", _or_null(_is_finite))
    yield from _wrong(result, ("final_score",), "a number or null", _or_null(_is_number))
    time, loss = result.time_to_target, result.loss_convergence
    yield from _wrong(time, TIMES, "an amount or null", _or_null(_is_amount), "time_to_target.")
    yield from _wrong(loss, ("start", "end"), "a number or null", _or_null(_is_number), "loss_convergence.")
    yield from _wrong(loss, ("samples",), "an amount or null", _or_null(_is_amount), "loss_convergence.")


def _budget(budget: Mapping[str, Any]) -> Iterator[str]:
    for name in budget:
        if name not in LIMITS:
            yield f"budget.{name} is no limit"
    yield from _wrong(budget, budget, "an amount or null", _or_null(_is_amount), "budget.")


def _ledger(result: RunResult) -> Iterator[str]:
    totals = dict(vars(result.ledger))
    unspent = {"samples_unspent": totals.pop("samples_unspent")}
    yield from _wrong(totals, totals, "an amount", _is_amount, "ledger.")
    yield from _wrong(unspent, unspent, "an amount or null", _or_null(_is_amount), "ledger.")


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
            if name not in table or not (floats or all(map(_or_null(_is_number), table[name].tolist()))):
                yield f"{where}.{name} is not a list of numbers"


def _throughput(throughput: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrong(throughput, _ROUNDS, "an amount", _is_amount, "throughput.")
    yield from _wrong(throughput, _RATES, "an amount or null", _or_null(_is_amount), "throughput.")
    yield from _wrong(throughput, ROUND_SECONDS, "a list of finite numbers", _is_list_of(_is_finite), "throughput.")
    if len({len(throughput[name]) for name in ROUND_SECONDS}) > 1:
        yield f"throughput: {', '.join(ROUND_SECONDS)} are not equally long"


def _gradient_noise(noise: Mapping[str, Any]) -> Iterator[str]:
    """What was asked for; and, where it was measured, the batches, at least the three that a jackknife needs."""
    section = "gradient_noise."
    yield from _wrong(noise, ("policy", "policy_sha256"), "a text", lambda value: isinstance(value, str), section)
    yield from _wrong(noise, ("samples",), "a positive count", lambda value: _is_count(value) and value > 0, section)
    if "batches" not in noise:
        return
    yield from _wrong(noise, ("batches", "warmup_samples"), "a count", _is_count, section)
    yield from _wrong(noise, _NOISE_MEASURES, "a number", _is_number, section)
    yield from _wrong(noise, BATCH_COLUMNS, "a list of finite numbers", _is_list_of(_is_finite), section)
    if {len(noise[name]) for name in BATCH_COLUMNS} != {noise["batches"]} or noise["batches"] < 3:
        yield f"{section}batches is not the length, from 3, of {', '.join(BATCH_COLUMNS)}"
    if not all(samples > 0 for samples in noise["batch_samples"]):
        yield f"{section}batch_samples is not a list of positive numbers"


def _fixed_batch(found: Mapping[str, Any]) -> Iterator[str]:
    section = "fixed_batch."
    yield from _wrong(found, ("batch_sha256",), "a text", lambda value: isinstance(value, str), section)
    parts = ("metrics", "changes", *COUNTS)
    yield from _wrong(found, parts, "an object", lambda value: isinstance(value, dict), section)
    yield from _wrong(found["metrics"], found["metrics"], "a number", _is_number, f"{section}metrics.")
    numbers = _is_list_of(_is_number)
    yield from _wrong(found["changes"], found["changes"], "a list of numbers", numbers, f"{section}changes.")
    for name in COUNTS:
        yield from _wrong(found[name], found[name], "a count", _is_count, f"{section}{name}.")


def _snapshots(snapshots: Mapping[str, Any]) -> Iterator[str]:
    """What the policy said before and after; the pairs of both have to be the same ones in the same order."""
    found = [name for name in _SNAPSHOTS if name == "before" or name in snapshots]
    yield from _wrong(snapshots, found, "an object", lambda value: isinstance(value, dict), "snapshots.")
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
    yield from _wrong(parts, parts, "an object", lambda value: isinstance(value, dict), section)
    yield from _wrong(parts["measures"], parts["measures"], "a number", _is_number, f"{section}measures.")
    yield from _wrong(parts["notes"], parts["notes"], "an amount", _is_amount, f"{section}notes.")
    for name in pairs:
        if name not in PAIR_SETS:
            yield f"{section}pairs.{name} is not {' or '.join(PAIR_SETS)}"
        yield from _pairs(pairs[name], f"{section}pairs.{name}")


def _pairs(columns: Any, section: str) -> Iterator[str]:
    if not isinstance(columns, dict):
        yield f"{section} is not an object"
    yield from _wrong(columns, _PAIR_COUNTS, "a list of counts", _is_list_of(_is_count), f"{section}.")
    yield from _wrong(columns, PAIR_LOG_PROBS, "a list of numbers", _is_list_of(_is_number), f"{section}.")
    if len({len(columns[name]) for name in (*_PAIR_COUNTS, *PAIR_LOG_PROBS)}) > 1:
        yield f"{section}: the columns are not equally long"


def _is_completion(value: Any) -> bool:
    if not isinstance(value, dict) or not _or_null(_is_number)(value.get("reward")):
        return False
    return all(isinstance(value.get(name), str) for name in ("prompt", "completion"))


def _wrong(values: object, names: Any, kind: str, test: Test, section: str = "") -> Iterator[str]:
    """A sentence for each of these keys, or attributes, whose value fails the test; an absent key counts as null."""
    value_of = values.get if isinstance(values, dict) else partial(getattr, values)
    for name in names:
        if not test(value_of(name)):
            yield f"{section}{name} is not {kind}"


def _or_null(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _is_number(value: Any) -> bool:
    """NaN and infinity too, but no integer that a float cannot hold."""
    return isinstance(value, float) or _is_finite(value)


def _is_finite(value: Any) -> bool:
    """Within the limit of budgets, so that neither a sum nor the axis of a figure overflows."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _is_amount(value: Any) -> bool:
    return _is_finite(value) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_amount(value)


def _is_list_of(test: Test) -> Test:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _is_shallow(value: Any, depth: int = 0) -> bool:
    """What is nested for ever would break whatever walks over it."""
    if not isinstance(value, (dict, list)):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth < _DEEPEST and all(_is_shallow(item, depth + 1) for item in items)
