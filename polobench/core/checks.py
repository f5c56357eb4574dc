"""What makes a well-formed file no result: every value that a reader computes with is looked at here, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from polobench.core.budget import LARGEST, LIMITS
from polobench.core.errors import first_line
from polobench.core.result import RunResult

DRAWN_METRICS = ("loss", "kl")
KINDS = ("learning", "throughput")
ROUND_SECONDS = ("iteration_seconds", "rollout_seconds", "update_seconds")
TIMES = ("samples", "wall_seconds", "cpu_seconds")
_TEXTS = ("kind", "method", "label", "task", "device", "status", "reason", "unit", "started_at", "cell_id")
_OBJECTS = ("budget", "hyperparameters", "loss_convergence", "time_to_target", "throughput", "provenance")
_ROUNDS = ("rounds", "warmup_rounds")
_RATES = ("samples_per_second", "updates_per_second", "rollout_samples_per_second", "update_samples_per_second")
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
    yield from _wrong(result, _OBJECTS, "an object", lambda value: isinstance(value, Mapping))
    yield from _wrong(result, ("hyperparameters", "provenance"), "a shallow object", _is_shallow)
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
    totals = asdict(result.ledger)
    unspent = {"samples_unspent": totals.pop("samples_unspent")}
    yield from _wrong(totals, totals, "an amount", _is_amount, "ledger.")
    yield from _wrong(unspent, unspent, "an amount or null", _or_null(_is_amount), "ledger.")


def _tables(result: RunResult) -> Iterator[str]:
    """The columns that are drawn; these may hold NaN and infinity, as the losses of a run that diverged."""
    drawn = [name for name in DRAWN_METRICS if name in result.updates]
    for where, table, columns in (
        ("curve", result.curve, [*TIMES, "return_mean"]),
        ("updates", result.updates, ["samples", *drawn]),
    ):
        for name in columns if not table.empty else ():
            if name not in table or not all(map(_or_null(_is_number), table[name].tolist())):
                yield f"{where}.{name} is not a list of numbers"


def _throughput(throughput: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrong(throughput, _ROUNDS, "an amount", _is_amount, "throughput.")
    yield from _wrong(throughput, _RATES, "an amount or null", _or_null(_is_amount), "throughput.")
    yield from _wrong(throughput, ROUND_SECONDS, "a list of finite numbers", _is_list_of_finite, "throughput.")
    if len({len(throughput[name]) for name in ROUND_SECONDS}) > 1:
        yield f"throughput: {', '.join(ROUND_SECONDS)} are not equally long"


def _wrong(values: object, names: Any, kind: str, test: Test, section: str = "") -> Iterator[str]:
    """A sentence for each of these keys, or attributes, whose value fails the test; an absent key counts as null."""
    for name in names:
        value = values.get(name) if isinstance(values, Mapping) else getattr(values, name)
        if not test(value):
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


def _is_list_of_finite(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_finite, value))


def _is_shallow(value: Any, depth: int = 0) -> bool:
    """What is nested for ever would break whatever walks over it."""
    if not isinstance(value, (Mapping, list)):
        return True
    items = value.values() if isinstance(value, Mapping) else value
    return depth < _DEEPEST and all(_is_shallow(item, depth + 1) for item in items)
