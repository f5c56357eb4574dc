"""The commands that train: `polobench run` and `polobench tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polobench.cli.common import AsJson, Interrupted, note
from polobench.core.errors import PoloError, UsageError, unknown

if TYPE_CHECKING:
    from polobench.cells.runner import PreparedCell
    from polobench.store.folder import Reader


def run(
    study: Annotated[Path, typer.Argument(help="A study file, or the name of a study (see: polobench list studies).")],
    store: Annotated[
        Path | None,
        typer.Option(help="Folder for the results [default: results/<study>]; a pack X.zip is unpacked into X first."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells run at the same time; cells that are timed run alone.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and the estimated minutes; run nothing.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only cells of this kind, such as learning, probe or throughput; repeat for several."),
    ] = None,
) -> None:
    """Run the cells of a study.

    A cell is one run of one method on one task with one seed. Cells that the store already holds are skipped, so
    run the same command again to continue after an interruption. Finished cells are always kept.

    Exit code: 0 if every cell ended ok, 1 if one did not, 2 on a usage error, 130 after Ctrl-C.
    """
    from polobench.cells.runner import prepare
    from polobench.core.device import present_devices
    from polobench.kinds.table import parts
    from polobench.run.progress import Display
    from polobench.run.study import load_study
    from polobench.run.sweep import interrupted_text, pending, run_sweep
    from polobench.store.pack import open_store, store_to_fill

    asked = load_study(study, present_devices())
    place = store or Path("results") / asked.name
    for name in only or ():
        if name not in parts():
            raise unknown("kind of cells", name, parts())
    wanted = [cell for cell in asked.cells if not only or cell.part in only]
    if not wanted:
        there = ", ".join(sorted({cell.part for cell in asked.cells}))
        raise UsageError(f"study {asked.name!r} has no cells of {', '.join(only or [])} (it has: {there})")
    cells = [prepare(cell) for cell in wanted]
    if dry_run:
        _print_cells(cells, open_store(place), jobs)
        return
    folder = store_to_fill(place, note)
    todo = pending(cells, folder)
    note(f"cells: {len(cells)}, already in {folder.folder}: {len(cells) - len(todo)}")
    try:
        with Display(len(todo)) as display:
            results = run_sweep(todo, folder, jobs, display)
    except KeyboardInterrupt:
        raise Interrupted(f"{interrupted_text(cells, folder)}, run again to go on") from None
    typer.echo(f"results: {folder.folder}   next: polobench report {folder.folder}")
    not_ok = [result for result in results if result.status not in ("ok", "skipped")]
    if not_ok:
        raise PoloError(f"{len(not_ok)} of {len(todo)} cells did not end ok; `polobench report` says why")


def _print_cells(cells: list[PreparedCell], store: Reader, jobs: int) -> None:
    from polobench.run.estimate import estimate
    from polobench.run.sweep import pending

    todo = pending(cells, store)
    for item in cells:
        note = f"unavailable: {item.unavailable}" if item.unavailable else "to run" if item in todo else "finished"
        typer.echo(f"{item.cell_id}  {item.cell}  {item.cell.budget}  [{note}]")
    possible = [item for item in todo if not item.unavailable]
    typer.echo(f"cells: {len(cells)}, to run: {len(possible)}; {estimate(possible, store, jobs)}")


def tune(
    file: Annotated[Path, typer.Argument(help="A tuning file, or the name of one, such as tuning/matrix.")],
    store: Annotated[Path | None, typer.Option(help="Folder for the trials [default: results/tuning-<file>].")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials run at the same time, each for another method or task.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Tune methods on tasks with Optuna.

    Trials that the store already holds are not run again. The folder also receives tuning.csv, with one row per
    trial, and tuned.toml, with the winning values.
    """
    from polobench.run.tuning import TABLE_NAME, VALUES_NAME, table, tuned_toml
    from polobench.run.tuning import tune as search
    from polobench.run.tuning_plan import load_plan
    from polobench.store.pack import store_to_fill

    plan = load_plan(file)
    folder = store_to_fill(store or Path("results") / f"tuning-{plan.name}", note)

    def announce(number: int, cells: int, to_run: int) -> None:
        already = f"already in {folder.folder}: {cells - to_run}"
        note(f"trial {number} (of 0 to {plan.trials - 1}): {cells} cells, {already}")

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
