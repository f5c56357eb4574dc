"""The commands that train, and `polobench status`, which says how far they have come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polobench.cli.common import AsJson, Interrupted, ignore_further_interrupts, note, show
from polobench.core.errors import PoloError, Unavailable

if TYPE_CHECKING:
    from polobench.cells.runner import PreparedCell
    from polobench.run.executor import OpenExecutor
    from polobench.store.folder import Reader, Store

OfTask = Annotated[
    list[str] | None,
    typer.Option(help="Only cells on this task; repeat for several: a long study can be spread over days."),
]


def run(
    study: Annotated[Path, typer.Argument(help="A study file, or the name of a study (see: polobench list studies).")],
    store: Annotated[
        Path | None,
        typer.Option(help="Folder for the results [default: results/<study>]; a pack X.zip is unpacked into X first."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cells run at the same time; cells that are timed run alone [default: 1; on a cluster its capacity].",
        ),
    ] = None,
    executor: Annotated[str, typer.Option(help="What runs the cells: processes, serial, ray or slurm.")] = "processes",
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to join, such as auto; with slurm what submitit calls the cluster: slurm or local.",
        ),
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Cells per SLURM task.")] = 1,
    slurm: Annotated[
        list[str] | None,
        typer.Option(help="SLURM setting, such as partition=gpu; repeat for several."),
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Wall seconds per cell.")] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=1, help="MiB of resident memory per cell, its child processes included."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also run failed cells again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and the estimated minutes; run nothing.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only cells of this kind, such as learning, probe or throughput; repeat for several."),
    ] = None,
    task: OfTask = None,
) -> None:
    """Run the cells of a study.

    A cell is one run of one method on one task with one seed. Cells that the store already holds are skipped, so
    run the same command again to continue after an interruption. Finished cells are always kept. A cell beyond its
    limits is ended, and the sweep goes on. Ctrl-C lets the running cells finish; a second Ctrl-C stops them.

    Exit code: 0 if every cell ended ok or was skipped, 1 if one did not or all were skipped, 2 on a usage error, 130
    after Ctrl-C.
    """
    from polobench.cells.runner import prepare_all
    from polobench.core.device import present_devices
    from polobench.run.choice import choose
    from polobench.run.study import load_study
    from polobench.store.pack import open_store, store_to_fill

    asked = load_study(study, present_devices()).limited(timeout_seconds=timeout, memory_mib=memory)
    place = store or Path("results") / asked.name
    asked = asked.narrowed(only or (), task or ())
    cells = prepare_all(asked.cells)
    for line in asked.untuned():
        note(line)
    if dry_run:
        _print_cells(cells, open_store(place), jobs or 1, retry_failed)
        return
    folder = store_to_fill(place, note)
    open_executor = choose(executor, asked, folder.folder, jobs, address, chunk, slurm or ())
    ends = _run_cells(cells, folder, open_executor, retry_failed)
    typer.echo(f"results: {folder.folder}   next: polobench report {folder.folder}")
    if not_ok := len(ends) - ends.count("ok") - ends.count("skipped"):
        raise PoloError(f"{not_ok} of {len(ends)} cells did not end ok; `polobench report` says why")
    if cells and ends.count("skipped") == len(cells):
        raise PoloError(f"nothing ran: all {len(cells)} cells were skipped, for the reasons above")


def _run_cells(
    cells: Sequence[PreparedCell], folder: Store, open_executor: OpenExecutor, retry_failed: bool = False
) -> list[str]:
    """Run what the store lacks, with a display; the status of each cell, those that it had included."""
    from polobench.run.progress import Display
    from polobench.run.status import tidy
    from polobench.run.sweep import interrupted_text, pending, run_sweep, statuses

    tidy(folder)
    ended = statuses(folder)
    todo = pending(cells, ended, retry_failed)
    waiting = {item.cell_id for item in todo}
    ends = [ended[item.cell_id] for item in cells if item.cell_id not in waiting]
    try:
        note(f"cells: {len(cells)}, already in {folder.folder}: {len(cells) - len(todo)}")
        with Display(len(todo)) as display:
            run_sweep(todo, folder, display, open_executor, lambda result: ends.append(result.status))
    except KeyboardInterrupt:
        ignore_further_interrupts()
        raise Interrupted(f"{interrupted_text(cells, folder)}, run again to go on") from None
    return ends


def status(
    store: Annotated[Path, typer.Argument(help="A store: a folder or a pack.")],
    study: Annotated[
        Path | None,
        typer.Option(help="The study, a file or a name, whose missing cells are counted."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells run at the same time, for the estimate.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Count what is done, running, failed and missing.

    The cells of a store are counted per arm: a method and variant on a task with a budget and a device. With --study
    the missing cells are counted, too, and the time that they will take is estimated.
    """
    from polobench.run.status import STATES
    from polobench.run.status import status as counted
    from polobench.store.pack import open_store

    cells: list[PreparedCell] = []
    if study is not None:
        from polobench.cells.runner import prepare_all
        from polobench.core.device import present_devices
        from polobench.run.study import load_study

        cells = prepare_all(load_study(study, present_devices()).cells)
    found = counted(open_store(store), cells, jobs)

    def counts(row: dict[str, Any]) -> str:
        return ", ".join(f"{state} {row[state]}" for state in STATES)

    names = ("label", "task", "budget", "device")
    lines = [f"{counts(arm)}   {' · '.join(arm[name] for name in names)}" for arm in found["arms"]]
    damaged = f", damaged files: {found['damaged']}" if found["damaged"] else ""
    left = f"; left: {found['left']}" if found["left"] else ""
    show(as_json, found, [*lines, f"cells: {counts(found)}{damaged}{left}"])


