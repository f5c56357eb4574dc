"""Cells as tasks of SLURM job arrays, through submitit. Every machine has to see the store's folder."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from polobench.cells.runner import PreparedCell
from polobench.core.errors import Unavailable, UsageError, first_line
from polobench.core.recorder import Progress
from polobench.run.executor import Ended, Executor, Moved, Outcome
from polobench.run.remote import Orders, heard, last_words_into, word_file

MOST_QUEUED = 1000  # tasks of arrays at the same time; SLURM's own default limit is 1,001 per array
UNLIMITED_MINUTES = 24 * 60  # that a task asks for whose cells have no limit
POLL_SECONDS = 1.0
LATE_SECONDS = 5.0  # that a file of a job that has ended may take to be seen here
MOST_QUOTED = 200


def minutes_of(cells: Sequence[PreparedCell], chunk: int) -> int:
    """What a task of so many of these cells asks for; submitit would ask for five."""
    seconds = max(item.cell.timeout_seconds or math.inf for item in cells) * chunk
    return UNLIMITED_MINUTES if math.isinf(seconds) else math.ceil(seconds / 60) + 1


class Slurm(Executor):
    """Runs cells in job arrays, `chunk` cells per task.

    Args:
        jobs: how many tasks side by side; 0 for as many as the cluster takes.
        folder: the store's; the jobs' files lie in a folder beneath it that only its owner can open.
        cluster: what submitit calls the cluster: "slurm", or "local" for processes on this machine.
        parameters: of submitit, such as {"slurm_partition": "gpu"}.

    Raises (when entered):
        Unavailable: submitit is not installed.
        UsageError: there is no such cluster here, or it knows no such parameter.
    """

    def __init__(
        self, orders: Orders, jobs: int, folder: Path, cluster: str, chunk: int, parameters: Mapping[str, Any]
    ) -> None:
        self._orders, self._cluster, self._chunk = orders, cluster, chunk
        self._parameters = dict(parameters) | ({"slurm_array_parallelism": jobs} if jobs else {})
        self.capacity = (jobs or MOST_QUEUED) * chunk
        self._store = folder
        self._waiting = list[PreparedCell]()
        self._running: dict[str, tuple[PreparedCell, Any]] = {}  # with its job, by cell id
        self._leaving: list[Any] = []  # jobs of cells that have ended
        self._gone: dict[str, float] = {}  # when a job was first seen to have ended that left no word of a cell

    def __enter__(self) -> Self:
        try:
            import submitit
        except ImportError:
            raise Unavailable('the executor needs submitit: pip install "polobench[slurm]"') from None
        self._folder = tempfile.TemporaryDirectory(prefix=".slurm-", dir=self._store, ignore_cleanup_errors=True)
        try:
            self._jobs = submitit.AutoExecutor(Path(self._folder.name) / "jobs", cluster=self._cluster)
            self._jobs.update_parameters(**self._parameters)
        except Exception as error:  # submitit raises what comes: RuntimeError, NameError, AssertionError
            self._folder.cleanup()
            raise UsageError(f"submitit cannot use {self._cluster!r}: {first_line(error)}") from error
        return self

    def __exit__(self, *error: object) -> None:
        for _, job in self._running.values():
            with suppress(Exception):  # it may have ended meanwhile
                job.cancel()
        self._folder.cleanup()

    def start(self, prepared: PreparedCell) -> None:
        self._waiting.append(prepared)

    def _submit(self) -> None:
        """One array of all cells that wait."""
        cells, self._waiting = self._waiting, []
        wanted = {
            "cpus_per_task": max(item.cell.threads for item in cells),
            "gpus_per_node": int(any(item.cell.device == "cuda" for item in cells)),
            "mem_gb": max(item.cell.memory_mib or 0 for item in cells) / 1024,
            "timeout_min": minutes_of(cells, self._chunk),
        }
        self._jobs.update_parameters(**{name: amount for name, amount in wanted.items() if amount})
        chunks = [cells[at : at + self._chunk] for at in range(0, len(cells), self._chunk)]
        asked = [[self._orders(item) for item in chunk] for chunk in chunks]
        jobs = self._jobs.map_array(last_words_into, [self._folder.name] * len(chunks), asked)
        for chunk, job in zip(chunks, jobs, strict=True):
            self._running |= {item.cell_id: (item, job) for item in chunk}

    def outcomes(self, moved: Moved) -> Sequence[tuple[PreparedCell, Outcome]]:
        if len(self._waiting) >= self._chunk or not self._running:
            self._submit()
        time.sleep(POLL_SECONDS)
        found = [(item, self._outcome(item, job)) for item, job in self._running.values()]
        ended = [(item, outcome) for item, outcome in found if outcome is not None]
        self._leaving += [self._running.pop(item.cell_id)[1] for item, _ in ended]
        self._leaving = [job for job in self._leaving if not job.done()]  # a local one is our child until asked
        return ended

    def _outcome(self, prepared: PreparedCell, job: Any) -> Outcome | None:
        """How the cell has ended; None if it has not."""
        path = word_file(Path(self._folder.name), prepared.cell_id)
        if path.exists():
            word = heard(path.read_text(encoding="utf-8"))
            assert not isinstance(word, Progress)  # which no file holds
            return word
        if not job.done():
            return None
        since = self._gone.setdefault(prepared.cell_id, time.monotonic())
        if time.monotonic() - since < LATE_SECONDS:
            return None
        said = (job.stderr() or "").strip().rpartition("\n")[2][:MOST_QUOTED]
        return Ended("crashed", f"its job {job.job_id} ended without a result" + (f": {said}" if said else ""))
