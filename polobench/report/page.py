"""The report of a store: pages with their figures and tables. The same store gives the same bytes.

A section is a function that takes the findings and gives sections as data; the pages are lists of them. A section is
added by writing its module and adding it to one of these lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd

from polobench.analysis.claims import Claims
from polobench.analysis.collection import Collection, OnProgress, collect
from polobench.analysis.frame import frame
from polobench.core.errors import UsageError
from polobench.report.blocks import Block, Bullets, Code, Figure, Link, Page, Paragraph, Piece, Section, Text
from polobench.report.draw.panels import Drawn
from polobench.report.draw.style import styled
from polobench.report.findings import Findings
from polobench.report.markdown import ENDING, render, terminal
from polobench.report.naming import GLOSSARY
from polobench.report.sections import (
    article,
    article_runs,
    caveats,
    claims,
    curves,
    diagnostics,
    glossary,
    gradient_noise,
    language,
    leaderboard,
    provenance,
    robustness,
    settings,
    task_cards,
    throughput,
    trend,
    verdict,
    welcome,
)
from polobench.report.text import counted, listed, plain

MakeSections = Callable[[Findings], Sequence[Section]]
FIRST_PAGE: tuple[MakeSections, ...] = (
    welcome.sections,
    verdict.sections,
    caveats.sections,
    leaderboard.sections,
    curves.sections,
    robustness.sections,
    article.sections,
    trend.sections,
)
LINKED_PAGES: dict[str, tuple[str, tuple[MakeSections, ...]]] = {
    "article": ("The evidence on the article", (claims.sections, article_runs.sections)),
    "diagnostics": (
        "Diagnostics",
        (
            diagnostics.arrival_sections,
            diagnostics.improvement_sections,
            diagnostics.update_sections,
            throughput.sections,
            gradient_noise.sections,
            language.preference_sections,
            language.policy_sections,
            language.answer_sections,
            language.note_sections,
        ),
    ),
    "settings": ("Methods and their settings", (settings.sections, settings.tuning_sections)),
    "provenance": (
        "Where the numbers come from",
        (
            provenance.about_sections,
            provenance.failure_sections,
            provenance.provenance_sections,
            provenance.reproduce_sections,
        ),
    ),
}


def pages(findings: Findings) -> list[Page]:
    """The first page and those that it links to; the first is all that most readers need."""
    linked = [
        Page(file, title, found, has_contents=len(found) > 1)
        for file, (title, makers) in LINKED_PAGES.items()
        if (found := _made(makers, findings))
    ]
    cards = task_cards.pages(findings)
    first = _made(FIRST_PAGE, findings)
    details = Section("Details", [_links(cards, linked)])
    title = f"Report on {findings.collection.name}"
    return [
        Page("report", title, [*first, details], _intro(findings), has_contents=True),
        *cards,
        *linked,
        glossary.page(),
    ]


def _made(makers: Sequence[MakeSections], findings: Findings) -> list[Section]:
    return list(chain.from_iterable(make(findings) for make in makers))


def _intro(findings: Findings) -> list[Block]:
    collection = findings.collection
    ran = [cell for cell in collection.cells if cell.status != "skipped"]
    tasks, methods = {cell.task for cell in ran}, {cell.method for cell in ran}
    if not ran:
        return [Paragraph("The store holds no cell that ran.")]
    sources = collection.sources
    is_typed = all(map(provenance.is_word, sources))
    command: list[Piece] = [" by ", Code(provenance.report_command(sources))] if is_typed else []
    said: Text = [
        f"{counted(len(ran), 'cell')} ({provenance.kinds_of(ran)}) of {counted(len(methods), 'method')} on ",
        f"{counted(len(tasks), 'task')}, drawn from ",
        Code(" and ".join(map(plain, sources))),
        *command,
        ". Words are defined in the ", Link("glossary", GLOSSARY), ".",
    ]  # fmt: skip
    return [Paragraph(said)]


def _links(cards: Sequence[Page], linked: Sequence[Page]) -> Bullets:
    """One line per linked file."""
    items: list[Text] = []
    if cards:
        tasks: list[str | Link] = [piece for card in cards for piece in (", ", Link(_title(card), card.file))]
        items.append(["A card per task with curves, tables and settings: ", *tasks[1:]])
    items += [
        [Link(_title(page), page.file), f": {listed([section.title for section in page.sections])}"] for page in linked
    ]
    items.append([Link("Every cell as a table", "tables/cells.csv"), " (CSV), beside the tables of each section"])
    return Bullets(items)


def _title(page: Page) -> str:
    return str(page.title)


def write_report(
    store: Collection | Path | str,
    folder: Path | str,
    on_progress: OnProgress | None = None,
    claims: Claims | None = None,
    history: pd.DataFrame | None = None,
) -> Path:
    """Write report.md and what it links to: further pages, figures/*.png and tables/*.csv.

    Args:
        store: the folder of a store, or what `collect` made of it.
        folder: where the report goes; made if it is not there.
        on_progress: hears `("reading" or "drawing", done, total)`.
        claims: that get a verdict; by default the source article's.
        history: whose trend the report shows, as `polobench.gate.history.history_table` gives it.

    Returns:
        The path of report.md.

    Raises:
        UsageError: there is no such store, or the folder cannot be written to.
    """
    collection = store if isinstance(store, Collection) else collect(store, on_progress)
    return write_findings(Findings(collection, claims, history), Path(folder), on_progress)


def write_findings(findings: Findings, folder: Path, on_progress: OnProgress | None = None) -> Path:
    """As `write_report`, of findings that may have been read already."""
    found = pages(findings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = draw(found, folder / "figures", on_progress)
        _write_tables(findings, found, folder / "tables")
        for page in found:
            path = folder / f"{page.file}{ENDING}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(page, drawn), encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"report folder {str(folder)!r} cannot be written to: {error.strerror}") from error
    return folder / f"{found[0].file}{ENDING}"


def draw(found: Sequence[Page], folder: Path, on_progress: OnProgress | None = None) -> dict[Figure, Drawn]:
    """Draw the figures of the pages; those without data are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [
        block for page in found for part in (page.intro, *(item.blocks for item in page.sections)) for block in part
    ]
    figures = [block for block in blocks if isinstance(block, Figure)]
    drawn: dict[Figure, Drawn] = {}
    for done, figure in enumerate(figures, 1):
        with styled():
            item = figure.draw(folder)
        if item:
            drawn[figure] = item
        if on_progress:
            on_progress("drawing", done, len(figures))
    return drawn


def _write_tables(findings: Findings, found: Sequence[Page], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {"cells": frame(findings.collection), **task_cards.tables(findings)}
    for page in found:
        for section in page.sections:
            tables |= section.tables
    for name, table in tables.items():
        if not table.empty:
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", errors="replace")


def verdict_text(findings: Findings) -> str:
    """The verdict as plain text for a terminal, with the methods of each task and what to know about the store."""
    cases = [(case, found) for case, found in findings.use_cases if found or not findings.is_first_look]
    parts = [terminal(verdict.verdict_table(cases))] if cases and findings.comparisons else []
    for (task, budget), group in findings.comparisons.items():
        table = task_cards.comparison_table(group)
        kept = [index for index, name in enumerate(table.headers) if name in task_cards.ON_A_TERMINAL]
        parts.append(f"{plain(task)}, {plain(findings.budgets[task, budget])}\n\n{terminal(table.only(kept))}")
        parts += [welcome.SMOKE] if any(item.smoke for item in group) else []
    collection = findings.collection
    notes = [f"- {plain(note)}" for note in provenance.store_caveats(collection)]
    notes += [f"- damaged file {plain(item.path.name)}: {plain(item.reason)}" for item in collection.damaged]
    return "\n\n".join([*(parts or ["No learning cell has run."]), *(["\n".join(notes)] if notes else [])]) + "\n"
