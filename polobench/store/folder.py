"""A folder of results: one JSON file per cell, written whole or not at all, and never unpickled or executed.

A file is written under a temporary name, flushed to the disk and renamed, so that a reader sees all of it or none.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from polobench.core.errors import UsageError, first_line
from polobench.core.result import RunResult
from polobench.store.reader import Damaged, OnFile, Reader, Trim, result_of

ID_DIGITS = 20


class Store(Reader):
    """Results under `folder`, by cell id."""

    @property
    def folder(self) -> Path:
        return self.place

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
        path = self.path(cell_id)
        return read_result(path) if path.exists() else None

    def each(self, on_file: OnFile | None = None, trim: Trim | None = None) -> Iterator[RunResult | Damaged]:
        self.require()
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.name)
        for done, path in enumerate(paths, 1):
            yield read_result(path, trim)
            if on_file:
                on_file(done, len(paths))


def read_result(path: Path, trim: Trim | None = None) -> RunResult | Damaged:
    """One file of a store, less what `trim` takes out of it."""
    if not path.is_file():
        return Damaged(path, "not a file")  # to open a pipe would wait for ever
    try:
        return result_of(path, path.read_bytes(), trim)
    except OSError as error:
        return Damaged(path, first_line(error))
