"""The errors a user can cause. Each is one line that names the thing and lists what is allowed."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class PoloError(Exception):
    """Base of every error that polobench raises on purpose; its text is one line, and a command ends with its code."""

    exit_code = 1


class UsageError(PoloError, ValueError):
    """A bad name, option, budget, study or store."""

    exit_code = 2


class Unavailable(PoloError):
    """Something known that cannot be used here, such as an absent device; the text is the reason."""


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End the command on an error that polobench raises on purpose: its text on stderr, and its exit code."""
    try:
        yield
    except PoloError as error:
        print(f"polobench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def unknown(
    kind: str, name: object, allowed: Iterable[str], *, others: Iterable[str] = (), called: str = ""
) -> UsageError:
    """A `UsageError` for a name that does not exist, with the nearest match and everything allowed.

    `others` are allowed too, but too many to list; the message names them as `called`.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(name), [*names, *others], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join([*names, called] if called else names)
    return UsageError(f"unknown {kind} {name!r}{hint} (allowed: {listed or 'none'})")


def first_line(error: BaseException) -> str:
    """`Type: message` on one line of printable text, for a table cell or a terminal."""
    text = " ".join(str(error).split())
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