def _print_cells(cells: list[PreparedCell], store: Reader, jobs: int, retry_failed: bool) -> None:
    from polobench.core.result import RunResult
    from polobench.run.estimate import estimate
    from polobench.run.sweep import pending
    from polobench.store.folder import outcome_only

    stored = list(store.each(trim=outcome_only)) if store.place.exists() else []
    results = [item for item in stored if isinstance(item, RunResult)]
    todo = {item.cell_id for item in pending(cells, {item.cell_id: item.status for item in results}, retry_failed)}
    for item in cells:
        note = (
            f"unavailable: {item.unavailable}" if item.unavailable else "to run" if item.cell_id in todo else "finished"
        )
        typer.echo(f"{item.cell_id}  {item.cell}  {item.cell.budget}  [{note}]")
    possible = [item for item in cells if item.cell_id in todo and not item.unavailable]
    typer.echo(f"cells: {len(cells)}, to run: {len(possible)}; {estimate(possible, results, jobs)}")


def tune(
    file: Annotated[Path, typer.Argument(help="A tuning file, or the name of one, such as tuning/matrix.")],
    store: Annotated[Path | None, typer.Option(help="Folder for the trials [default: results/tuning-<file>].")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Configurations per method and task, in place of the file's number.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs and the estimated minutes; run nothing.")
    ] = False,
    task: OfTask = None,
    as_json: AsJson = False,
) -> None:
    """Tune methods on tasks by random search.

    Every configuration runs on each tuning seed, with half of the study's budget and on prompts or start states that
    are never reported. Runs that the store already holds are not run again. tuned.toml in the folder receives the
    values with the best mean score; `polobench report` draws how much fewer trials would have found.
    """
    from functools import partial

    from polobench.analysis.tuning import trial_frame, trials_of, tuned_toml
    from polobench.cells.runner import prepare_all
    from polobench.core.result import RunResult
    from polobench.run.processes import Processes
    from polobench.run.tuning import check_scored, load_tuning
    from polobench.store.folder import outcome_only, replacing
    from polobench.store.pack import open_store, store_to_fill

    tuning = load_tuning(file, trials).narrowed(tasks=task or ())
    place = store or Path("results") / f"tuning-{tuning.name}"
    cells = prepare_all(tuning.cells)
    check_scored(cells)
    if dry_run:
        _print_cells(cells, open_store(place), jobs, retry_failed=False)
        return
    of_other_days = [cell for cell in load_tuning(file).cells if cell.task not in task] if task else []
    ids = {item.cell_id for item in (*cells, *prepare_all(of_other_days))}
    folder = store_to_fill(place, note)
    _run_cells(cells, folder, partial(Processes, jobs))
    results = [item for item in folder.each(trim=outcome_only) if isinstance(item, RunResult) and item.cell_id in ids]
    found = trials_of(results)
    if not found:
        raise Unavailable(f"nothing can be tuned here: {cells[0].unavailable}")
    winners = folder.folder / "tuned.toml"
    with replacing(winners) as written:
        written.write(tuned_toml(found, f"polobench tune {file}").encode())
    table = trial_frame(found)
    if as_json:
        typer.echo(table.to_json(orient="records", indent=2))
        return
    typer.echo(table[table["chosen"]][["label", "task", "trial", "score", "failed", "values"]].to_string(index=False))
    typer.echo(f"winners: {winners}   next: polobench report {folder.folder}")
