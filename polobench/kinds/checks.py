"""Checks of a stored value, and the sentence that names what fails one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from polobench.core.budget import LARGEST

Test = Callable[[Any], bool]


def wrong(values: object, names: Iterable[str], what: str, test: Test, section: str = "") -> Iterator[str]:
    """A sentence for each of these keys, or attributes, whose value fails the test; an absent key counts as null."""
    value_of = values.get if isinstance(values, dict) else partial(getattr, values)
    for name in names:
        if not test(value_of(name)):
            yield f"{section}{name} is not {what}"


def or_null(test: Test) -> Test:
    """The test, which null passes, too."""
    return lambda value: value is None or test(value)


def is_text(value: Any) -> bool:
    """Any text, also an empty one."""
    return isinstance(value, str)


def is_truth(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_object(value: Any) -> bool:
    """A JSON object."""
    return isinstance(value, dict)


def is_number(value: Any) -> bool:
    """NaN and infinity too, but no integer that a float cannot hold."""
    return isinstance(value, float) or is_finite(value)


def is_finite(value: Any) -> bool:
    """Within the limit of budgets, so that neither a sum nor the axis of a figure overflows."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def is_integer(value: Any) -> bool:
    """An integer within that limit."""
    return isinstance(value, int) and is_finite(value)


def is_amount(value: Any) -> bool:
    """Finite, from 0."""
    return is_finite(value) and value >= 0


def is_count(value: Any) -> bool:
    """An integer from 0."""
    return is_integer(value) and value >= 0


def is_list_of(test: Test) -> Test:
    """A list whose every item passes the test."""
    return lambda value: isinstance(value, list) and all(map(test, value))
