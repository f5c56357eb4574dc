"""Preference data: ranked responses to prompts, from a file, from the package or from the Hugging Face hub.

A file is JSON Lines, JSON, CSV or Parquet by its name, text in UTF-8, each compressed by gzip or not;
`preference_formats` lists the shapes of its rows. What is wrong with a file is one line that names the row and the
column. A row that is sound but prefers nothing, such as a pair of equal responses, is left out and listed in `skipped`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import importlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from polobench.core.errors import PoloError, Unavailable, UsageError, first_line
from polobench.tasks.fields import Cell, Prompt, brief, prompt_key
from polobench.tasks.preference_formats import Candidates, LeftOut, RankedGroup, recognise

__all__ = [
    "PreferenceData",
    "RankedGroup",
    "builtin_preferences",
    "hub_preferences",
    "read_preferences",
    "read_source",
    "split_by_prompt",
]

HUB = "hub:"
LONGEST_LINE, LARGEST_FILE = 10_000_000, 4_000_000_000
ROWS_OF_JSON = ("data", "rows", "train")
GZIP_MAGIC = b"\x1f\x8b"
Rows = Iterable[tuple[int, Any]]  # each with its number


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
    path = Path(path)
    called = "".join(char if char.isprintable() else "?" for char in path.name)
    plain = called.removesuffix(".gz")
    suffix = next((suffix for suffix in READERS if plain.lower().endswith(suffix)), "")
    try:
        content = _content(path, called)
    except FileNotFoundError:
        allowed = f"a file: {', '.join(READERS)}; or each .gz"
        raise UsageError(f"no preferences at {str(path)!r} (needed: {allowed})") from None
    except PoloError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"preferences {str(path)!r} cannot be read: {first_line(error)}") from error
    rows = READERS.get(suffix, _json_lines)(content.removeprefix(codecs.BOM_UTF8), called)
    return _gathered(plain.removesuffix(suffix) or called, called, rows, hashlib.sha256(content))


@cache
def builtin_preferences() -> PreferenceData:
    """The set in the package: facts, arithmetic, style, refusals and jokes, written for it, with four ranked each."""
    file = "preferences.jsonl"
    content = resources.files("polobench.tasks").joinpath(file).read_bytes()
    return _gathered("builtin", file, _json_lines(content, file), hashlib.sha256(content))


def hub_preferences(
    dataset_id: str, split: str = "train", *, config: str | None = None, revision: str | None = None
) -> PreferenceData:
    """Read a data set of the Hugging Face hub, through the package `datasets` (`pip install "polobench[hub]"`).

    Raises:
        UsageError: no such data set, configuration or split, or rows as those that `read_preferences` refuses.
        Unavailable: the package is absent, or the hub cannot be reached and the data set is not in its cache.
    """
    datasets = _package("datasets", f"data set {dataset_id!r} needs")
    try:
        rows = datasets.load_dataset(dataset_id, config, split=split, revision=revision)
    except (FileNotFoundError, ValueError) as error:
        wanted = f"{dataset_id!r}, split {split!r}"
        raise UsageError(f"data set {wanted} cannot be loaded: {first_line(error)}") from error
    except Exception as error:  # its own kinds of error, and those of every library below it
        raise Unavailable(f"data set {dataset_id!r} cannot be reached: {first_line(error)}") from error
    digest = hashlib.sha256()

    def seen() -> Iterator[tuple[int, Any]]:
        for number, row in enumerate(rows, start=1):
            found = {key: value for key, value in row.items() if value is not None}
            digest.update(json.dumps(found, sort_keys=True, default=lambda value: type(value).__name__).encode())
            yield number, found

    return _gathered(dataset_id, f"{dataset_id}/{split}", seen(), digest)


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


def _gathered(name: str, source: str, rows: Rows, digest: Any) -> PreferenceData:
    """The data of all rows; `digest` is read once these are."""
    found: list[tuple[str, Candidates | LeftOut]] = []
    of_prompt: dict[tuple[str, str], Candidates] = {}
    shapes: Counter[str] = Counter()
    for number, row in rows:
        where = f"{source}:{number}"
        try:
            shape, columns = recognise(row)
            shapes[shape.name] += 1
            candidates = shape.candidates(columns)
        except LeftOut as reason:
            found.append((where, reason))
            continue
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        key = (shape.name, prompt_key(candidates.prompt))
        if shape.one_response and key in of_prompt:
            of_prompt[key].answers += candidates.answers
        else:
            of_prompt[key] = candidates
            found.append((where, candidates))
    if not found:
        raise UsageError(f"{source}: it has no row (needed: one or more)")
    settled = [(where, *(c.settle(where) if isinstance(c, Candidates) else (None, str(c)))) for where, c in found]
    groups = tuple(group for _, group, _ in settled if group)
    skipped = tuple((where, reason) for where, _, reason in settled if reason)
    if not groups:
        raise UsageError(f"{source}: none of {len(skipped)} rows is of use; {': '.join(skipped[0])}")
    return PreferenceData(name, groups, skipped, digest.hexdigest()[:16], tuple(shapes.items()))


# files


def _content(path: Path, called: str) -> bytes:
    """The bytes of a file; gzip is told by its first two, whatever the file is called."""
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == GZIP_MAGIC
        try:
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(LARGEST_FILE + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UsageError(f"{called}: its gzip is damaged or cut short: {first_line(error)}") from error
    if len(content) > LARGEST_FILE:
        raise UsageError(f"{called}: it is too long (allowed: at most {LARGEST_FILE:,} bytes)")
    return content


def _json_lines(content: bytes, file: str) -> Rows:
    """Rows are numbered by line, blank ones too."""
    for number, line in enumerate(io.BytesIO(content), start=1):
        if len(line) > LONGEST_LINE:
            raise UsageError(f"{file}:{number}: it is too long (allowed: at most {LONGEST_LINE:,} bytes per line)")
        if line.strip():
            yield number, _parsed(line, f"{file}:{number}")


def _json_rows(content: bytes, file: str) -> Rows:
    """A list of rows, an object that holds one, or JSON Lines under another name."""
    first, _, more = content.lstrip().partition(b"\n")
    with suppress(ValueError, RecursionError):
        if more.strip() and isinstance(json.loads(first), dict):
            return _json_lines(content, file)
    found = _parsed(content, file)
    if isinstance(found, dict):
        found = next((found[name] for name in ROWS_OF_JSON if isinstance(found.get(name), list)), [found])
    if not isinstance(found, list):
        raise UsageError(f"{file}: {brief(found)} (allowed: a list of rows)")
    return enumerate(found, start=1)


def _csv_rows(content: bytes, file: str) -> Rows:
    """Numbered as a spreadsheet numbers them: the header is row 1."""
    table = csv.reader(io.StringIO(_decoded(content, file), newline=""), strict=True)
    try:
        header = next(table, [])
        _check_distinct(header, f"{file}: column")
        for number, cells in enumerate(table, start=2):
            if cells and len(cells) != len(header):
                raise UsageError(f"{file}:{number}: {len(cells)} cells (allowed: {len(header)}, as many as columns)")
            if cells:
                yield number, dict(zip(header, map(Cell, cells)))
    except csv.Error as error:
        raise UsageError(f"{file}: line {table.line_num} is not CSV: {first_line(error)}") from None


def _parquet_rows(content: bytes, file: str) -> Rows:
    parquet = _package("pyarrow.parquet", f"{file}: Parquet needs")
    try:
        table = parquet.ParquetFile(io.BytesIO(content)).read()
    except Exception as error:  # its own kinds of error
        raise UsageError(f"{file}: it is not Parquet: {first_line(error)}") from error
    _check_distinct(table.column_names, f"{file}: column")
    return enumerate(table.to_pylist(), start=1)


READERS: dict[str, Callable[[bytes, str], Rows]] = {
    ".jsonl": _json_lines, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows
}  # fmt: skip


def _check_distinct(names: Iterable[str], called: str) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"{called} {brief(twice)} stands twice (allowed: once)")


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: byte {error.start + 1} is not UTF-8 (allowed: UTF-8)") from None


def _parsed(content: bytes, where: str) -> Any:
    text = _decoded(content, where)
    try:
        return json.loads(text, object_pairs_hook=_distinct)
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
    _check_distinct((name for name, _ in pairs), "field")
    return dict(pairs)


def _package(name: str, needed: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        package = name.partition(".")[0]
        install = f'(pip install "polobench[hub]"): {first_line(error)}'
        raise Unavailable(f"{needed} the package `{package}` {install}") from error
