"""Reads claims.toml: which claims the source article makes, and when one counts as supported or contradicted."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from polobench.analysis.measures import MEASURES
from polobench.core.errors import UsageError, unknown
from polobench.kinds.checks import FINITE, OBJECT, Rule


@dataclass(frozen=True)
class Column:
    """A column of the article's table."""

    name: str
    measure: str
    smallest_effect: float
    order: tuple[tuple[str, ...], ...]  # the words from the least of the measure to the most, equal ones together
    words: Mapping[str, str]  # by method
    note: str = ""  # what to know beside its numbers
    alike: tuple[str, ...] = ()  # methods whose measure is the same by construction

    def rank(self, method: str) -> int:
        """How far up the measure the method's word stands."""
        return next(rank for rank, words in enumerate(self.order) if self.words[method] in words)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(less, more): every two methods whose words rank differently, but for those that are alike."""
        tested = [pair for pair in itertools.combinations(self.words, 2) if not set(pair) <= set(self.alike)]
        ordered = [sorted(pair, key=self.rank) for pair in tested]
        return [(less, more) for less, more in ordered if self.rank(less) < self.rank(more)]


@dataclass(frozen=True)
class Claim:
    """A sentence of the article: one of `pairs`, `trend`, `of` with a bound, or `not_testable` is given."""

    source: str
    says: str
    measure: str = ""
    less: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    smallest_effect: float = 0.0
    trend: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    at_least: float = math.nan
    at_most: float = math.nan
    tasks: tuple[str, ...] = ()
    not_testable: str = ""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(less, more): which measures are compared; of a trend its ends."""
        return (
            [(self.trend[0], self.trend[-1])]
            if self.trend
            else [(less, more) for less in self.less for more in self.more]
        )


@dataclass(frozen=True)
class Claims:
    """All of the file; `least_seeds` and the rest are its rules."""

    level: float
    least_seeds_on_one_task: int
    least_seeds: int
    columns: tuple[Column, ...]
    claims: tuple[Claim, ...]
    on_language: tuple[str, ...] = ()  # methods that are judged by what they do there alone


def load_claims(path: Path | None = None) -> Claims:
    """The claims of a file, by default of the one that ships with polobench.

    Raises:
        UsageError: the file cannot be read, or something in it does not exist.
    """
    what = f"claims {str(path or 'claims.toml')!r}"
    file = path or resources.files("polobench.analysis").joinpath("claims.toml")
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{what} cannot be read: {error}") from error
    _checked(content, set(_SHAPES) & {field.name for field in dataclasses.fields(Claims)} | {"column", "claim"}, what)
    try:
        return Claims(
            level=content["level"],
            least_seeds_on_one_task=content["least_seeds_on_one_task"],
            least_seeds=content["least_seeds"],
            columns=tuple(_column(item) for item in content.get("column", [])),
            claims=tuple(_claim(item) for item in content.get("claim", [])),
            on_language=tuple(content.get("on_language", ())),
        )
    except KeyError as error:
        raise UsageError(f"{what}: {error} is missing") from error
    except TypeError as error:  # a field without a default
        raise UsageError(f"{what}: {error}") from error


def _filled(rule: Rule) -> Rule:
    """The rule of a value that is not empty either."""
    return Rule(rule.words, lambda value: rule.holds(value) and bool(value))


_TEXT = _filled(Rule("a text", lambda value: isinstance(value, str)))
_NAMES = _filled(_TEXT.listed("a list of names"))
_SEEDS = Rule("an integer of at least 2", lambda value: isinstance(value, int) and value >= 2)
_SHAPES: Mapping[str, Rule] = {
    "level": Rule("a number between 0 and 1", lambda value: FINITE.holds(value) and 0 < value < 1),
    **dict.fromkeys(("least_seeds", "least_seeds_on_one_task"), _SEEDS),
    **dict.fromkeys(("column", "claim"), _filled(OBJECT.listed("a list of tables"))),
    **dict.fromkeys(("name", "measure", "source", "says", "not_testable", "note"), _TEXT),
    **dict.fromkeys(("smallest_effect", "at_least", "at_most"), Rule("a number", FINITE.holds)),
    **dict.fromkeys(("less", "more", "trend", "of", "tasks", "on_language", "alike"), _NAMES),
    "order": _filled(_NAMES.listed("a list of lists of words")),
    "words": Rule("a table of words", lambda value: OBJECT.holds(value) and all(map(_TEXT.holds, value.values()))),
}


def _checked(item: Mapping[str, Any], names: set[str], what: str) -> None:
    """Every key is known, and every value has its shape."""
    for name, value in item.items():
        if name not in names:
            raise UsageError(f"{what}: {unknown('key', name, sorted(names))}")
        if not _SHAPES[name].holds(value):
            raise UsageError(f"{what}: {name} is {value!r:.60}, it must be {_SHAPES[name].words}")


def _column(item: Mapping[str, Any]) -> Column:
    what = f"column {item.get('name')!r}"
    column = Column(**_fields(Column, item, what))
    _check_measure(column.measure, column.smallest_effect, what)
    allowed = [word for words in column.order for word in words]
    for method, word in column.words.items():
        if word not in allowed:
            raise UsageError(f"{what}: word {word!r} of {method} is not in its order; {', '.join(allowed)} are")
    return column


def _claim(item: Mapping[str, Any]) -> Claim:
    what = f"claim {item.get('says')!r}"
    claim = Claim(**_fields(Claim, item, what))
    forms = [bool(claim.less and claim.more), len(claim.trend) > 2, bool(claim.of), bool(claim.not_testable)]
    if sum(forms) != 1 or (bool(claim.less) != bool(claim.more)):
        raise UsageError(f"{what} needs exactly one of: less and more; trend of three or more; of; not_testable")
    if claim.of and math.isnan(claim.at_least) == math.isnan(claim.at_most):
        raise UsageError(f"{what} needs exactly one of: at_least; at_most")
    if not claim.not_testable:
        _check_measure(claim.measure, None if claim.of else claim.smallest_effect, what)
    return claim


def _fields(kind: type, item: Mapping[str, Any], what: str) -> dict[str, Any]:
    _checked(item, {field.name for field in dataclasses.fields(kind)}, what)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}


def _check_measure(name: str, effect: float | None, what: str) -> None:
    """The measure is known, and the smallest effect is one that it can have."""
    if name not in MEASURES:
        raise UsageError(f"{what}: {unknown('measure', name, sorted(MEASURES))}")
    least = 1.0 if MEASURES[name].is_ratio else 0.0
    if effect is not None and effect < least:
        raise UsageError(f"{what}: smallest_effect is {effect}, it must be a number of at least {least:g}")
