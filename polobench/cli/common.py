"""What several groups of commands share."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polobench.core.errors import PoloError, UsageError
from polobench.core.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Markdown = Annotated[
    Path | None, typer.Option("-o", "--output", help="Also write the report to this file, as Markdown.")
]


class Interrupted(PoloError):
    """Ctrl-C, with what was kept."""

    exit_code = 130


def ignore_further_interrupts() -> None:
    """From now until the process ends: another Ctrl-C would only cut the message or the interpreter's own end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exec("")  # CPython forgets an interrupt inside an `exec` of text only so, and would die of it as it ends


def say(text: object) -> None:
    """Print one line, whatever names and reasons of others are in it."""
    typer.echo(printable(text))


def note(text: object) -> None:
    """As `say`, on stderr."""
    typer.echo(printable(text), err=True)


def progress_bars() -> Progress:
    """Bars on stderr if that is a terminal; elsewhere nothing, not even the empty line that rich would leave."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def print_json(value: Any) -> None:
    """Print plain data as JSON."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def show(as_json: bool, value: Any, lines: Iterable[object]) -> None:
    """Print plain data as JSON, or else lines that say the same."""
    if as_json:
        print_json(value)
    else:
        for line in lines:
            say(line)


def write_text(path: Path, text: str) -> None:
    """Write a file; raises `UsageError` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}") from error
