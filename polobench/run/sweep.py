"""One sweep: cells are scheduled on an executor, their results stored, and everything is shown.

As many cells run at the same time as the executor takes; those whose kind must run alone come at the end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from polobench.cells.runner import PreparedCell, blank_result
from polobench.core.errors import first_line
from polobench.core.recorder import Progress
from polobench.core.result import STATUSES, TRIED_AGAIN, RunResult
from polobench.run.executor import Ended, Executor, OpenExecutor, Outcome, SweepStopped
from polobench.run.progress import Display
from polobench.run.signals import handled
from polobench.run.status import Mark
from polobench.store.folder import Reader, Store, outcome_only

OnResult = Callable[[RunResult], object]


def statuses(store: Reader) -> dict[str, str]:
    """How each cell of a store ended, by its id; damaged ones left out, and nothing where there is no store yet."""
    stored = store.each(trim=outcome_only) if store.place.exists() else ()
    return {item.cell_id: item.status for item in stored if isinstance(item, RunResult)}


def pending(
    prepared: Sequence[PreparedCell], ended: Mapping[str, str], retry_failed: bool = False
) -> list[PreparedCell]:
    """The cells without a result yet; those that only the machine ended included, and with `retry_failed` all that did
    not end ok.
    """
    again = STATUSES[1:] if retry_failed else TRIED_AGAIN
    return [item for item in prepared if ended.get(item.cell_id, "skipped") in again]


def interrupted_text(cells: Sequence[PreparedCell], store: Store) -> str:
    """What to say of an interrupted sweep."""
    kept = len(cells) - len(pending(cells, statuses(store)))
    return f"interrupted; {kept} of {len(cells)} cells are kept in {store.folder}"


def run_sweep(
    cells: Sequence[PreparedCell],
    store: Store,
    display: Display,
    open_executor: OpenExecutor,
    on_result: OnResult = lambda result: None,
) -> None:
    """Run the cells and fill the store.

    Ctrl-C lets the cells in flight end; a second one, or a SIGTERM, stops them.

    Args:
        cells: what to run.
        store: must be prepared.
        display: hears of everything.
        open_executor: gives what runs the cells that it is told.
        on_result: hears each result once it is stored; the sweep keeps none, as there may be 100,000.

    Raises:
        SweepStopped: a result could not be written, or the sources changed; what still runs is stopped.
        KeyboardInterrupt: after Ctrl-C; what was finished is in the store.
    """
    possible = [item for item in cells if item.method is not None]
    together = [item for item in possible if not item.cell.plan.runs_alone]
    alone = [item for item in possible if item.cell.plan.runs_alone]
    with Mark(store) as mark:
        sweep = _Sweep(store, display, mark, on_result)
        for item in cells:
            if item.method is None:
                sweep.end(item, Ended("skipped", item.unavailable))
        with (
            handled(signal.SIGINT, sweep.interrupt),
            open_executor(possible) as executor,
            handled(signal.SIGTERM, sweep.stop),  # which Ray takes for itself as it starts
        ):
            sweep.run(executor, together, executor.capacity)
            sweep.run(executor, alone, 1)
    if sweep.interrupted:
        raise KeyboardInterrupt


@dataclass
class _Sweep:
    """A sweep under way."""

    store: Store
    display: Display
    mark: Mark
    on_result: OnResult
    interrupted: bool = False
    _beside_others: bool = False

    def interrupt(self, *signal_and_frame: object) -> None:
        if self.interrupted:
            self.stop()
        self.interrupted = True

    def stop(self, *signal_and_frame: object) -> None:
        raise KeyboardInterrupt

    def run(self, executor: Executor, cells: Sequence[PreparedCell], most: int) -> None:
        """Run the cells, at most so many at the same time; after an interrupt no more than have been started."""
        waiting, running = list(reversed(cells)), dict[str, PreparedCell]()
        self._beside_others = most > 1 and len(cells) > 1
        told = False
        while (waiting and not self.interrupted) or running:
            while waiting and len(running) < most and not self.interrupted:
                item = waiting.pop()
                self.display.started(item.cell)
                executor.start(item)
                running[item.cell_id] = item
            if self.interrupted and not told:
                self.display.note(f"finishing what runs ({len(running)}); Ctrl-C again stops it")
                told = True
            self.mark.show(running)
            for prepared, outcome in executor.outcomes(self._moved):
                del running[prepared.cell_id]
                self.end(prepared, outcome)

    def _moved(self, prepared: PreparedCell, progress: Progress) -> None:
        self.display.moved(prepared.cell, progress)

    def end(self, prepared: PreparedCell, outcome: Outcome) -> None:
        """Store the cell's result and show it.

        Raises:
            SweepStopped: the store cannot be written to.
        """
        result = blank_result(prepared, outcome.status, outcome.reason) if isinstance(outcome, Ended) else outcome
        result.ran_beside_others = self._beside_others
        try:
            try:
                self.store.keep(result)
            except (TypeError, ValueError) as error:  # a plug-in's value that JSON does not know
                result = blank_result(prepared, "failed", f"the result cannot be stored: {first_line(error)}")
                self.store.save(result)
        except OSError as error:
            raise SweepStopped(
                f"store {str(self.store.folder)!r} cannot be written to: {error.strerror or error}"
            ) from error
        self.display.finished(prepared.cell, result)
        self.on_result(result)
