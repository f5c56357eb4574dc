"""A folder of results: one JSON file a cell, written whole or not at all, and never unpickled or executed.

A file is written under a temporary name, flushed to the disk and renamed, so that a reader sees all of it or none.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polobench.core.errors import UsageError, first_line
from polobench.core.result import SCHEMA_VERSION, RunResult
from polobench.store.validation import problem

ID_DIGITS = 20


@dataclass(frozen=True)
class Damaged:
    """A file of a store that is not a result, and why."""

    path: Path
    reason: str


class Store:
    """Results under `folder`, by cell id."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def prepare(self) -> None:
        """Make the folder if it is not there, and see that a file can be written.

        Raises:
            UsageError: it is no folder, or it is read-only.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".probe-"):
                pass
        except FileExistsError:
            raise UsageError(f"store {str(self.folder)!r} is not a folder") from None
        except OSError as error:
            raise UsageError(f"store {str(self.folder)!r} cannot be written to: {error.strerror}") from error

    def require(self) -> None:
        """Raise `UsageError` unless the folder is there."""
        if not self.folder.is_dir():
            what = "is not a folder" if self.folder.exists() else "does not exist"
            raise UsageError(f"store {str(self.folder)!r} {what}; `polobench run STUDY` fills one")

    def path(self, cell_id: str) -> Path:
        return self.folder / f"{cell_id}.json"

    def save(self, result: RunResult) -> Path:
        """Write the result under its id, in place of what stood there.

        Raises:
            OSError: the disk is full, say; what stood there before still does.
        """
        text = json.dumps(result.to_dict(), allow_nan=False, indent=None, separators=(",", ":"))
        temporary = self.folder / f".writing-{result.cell_id}-{os.getpid()}.tmp"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path(result.cell_id))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return self.path(result.cell_id)

    def load(self, cell_id: str) -> RunResult | Damaged | None:
        """The result of this id, what is wrong with its file, or None if there is none."""
        path = self.path(cell_id)
        return read_result(path) if path.exists() else None

    def read(self, on_file: Callable[[int, int], None] | None = None) -> tuple[list[RunResult], list[Damaged]]:
        """Every result, ordered by file name, and every damaged file; takes and raises what `each` does."""
        found = list(self.each(on_file))
        results = [item for item in found if isinstance(item, RunResult)]
        return results, [item for item in found if isinstance(item, Damaged)]

    def each(
        self, on_file: Callable[[int, int], None] | None = None, trim: Callable[[dict[str, Any]], object] | None = None
    ) -> Iterator[RunResult | Damaged]:
        """Every file and what it holds, ordered by name, one in memory at a time.

        Args:
            on_file: hears `(done, total)` of each.
            trim: takes out of a file's plain data what the caller does not need.

        Raises:
            UsageError: there is no such folder.
        """
        self.require()
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.name)
        for done, path in enumerate(paths, 1):
            yield read_result(path, trim)
            if on_file:
                on_file(done, len(paths))


def read_result(path: Path, trim: Callable[[dict[str, Any]], object] | None = None) -> RunResult | Damaged:
    """One file of a store, less what `trim` takes out of it."""
    try:
        if not path.is_file():
            return Damaged(path, "not a file")  # to open a pipe would wait for ever
        plain = json.loads(path.read_text(encoding="utf-8"))
        version = plain["schema_version"]
        if version != SCHEMA_VERSION:
            return Damaged(path, f"schema version {version!r:.40}; this polobench reads {SCHEMA_VERSION}")
        if trim:
            trim(plain)
        result = RunResult.from_dict(plain)
        wrong = problem(result)
        return Damaged(path, wrong) if wrong else result
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return Damaged(path, first_line(error))
