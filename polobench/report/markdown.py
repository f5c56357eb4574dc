"""Pages as Markdown, and tables for a terminal. The same page gives the same bytes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Sequence

from tabulate import tabulate

from polobench.report import blocks
from polobench.report.blocks import Block, Page, Piece, Table, Text
from polobench.report.formatting import plain

ENDING = ".md"
_ENTITIES = str.maketrans({sign: f"&#{ord(sign)};" for sign in "\\`|*[]~$#"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # inside of a word it is an underscore anyway
_INTERVAL = re.compile(r"(\[[-\d.,% –]+\](?![(\[:]))")  # no link as long as nothing defines it, which needs a colon
_LONGEST = 2_000  # letters of a text: a model may have no end
_NOT_CODE = re.compile(r"[`|]")


def escape(text: object) -> str:
    """One line that Markdown shows as it is: labels and reasons come from plug-ins and may hold anything."""
    parts = enumerate(_INTERVAL.split(plain(text, _LONGEST)))  # the odd ones are intervals
    return _EMPHASIS.sub("&#95;", "".join(part if at % 2 else part.translate(_ENTITIES) for at, part in parts))


def render(page: Page, drawn: Collection[blocks.Figure] = ()) -> str:
    """The text of a page; figures that were not drawn are left out."""
    parts = [f"# {escape(page.title)}", *(_block(block, page, drawn) for block in page.intro)]
    if page.has_contents:
        parts.append(" · ".join(_piece(blocks.Link(item.title, f"#{item.anchor}"), page) for item in page.sections))
    for section in page.sections:
        parts += [f"## {escape(section.title)}", *(_block(block, page, drawn) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block, page: Page, drawn: Collection[blocks.Figure]) -> str:
    match block:
        case blocks.Paragraph(text):
            return _text(text, page)
        case blocks.Bullets(items):
            return "\n".join(f"- {_text(item, page)}" for item in items)
        case blocks.Heading(text):
            return f"### {_text(text, page)}"
        case blocks.Commands(lines):
            return "\n".join(["```sh", *map(plain, lines), "```"])
        case Table(headers, rows, align):
            cells = [[_text(cell, page) for cell in row] for row in rows]
            return _table([escape(name) for name in headers], cells, align, "pipe")
        case blocks.Figure(name, subject, _, caption):
            image = f"![{escape(subject)}]({_relative(f'figures/{name}.png', page)})"
            return "\n\n".join(filter(None, (image, _text(caption, page)))) if block in drawn else ""


def _text(text: Text, page: Page) -> str:
    return "".join(_piece(piece, page) for piece in _pieces(text))


def _pieces(text: Text) -> Sequence[Piece]:
    return [text] if isinstance(text, str | blocks.Strong | blocks.Code | blocks.Link) else text


def _piece(piece: Piece, page: Page) -> str:
    match piece:
        case blocks.Strong(text):
            return f"**{escape(text)}**" if text else ""
        case blocks.Code(text):
            return f"`{plain(text)}`" if text and not _NOT_CODE.search(text) else escape(text)
        case blocks.Link(text, to):
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
    cells = [[plain_text(cell) for cell in row] for row in table.rows]
    return _table([plain(name) for name in table.headers], cells, table.align, "simple")


def plain_text(text: Text) -> str:
    """One line without emphasis or links, for a terminal."""
    return plain("".join(piece if isinstance(piece, str) else piece.text for piece in _pieces(text)))


def _table(headers: list[str], rows: list[list[str]], align: str, form: str) -> str:
    sides = ["right" if letter == "r" else "left" for letter in align[: len(headers)]]
    return tabulate(rows, headers, form, disable_numparse=True, colalign=sides)
