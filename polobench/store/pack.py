"""A pack: a store in one file, a zip of its JSON, read where it lies. The same store gives the same bytes.

Paths in it are cut to their last part, so that no home folder is named. A pack is untrusted data: entries are looked at
before anything of them is read, and never written under a name of theirs that is not a cell's.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polobench.core.errors import UsageError, first_line
from polobench.core.result import RunResult
from polobench.store.folder import Damaged, OnFile, Reader, Store, Trim, cell_content, replacing, result_of

SUFFIX = ".zip"
MIB = 2**20
LARGEST_PACK, LARGEST_CELL, LARGEST_SUM, MOST_CELLS = 256 * MIB, 16 * MIB, 4096 * MIB, 100_000
_ENTRY = re.compile(r"[0-9a-f]{8,64}\.json")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a limit
_ENCRYPTED = 0x1
_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
_LONG = ("updates", "trail", "traceback")  # what a slim pack leaves empty
_DIGITS = {"updates": 5, "curve": 7, "snapshots": 7}  # nearly a whole cell: what is drawn, and numbers of float32
_EXACT = "return_mean"  # of the curve: what scores and verdicts are made of
VERBATIM = ("snapshots", "curve", "updates", "trail")  # what models say, and tables of numbers
_QUOTED = re.compile(r"""(["'])((?:~?/|[A-Za-z]:[\\/]|\\\\)[^"'\n]*)\1""")
_NAME = r"""[^\s/\\"'@:;,<>()\[\]{}|]"""
_BARE = re.compile(
    rf"(?:(?<![\w/~.\u2026])~?|(?<=//))/(?:{_NAME}+/)+{_NAME}*"
    rf"|(?<!\w)(?:[A-Za-z]:\\+|\\{{2,}}{_NAME}+\\+)(?:{_NAME}+\\+)*{_NAME}*"
)
_HOME = re.compile(r"(?:[A-Za-z]:)?[/\\]+(?:home|Users)[/\\]+[^/\\]+[/\\]*|/root/?")
_HOME_IN_TEXT = re.compile(
    r"(?:(?<![\w/.])(?!//)|(?<=://))(?:[A-Za-z]:)?"
    r"(?:(?:[/\\]+[\w.-]+)*?[/\\]+(?:home|Users)[/\\]+[^/\\:\s'\"]+|/root(?!\w))"
)


class Pack(Reader):
    """Results in a pack."""

    @property
    def name(self) -> str:
        return self.place.resolve().stem

    def each(self, on_file: OnFile | None = None, trim: Trim | None = None) -> Iterator[RunResult | Damaged]:
        with self._open() as file:
            entries = _entries(file)
            for done, name in enumerate(sorted(entries), 1):
                yield self._result(file, entries[name], trim)
                if on_file:
                    on_file(done, len(entries))

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        said = f"pack {str(self.place)!r}"
        if not self.place.is_file():
            raise UsageError(f"{said} does not exist; `polobench pack STORE` makes one")
        if self.place.stat().st_size > LARGEST_PACK:
            raise UsageError(f"{said} is larger than {LARGEST_PACK // MIB} MiB")
        try:
            file = zipfile.ZipFile(self.place)
        except _FAULTS as error:
            raise UsageError(f"{said} is damaged: {first_line(error)}") from error
        with file:
            entries = file.infolist()
            if len(entries) > MOST_CELLS or sum(entry.file_size for entry in entries) > LARGEST_SUM:
                raise UsageError(f"{said} unpacks to more than {MOST_CELLS:,} files or {LARGEST_SUM // MIB:,} MiB")
            yield file

    def _result(self, file: zipfile.ZipFile, same: list[zipfile.ZipInfo], trim: Trim | None) -> RunResult | Damaged:
        entry = same[-1]
        if wrong := _problem(entry, len(same)):
            return Damaged(self.place, f"entry {entry.filename!r:.100} {wrong}")
        path = self.place / entry.filename
        try:
            with file.open(entry) as stream:
                return result_of(path, stream.read(LARGEST_CELL), trim)
        except _FAULTS as error:
            return Damaged(path, first_line(error))


def _entries(file: zipfile.ZipFile) -> dict[str, list[zipfile.ZipInfo]]:
    """The entries by name, of which a sound pack has one each."""
    found: dict[str, list[zipfile.ZipInfo]] = {}
    for entry in file.infolist():
        found.setdefault(entry.filename, []).append(entry)
    return found


def _problem(entry: zipfile.ZipInfo, count: int) -> str:
    """What is wrong with an entry, as far as it can be told without reading it; empty if nothing is."""
    if not _ENTRY.fullmatch(entry.filename) or entry.orig_filename != entry.filename:
        return "is no CELLID.json"
    if count > 1:
        return f"stands in it {count} times"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return "is not compressed by deflate"
    if entry.file_size > LARGEST_CELL:
        return f"is larger than {LARGEST_CELL // MIB} MiB"
    return ""


def is_pack(place: Path | str) -> bool:
    """Whether a path means a pack."""
    return Path(place).suffix == SUFFIX and not Path(place).is_dir()


def open_store(place: Path | str) -> Reader:
    """What reads the results at a path, a folder or a pack."""
    return Pack(place) if is_pack(place) else Store(place)


def store_to_fill(place: Path | str, say: Callable[[str], object]) -> Store:
    """The store at a path, ready to be written to; a pack is first unpacked into the folder of its name.

    A cell that the folder already has stays as it is there. Raises `UsageError` if the pack is damaged, or the folder
    cannot be written to.
    """
    if not is_pack(place):
        store = Store(place)
        store.prepare()
        return store
    packed, store = Pack(place).whole(), Store(Path(place).with_suffix(""))
    store.prepare()
    new = [result for result in packed if not store.path(result.cell_id).exists()]
    for result in new:
        store.save(result)
    say(f"pack: {len(new)} of {len(packed)} cells unpacked into {store.folder}, which goes on")
    return store


def write_pack(stores: Sequence[Path | str], output: Path, slim: bool = False) -> int:
    """Write the cells of all stores as one pack, whole or not at all; returns how many there are.

    Fractions in the updates keep 5 significant digits, those in the snapshots and the curve 7, but for its mean return,
    which is exact.

    Args:
        stores: folders or packs.
        output: the file, `*.zip`.
        slim: leave out the updates, the trail and what a language model said; what is known of a reward model stays.

    Raises:
        UsageError: a store is absent or damaged, two hold different results of one cell, or the file cannot be written.
    """
    if output.suffix != SUFFIX or output.is_dir():
        raise UsageError(f"pack {str(output)!r} (allowed: a file whose name ends in {SUFFIX})")
    cells: dict[str, bytes] = {}
    names: dict[tuple[str, str], str] = {}
    for result in (result for store in stores for result in open_store(store).whole()):
        plain = _packed(result.to_dict(), slim)
        for key in ("task", "label"):
            if names.setdefault((key, plain[key]), getattr(result, key)) != getattr(result, key):
                raise UsageError(f"two {key}s would both be called {plain[key]!r} without their folders")
        content = cell_content(plain)
        name = f"{result.cell_id}.json"
        if not _ENTRY.fullmatch(name) or len(content) > LARGEST_CELL:
            raise UsageError(f"cell {result.cell_id!r:.80} cannot be packed: its id is none, or it is too large")
        if cells.setdefault(name, content) != content:
            raise UsageError(f"the stores hold two different results of cell {result.cell_id}")
    _write(output, cells)
    return len(cells)


def _write(output: Path, cells: dict[str, bytes]) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as whole, zipfile.ZipFile(whole, "w") as file:
            for name in sorted(cells):
                entry = zipfile.ZipInfo(name)  # of 1980
                entry.create_system, entry.external_attr = 3, 0o100644 << 16
                file.writestr(entry, cells[name], zipfile.ZIP_DEFLATED, 9)
    except OSError as error:
        raise UsageError(f"pack {str(output)!r} cannot be written: {error.strerror or error}") from error


def _packed(plain: dict[str, Any], slim: bool) -> dict[str, Any]:
    """A result's plain data as a pack holds them."""
    plain = _slimmed(plain) if slim else plain
    kept = plain | {key: _rounded(plain[key], digits) for key, digits in _DIGITS.items()}
    return {key: value if key in VERBATIM else _shortened(value) for key, value in kept.items()}


def _slimmed(plain: dict[str, Any]) -> dict[str, Any]:
    """Without what is long; of what was stored before training a reward model's numbers stay, which are short."""
    model = plain["snapshots"].get("before", {}).get("reward_model")
    empty = {name: type(plain[name])() for name in _LONG}
    return plain | empty | {"snapshots": {"before": {"reward_model": model}} if model else {}}


def _rounded(value: Any, digits: int) -> Any:
    """Plain data whose fractions have so many significant digits, but where they must be exact."""
    if isinstance(value, dict):
        return {key: item if key == _EXACT else _rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) and not value.is_integer() else value


def _shortened(value: Any) -> Any:
    """The value with every absolute path in its texts cut down to its last part."""
    if isinstance(value, dict):
        return {_shortened(key): _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, str):
        return value
    value = _QUOTED.sub(lambda found: f"{found[1]}{_last_part(found[2])}{found[1]}", value)
    return _BARE.sub(lambda found: _last_part(found[0]), value)


def without_home(value: Any) -> Any:
    """Plain data whose texts call a home folder `~`, so that they name no user; two paths stay two."""
    if isinstance(value, dict):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_home(item) for item in value]
    is_path = isinstance(value, str) and ("/" in value or "\\" in value)
    return _HOME_IN_TEXT.sub("~", value) if is_path else value


def _last_part(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    return "~" if _HOME.fullmatch(path) else f"\u2026/{parts[-1]}" if parts else path
