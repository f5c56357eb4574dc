"""A store of results, as its readers see it; and the usual one, a folder with one JSON file per cell.

A file is written under a temporary name, flushed to the disk and renamed, so that a reader sees all of it or none.
Nothing is ever unpickled or executed.
"""

from __future__ import annotations

import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from polobench.core.errors import UsageError, first_line
from polobench.core.printable import printable
from polobench.core.result import SCHEMA_VERSION, TRIED_AGAIN, RunResult
from polobench.store.validation import problem

ID_DIGITS = 20
OnFile = Callable[[int, int], None]
LARGEST_FILE = 64 * 2**20  # bytes; a hostile one of that size takes about 2 GiB to parse
Trim = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Damaged:
    """A file of a store that is not a result, and why."""

    path: Path
    reason: str


class Reader(ABC):
    """Results at `place`, by cell id."""

    def __init__(self, place: Path | str) -> None:
        self.place = Path(place)

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.place.resolve().name

    @property
    def source(self) -> str:
        """The path for a command that reads it again: relative to the current folder, or the last part alone."""
        found = self.place.resolve()
        return found.relative_to(Path.cwd()).as_posix() if found.is_relative_to(Path.cwd()) else found.name

    @abstractmethod
    def each(self, on_file: OnFile | None = None, trim: Trim | None = None) -> Iterator[RunResult | Damaged]:
        """Every file and what it holds, ordered by name, one in memory at a time.

        Args:
            on_file: hears `(done, total)` of each.
            trim: takes out of a file's plain data what the caller does not need.

        Raises:
            UsageError: there is no such store.
        """

    def read(self, on_file: OnFile | None = None) -> tuple[list[RunResult], list[Damaged]]:
        """Every result, ordered by file name, and every damaged file; takes and raises what `each` does."""
        found = list(self.each(on_file))
        results = [item for item in found if isinstance(item, RunResult)]
        return results, [item for item in found if isinstance(item, Damaged)]

    def whole(self) -> list[RunResult]:
        """Every result, ordered by file name; raises `UsageError` if there is no such store or one file is damaged."""
        results, damaged = self.read()
        if damaged:
            more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
            said = f"{damaged[0].path.name} is damaged: {damaged[0].reason}{more}"
            raise UsageError(f"store {str(self.place)!r}: {said}")
        return results


class Store(Reader):
    """Results under `folder`, by cell id."""

    @property
    def folder(self) -> Path:
        return self.place

    def prepare(self) -> None:
        """Make the folder if it is not there; raises `UsageError` unless a file can be written to it."""
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
        """Write the result under its id, in place of what stood there, which stays if this raises `OSError`."""
        content = cell_content(result.to_dict())
        with replacing(self.path(result.cell_id)) as file:
            file.write(content)
        return self.path(result.cell_id)

    def keep(self, result: RunResult) -> None:
        """Save it, unless only the machine ended it and the store has one that ended ok."""
        stored = self.load(result.cell_id) if result.status in TRIED_AGAIN else None
        if not (isinstance(stored, RunResult) and stored.status == "ok"):
            self.save(result)

    def load(self, cell_id: str) -> RunResult | Damaged | None:
        """The result of this id, what is wrong with its file, or None if there is none."""
        path = self.path(cell_id)
        return read_result(path) if path.exists() else None

    def each(self, on_file: OnFile | None = None, trim: Trim | None = None) -> Iterator[RunResult | Damaged]:
        self.require()
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.name)
        for done, path in enumerate(paths, 1):
            yield read_result(path, trim)
            if on_file:
                on_file(done, len(paths))


def cell_content(plain: Mapping[str, Any]) -> bytes:
    """A result's plain data as a cell's file holds them."""
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode() + b"\n"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that stands at the path once the block has ended; what stood there stays if it does not."""
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def read_result(path: Path, trim: Trim | None = None) -> RunResult | Damaged:
    """One file of a store, less what `trim` takes out of it."""
    if not path.is_file():
        return Damaged(path, "not a file")  # to open a pipe would wait for ever
    try:
        if path.stat().st_size > LARGEST_FILE:
            return Damaged(path, f"larger than {LARGEST_FILE // 2**20} MiB")
        return result_of(path, path.read_bytes(), trim)
    except OSError as error:
        return Damaged(path, first_line(error))


def outcome_only(plain: dict[str, Any]) -> None:
    """A `Trim` that leaves how a cell ended and what it used, for who counts cells."""
    plain |= {"curve": {}, "updates": {}, "snapshots": {}, "trail": "", "traceback": ""}


def result_of(path: Path, content: bytes, trim: Trim | None = None) -> RunResult | Damaged:
    """The result in the content of a file that is named by its cell, less what `trim` takes out of it."""
    try:
        plain = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
        version = plain["schema_version"]
        if version != SCHEMA_VERSION:
            return Damaged(path, f"schema version {version!r:.40}; this polobench reads {SCHEMA_VERSION}")
        if trim:
            trim(plain)
        result = RunResult.from_dict(plain)
        if result.cell_id != path.stem:
            return Damaged(path, f"it holds the cell {result.cell_id!r:.80}")
        wrong = problem(result)
        return Damaged(path, printable(wrong)[:500]) if wrong else result
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return Damaged(path, first_line(error))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a key that stands in it twice, readers would take different values."""
    plain = dict(pairs)
    if len(plain) < len(pairs):
        raise ValueError("a key stands in an object twice")
    return plain


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
