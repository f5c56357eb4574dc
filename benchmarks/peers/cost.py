"""What a user waits for beside learning: the start, the quick study, evaluations, recording.

Starts and the quick study are wall seconds of whole commands, honest on an idle machine only: the note says how many
cores other work kept busy in the second before a round, or after it, where that was above 0.5.

`evaluations` runs the learning cells of the study `matrix` of one seed and takes what is not training (evaluations,
recording, making environments) as a share of their CPU seconds. `recording` watches the functions that record, hash and
meter in runs of PPO and of TRPO on CartPole-v1; the watch itself is counted against them, evaluations are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.alternation import Ceiling
from benchmarks.peers.control import FIRST_SEED
from benchmarks.peers.today import ROOT, last_line
from benchmarks.spent import REST, spent
from polobench.core.budget import Ledger
from polobench.core.errors import PoloError
from polobench.core.method import Method
from polobench.core.recorder import Recorder
from polobench.registry import make
from polobench.run.study import load_study

IDLE = 0.5  # cores that other work may keep busy
ONE_CELL = """
[[grid]]
methods = ["ppo"]
tasks = ["CartPole-v1"]
seeds = 1
budget = 2_000
"""
RUN = (sys.executable, "-m", "polobench", "run")
PYTEST = (sys.executable, "-m", "pytest", "benchmarks", "--study", "quick", "-q", "--no-header")


def _start(rounds: int | None) -> Ceiling:
    """On one core; a first round, which fills the disk's cache, is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "start.toml"
        study.write_text(ONE_CELL)
        values, note = _wall_seconds((*RUN, str(study)), 1 + (rounds or 5), cores=1)
    return Ceiling("start: one cell of 2,000 samples", "s", values[1:], 4, note)


def _quick(work: str, command: Sequence[str], goal: float, rounds: int | None) -> Ceiling:
    values, note = _wall_seconds(command, rounds or 1)
    return Ceiling(work, "s", values, goal, note)


def _wall_seconds(command: Sequence[str], rounds: int, cores: int | None = None) -> tuple[list[float], str]:
    """Of each round, into a new store, with modules compiled as a user's are; a note where the machine was not idle."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds, busy = list[float](), [busy_cores()]
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = subprocess.run(
                [*command, "--store", folder], cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
                preexec_fn=partial(os.sched_setaffinity, 0, allowed),
            )  # fmt: skip
            seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise PoloError(f"{' '.join(command[1:])}: {last_line(done.stderr or done.stdout)}")
        busy.append(busy_cores())
    return seconds, f"beside other work ({max(busy):.1f} cores)" if max(busy) > IDLE else ""


def busy_cores() -> float:
    """That others keep busy, over the next second."""
    return psutil.cpu_percent(1) / 100 * (psutil.cpu_count() or 1)


def _evaluations(rounds: int | None) -> Ceiling:
    """A round is all cells of one seed, at their whole budgets."""
    values, missing = [], set[str]()
    cells = [cell for cell in load_study(Path("matrix")).cells if cell.kind == "learning"]
    for seed in sorted({cell.seed for cell in cells})[: rounds or 1]:
        whole = trained = 0.0
        for cell in (cell for cell in cells if cell.seed == seed):
            try:
                method = make(cell.method, cell.task, label=cell.label, tuned=cell.tuned, **cell.overrides)
            except PoloError:
                missing.add(cell.task)
                continue
            start = time.process_time()
            trained += method.run(seed, cell.budget).ledger.cpu_seconds
            whole += time.process_time() - start
        values.append(100 * (1 - trained / whole))
    note = f"without {', '.join(sorted(missing))}, not here" if missing else ""
    return Ceiling("evaluations: not training, of the matrix", "% of CPU", values, 15, note)


RECORDING = {
    "evaluation": [(Recorder, "_evaluate"), (Recorder, "finish")],
    "recording": [(Recorder, "__call__"), (Recorder, "start"), (Method, "_fill")],
    "metering": [(Ledger, name) for name in ("charge_generated", "check_updates", "progress", "timing_rollout")],
    "provenance": [(Method, "_blank")],  # once for each process
}


def _recording(method: str, samples: int, rounds: int | None) -> Ceiling:
    """A first run, in which libraries load, is not kept."""
    values = []
    for seed in range(FIRST_SEED - 1, FIRST_SEED + (rounds or 5)):
        run = make(method, "CartPole-v1").run
        with spent(RECORDING) as seconds:
            run(seed, samples)
        own = seconds["recording"] + seconds["metering"]
        values.append(100 * own / (own + seconds[REST]))
    return Ceiling(f"recording, hashing, metering: {method.upper()}", "% of CPU", values[1:], 2)


WORKS: dict[str, Callable[[int | None], Any]] = {
    "start": _start,
    "quick": partial(_quick, "quick study, --jobs 2", (*RUN, "quick", "--jobs", "2"), 90),
    "quick-pytest": partial(_quick, "quick study through pytest", PYTEST, 150),
    "evaluations": _evaluations,
    "recording-ppo": partial(_recording, "ppo", 20_000),
    "recording-trpo": partial(_recording, "trpo", 30_000),
}
