"""Preference data: ranked responses to prompts, from a file, from the package or from the Hugging Face hub.

A file is JSON Lines in UTF-8, compressed by gzip or not; `preference_formats` lists the shapes of its rows. What is
wrong with a file is one line that names the row and the field. A row that is sound but prefers nothing, such as a
pair of equal responses, is left out and listed in `skipped`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import IO, Any, cast

from polobench.core.errors import Unavailable, UsageError, first_line
from polobench.tasks.preference_formats import (
    MarkedFields,
    Message,
    Prompt,
    RankedGroup,
    ReadRow,
    brief,
    parse_row,
    prompt_key,
    read_marked,
)

__all__ = [
    "Message",
    "PreferenceData",
    "Prompt",
    "RankedGroup",
    "builtin_preferences",
    "hub_preferences",
    "read_marked_answers",
    "read_preferences",
    "split_by_prompt",
]

LONGEST_LINE = 10_000_000
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class PreferenceData:
    """Ranked groups, and what was left out: `skipped` has where and why, of a row or of one response of it.

    `digest` is the first 16 hex digits of the SHA-256 of the uncompressed file, or of the rows of a hub data set.
    """

    name: str
    groups: tuple[RankedGroup, ...]
    skipped: tuple[tuple[str, str], ...]
    digest: str


def read_preferences(path: Path | str) -> PreferenceData:
    """Read a file of preferences, .jsonl or .jsonl.gz; its rows may be of different shapes.

    Raises:
        UsageError: no such file, one that is damaged, a row of no known shape, a bad value, or no row of use.
    """
    return _read_file(Path(path), None)


def read_marked_answers(
    path: Path | str, *, question: str = "question", answer: str = "solution", mark: str = "is_correct"
) -> PreferenceData:
    """Read a file of questions whose answers are marked right or wrong; right ones score 1 and wrong ones 0.

    Every field of a row that is an object with the field `mark` (true or false) is an answer; its text is `answer`.
    Under the default names `read_preferences` reads such a file, too.

    Raises:
        UsageError: as `read_preferences`.
    """
    fields = MarkedFields(question, answer, mark)
    return _read_file(Path(path), partial(read_marked, fields=fields))


@cache
def builtin_preferences() -> PreferenceData:
    """The set in the package: facts, arithmetic, style, refusals and jokes, written for it, with four ranked each."""
    content = resources.files("polobench.tasks").joinpath("preferences.jsonl").read_bytes()
    return _read_stream(io.BytesIO(content), "builtin", "preferences.jsonl", None)


def hub_preferences(
    dataset_id: str, split: str = "train", *, config: str | None = None, revision: str | None = None
) -> PreferenceData:
    """Read a data set of the Hugging Face hub, through the package `datasets` (`pip install "polobench[hub]"`).

    Raises:
        UsageError: no such data set, configuration or split, or rows as those that `read_preferences` refuses.
        Unavailable: the package is absent, or the hub cannot be reached and the data set is not in its cache.
    """
    rows = _load_hub(dataset_id, split, config, revision)
    digest = hashlib.sha256()
    gather = _Gather(dataset_id, None)
    for number, row in enumerate(rows, start=1):
        found = {key: value for key, value in row.items() if value is not None}  # absent in a table is null
        digest.update(json.dumps(found, sort_keys=True, default=lambda value: type(value).__name__).encode())
        gather.add(found, f"{dataset_id}/{split}:{number}")
    return gather.data(dataset_id, digest.hexdigest())


def split_by_prompt(
    data: PreferenceData, heldout_share: float, seed: int
) -> tuple[tuple[RankedGroup, ...], tuple[RankedGroup, ...]]:
    """The groups to train on and those to hold out; all groups of a prompt are on one side.

    A prompt's side depends on its text, the share and the seed alone, so that a row that is added moves no other.
    The share is therefore met on average only.

    Raises:
        UsageError: a share that is not between 0 and 1, a seed that is no integer, or a side that stays empty.
    """
    number = isinstance(heldout_share, (int, float)) and not isinstance(heldout_share, bool)
    if not number or not 0 < heldout_share < 1:
        raise UsageError(f"heldout_share: {heldout_share!r} (allowed: a number between 0 and 1)")
    if type(seed) is not int:
        raise UsageError(f"seed: {seed!r} (allowed: an integer)")
    sides: tuple[list[RankedGroup], list[RankedGroup]] = [], []
    for group in data.groups:
        sides[_draw(group.prompt, seed) < heldout_share].append(group)
    for side, name in zip(sides, ("to train on", "held out")):
        if not side:
            prompts = len({prompt_key(group.prompt) for group in data.groups})
            raise UsageError(
                f"preferences {data.name!r}: no prompt is {name} at heldout_share {heldout_share} and seed {seed}, "
                f"of {prompts} (needed: more prompts, another share or another seed)"
            )
    return tuple(sides[0]), tuple(sides[1])


def _draw(prompt: Prompt, seed: int) -> float:
    """Uniform between 0 and 1, and the same for a prompt and a seed on every machine."""
    digest = hashlib.sha256(f"{seed}\n{prompt_key(prompt)}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class _Gather:
    """Rows on their way to a `PreferenceData`."""

    def __init__(self, source: str, read: ReadRow | None) -> None:
        self._source, self._read = source, read
        self._groups: list[RankedGroup] = []
        self._skipped: list[tuple[str, str]] = []

    def add(self, row: object, where: str) -> None:
        group, reason = parse_row(row, where, self._read)
        if group is not None:
            self._groups.append(group)
        if reason:
            self._skipped.append((where, reason))

    def data(self, name: str, digest: str) -> PreferenceData:
        if not self._groups and not self._skipped:
            raise UsageError(f"{self._source}: it has no row (needed: one or more)")
        if not self._groups:
            where, reason = self._skipped[0]
            raise UsageError(f"{self._source}: none of {len(self._skipped)} rows is of use; {where}: {reason}")
        return PreferenceData(name, tuple(self._groups), tuple(self._skipped), digest[:16])


def _read_file(path: Path, read: ReadRow | None) -> PreferenceData:
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == GZIP_MAGIC  # whatever the file is called
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
            called = "".join(char if char.isprintable() else "?" for char in path.name)
            name = called.removesuffix(".gz").removesuffix(".jsonl") or called
            return _read_stream(stream, name, called, read)
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"no preferences at {str(path)!r} (needed: a .jsonl or .jsonl.gz file)") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"preferences {str(path)!r} cannot be read: {first_line(error)}") from error


def _read_stream(stream: IO[bytes], name: str, file: str, read: ReadRow | None) -> PreferenceData:
    digest = hashlib.sha256()
    gather = _Gather(file, read)
    for number, line in _lines(stream, file, digest.update):
        gather.add(_parse(line, f"{file}:{number}"), f"{file}:{number}")
    return gather.data(name, digest.hexdigest())


def _lines(stream: IO[bytes], file: str, see: Callable[[bytes], object]) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; one at a time, as a small file can unpack to a huge one."""
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(LONGEST_LINE + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UsageError(f"{file}:{number}: its gzip is damaged or cut short: {first_line(error)}") from error
        if len(line) > LONGEST_LINE:
            raise UsageError(f"{file}:{number}: it is too long (allowed: at most {LONGEST_LINE:,} bytes a line)")
        if not line:
            return
        see(line)
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            yield number, line


def _parse(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode(), object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: byte {error.start + 1} is not UTF-8 (allowed: UTF-8)") from None
    except RecursionError:
        raise UsageError(f"{where}: it is nested too deep (allowed: one JSON object a line)") from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} at column {error.colno}"
        raise UsageError(f"{where}: it is not JSON: {found} (allowed: one JSON object a line)") from None
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except ValueError as error:  # such as a number of more digits than Python reads
        raise UsageError(f"{where}: it cannot be read: {first_line(error)}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no field stands twice: which of the two is meant cannot be known."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"field {brief(name)} stands twice (allowed: once)")
        found[name] = value
    return found


def _load_hub(dataset_id: str, split: str, config: str | None, revision: str | None) -> Iterable[dict[str, Any]]:
    try:
        datasets = importlib.import_module("datasets")
    except Exception as error:
        raise Unavailable(
            f'data set {dataset_id!r} needs the package `datasets` (pip install "polobench[hub]"): {first_line(error)}'
        ) from error
    try:
        return cast(Iterable[dict[str, Any]], datasets.load_dataset(dataset_id, config, split=split, revision=revision))
    except (FileNotFoundError, ValueError) as error:
        wanted = f"{dataset_id!r}, split {split!r}"
        raise UsageError(f"data set {wanted} cannot be loaded: {first_line(error)}") from error
    except Exception as error:  # its own kinds of error, and those of every library below it
        raise Unavailable(f"data set {dataset_id!r} cannot be reached: {first_line(error)}") from error
