"""The words of a report that are the same each time: the notes beside figures and tables, and the glossary."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources

from polobench.report.blocks import Heading, Link, Page, Paragraph, Piece, Section

GLOSSARY = "glossary"
_MARK = re.compile(r"\[\[([^]|]+)(?:\|([^]]+))?\]\]")


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
