"""What a run leaves behind. This module and the store never import torch.

Every key of the JSON form is documented in docs/results-format.md.
"""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polobench.core.budget import LedgerTotals

if TYPE_CHECKING:
    from polobench.core.policy import Policy

SCHEMA_VERSION = 1
STATUSES = ("ok", "failed", "diverged", "timeout", "out_of_memory", "crashed", "skipped")
TRIED_AGAIN = ("timeout", "out_of_memory", "crashed", "skipped")  # the machine's doing, and not the method's
_TABLES = ("curve", "updates")
_ADDED = ("snapshots", "gradient_noise", "fixed_batch", "measured")
_ANSWER = {"prompt", "completion"}
_KEPT = frozenset((float, int, bool, type(None)))  # what JSON decodes to itself; most of a file is
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass
class RunResult:
    """One cell's outcome, whether it went well or not.

    Attributes:
        kind: "learning" (a whole run), "throughput" (timed iterations), "gradient_noise" (batches at a run's policy),
            "fixed_batch" (one update on a stored batch), or a plug-in's.
        method, label: the method, and the name of its variant (the method's own name if it has none).
        status: one of `STATUSES`; `reason` says why it is not "ok", or what ended the run.
        final_return: the last held-out evaluation in the task's unit; the floor, or the lowest evaluation if that is
            below it, if the run did not end ok.
        final_score: the same on the scale floor = 0, target = 1; None where the task has no target.
        curve: a row an evaluation: progress, samples, updates, wall_seconds, cpu_seconds, return_mean, return_std,
            score, train_return and the mean of each metric since the last row.
        updates: a row for each of at most 500 equal stretches of updates: samples, and the mean of each metric.
        digest: SHA-256 of all metrics and of the parameters at each evaluation; None where time ended the run.
        trail: for every update, the first 8 hex digits of the digest so far.
        ran_beside_others: other cells ran on the machine at the same time, so that wall seconds say little.
        throughput, gradient_noise, fixed_batch: the numbers of a cell of this kind.
        measured: the numbers of a cell of a plug-in's kind.
        snapshots: of a language task: what the policy answers, and how likely it finds preference pairs, "before" and
            "after" training; the latter is missing where the run failed.
        policy: the trained policy, in the process that ran it; never stored.
    """

    method: str
    label: str
    task: str
    seed: int
    device: str
    budget: dict[str, float]
    kind: str = "learning"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    cell_id: str = ""
    status: str = "ok"
    reason: str = ""
    traceback: str = ""
    unit: str = ""
    floor: float = math.nan
    target: float | None = None
    final_return: float = math.nan
    final_return_std: float = math.nan
    final_score: float | None = None
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    updates: pd.DataFrame = field(default_factory=pd.DataFrame)
    loss_convergence: dict[str, float | None] = field(default_factory=dict)
    time_to_target: dict[str, float | None] = field(default_factory=dict)
    ledger: LedgerTotals = field(default_factory=LedgerTotals)
    peak_memory_mib: float = math.nan
    throughput: dict[str, Any] = field(default_factory=dict)
    gradient_noise: dict[str, Any] = field(default_factory=dict)
    fixed_batch: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    snapshots: dict[str, Any] = field(default_factory=dict)
    digest: str | None = None
    trail: list[str] = field(default_factory=list)
    ran_beside_others: bool = False
    started_at: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    policy: Policy | None = None

    def score_as_failed(self) -> None:
        """Give the run what a run scores that did not end ok: min(0, its lowest evaluation), or that return."""
        evaluated: list[float] = [] if self.curve.empty else self.curve["return_mean"].dropna().tolist()
        self.final_return, self.final_return_std = min([self.floor, *evaluated]), math.nan
        if self.target is not None:
            self.final_score = (self.final_return - self.floor) / (self.target - self.floor)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON: tables as lists of columns, non-finite numbers as strings."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "policy"}
        if not self.measured:
            del plain["measured"]
        plain["ledger"] = {item.name: getattr(self.ledger, item.name) for item in fields(LedgerTotals)}
        for name in _TABLES:
            table: pd.DataFrame = plain[name]
            plain[name] = {str(column): table[column].tolist() for column in table.columns}
        plain["trail"] = "".join(self.trail)
        return {key: _encode(value) for key, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> RunResult:
        """The inverse of `to_dict`; raises `KeyError`, `TypeError` or `ValueError` if the data are not a result."""
        plain = {name: {} for name in _ADDED} | plain
        kept = [item for item in fields(cls) if item.name != "policy"]
        data = {item.name: plain[item.name] if item.type == "str" else _decode(plain[item.name]) for item in kept}
        data["ledger"] = LedgerTotals(**data["ledger"])
        data |= {name: _table(data[name]) for name in _TABLES}
        data["trail"] = re.findall(".{1,8}", data["trail"])
        if data["status"] not in STATUSES:
            raise ValueError(f"status {data['status']!r} is none of {', '.join(STATUSES)}")
        return cls(**data)

    def first_difference(self, other: RunResult) -> int | None:
        """The number (from 1) of the first update after which the two runs differ, or None if none does."""
        pairs = enumerate(zip_longest(self.trail, other.trail), 1)
        return next((number for number, (mine, theirs) in pairs if mine != theirs), None)


def _table(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """The columns side by side; where all are floats they share one block, which is many times faster to make."""
    if not columns or {type(value) for column in columns.values() for value in column} != {float}:
        return pd.DataFrame(columns)
    return pd.DataFrame(np.array(list(columns.values())).T, columns=_names(tuple(columns)))


@lru_cache(maxsize=256)
def _names(columns: tuple[str, ...]) -> pd.Index[str]:
    """An index that the tables of all results with these columns share."""
    return pd.Index(columns)


def utc_now() -> str:
    """For `started_at`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    """The inverse of `_encode`; what was asked and answered stays text, be it "NaN"."""
    if isinstance(value, dict):
        texts = _ANSWER if value.keys() >= _ANSWER else ()
        return {
            key: item if type(item) in _KEPT or (key in texts and isinstance(item, str)) else _decode(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [item if type(item) in _KEPT else _decode(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
