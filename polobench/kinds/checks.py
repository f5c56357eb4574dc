"""Rules that values keep, of a stored result and of a study, and the sentence that names what breaks one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from polobench.core.budget import LARGEST


@dataclass(frozen=True)
class Rule:
    """What a value is to be, in words that follow "is not" or "allowed:", and the test of it."""

    words: str
    holds: Callable[[Any], bool]

    def or_null(self) -> Rule:
        """The rule, which null keeps, too."""
        return Rule(f"{self.words} or null", lambda value: value is None or self.holds(value))

    def listed(self, words: str) -> Rule:
        """The rule of a list whose every item keeps this one."""
        return Rule(words, lambda value: isinstance(value, list) and all(map(self.holds, value)))


def _is_finite(value: Any) -> bool:
    """Within the limit of budgets, so that neither a sum nor the axis of a figure overflows."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


TEXT = Rule("a text", lambda value: isinstance(value, str))
TRUTH = Rule("true or false", lambda value: isinstance(value, bool))
OBJECT = Rule("an object", lambda value: isinstance(value, Mapping))
FINITE = Rule("a finite number", _is_finite)
NUMBER = Rule("a number", lambda value: isinstance(value, float) or _is_finite(value))  # no integer beyond a float's
AMOUNT = Rule("an amount", lambda value: _is_finite(value) and value >= 0)
INTEGER = Rule("an integer", lambda value: isinstance(value, int) and _is_finite(value))
COUNT = Rule("a count", lambda value: INTEGER.holds(value) and value >= 0)
NUMBERS, FINITE_NUMBERS = NUMBER.listed("a list of numbers"), FINITE.listed("a list of finite numbers")


def wrong(values: object, names: Iterable[str], rule: Rule, section: str = "") -> Iterator[str]:
    """A sentence for each of these keys, or attributes, whose value breaks the rule; an absent key counts as null."""
    value_of = values.get if isinstance(values, dict) else partial(getattr, values)
    for name in names:
        if not rule.holds(value_of(name)):
            yield f"{section}{name} is not {rule.words}"
