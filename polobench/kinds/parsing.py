"""Values of a study's keys, checked; every mistake is one line that names the key and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from polobench.core.errors import UsageError, unknown


def check_keys(what: str, table: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raise `UsageError` for the first key of the table that is not allowed; `what` says whose key it is."""
    allowed = list(allowed)
    for key in table:
        if key not in allowed:
            raise unknown(what, key, allowed)


def parse_list(name: str, value: object) -> list[Any]:
    """A list that is not empty; raises `UsageError` otherwise, as all functions here."""
    if not isinstance(value, list) or not value:
        raise UsageError(f"{name}: {value!r} (allowed: a list that is not empty)")
    return value


def parse_text(name: str, value: object) -> str:
    """Text that can be printed."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UsageError(f"{name}: {value!r} (allowed: text that can be printed)")
    return value


def parse_truth(name: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{name}: {value!r} (allowed: true, false)")
    return value


def parse_count(name: str, value: object, least: int = 1) -> int:
    """An integer from `least`."""
    if type(value) is not int or value < least:
        raise UsageError(f"{name}: {value!r} (allowed: an integer from {least})")
    return value


def parse_positive(name: str, value: object) -> float:
    """A positive finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"{name}: {value!r} (allowed: a positive number)")
    return float(value)
