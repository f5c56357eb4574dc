"""The history of a project: one line per commit and study, with each learning arm's score and each arm's speed.

A line has `commit`, `date` (UTC, of the newest cell), `study`, `scores` and `speeds`, whose items name their arm by
`ARM_KEYS`. A score has `score` (mean over the runs, failed ones at 0; null without a target), `low` and `high`
(Student's t, 95 %; null below two runs) and `n` runs; a speed has `samples_per_second` (null where no cell ran alone)
and `n` cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from polobench.analysis.collection import Arm, collect
from polobench.analysis.frame import table_of
from polobench.analysis.statistics.intervals import mean_interval
from polobench.analysis.summary import throughputs
from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.gate.journal import Entry, append_entry, read_journal
from polobench.gate.reading import commits_of, read_whole, studies_of
from polobench.kinds.checks import FINITE, INTEGER, OBJECT, TEXT, Rule, wrong
from polobench.kinds.learning import Learning
from polobench.kinds.throughput import Throughput
from polobench.store.identity import age

ARM_KEYS = ("label", "method", "task", "budget", "device")
KINDS = {"scores": Learning.name, "speeds": Throughput.name}
_NUMBERS = {"scores": ("score", "low", "high"), "speeds": ("samples_per_second",)}
COLUMNS = ("number", "commit", "date", "study", "kind", *ARM_KEYS, "n", "score", "low", "high", "samples_per_second")


def entry_of(folder: Path) -> Entry:
    """The line of a store; its commit is that of the newest cell.

    Raises:
        UsageError: the store is empty, damaged or of a dirty tree, its cells come from no commit, or not from exactly
            one study.
    """
    results = read_whole(folder)
    commits, studies = commits_of(results), studies_of(results)
    if not commits:
        raise UsageError(f"store {str(folder)!r}: its cells name no commit; run polobench from a checkout")
    if len(studies) != 1:
        named = ", ".join(studies) or "none"
        raise UsageError(f"store {str(folder)!r}: its cells come from the studies {named} (needed: exactly one)")
    collection = collect(folder)
    newest = max(results, key=age)
    return {
        "commit": str(newest.provenance.get("commit") or commits[-1]),
        "date": newest.started_at,
        "study": studies[0],
        "scores": [_score(arm, runs) for arm, runs in collection.learning.items()],
        "speeds": [
            _names(item.arm) | {"samples_per_second": _or_null(item.samples_per_second), "n": item.n}
            for item in throughputs(collection)
        ],
    }


def _score(arm: Arm, runs: Sequence[RunResult]) -> dict[str, Any]:
    scores = [math.nan if result.final_score is None else result.final_score for result in runs]
    found = mean_interval(scores)
    numbers = {"score": sum(scores) / len(scores), "low": found.low, "high": found.high}
    return _names(arm) | {name: _or_null(value) for name, value in numbers.items()} | {"n": len(runs)}


def _names(arm: Arm) -> dict[str, Any]:
    return {name: getattr(arm, name) for name in ARM_KEYS}


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def record(folder: Path, file: Path) -> tuple[Entry, bool]:
    """Append the store's line to the history.

    Returns:
        The line, and whether it is new: not if the history has an equal one (but for its date) already.

    Raises:
        UsageError: what `entry_of` and `read_history` raise, another line of the same commit and study, or a file that
            cannot be written to. The history is as before.
    """
    entry = entry_of(folder)
    for number, line in enumerate(read_history(file), 1):
        if (line["commit"], line["study"]) == (entry["commit"], entry["study"]):
            differing = [name for name in ("scores", "speeds") if line[name] != entry[name]]
            if differing:
                raise UsageError(
                    f"line {number} of {str(file)!r} has commit {entry['commit'][:12]} and study {entry['study']!r} "
                    f"already, with other {' and '.join(differing)}; remove that line to replace it"
                )
            return line, False
    try:
        append_entry(file, entry)
    except OSError as error:
        raise UsageError(f"history {str(file)!r} cannot be written to: {error.strerror or error}") from error
    return entry, True


def read_history(file: Path) -> list[Entry]:
    """The lines of a history in order; none where there is no such file.

    Raises:
        UsageError: the file cannot be read, or a line is damaged; the text has its number.
    """
    return read_journal(file, _problems)


def history_table(file: Path) -> pd.DataFrame:
    """The history as one table: one row per arm and line.

    Columns, besides those of the lines: `number` (of the line, from 1) and `kind` ("learning" or "throughput"); what a
    kind does not have is NaN, as what is null.

    Raises:
        UsageError: there is no such file, or what `read_history` raises.
    """
    if not file.exists():
        raise UsageError(f"no history at {str(file)!r}; `polobench history STORE --file {file}` begins one")
    rows = [
        {name: line[name] for name in ("commit", "date", "study")} | {"number": number, "kind": kind} | item
        for number, line in enumerate(read_history(file), 1)
        for section, kind in KINDS.items()
        for item in line[section]
    ]
    numbers = [name for names in _NUMBERS.values() for name in names]
    return table_of(rows, COLUMNS).astype(dict.fromkeys(numbers, "float64"))


def _problems(entry: Entry) -> Iterator[str]:
    yield from wrong(entry, ("commit", "date", "study"), TEXT)
    yield from wrong(entry, _NUMBERS, Rule("a list", lambda value: isinstance(value, list)))
    for section, numbers in _NUMBERS.items():
        for item in entry[section]:
            if not OBJECT.holds(item):
                yield f"{section}: an item is no object"
            yield from wrong(item, ARM_KEYS, TEXT, f"{section}: ")
            yield from wrong(item, ("n",), INTEGER, f"{section}: ")
            yield from wrong(item, numbers, FINITE.or_null(), f"{section}: ")
