"""The report of a store: pages with their figures and tables. The same store gives the same bytes.

A section is a function that takes the findings and gives sections as data; the pages are lists of them. A section is
added by writing its module and adding it to one of these lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd

from polobench.analysis.collection import Collection, OnProgress, collect
from polobench.analysis.frame import frame
from polobench.analysis.summary import is_smoke
from polobench.core.errors import UsageError
from polobench.report.blocks import Block, Bullets, Code, Figure, Link, Page, Paragraph, Piece, Section, Text
from polobench.report.draw.style import save, styled
from polobench.report.findings import Findings
from polobench.report.formatting import counted, listed, plain
from polobench.report.markdown import ENDING, plain_text, render, terminal
from polobench.report.sections import (
    article_runs,
    claims,
    curves,
    diagnostics,
    gradient_noise,
    language,
    leaderboard,
    preferences,
    provenance,
    robustness,
    task_cards,
    throughput,
    trend,
    tuning,
    verdict,
    welcome,
)
from polobench.report.words import GLOSSARY, glossary, names, note

MakeSections = Callable[[Findings], Sequence[Section]]
FIRST_PAGE: tuple[MakeSections, ...] = (
    welcome.sections,
    verdict.sections,
    provenance.caveat_sections,
    leaderboard.sections,
    preferences.front_sections,
    curves.sections,
    robustness.sections,
    claims.rating_sections,
    trend.sections,
)
LINKED_PAGES: dict[str, tuple[str, tuple[MakeSections, ...]]] = {
    "article": ("The evidence on the article", (claims.sections, article_runs.sections)),
    "preferences": ("One preference problem, several ways", (preferences.sections,)),
    "diagnostics": (
        "Diagnostics",
        (
            diagnostics.arrival_sections,
            diagnostics.update_sections,
            throughput.sections,
            gradient_noise.sections,
            language.preference_sections,
            language.policy_sections,
            language.answer_sections,
            language.note_sections,
        ),
    ),
    "settings": ("How settings were chosen", (tuning.sections,)),
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
    first = [*_made(FIRST_PAGE, findings), Section("Details", [_links(cards, linked)])]
    title = f"Report on {names(findings.collection.names, most=2)}"
    return [Page("report", title, first, _intro(findings), has_contents=True), *cards, *linked, glossary()]


def _made(makers: Sequence[MakeSections], findings: Findings) -> list[Section]:
    return list(chain.from_iterable(make(findings) for make in makers))


def _intro(findings: Findings) -> list[Block]:
    ran, sources = findings.ran, findings.collection.sources
    if not ran:
        tuning_alone: Text = ["The store holds tuning trials alone: ", Link("Tuning", "settings#tuning"), "."]
        return [Paragraph(tuning_alone if findings.trials else "The store holds no cell that ran.")]
    methods = counted(len({cell.method for cell in ran}), "method")
    tasks = counted(len({cell.task for cell in ran}), "task")
    cells = f"{counted(len(ran), 'cell')} ({provenance.kinds_of(ran)})"
    command = provenance.report_command(sources)
    drawn = [Code(command)] if command else [piece for name in sources for piece in (" and ", Code(plain(name)))][1:]
    said: list[Piece] = [f"{cells} of {methods} on {tasks}, drawn {'by' if command else 'from'} ", *drawn]
    return [Paragraph([*said, ". Words are defined in the ", Link("glossary", GLOSSARY), "."])]


def _links(cards: Sequence[Page], linked: Sequence[Page]) -> Bullets:
    """One line per linked file."""
    tasks = [piece for card in cards for piece in (", ", Link(card.title, card.file))][1:]
    items: list[Text] = [["A card per task with curves, tables and settings: ", *tasks]] if cards else []
    items += [[Link(page.title, page.file), f": {listed(part.title for part in page.sections)}"] for page in linked]
    items.append([Link("Every cell as a table", "tables/cells.csv"), " (CSV), beside the tables of each section"])
    return Bullets(items)


def write_report(
    store: Findings | Collection | Path | str, folder: Path | str, on_progress: OnProgress | None = None
) -> Path:
    """Write report.md and what it links to: further pages, figures/*.png and tables/*.csv.

    Args:
        store: its folder or pack, or what was made of it already.
        folder: where the report goes; made if it is not there.
        on_progress: hears `("reading" or "drawing", done, total)`.

    Returns:
        The path of report.md.

    Raises:
        UsageError: there is no such store, or the folder cannot be written to.
    """
    if not isinstance(store, Findings):
        store = Findings(store if isinstance(store, Collection) else collect(store, on_progress))
    findings, folder = store, Path(folder)
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


def draw(found: Sequence[Page], folder: Path, on_progress: OnProgress | None = None) -> list[Figure]:
    """Draw the figures of the pages; those without data are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part for page in found for part in (page.intro, *(item.blocks for item in page.sections))]
    figures = [block for part in parts for block in part if isinstance(block, Figure)]
    drawn = []
    for done, figure in enumerate(figures, 1):
        with styled():
            drawing = figure.draw()
            if drawing is not None:
                save(drawing, folder / f"{figure.name}.png")
                drawn.append(figure)
        if on_progress:
            on_progress("drawing", done, len(figures))
    return drawn


def _write_tables(findings: Findings, found: Sequence[Page], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {"cells": frame(findings.collection), **task_cards.tables(findings)}
    for section in chain.from_iterable(page.sections for page in found):
        assert tables.keys().isdisjoint(section.tables), "one table would overwrite another"
        tables |= section.tables
    for name, table in tables.items():
        if not table.empty:
            # of a mean, what follows the tenth digit depends on the processor
            table.to_csv(
                folder / f"{name}.csv", index=False, lineterminator="\n", errors="replace", float_format="%.10g"
            )


def verdict_text(findings: Findings) -> str:
    """The verdict as plain text for a terminal, with the methods of each task and what to know about the store."""
    cases = verdict.cases_of(findings)
    parts = [terminal(verdict.verdict_table(cases))] if cases and findings.comparisons else []
    for (task, budget), group in findings.comparisons.items():
        table = terminal(task_cards.terminal_table(group))
        parts.append(f"{plain(task)}, {plain(findings.budgets[task, budget])}\n\n{table}")
        parts += [plain_text(note("smoke"))] if is_smoke(group) else []
    collection = findings.collection
    notes = [f"- {plain(said)}" for said in provenance.store_caveats(collection)]
    notes += [f"- damaged file {plain(item.path.name)}: {plain(item.reason)}" for item in collection.damaged]
    return "\n\n".join([*(parts or ["No learning cell has run."]), *(["\n".join(notes)] if notes else [])]) + "\n"
