"""Pools of real runs of the study `ci`, sound or with a planted fault, from which the gate's error rates are drawn.

    python -m benchmarks.gate_runs --seeds 0-59 --jobs 2                     # sound runs, into results/gate/sound
    python -m benchmarks.gate_runs --faults --seeds 60-99 --jobs 2           # every fault, into results/gate/FAULT
    python -m benchmarks.gate_rates                                          # what follows from them

A run that is in its store already is not made again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.gate_faults import FAULTS
from polobench.cells.runner import prepare, run_cell
from polobench.kinds.cell import Cell
from polobench.run.study import load_study, parse_seeds
from polobench.store.folder import Store

STUDY = "ci"
FOLDER = Path("results/gate")
SOUND = "sound"


@dataclass(frozen=True)
class Job:
    """One run: of which pool, and which cell."""

    pool: str
    cell: Cell


def folder_of(pool: str) -> Path:
    """The store of a pool: `SOUND`, or a key of `FAULTS`."""
    return FOLDER / re.sub(r"[^a-z0-9]+", "-", pool.lower()).strip("-")


def jobs_of(pool: str, seeds: Sequence[int], kind: str) -> Iterator[Job]:
    """The study's arms of this kind over other seeds; of a fault its own arm alone."""
    fault = FAULTS.get(pool)
    arms = {(cell.label, cell.task, str(cell.budget)): cell for cell in load_study(STUDY).cells if cell.kind == kind}
    for cell in arms.values():
        if fault is None or (cell.label, cell.task) == (fault.label, fault.task):
            yield from (Job(pool, replace(cell, seed=seed)) for seed in seeds)


def _fault_jobs(seeds: Sequence[int]) -> Iterator[Job]:
    """Every fault where its layer looks: over whole runs, or on stored batches, with the sound ones beside them."""
    looked_at = {(fault.label, fault.task) for fault in FAULTS.values() if fault.layer != "learning"}
    for job in jobs_of(SOUND, seeds, "fixed_batch"):
        if (job.cell.label, job.cell.task) in looked_at:
            yield job
    for name, fault in FAULTS.items():
        yield from jobs_of(name, seeds, "learning" if fault.layer == "learning" else "fixed_batch")


def make_run(job: Job) -> str:
    """Run a job and keep its result; gives how it ended."""
    store, fault = Store(folder_of(job.pool)), FAULTS.get(job.pool)
    store.prepare()
    prepared = prepare(job.cell)
    if store.path(prepared.cell_id).exists():
        return "there already"
    if fault is None:
        result = run_cell(prepared)
    else:
        assert prepared.method is not None
        fault.change(prepared.method)
        with fault.plant():
            result = run_cell(prepared)
    store.save(result)
    return result.status


def main() -> None:
    """The command of the module's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-59")
    parser.add_argument("--faults", action="store_true", help="every fault instead of the sound runs")
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    seeds = parse_seeds(asked.seeds)
    jobs = list(_fault_jobs(seeds) if asked.faults else jobs_of(SOUND, seeds, "learning"))
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(asked.jobs, context) as executor:
        running = [executor.submit(make_run, job) for job in jobs]
        ended = [
            done.result() for done in track(as_completed(running), "runs", len(jobs), console=Console(stderr=True))
        ]
    for status in sorted(set(ended)):
        print(f"{status}: {ended.count(status)} of {len(jobs)}")


if __name__ == "__main__":
    main()
