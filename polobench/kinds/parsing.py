"""Values of a study's keys, checked; every mistake is one line that names the key and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from polobench.core.errors import UsageError, unknown
from polobench.kinds.checks import FINITE, INTEGER, TRUTH, Rule

_LIST = Rule("a list that is not empty", lambda value: isinstance(value, list) and bool(value))
_TEXT = Rule("text that can be printed", lambda value: isinstance(value, str) and bool(value) and value.isprintable())
_POSITIVE = Rule("a positive number", lambda value: FINITE.holds(value) and value > 0)


def check_keys(what: str, table: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raise `UsageError` for the first key of the table that is not allowed; `what` says whose key it is."""
    allowed = list(allowed)
    for key in table:
        if key not in allowed:
            raise unknown(what, key, allowed)


def parse(name: str, value: Any, rule: Rule) -> Any:
    """The value, if it keeps the rule; raises `UsageError` otherwise, as all functions here."""
    if not rule.holds(value):
        raise UsageError(f"{name}: {value!r} (allowed: {rule.words})")
    return value


def parse_list(name: str, value: object) -> list[Any]:
    """A list that is not empty."""
    return list(parse(name, value, _LIST))


def parse_text(name: str, value: object) -> str:
    """Text that can be printed."""
    return str(parse(name, value, _TEXT))


def parse_truth(name: str, value: object) -> bool:
    """True or false."""
    return bool(parse(name, value, TRUTH))


def parse_count(name: str, value: object, least: int = 1) -> int:
    """An integer from `least`."""
    return int(parse(name, value, Rule(f"an integer from {least}", lambda it: INTEGER.holds(it) and it >= least)))


def parse_positive(name: str, value: object) -> float:
    """A positive finite number."""
    return float(parse(name, value, _POSITIVE))
