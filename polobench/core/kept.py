"""What polobench keeps between runs, in its cache folder: converted models, and what is costly to measure again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def cache_root() -> Path:
    """The folder: `POLOBENCH_CACHE`, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("POLOBENCH_CACHE") or platformdirs.user_cache_dir("polobench")).expanduser()


def kept(kind: str, decided_by: Iterable[str], measure: Callable[[], Any], read: Callable[[Any], T]) -> T:
    """What was measured once, for as long as what decides it stays the same.

    Args:
        kind: the folder that it is kept in.
        decided_by: everything that the value depends on.
        measure: gives a value of JSON's types.
        read: makes the result of that value; a stored one from which it cannot is measured again.
    """
    key = hashlib.sha256("\n".join(decided_by).encode()).hexdigest()[:32]
    path = cache_root() / kind / f"{key}.json"
    with suppress(OSError, ValueError, TypeError, LookupError):
        return read(json.loads(path.read_text()))
    found = measure()
    with suppress(OSError):  # a folder that cannot be written to: the next run measures again
        path.parent.mkdir(parents=True, exist_ok=True)
        working = path.with_suffix(f".{os.getpid()}.part")
        working.write_text(json.dumps(found))
        working.replace(path)
    return read(found)
