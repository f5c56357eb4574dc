"""What readers of results need of a store, whether it is a folder or a pack; nothing is unpickled or executed."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polobench.core.errors import UsageError, first_line
from polobench.core.result import SCHEMA_VERSION, RunResult
from polobench.store.validation import problem

OnFile = Callable[[int, int], None]
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
    def load(self, cell_id: str) -> RunResult | Damaged | None:
        """The result of this id, what is wrong with its file, or None if there is none."""

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


def result_of(path: Path, content: bytes, trim: Trim | None = None) -> RunResult | Damaged:
    """The result in the content of a file, less what `trim` takes out of it."""
    try:
        plain = json.loads(content.decode("utf-8"))
        version = plain["schema_version"]
        if version != SCHEMA_VERSION:
            return Damaged(path, f"schema version {version!r:.40}; this polobench reads {SCHEMA_VERSION}")
        if trim:
            trim(plain)
        result = RunResult.from_dict(plain)
        wrong = problem(result)
        return Damaged(path, wrong) if wrong else result
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return Damaged(path, first_line(error))
