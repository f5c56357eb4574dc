"""How long a report takes and how much memory it needs, by the number of cells.

    python -m benchmarks.report_scale --cells 100 --cells 1000 --cells 10000

from the repository's root. Every store has the same tasks and methods, so the same figures; what grows is the number of
seeds. Stores are filled before any clock starts, and each report is written by a process of its own, whose peak of
resident memory is then the report's alone.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import track
from tabulate import tabulate

METHODS = ("dpo", "grpo", "ppo", "reinforce", "trpo")
TASKS = ("Acrobot-v1", "CartPole-v1", "MountainCar-v0", "Pendulum-v1")
DISTINCT_SEEDS = 20  # making a curve takes longer than reading one: later seeds repeat the earlier ones' curves
COLUMNS = ("cells", "reading s", "drawing s", "writing s", "in all s", "of CPU s", "peak MiB")


class Moment(NamedTuple):
    """Seconds of the wall and of the process's CPU."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.perf_counter(), time.process_time())


def main(
    cells: Annotated[list[int] | None, typer.Option(min=1, help="Of a store; once for each store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the reports of made-up stores and print what each took."""
    rows = []
    for size in cells or [100, 1_000, 10_000]:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder) / "store", size)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
                rows.append((size, *worker.submit(measure, Path(folder)).result()))
    if as_json:
        print(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=2))
    else:
        print(tabulate(rows, COLUMNS, floatfmt=".1f", intfmt=","))


def fill(folder: Path, cells: int) -> None:
    """A store of that many learning cells: every task and method once before the next seed."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from synthetic import make_result

    folder.mkdir()
    made: dict[tuple[str, str, int], dict[str, object]] = {}
    arms = list(product(METHODS, TASKS))
    for number in track(range(cells), f"{cells:,} cells", console=Console(stderr=True), transient=True):
        seed, arm = divmod(number, len(arms))
        key = (*arms[arm], seed % DISTINCT_SEEDS)
        if key not in made:
            made[key] = make_result(*key).to_dict()
        plain = made[key] | {"seed": seed, "cell_id": f"{number:020x}"}
        (folder / f"{number:020x}.json").write_text(json.dumps(plain, separators=(",", ":")), encoding="utf-8")


def measure(folder: Path) -> tuple[float, float, float, float, float, float]:
    """Wall seconds of reading, drawing and writing, of all, its CPU seconds, and the peak of memory [MiB]."""
    from polobench.analysis.collection import collect
    from polobench.report.page import write_report

    moments = [Moment.now()]

    def heard(what: str, done: int, total: int) -> None:
        if done == total:
            moments.append(Moment.now())

    write_report(collect(folder / "store", heard), folder / "report", heard)
    begin, read, drawn, end = (*moments, Moment.now())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        read.wall - begin.wall,
        drawn.wall - read.wall,
        end.wall - drawn.wall,
        end.wall - begin.wall,
        end.cpu - begin.cpu,
        peak,
    )


if __name__ == "__main__":
    typer.run(main)
