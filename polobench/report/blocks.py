"""What a report is made of: pages of sections of blocks, as data in no format; a renderer makes a format of them.

A text is a string, or a sequence of strings and of the small objects below. Strings are shown as they are: whatever
comes from a plug-in or a model needs no escaping here, since the renderer escapes everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from polobench.report.formatting import NOTHING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Strong:
    """Emphasis."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command, a file or a key, as one types it."""

    text: str


@dataclass(frozen=True)
class Link:
    """A link to `file`, `file#anchor` or `#anchor`, seen from the report's folder."""

    text: str
    to: str


Piece = str | Strong | Code | Link
Text = Piece | Sequence[Piece]


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; none where it is empty."""

    text: Text


@dataclass(frozen=True)
class Bullets:
    """A list, an item per line."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Heading:
    """The name of a part of a section."""

    text: Text


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Headers, rows of texts, and a letter for each column's side, l or r."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Text]]
    align: str

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Text]], align: str) -> Table:
        """Of rows whose keys are the headers."""
        return cls(list(rows[0]) if rows else [], [list(row.values()) for row in rows], align)

    def only(self, kept: Sequence[int]) -> Table:
        """The same table with these columns alone."""
        rows = [[row[index] for index in kept] for row in self.rows]
        return Table([self.headers[index] for index in kept], rows, "".join(self.align[index] for index in kept))


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure with what the reader sees in it.

    Attributes:
        name: its file below the folder of figures, without the ending.
        subject: what it shows, in a few words.
        draw: None where there is nothing to draw.
    """

    name: str
    subject: str
    draw: Callable[[], Drawing | None]
    caption: Text = ""


Block = Paragraph | Bullets | Heading | Commands | Table | Figure


def figures(
    name: str, subject: str, draw: Callable[[T, S], Drawing], pages: Iterable[T], look: S, caption: Text = ""
) -> list[Block]:
    """A numbered figure per page; the first has the caption."""
    return [
        Figure(f"{name}_{number}", subject, partial(draw, page, look), caption if number == 1 else "")
        for number, page in enumerate(pages, 1)
    ]


def compact(table: Table, keep: int = 1) -> list[Block]:
    """The table less the columns that say the same in every row, and a line with what they say.

    Args:
        keep: how many columns stay in any case.
    """
    columns = [[row[index] for row in table.rows] for index in range(len(table.headers))]
    kept, facts = [], []
    for index, (header, column) in enumerate(zip(table.headers, columns, strict=True)):
        is_empty = all(value in ("", NOTHING) for value in column)
        is_equal = len(column) > 1 and isinstance(column[0], str) and all(value == column[0] for value in column)
        if index < keep or not (is_empty or is_equal):
            kept.append(index)
        elif not is_empty:
            facts.append(f"{header} = {column[0]}")
    said: list[Block] = [Paragraph(f"In every row: {'; '.join(facts)}.")] if facts else []
    return [table.only(kept), *said]


@dataclass(frozen=True)
class Section:
    """A part of a page under one title.

    Attributes:
        tables: every number of it as tables for CSV files, by the file's name.
    """

    title: str
    blocks: Sequence[Block]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """How a link names it, as a reader of Markdown makes it of the title."""
        kept = "".join(letter for letter in self.title.lower() if letter.isalnum() or letter in " -_")
        return kept.replace(" ", "-")


@dataclass(frozen=True)
class Page:
    """A file of the report.

    Attributes:
        file: its path below the report's folder, without the ending that tells its format.
        intro: before the first section.
    """

    file: str
    title: str
    sections: Sequence[Section]
    intro: Sequence[Block] = ()
    has_contents: bool = False
