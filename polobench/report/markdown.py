"""Pages as Markdown, and tables for a terminal. The same page gives the same bytes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from tabulate import tabulate

from polobench.report.blocks import (
    Block,
    Bullets,
    Code,
    Commands,
    Figure,
    Heading,
    Link,
    Page,
    Paragraph,
    Piece,
    Strong,
    Table,
    Text,
)
from polobench.report.draw.panels import Drawn
from polobench.report.text import plain

ENDING = ".md"
_ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in "\\`|*[]~$#"} | {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
}
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # inside of a word it is an underscore anyway
_INTERVAL = re.compile(r"(\[[-\d.,% –]+\](?![(\[:]))")  # no link as long as nothing defines it, which needs a colon
_LONGEST = 2_000  # letters of a text: a model may have no end
_NOT_CODE = re.compile(r"[`|]")


def escape(text: object) -> str:
    """One line that Markdown shows as it is: labels and reasons come from plug-ins and may hold anything."""
    parts = enumerate(_INTERVAL.split(plain(text, _LONGEST)))  # the odd ones are intervals
    return _EMPHASIS.sub("&#95;", "".join(part if at % 2 else part.translate(_ENTITIES) for at, part in parts))


def render(page: Page, drawn: Mapping[Figure, Drawn] | None = None) -> str:
    """The text of a page; figures that were not drawn are left out."""
    parts = [f"# {_text(page.title, page)}"]
    parts += [_block(block, page, drawn or {}) for block in page.intro]
    if page.has_contents:
        parts.append(" · ".join(_piece(Link(item.title, f"#{item.anchor}"), page) for item in page.sections))
    for section in page.sections:
        parts += [f"## {escape(section.title)}", *(_block(block, page, drawn or {}) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block, page: Page, drawn: Mapping[Figure, Drawn]) -> str:
    match block:
        case Paragraph(text):
            return _text(text, page)
        case Bullets(items):
            return "\n".join(f"- {_text(item, page)}" for item in items)
        case Heading(text):
            return f"### {_text(text, page)}"
        case Commands(lines):
            return "\n".join(["```sh", *map(plain, lines), "```"])
        case Table(headers, rows, align):
            cells = [[_text(cell, page) for cell in row] for row in rows]
            return _table([escape(name) for name in headers], cells, align, "pipe")
        case Figure(caption=caption):
            return _figure(drawn[block], caption, page) if block in drawn else ""


def _figure(found: Drawn, caption: Text, page: Page) -> str:
    folder, name = found.path.parent, found.path.name
    below = "figures" if folder.name == "figures" else f"figures/{folder.name}"
    image = f"![{escape(found.subject)}]({_relative(f'{below}/{name}', page)})"
    said = _text(caption, page)
    return f"{image}\n\n{said}" if said else image


def _text(text: Text, page: Page) -> str:
    if isinstance(text, str | Strong | Code | Link):
        return _piece(text, page)
    return "".join(_piece(piece, page) for piece in text)


def _piece(piece: Piece, page: Page) -> str:
    match piece:
        case Strong(text):
            return f"**{escape(text)}**" if text else ""
        case Code(text):
            return f"`{plain(text)}`" if text and not _NOT_CODE.search(text) else escape(text)
        case Link(text, to):
            return f"[{escape(text)}]({_target(to, page)})"
        case str():
            return _spaced(piece)


def _spaced(text: str) -> str:
    """A string beside an object keeps the space between them, which `plain` would take off."""
    before, after = (" " if end == " " else "" for end in (text[:1], text[-1:]))
    inner = escape(text)
    return f"{before}{inner}{after}" if inner else before


def _target(to: str, page: Page) -> str:
    file, mark, anchor = to.partition("#")
    if not file:
        return to
    ending = "" if posixpath.splitext(file)[1] else ENDING
    return f"{_relative(file, page)}{ending}{mark}{anchor}"


def _relative(file: str, page: Page) -> str:
    return posixpath.relpath(file, posixpath.dirname(page.file) or ".")


def terminal(table: Table) -> str:
    """As aligned columns of plain text."""
    cells = [[_plain(cell) for cell in row] for row in table.rows]
    return _table([plain(name) for name in table.headers], cells, table.align, "simple")


def _plain(text: Text) -> str:
    pieces = [text] if isinstance(text, str | Strong | Code | Link) else text
    return plain("".join(piece if isinstance(piece, str) else piece.text for piece in pieces))


def _table(headers: list[str], rows: list[list[str]], align: str, form: str) -> str:
    sides = ["right" if letter == "r" else "left" for letter in align]
    return tabulate(rows, headers, form, disable_numparse=True, colalign=sides)
