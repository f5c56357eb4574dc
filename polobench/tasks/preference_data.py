"""Preference data: ranked responses to prompts, from a file, from the package or from the Hugging Face hub.

A file is JSON Lines, JSON, CSV or Parquet by its name, text in UTF-8, each compressed by gzip or not;
`preference_formats` lists the shapes of its rows. What is wrong with a file is one line that names the row and the
column. A row that is sound but prefers nothing, such as a pair of equal responses, is left out and listed in `skipped`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import IO, Any, cast

from polobench.core.errors import PoloError, Unavailable, UsageError, first_line
from polobench.tasks.preference_formats import (
    Candidates,
    Cell,
    LeftOut,
    MarkedFields,
    Message,
    Prompt,
    RankedGroup,
    Shape,
    brief,
    prompt_key,
    read_marked,
    recognise,
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
    "read_source",
    "split_by_prompt",
]

HUB = "hub:"
LONGEST_LINE, LARGEST_FILE = 10_000_000, 1_000_000_000
ROWS_OF_JSON = ("data", "rows", "train")
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
See = Callable[[bytes], object]  # takes every byte, for the digest
Rows = Iterator[tuple[int, Any]]  # each with its number
ReadRows = Callable[[IO[bytes], str, See], Rows]


@dataclass(frozen=True)
class PreferenceData:
    """Ranked groups, and what was left out: `skipped` has where and why, of a row or of one response of it.

    `digest` is the first 16 hex digits of the SHA-256 of the uncompressed file, or of the rows of a hub data set;
    `shapes` has the number of rows of each shape that was recognised.
    """

    name: str
    groups: tuple[RankedGroup, ...]
    skipped: tuple[tuple[str, str], ...]
    digest: str
    shapes: tuple[tuple[str, int], ...] = ()


def read_source(source: str) -> PreferenceData:
    """A file, or `hub:ID` or `hub:ID:SPLIT` for a data set of the Hugging Face hub.

    Raises:
        UsageError, Unavailable: as `read_preferences` and `hub_preferences`.
    """
    if not source.startswith(HUB):
        return read_preferences(source)
    dataset_id, _, split = source.removeprefix(HUB).partition(":")
    return hub_preferences(dataset_id, split or "train")


def read_preferences(path: Path | str) -> PreferenceData:
    """Read a file of preferences; its rows may be of different shapes.

    Raises:
        UsageError: no such file, one that is damaged, a row of no known shape, a bad value, or no row of use.
        Unavailable: a Parquet file without the package `pyarrow`.
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
    return _read_file(Path(path), Shape("marked answers", "", partial(read_marked, fields=fields)))


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
        found = {key: value for key, value in row.items() if value is not None}
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
    """Rows on their way to a `PreferenceData`; `shape` is that of every row, or None where each row shows its own."""

    def __init__(self, source: str, shape: Shape | None) -> None:
        self._source, self._shape = source, shape
        self._found: list[tuple[str, Candidates | LeftOut]] = []
        self._of_prompt: dict[tuple[str, str], Candidates] = {}
        self._shapes: Counter[str] = Counter()

    def add(self, row: object, where: str) -> None:
        try:
            shape, columns = (self._shape, row) if self._shape else recognise(row)
            self._shapes[shape.name] += 1
            found = shape.read(cast(Any, columns))
        except LeftOut as reason:
            self._found.append((where, reason))
            return
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        key = (shape.name, prompt_key(found.prompt))
        if shape.one_response and key in self._of_prompt:
            self._of_prompt[key].extend(found)
        else:
            self._of_prompt[key] = found
            self._found.append((where, found))

    def data(self, name: str, digest: str) -> PreferenceData:
        groups, skipped = [], []
        for where, found in self._found:
            group, reason = (None, str(found)) if isinstance(found, LeftOut) else found.settle(where)
            groups += [group] if group else []
            skipped += [(where, reason)] if reason else []
        if not self._found:
            raise UsageError(f"{self._source}: it has no row (needed: one or more)")
        if not groups:
            where, reason = skipped[0]
            raise UsageError(f"{self._source}: none of {len(skipped)} rows is of use; {where}: {reason}")
        return PreferenceData(name, tuple(groups), tuple(skipped), digest[:16], tuple(self._shapes.items()))


