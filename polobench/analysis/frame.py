"""`load(store)`: the results of a store as a pandas table, one row per cell."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from polobench.analysis.collection import Arm, Collection, OnProgress, collect
from polobench.analysis.statistics.intervals import Interval
from polobench.core.budget import LedgerTotals, budget_text
from polobench.core.result import RunResult
from polobench.kinds.table import kind_of
from polobench.store.validation import TIMES

_LEDGER = tuple(item.name for item in dataclasses.fields(LedgerTotals))
_NOISE = ("stage", "snr", "noise_scale")
_FLAGS = ("solved", "reached")
_LOSS = {"start": "start", "end": "end", "converged_samples": "samples"}
SPEEDS = ("samples_per_second", "rollout_samples_per_second", "update_samples_per_second", "updates_per_second")
_NUMBERS = (
    "budget_samples", "budget_updates", "budget_seconds", "floor", "target", "final_return", "final_return_std",
    "final_score", *(f"{name}_to_target" for name in TIMES), *(f"loss_{name}" for name in _LOSS),
    *_LEDGER, *SPEEDS, "peak_memory_mib", *(f"gradient_{name}" for name in _NOISE),
)  # fmt: skip
_PROVENANCE = ("code_hash", "commit", "dirty", "threads", "device_name", "cpu_model", "platform_fingerprint")
ARM = ("task", "budget", "label", "method", "device")
COLUMNS = tuple(dict.fromkeys((
    "kind", "method", "label", "task", "seed", "split", "device", "fixed_policy", "budget", "budget_samples",
    "budget_updates", "budget_seconds", "unit", "floor", "target", "status", "reason", "final_return",
    "final_return_std", "final_score", *_FLAGS, *_NUMBERS, "digest", "ran_beside_others", *_PROVENANCE, "started_at",
    "cell_id",
)))  # fmt: skip


def load(store: Path | str, on_progress: OnProgress | None = None) -> pd.DataFrame:
    """The cells of a store, one row each, ordered by task, budget, label, device and seed.

    Of cells that differ only by code or platform the newest is taken. `attrs` of the table holds how many were left out
    for that (`left_out`) and each damaged file with its reason (`damaged`); warnings say the same. Skipped cells are
    rows.

    Columns, besides those named as in docs/results-format.md:
        split: "tuning" of a run that was made to choose settings, else "heldout".
        budget: in words; `budget_samples`, `budget_updates`, `budget_seconds` as numbers.
        final_return, final_score: at the floor unless the run ended ok; NaN for cells that do not learn.
        solved: the run ended ok and its final return is at or above the target; missing without a target.
        reached: the run ended ok and held the target at some time for two evaluations in a row, which it may have
            lost again.
        samples_to_target, wall_seconds_to_target, cpu_seconds_to_target: when it was reached; NaN if never.
        samples_per_second: over the timed rounds of a throughput cell, or the training of a learning cell; all speeds
            are NaN where the cell ran beside others.
        rollout_samples_per_second, update_samples_per_second: the same samples over the seconds inside the task's
            verbs (in language: of generation, or of reading data), and over the rest of the training.
        fixed_policy, gradient_stage, gradient_snr, gradient_noise_scale: of a gradient-noise cell, and the policy
            that it was measured at.
        hp_NAME: every hyper-parameter; lists as tuples, missing where a method does not have it.

    Args:
        store: its folder or pack.
        on_progress: called with `(what, done, total)` for every file.

    Raises:
        UsageError: there is no such store.
    """
    collection = collect(store, on_progress)
    warned = [f"damaged file {item.path.name}: {item.reason}" for item in collection.damaged]
    if collection.older_code:
        warned.insert(0, f"{collection.older_code} cells left out: a newer one differs only by code or platform")
    for text in warned:
        warnings.warn(text, UserWarning, stacklevel=2)
    return frame(collection)


def frame(collection: Collection) -> pd.DataFrame:
    """The table that `load` gives, of a store already read."""
    rows = [_row(result) for result in (*collection.cells, *collection.trials)]
    names = sorted({name for row in rows for name in row if name not in COLUMNS})
    table = table_of(rows, [*COLUMNS, *names]).astype(
        dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_FLAGS, "boolean")
    )
    table.attrs["left_out"] = collection.older_code
    table.attrs["damaged"] = [(item.path.name, item.reason) for item in collection.damaged]
    return table


def table_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table from its rows; text that UTF-8 cannot hold becomes "?", as neither a file nor pyarrow would take it."""
    found = list(rows)
    names = dict.fromkeys(name for row in found for name in row) if columns is None else columns
    return pd.DataFrame(
        {_encodable(name): [_encodable(row.get(name, math.nan)) for row in found] for name in names},
        columns=[_encodable(name) for name in names],
    )


