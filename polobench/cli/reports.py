"""The commands that read stores and write pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polobench.cli.common import progress_bars


def report(
    stores: Annotated[list[Path], typer.Argument(help="One or more folders or packs of results, read as one.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the report [default: reports/<store>].")
    ] = None,
    claims: Annotated[
        Path | None, typer.Option(help="File of claims to judge [default: the source article's].")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="File written by `polobench history`; adds a page on the trend.")
    ] = None,
) -> None:
    """Compare the methods in a store.

    Writes report.md, the pages it links to, figures, and tables as CSV, from stored results alone. Each claim in the
    file of claims gets a verdict from the cells it is about.
    """
    from polobench.analysis.claims import load_claims
    from polobench.analysis.collection import collect
    from polobench.gate.history import history_table
    from polobench.report.findings import Findings
    from polobench.report.page import verdict_text, write_report
    from polobench.store.pack import open_store

    rules = load_claims(claims)
    trend = None if history is None else history_table(history)
    with progress_bars() as bars:
        tasks = {what: bars.add_task(what, total=None) for what in ("reading", "drawing")}

        def show(what: str, done: int, total: int) -> None:
            bars.update(tasks[what], completed=done, total=total)

        collection = collect(stores[0], show, *stores[1:])
        findings = Findings(collection, rules, trend)
        path = write_report(findings, output or Path("reports") / open_store(stores[0]).name, show)
    typer.echo(verdict_text(findings))
    typer.echo(f"report: {path}")


def pack(
    stores: Annotated[list[Path], typer.Argument(help="Folders or packs of results; several become one pack.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write [default: results/<store>.zip].")
    ] = None,
    slim: Annotated[bool, typer.Option("--slim", help="Keep only outcomes, curves and settings.")] = False,
) -> None:
    """Write a store as one file.

    A pack is read by report, compare, verify and run --store like the folder. The same store gives the same bytes.
    Absolute paths in reasons, tracebacks and settings are cut to their last part.
    """
    from polobench.core.errors import UsageError
    from polobench.store.pack import open_store, write_pack

    file = output or Path("results") / f"{open_store(stores[0]).name}.zip"
    if file.resolve() in {store.resolve() for store in stores}:
        raise UsageError(f"{str(file)!r} would be written over itself (name another file with -o)")
    count, size = write_pack(stores, file, slim), file.stat().st_size
    typer.echo(f"pack: {file}, {count:,} cells, {size:,} bytes ({size / max(1, count):,.0f} per cell)")
