"""What several groups of commands share."""

from __future__ import annotations

from pathlib import Path

from polobench.core.errors import PoloError, UsageError


class Interrupted(PoloError):
    """Ctrl-C, with what was kept."""

    exit_code = 130


def write_text(path: Path, text: str) -> None:
    """Write a file; raises `UsageError` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}") from error
