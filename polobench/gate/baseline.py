"""The baseline: a store in the repository that later results are compared with, and a log of why it changed.

The folder is replaced as a whole. The new one is made beside it and takes its place by two renames; a kill between
them leaves the old one under another name, and the next call puts it back.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from polobench.analysis.collection import Arm
from polobench.core.errors import UsageError
from polobench.core.result import RunResult, utc_now
from polobench.gate.journal import Entry, append_entry, read_journal
from polobench.gate.matching import cells_by_arm
from polobench.gate.reading import commits_of, read_whole, studies_of
from polobench.kinds.checks import NUMBER, TEXT, Rule, wrong
from polobench.store.folder import Store

LOG_NAME = "log.jsonl"
_CHANGES = ("new", "gone", "differing")


def update_baseline(folder: Path, into: Path, why: str) -> Entry:
    """Replace the baseline by the cells of a store and log why; returns the log's new line.

    Other files in the baseline's folder stay. The line has `date` (UTC), `commits`, `dirty` (false, or null where a
    cell comes from no checkout), `studies`, `cells` (their number), `why`, and `changes`: for each of "new", "gone" and
    "differing" (another digest, or another update on a fixed batch) the seeds of each arm.

    Raises:
        UsageError: no reason; a store that is empty, damaged or of a dirty tree, or that lies in the baseline; a folder
            that is no baseline; a damaged log; or the new one cannot be written. The baseline is as before.
    """
    if not why.strip():
        raise UsageError('baseline update needs a reason (--why "what changed, and why it is meant")')
    _recover(into)
    _check_folders(folder, into)
    results = read_whole(folder)
    entry = {
        "date": utc_now(),
        "commits": commits_of(results),
        "dirty": None if any(result.provenance.get("dirty") is None for result in results) else False,
        "studies": studies_of(results),
        "cells": len(results),
        "why": " ".join(why.split()),
        "changes": _changes(Store(into).read()[0] if into.is_dir() else [], results),
    }
    read_journal(into / LOG_NAME, _problems)
    with _replacing(into) as new:
        for result in results:
            Store(new).save(result)
        append_entry(new / LOG_NAME, entry)
    return entry


def read_log(into: Path) -> list[Entry]:
    """The lines of a baseline's log in order.

    Raises:
        UsageError: there is no baseline, or its log is damaged.
    """
    _recover(into)
    Store(into).require()
    return read_journal(into / LOG_NAME, _problems)


def _problems(entry: Entry) -> Iterator[str]:
    yield from wrong(entry, ("date", "why"), TEXT)
    yield from wrong(entry, ("commits", "studies"), Rule("a list", lambda value: isinstance(value, list)))
    yield from wrong(entry, ("cells",), NUMBER)
    changes = entry.get("changes")
    if not isinstance(changes, dict) or not all(isinstance(changes.get(name), dict) for name in _CHANGES):
        yield f"changes is not an object of {', '.join(_CHANGES)}"


def _check_folders(folder: Path, into: Path) -> None:
    if folder.resolve() == into.resolve() or into.resolve() in folder.resolve().parents:
        raise UsageError(f"store {str(folder)!r} lies in the baseline {str(into)!r} that it would replace")
    if into.exists() and not into.is_dir():
        raise UsageError(f"baseline {str(into)!r} is not a folder")
    if into.is_dir() and any(into.iterdir()) and not (into / LOG_NAME).exists():
        raise UsageError(
            f"folder {str(into)!r} is no baseline: it is not empty and has no {LOG_NAME}; nothing is replaced"
        )


def _changes(before: Sequence[RunResult], after: Sequence[RunResult]) -> dict[str, dict[str, list[int]]]:
    old, new = (
        {(arm, *key): result for arm, cells in cells_by_arm(side).items() for key, result in cells.items()}
        for side in (before, after)
    )
    differing = [name for name in old.keys() & new.keys() if _substance(old[name]) != _substance(new[name])]
    found = zip(_CHANGES, (new.keys() - old.keys(), old.keys() - new.keys(), differing), strict=True)
    return {change: _by_arm(names) for change, names in found}


def _substance(result: RunResult) -> str:
    """What has the same bits again: a learning cell's digest, a fixed-batch cell's update; as text, for NaN's sake."""
    update = {name: value for name, value in result.fixed_batch.items() if not name.endswith("sha256")}
    return json.dumps([result.digest, update], sort_keys=True)


def _by_arm(names: Iterable[tuple[Arm, int, str]]) -> dict[str, list[int]]:
    """The seeds of each arm, the arm in words."""
    seeds: dict[str, list[int]] = {}
    for arm, seed, policy in sorted(names):
        kind = "" if arm.learns else f" ({arm.kind.replace('_', ' ')}{policy and f', {policy} policy'})"
        seeds.setdefault(f"{arm.label} · {arm.task} · {arm.budget} · {arm.device}{kind}", []).append(seed)
    return seeds


def _beside(into: Path, what: str) -> Path:
    place = into.resolve()
    return place.parent / f".{place.name}.{what}"


def _recover(into: Path) -> None:
    """Put back the old baseline where it was left between the two renames."""
    old = _beside(into, "old")
    if old.is_dir() and not into.exists():
        os.rename(old, into.resolve())


@contextmanager
def _replacing(into: Path) -> Iterator[Path]:
    """A new folder with what is no cell in the old one; it takes the old one's place once the block has ended well."""
    new, old, place = _beside(into, "new"), _beside(into, "old"), into.resolve()
    try:
        shutil.rmtree(new, ignore_errors=True)  # of a call that was killed, as what may lie at `old`
        shutil.rmtree(old, ignore_errors=True)
        new.mkdir(parents=True)
        if place.is_dir():
            shutil.copytree(place, new, ignore=shutil.ignore_patterns("*.json"), dirs_exist_ok=True)
        yield new
        if place.exists():
            os.rename(place, old)
        try:
            os.rename(new, place)
        finally:
            _recover(into)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"baseline {str(into)!r} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
