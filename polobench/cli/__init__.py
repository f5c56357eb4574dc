"""The command `polobench`. Heavy imports stand inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polobench.cli import gate as gate_cli
from polobench.core.errors import PoloError, UsageError, ending_in_one_line, unknown

if TYPE_CHECKING:
    from polobench.cells.runner import PreparedCell
    from polobench.kinds.cell import Cell
    from polobench.store.reader import Reader

app = typer.Typer(
    help="Which policy-optimization method should I use, at what cost, and how sure are we?",
    epilog="Start with: polobench run quick, then polobench report results/quick.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    """What `polobench list` can list."""

    methods = "methods"
    tasks = "tasks"
    devices = "devices"
    studies = "studies"


@app.command("list")
def list_command(
    kind: Annotated[Kind | None, typer.Argument(help="What to list; everything by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what there is, where it comes from, and why something is unavailable."""
    from polobench.run import listing

    rows = {item.value: listing.rows(item.value) for item in ([kind] if kind else Kind)}
    if as_json:
        typer.echo(json.dumps(rows[kind.value] if kind else rows, indent=2))
        return
    for name, entries in rows.items():
        typer.echo(f"{name}:")
        for row in entries:
            state = f"UNAVAILABLE: {row['reason']}" if row["reason"] else row.get("about", "")
            state += f" ({row['cells']:,} cells)" if "cells" in row else ""
            typer.echo(f"  {row['name']:<26} {row['source']:<14} {state}".rstrip())


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file, or a name that `polobench list studies` shows.")],
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; results/<study> by default. A pack X.zip is unpacked into X first.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Learning cells side by side; throughput cells run alone.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and the minutes; run nothing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only cells of this kind, such as learning, probe or throughput; may be given twice.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a study's cells; those that the store already holds are skipped, so an interrupted sweep goes on.

    Exits with 1 if a cell did not end ok, 2 on a mistake, 130 on Ctrl-C; finished cells are always kept.
    """
    from polobench.cells.runner import prepare
    from polobench.core.device import present_devices
    from polobench.kinds.table import parts
    from polobench.run.progress import Display
    from polobench.run.study import load_study
    from polobench.run.sweep import interrupted_text, pending, run_sweep
    from polobench.store.pack import open_store, store_to_fill

    plan = load_study(study, present_devices())
    place = store or Path("results") / plan.name
    for name in only or ():
        if name not in parts():
            raise unknown("kind of cells", name, parts())
    wanted = [cell for cell in plan.cells if not only or cell.part in only]
    if not wanted:
        raise UsageError(f"study {plan.name!r} has no cells of {', '.join(only or [])} (it has: {_parts(plan.cells)})")
    cells = [prepare(cell) for cell in wanted]
    if dry_run:
        _print_plan(cells, open_store(place), jobs)
        return
    folder = store_to_fill(place, lambda line: typer.echo(line, err=True))
    todo = pending(cells, folder)
    typer.echo(f"cells: {len(cells)}, already in {folder.folder}: {len(cells) - len(todo)}", err=True)
    try:
        with Display(len(todo)) as display:
            results = run_sweep(todo, folder, jobs, display)
    except KeyboardInterrupt:
        raise Interrupted(f"{interrupted_text(cells, folder)}, run again to go on") from None
    typer.echo(f"results: {folder.folder}   next: polobench report {folder.folder}")
    not_ok = [result for result in results if result.status not in ("ok", "skipped")]
    if not_ok:
        raise PoloError(f"{len(not_ok)} of {len(todo)} cells did not end ok; `polobench report` says why")


def _parts(cells: Sequence[Cell]) -> str:
    return ", ".join(sorted({cell.part for cell in cells}))


def _print_plan(cells: list[PreparedCell], store: Reader, jobs: int) -> None:
    from polobench.run.estimate import estimate
    from polobench.run.sweep import pending

    todo = pending(cells, store)
    for item in cells:
        note = f"unavailable: {item.unavailable}" if item.unavailable else "to run" if item in todo else "finished"
        typer.echo(f"{item.cell_id}  {item.cell}  {item.cell.budget}  [{note}]")
    possible = [item for item in todo if not item.unavailable]
    typer.echo(f"cells: {len(cells)}, to run: {len(possible)}; {estimate(possible, store, jobs)}")


@app.command()
def tune(
    file: Annotated[Path, typer.Argument(help="A tuning file, or the name of one, as tuning/matrix.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of the trials; results/tuning-<file> by default.", show_default=False)
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials side by side, of different methods or tasks.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON.")] = False,
) -> None:
    """Tune methods on tasks by Optuna; trials that the store already holds are not run again.

    Beside the trials' results it writes tuning.csv, a row a trial, and tuned.toml, the winners.
    """
    from polobench.run.tuning import TABLE_NAME, VALUES_NAME, table, tuned_toml
    from polobench.run.tuning import tune as search
    from polobench.run.tuning_plan import load_plan
    from polobench.store.pack import store_to_fill

    plan = load_plan(file)
    folder = store_to_fill(store or Path("results") / f"tuning-{plan.name}", lambda line: typer.echo(line, err=True))

    def announce(number: int, cells: int, to_run: int) -> None:
        already = f"already in {folder.folder}: {cells - to_run}"
        typer.echo(f"trial {number} (of 0 to {plan.trials - 1}): {cells} cells, {already}", err=True)

    try:
        trials = search(plan, folder, jobs, announce)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; finished trials are kept in {folder.folder}, run again to go on") from None
    found = table(trials)
    found.to_csv(folder.folder / TABLE_NAME, index=False)
    (folder.folder / VALUES_NAME).write_text(tuned_toml(plan, trials, f"polobench tune {file}"), encoding="utf-8")
    if as_json:
        typer.echo(found.to_json(orient="records", indent=2))
        return
    chosen = found[found["chosen"]][["method", "task", "trial", "objective", "status", "values"]]
    typer.echo(chosen.to_string(index=False))
    typer.echo(f"trials: {folder.folder / TABLE_NAME}   winners: {folder.folder / VALUES_NAME}")


@app.command()
def report(
    stores: Annotated[list[Path], typer.Argument(help="Folders or packs of results; several are read as one.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of the report; reports/<store> by default.", show_default=False),
    ] = None,
    claims: Annotated[
        Path | None,
        typer.Option(help="Claims to judge; polobench/analysis/claims.toml by default.", show_default=False),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="A history, as `polobench history` writes it: adds the trend.", show_default=False),
    ] = None,
) -> None:
    """Write the comparison report of a store: report.md, its figures, and its tables as CSV.

    Each claim of the claims file gets a verdict from the cells that it reads.
    """
    from rich.console import Console
    from rich.progress import Progress

    from polobench.analysis.claims import load_claims
    from polobench.analysis.collection import collect
    from polobench.gate.history import history_table
    from polobench.report.markdown import comparison_text, write_report
    from polobench.store.pack import open_store

    rules = load_claims(claims)
    trend = None if history is None else history_table(history)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks = {what: bars.add_task(what, total=None) for what in ("reading", "drawing")}

        def show(what: str, done: int, total: int) -> None:
            bars.update(tasks[what], completed=done, total=total)

        collection = collect(stores[0], show, *stores[1:])
        path = write_report(collection, output or Path("reports") / open_store(stores[0]).name, show, rules, trend)
    typer.echo(comparison_text(collection))
    typer.echo(f"report: {path}")


@app.command()
def pack(
    stores: Annotated[list[Path], typer.Argument(help="Folders or packs of results; several become one pack.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file; results/<store>.zip by default.", show_default=False),
    ] = None,
    slim: Annotated[
        bool, typer.Option("--slim", help="Only outcomes, curves and settings, as for tuning trials.")
    ] = False,
) -> None:
    """Write a store as one file that report, compare, verify and run --store read like the folder.

    The same store gives the same bytes. Absolute paths in reasons, tracebacks and settings are cut to their last part.
    """
    from polobench.store.pack import open_store, write_pack

    file = output or Path("results") / f"{open_store(stores[0]).name}.zip"
    count, size = write_pack(stores, file, slim), file.stat().st_size
    typer.echo(f"pack: {file}, {count:,} cells, {size:,} bytes ({size / max(1, count):,.0f} per cell)")


app.command()(gate_cli.compare)
app.command()(gate_cli.verify)
app.command()(gate_cli.ab)
app.command()(gate_cli.history)
app.add_typer(gate_cli.baseline_app, name="baseline")


class Interrupted(PoloError):
    """Ctrl-C, with what was kept."""

    exit_code = 130


@contextmanager
def _leaving_threads_behind() -> Iterator[None]:
    """Exit at once where an environment has left a thread that would keep the process for ever."""
    before = set(threading.enumerate())
    try:
        yield
    except SystemExit as ended:
        if any(not thread.daemon for thread in set(threading.enumerate()) - before):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise


def main() -> None:
    """Run the command; what went wrong becomes one line and an exit code: 2 for a mistake, 130 for Ctrl-C."""
    with _leaving_threads_behind(), ending_in_one_line():
        try:
            app()
        except SystemExit as ended:
            if ended.code == Interrupted.exit_code:  # typer swallows Ctrl-C and says nothing
                print("polobench: interrupted", file=sys.stderr)
            raise
