"""Files of JSON lines that only grow: the log of a baseline, and the history of a project.

Every line is an object with `schema_version` and the keys of its kind. A line is appended by writing the whole file
anew under a temporary name and renaming it, so that a full disk or a kill leaves the old file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from polobench.core.errors import UsageError, first_line
from polobench.store.folder import replacing

SCHEMA_VERSION = 1
Entry = dict[str, Any]


def read_journal(path: Path, problems: Callable[[Entry], Iterable[str]]) -> list[Entry]:
    """The lines of the file in order; none where there is no such file.

    Args:
        problems: what is wrong with a line's object, in words; only the first is looked for.

    Raises:
        UsageError: the file cannot be read, or a line is damaged or of another schema; the text has its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {first_line(error)}") from error
    return [_parse(line, f"line {number} of {str(path)!r}", problems) for number, line in enumerate(lines, 1)]


def _parse(line: str, name: str, problems: Callable[[Entry], Iterable[str]]) -> Entry:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is damaged: {first_line(error)}") from error
    if not isinstance(entry, dict):
        wrong = "it is no object"
    elif (version := entry.get("schema_version")) != SCHEMA_VERSION:
        wrong = f"schema version {version!r:.40}; this polobench reads {SCHEMA_VERSION}"
    else:
        wrong = next(iter(problems(entry)), "")
    if wrong:
        raise UsageError(f"{name} is damaged: {wrong}")
    return dict(entry)


def append_entry(path: Path, entry: Entry) -> None:
    """Append the entry as a line; makes the folder and the file if they are not there.

    Raises:
        OSError: the disk is full, say; what stood there before still does.
    """
    line = json.dumps({"schema_version": SCHEMA_VERSION} | entry, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with replacing(path) as file:
        file.write((before + ("\n" if before and not before.endswith("\n") else "") + line + "\n").encode())
