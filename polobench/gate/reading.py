"""Reading a whole store: one damaged file is an error, so that no comparison rests on a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.store.pack import open_store


def read_whole(folder: Path) -> list[RunResult]:
    """Every cell of a store, with its trail, ordered by file name.

    Raises:
        UsageError: there is no such store, it holds no cell, or one of its files is damaged or of another schema.
    """
    results = open_store(folder).whole()
    if not results:
        raise UsageError(f"store {str(folder)!r} is empty; `polobench run STUDY --store {folder}` fills it")
    return results


def commits_of(results: Sequence[RunResult]) -> list[str]:
    """The commits that the cells come from, in order of their first cell.

    There may be several, since a new commit does not run a cell again whose own code is the same.

    Raises:
        UsageError: a cell comes from a tree with uncommitted changes, so that no commit has its code.
    """
    for result in results:
        if result.provenance.get("dirty") is True:
            raise UsageError(
                f"cell {result.cell_id} comes from a dirty tree: commit the changes and run the study again"
            )
    ordered = sorted(results, key=lambda result: (result.started_at, result.cell_id))
    commits = [result.provenance.get("commit") for result in ordered]
    return [str(commit) for commit in dict.fromkeys(commits) if commit]


def studies_of(results: Sequence[RunResult]) -> list[str]:
    """The names of the studies that asked for the cells, sorted; a cell that no study asked for names none."""
    return sorted({str(result.provenance.get("study") or "") for result in results} - {""})
