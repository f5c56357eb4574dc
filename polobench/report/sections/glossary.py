"""The words of a report, defined once."""

from __future__ import annotations

import tomllib
from importlib import resources

from polobench.report.blocks import Heading, Page, Paragraph, Section
from polobench.report.naming import GLOSSARY


def page() -> Page:
    """The same for every report."""
    text = resources.files("polobench.report.sections").joinpath("glossary.toml").read_text("utf-8")
    parts = tomllib.loads(text)
    return Page(GLOSSARY, "Glossary", [_section(title, terms) for title, terms in parts.items()])


def _section(title: str, terms: dict[str, str]) -> Section:
    blocks = [block for name, meaning in terms.items() for block in (Heading(name), Paragraph(meaning))]
    return Section(title.capitalize(), blocks)
