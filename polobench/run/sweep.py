"""One sweep: cells are scheduled on an executor, their results stored, and everything is shown.

Cells run `jobs` at a time; those whose kind must run alone come at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polobench.cells.runner import PreparedCell, blank_result, run_cell
from polobench.core.errors import first_line
from polobench.core.recorder import Progress
from polobench.core.result import TRIED_AGAIN, RunResult
from polobench.run.processes import Executor, Processes, SweepStopped
from polobench.run.progress import Display
from polobench.store.folder import Reader, Store


def pending(prepared: Sequence[PreparedCell], store: Reader) -> list[PreparedCell]:
    """The cells whose result is not in the store yet; damaged ones and those that only the machine ended included."""
    return [item for item in prepared if not _is_finished(store, item.cell_id)]


def _is_finished(store: Reader, cell_id: str) -> bool:
    found = store.load(cell_id)
    return isinstance(found, RunResult) and found.status not in TRIED_AGAIN


def interrupted_text(cells: Sequence[PreparedCell], store: Store) -> str:
    """What to say of an interrupted sweep."""
    kept = len(cells) - len(pending(cells, store))
    return f"interrupted; {kept} of {len(cells)} cells are kept in {store.folder}"


def keep(prepared: PreparedCell, result: RunResult, store: Store, display: Display) -> RunResult:
    """Store the cell's result and show it; gives what was stored.

    Raises:
        SweepStopped: the store cannot be written to.
    """
    try:
        try:
            store.save(result)
        except (TypeError, ValueError) as error:  # a plug-in's value that JSON does not know
            result = blank_result(prepared, "failed", f"the result cannot be stored: {first_line(error)}")
            store.save(result)
    except OSError as error:
        raise SweepStopped(f"store {str(store.folder)!r} cannot be written to: {error.strerror or error}") from error
    display.finished(prepared.cell, result)
    return result


def run_sweep(
    cells: Sequence[PreparedCell],
    store: Store,
    jobs: int,
    display: Display,
    open_executor: Callable[[Sequence[PreparedCell]], Executor] = Processes,
) -> list[RunResult]:
    """Run the cells, fill the store, and give the results in the order in which they came.

    Args:
        cells: what to run.
        store: must be prepared.
        jobs: cells that run side by side.
        display: hears of everything.
        open_executor: gives what runs the cells that it is told.

    Raises:
        SweepStopped: a result could not be written, or the sources changed; what still runs is stopped.
        KeyboardInterrupt: what still runs is stopped; what was finished is in the store.
    """
    results: list[RunResult] = []

    def end(prepared: PreparedCell, result: RunResult) -> None:
        results.append(keep(prepared, result, store, display))

    for item in cells:
        if item.method is None:
            display.started(item.cell)
            end(item, run_cell(item))
    possible = [item for item in cells if item.method is not None]
    together = [item for item in possible if not item.cell.plan.runs_alone]
    alone = [item for item in possible if item.cell.plan.runs_alone]
    with open_executor(possible) as executor:
        _run_all(executor, together, jobs, jobs > 1 and len(together) > 1, display, end)
        _run_all(executor, alone, 1, False, display, end)
    return results


def _run_all(
    executor: Executor,
    cells: Sequence[PreparedCell],
    jobs: int,
    beside_others: bool,
    display: Display,
    end: Callable[[PreparedCell, RunResult], None],
) -> None:
    waiting, running = list(cells), 0
    while waiting or running:
        while waiting and running < jobs:
            item = waiting.pop(0)
            display.started(item.cell)
            executor.start(item, beside_others)
            running += 1
        for prepared, word in executor.words():
            if isinstance(word, Progress):
                display.moved(prepared.cell, word)
            else:
                running -= 1
                end(prepared, word)
