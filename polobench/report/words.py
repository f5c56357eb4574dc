"""The words of a report: how it names arms, tasks and budgets, the notes beside figures and tables, the glossary."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Protocol

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.statistics.hypothesis import CEILING, EQUIVALENT, OPEN, SEPARATED, Contrast
from polobench.core.budget import budget_text
from polobench.core.result import RunResult
from polobench.report.blocks import Heading, Link, Page, Paragraph, Piece, Section
from polobench.report.formatting import listed, p_text

_LONGEST = 60
GLOSSARY = "glossary"
_MARK = re.compile(r"\[\[([^]|]+)(?:\|([^]]+))?\]\]")


class OfArm(Protocol):
    """Something that was measured of an arm."""

    @property
    def arm(self) -> Arm: ...


def arm_name(arm: Arm, among: Iterable[Arm]) -> str:
    """The label, with the method and the device where the label alone does not tell it from the others."""
    twins = [other for other in among if other.label == arm.label]
    name = arm.label
    if len({other.method for other in twins}) > 1:
        name += f" ({arm.method})"
    if len({other.device for other in twins}) > 1:
        name += f" on {arm.device}"
    return name


def name_among(item: OfArm, group: Sequence[OfArm]) -> str:
    """The name of its arm among those of a group."""
    return arm_name(item.arm, [other.arm for other in group])


def budget_words(runs: Sequence[RunResult]) -> str:
    """The budget of runs that have the same one; a limit beside the one that ended them is no more than a cap."""
    budget = {name: limit for name, limit in runs[0].budget.items() if limit is not None}
    if len(budget) < 2:
        return budget_text(budget)
    ended_ok = [run for run in runs if run.status == "ok"]
    if ended_ok and "updates" in budget and all(run.ledger.updates >= budget["updates"] for run in ended_ok):
        rest = {name: limit for name, limit in budget.items() if name != "updates"}
        return f"{budget_text({'updates': budget['updates']})} (capped at {budget_text(rest)})"
    return f"{budget_text(budget)}, whichever comes first"


def budgets(collection: Collection) -> dict[tuple[str, str], str]:
    """In words, by the task and budget of an arm."""
    runs: dict[tuple[str, str], list[RunResult]] = {}
    for arm, found in collection.learning.items():
        runs.setdefault((arm.task, arm.budget), []).extend(found)
    return {place: budget_words(found) for place, found in runs.items()}


def place_names(places: Iterable[tuple[str, str]], words: Mapping[tuple[str, str], str]) -> str:
    """`CartPole-v1 (100,000 samples), Acrobot-v1 (150,000 samples)`."""
    return ", ".join(f"{task} ({words.get((task, budget), budget)})" for task, budget in places)


def task_files(tasks: Iterable[str]) -> dict[str, str]:
    """For each task the file of its card, below the report's folder and without its ending."""
    found: dict[str, str] = {}
    for task in sorted(set(tasks)):
        slug = re.sub(r"[^A-Za-z0-9-]+", "-", task)[:_LONGEST].strip("-") or "task"
        name, number = slug, 2
        while f"tasks/{name}" in found.values():
            name, number = f"{slug}-{number}", number + 1
        found[task] = f"tasks/{name}"
    return found


def names(labels: Sequence[str], most: int = 5) -> str:
    """A few names, and how many more there are."""
    more = len(labels) - most
    return listed(labels, "and") if more <= 0 else f"{listed(labels[:most])} and {more} more"


_WORDS = {SEPARATED: "ahead of", EQUIVALENT: "equivalent to", CEILING: "no room between it and", OPEN: "open against"}


def against_others(contrasts: Sequence[Contrast[Any]], name: Callable[[Any], str] = str) -> str:
    """What the tests say of the best and the others, by word: `ahead of a, b (p ≤ 0.012); open against c`."""
    said = []
    for word, spoken in _WORDS.items():
        found = [item for item in contrasts if item.word == word]
        p_values = [item.equal_p if word == EQUIVALENT else item.p for item in found]
        shown = f" ({p_text(max(p_values), '≤')})" if found and word in (SEPARATED, EQUIVALENT) else ""
        said += [f"{spoken} {names([name(item.other) for item in found])}{shown}"] if found else []
    return "; ".join(said)


def term(name: str, shown: str = "") -> Link:
    """A link to the glossary's entry."""
    return Link(shown or name, f"{GLOSSARY}#{name.replace(' ', '-')}")


def note(name: str, **values: object) -> list[Piece]:
    """A note of `notes.toml`: [[name]] is a link to the glossary's entry, as is [[name|shown]], or to a file there.

    Args:
        values: of the names in braces.
    """
    texts = _MARK.split(_read("notes")["notes"][name])
    said: list[Piece] = []
    for text, target, shown in zip(texts[::3], [*texts[1::3], None], [*texts[2::3], None], strict=True):
        said.append(text.format(**values))
        if target:
            is_file = "." in target or "#" in target
            said.append(Link(shown or target, target) if is_file else term(target, shown or ""))
    return said


def glossary() -> Page:
    """The same for every report."""
    sections = []
    for title, terms in _read("glossary").items():
        blocks = [block for name, meaning in terms.items() for block in (Heading(name), Paragraph(meaning))]
        sections.append(Section(title.capitalize(), blocks))
    return Page(GLOSSARY, "Glossary", sections)


@cache
def _read(name: str) -> dict[str, dict[str, str]]:
    return tomllib.loads(resources.files("polobench.report").joinpath(f"{name}.toml").read_text("utf-8"))