def _read_file(path: Path, shape: Shape | None) -> PreferenceData:
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == GZIP_MAGIC  # whatever the file is called
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
            called = "".join(char if char.isprintable() else "?" for char in path.name)
            plain = called.removesuffix(".gz")
            suffix = next((suffix for suffix in ROWS if plain.lower().endswith(suffix)), "")
            return _read_stream(stream, plain.removesuffix(suffix) or called, called, shape, ROWS.get(suffix))
    except PoloError:
        raise
    except FileNotFoundError:
        raise UsageError(f"no preferences at {str(path)!r} (needed: a file: {', '.join(ROWS)}; or each .gz)") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"preferences {str(path)!r} cannot be read: {first_line(error)}") from error


def _read_stream(
    stream: IO[bytes], name: str, file: str, shape: Shape | None, rows: ReadRows | None = None
) -> PreferenceData:
    digest = hashlib.sha256()
    gather = _Gather(file, shape)
    for number, row in (rows or _json_lines)(stream, file, digest.update):
        gather.add(row, f"{file}:{number}")
    return gather.data(name, digest.hexdigest())


def _json_lines(stream: IO[bytes], file: str, see: See) -> Rows:
    """One line at a time, as a small file can unpack to a huge one; rows are numbered by line, blank ones too."""
    number = 0
    while True:
        number += 1
        line = _taken(stream.readline, LONGEST_LINE, f"{file}:{number}", " per line")
        if not line:
            return
        see(line)
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            yield number, _parse(line, f"{file}:{number}")


def _json_rows(stream: IO[bytes], file: str, see: See) -> Rows:
    """A list of rows, an object that holds one, or JSON Lines under another name."""
    content = _whole(stream, file, see).removeprefix(BOM)
    first, _, more = content.lstrip().partition(b"\n")
    if more.strip() and _is_object(first):
        yield from _json_lines(io.BytesIO(content), file, lambda line: None)
        return
    found = _parse(content, file)
    if isinstance(found, dict):
        found = next((found[name] for name in ROWS_OF_JSON if isinstance(found.get(name), list)), [found])
    if not isinstance(found, list):
        raise UsageError(f"{file}: {brief(found)} (allowed: a list of rows)")
    yield from enumerate(found, start=1)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _csv_rows(stream: IO[bytes], file: str, see: See) -> Rows:
    """Numbered as a spreadsheet numbers them: the header is row 1."""
    content = _whole(stream, file, see).removeprefix(BOM)
    try:
        table = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        header = next(table, [])
        _check_names(header, file)
        for number, cells in enumerate(table, start=2):
            if cells and len(cells) != len(header):
                raise UsageError(f"{file}:{number}: {len(cells)} cells (allowed: {len(header)}, as many as columns)")
            if cells:
                yield number, dict(zip(header, map(Cell, cells)))
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: byte {error.start + 1} is not UTF-8 (allowed: UTF-8)") from None
    except csv.Error as error:
        raise UsageError(f"{file}: line {table.line_num} is not CSV: {first_line(error)}") from None


def _parquet_rows(stream: IO[bytes], file: str, see: See) -> Rows:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except Exception as error:
        needed = f'{file}: Parquet needs the package `pyarrow` (pip install "polobench[hub]")'
        raise Unavailable(f"{needed}: {first_line(error)}") from error
    content = _whole(stream, file, see)
    try:
        opened = parquet.ParquetFile(io.BytesIO(content))
        _check_names(opened.schema_arrow.names, file)
        yield from enumerate((row for batch in opened.iter_batches() for row in batch.to_pylist()), start=1)
    except UsageError:
        raise
    except Exception as error:  # its own kinds of error
        raise UsageError(f"{file}: it is not Parquet: {first_line(error)}") from error


ROWS: dict[str, ReadRows] = {
    ".jsonl": _json_lines, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows
}  # fmt: skip


def _check_names(columns: Iterable[str], file: str) -> None:
    twice = next((name for name, count in Counter(columns).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"{file}: column {brief(twice)} stands twice (allowed: once)")


def _whole(stream: IO[bytes], file: str, see: See) -> bytes:
    content = _taken(stream.read, LARGEST_FILE, file, "; a .jsonl file may be larger")
    see(content)
    return content


def _taken(read: Callable[[int], bytes], most: int, where: str, of: str) -> bytes:
    try:
        found = read(most + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{where}: its gzip is damaged or cut short: {first_line(error)}") from error
    if len(found) > most:
        raise UsageError(f"{where}: it is too long (allowed: at most {most:,} bytes{of})")
    return found


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