def flat_table(items: Iterable[Any]) -> pd.DataFrame:
    """A row per dataclass, as `flat_rows` makes it."""
    return table_of(flat_rows(items))


def flat_rows(items: Iterable[Any], **of_all: Any) -> list[dict[str, object]]:
    """Every number in each dataclass, an interval as its ends, an arm as what names it.

    Args:
        of_all: further columns, the same in every row.
    """
    return [of_all | _flat(item) for item in items]


def _flat(item: Any, prefix: str = "") -> dict[str, object]:
    row: dict[str, object] = {}
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        parts = value if isinstance(value, tuple) and not any(isinstance(part, tuple) for part in value) else (value,)
        for number, part in enumerate(parts, 1):
            row |= _columns(prefix + field.name + (f"_{number}" if len(parts) > 1 else ""), prefix, part)
    return row


def _columns(name: str, prefix: str, value: Any) -> dict[str, object]:
    if isinstance(value, Arm):
        return {f"{prefix}{key}": getattr(value, key) for key in ARM}
    if isinstance(value, Interval):
        return {f"{name}_low": value.low, f"{name}_high": value.high}
    if isinstance(value, RunResult):
        return {f"{name}_{key}": getattr(value, key) for key in ("seed", "cell_id")}
    if dataclasses.is_dataclass(value):
        return _flat(value, f"{name}_")
    if isinstance(value, Mapping):
        counted = " ".join(f"{key}={count}" for key, count in value.items())
        return {} if any(map(dataclasses.is_dataclass, value.values())) else {name: counted}
    return {name: "; ".join(map(" ".join, value)) if isinstance(value, tuple) else value}


def _encodable(value: Any) -> Any:
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")


def _row(result: RunResult) -> dict[str, Any]:
    noise, loss = result.gradient_noise, result.loss_convergence
    row = {name: getattr(result, name) for name in COLUMNS if hasattr(result, name)}
    row |= {"split": result.provenance.get("split", "heldout"), "budget": budget_text(result.budget)}
    row |= {"fixed_policy": noise.get("policy"), "solved": solved(result), "reached": reached(result)}
    row |= {f"gradient_{name}": noise.get(name) for name in _NOISE}
    row |= {f"budget_{name}": result.budget.get(name) for name in ("samples", "updates", "seconds")}
    row |= {f"{name}_to_target": result.time_to_target.get(name) for name in TIMES}
    row |= {f"loss_{shown}": loss.get(name) for shown, name in _LOSS.items()}
    row |= vars(result.ledger) | _speeds(result)
    row |= {name: result.provenance.get(name) for name in _PROVENANCE}
    return row | {f"hp_{name}": _hashable(value) for name, value in result.hyperparameters.items()}


def solved(result: RunResult) -> bool | None:
    """Whether the final evaluation is at or above the target; None without a target, False for a failed run."""
    if result.target is None or not kind_of(result).learns:
        return None
    return result.status == "ok" and result.final_return >= result.target


def reached(result: RunResult) -> bool | None:
    """Whether the target was ever held for two evaluations in a row; None without a target, False for a failed run."""
    if result.target is None or not kind_of(result).learns:
        return None
    return result.status == "ok" and result.time_to_target.get("samples") is not None


def _speeds(result: RunResult) -> dict[str, float | None]:
    if result.ran_beside_others:
        return {}
    if result.throughput:
        return {name: result.throughput.get(name) for name in SPEEDS}
    ledger = result.ledger
    return {
        "samples_per_second": samples_per_second(result),
        "rollout_samples_per_second": _rate(ledger.samples, ledger.rollout_seconds),
        "update_samples_per_second": _rate(ledger.samples, ledger.wall_seconds - ledger.rollout_seconds),
    }


def samples_per_second(result: RunResult) -> float:
    """Samples over wall seconds of training; NaN where the cell ran beside others or never started."""
    return math.nan if result.ran_beside_others else _rate(result.ledger.samples, result.ledger.wall_seconds)


def _rate(samples: int, seconds: float) -> float:
    return samples / seconds if seconds > 0 else math.nan


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, (list, tuple)) else value
