"""Soak: kill sweeps at random moments and go on; then many small cells, with the driver's memory watched.

    python benchmarks/soak.py kills --executors serial,processes --kills 200 --cells 60
    python benchmarks/soak.py cells --executors processes --cells 2000

`kills` compares every cell with a sweep that nobody killed: none may be lost, differ, or be run again once it was
stored, and in the end no temporary file and no process may be left. `cells` prints the driver's resident set over the
sweep, what each cell costs, and what is left. Exits with 1 if something does not hold. Figures: docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from polobench.run.status import FRESH_SECONDS, tidy
from polobench.store.folder import Store

STUDY = 'devices = ["cpu"]\n[[grid]]\nmethods = ["random"]\ntasks = ["probe-bandit"]\nseeds = {cells}\nbudget = 200\n'
SAY = {"ray": ["--executor", "ray"], "slurm": ["--executor", "slurm", "--address", "local"]}
MARK = "POLOBENCH_SOAK"
FLAT_FROM = 200  # cells, after which the driver's memory should not grow


def sweep(folder: Path, executor: str, store: str, jobs: int) -> subprocess.Popen[bytes]:
    """Start the sweep; its processes carry a mark by which those that it leaves are found."""
    width = [] if executor == "serial" else ["--jobs", str(jobs)]
    how = SAY.get(executor, ["--executor", executor])
    whole = [sys.executable, "-m", "polobench", "run", "soak.toml", "--store", store, *how, *width]
    environment = os.environ | {MARK: str(folder), "OMP_NUM_THREADS": "1"}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(whole, cwd=folder, env=environment, **silent)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that a sweep in this folder has started and that is still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def cells(store: Path) -> dict[str, bytes]:
    """The content of each finished cell by the name of its file."""
    return {path.name: path.read_bytes() for path in store.glob("*.json")}


def digests(found: dict[str, bytes]) -> dict[str, str]:
    """Each cell's digest; a file that is no JSON raises."""
    return {name: json.loads(content)["digest"] for name, content in found.items()}


def gone(folder: Path, patience: float = 60) -> list[psutil.Process]:
    """Wait for the processes of killed sweeps to end; those that do not."""
    return psutil.wait_procs(processes_of(folder), timeout=patience)[1]


def kills(folder: Path, executor: str, wanted: int, jobs: int, rng: random.Random) -> list[str]:
    """Kill the sweep or a process of it that often, over as many stores as that takes; what did not hold."""
    assert sweep(folder, executor, "whole", jobs).wait() == 0
    expected, wrong, done, rounds = digests(cells(folder / "whole")), list[str](), 0, 0
    while done < wanted:
        rounds += 1
        store, before = folder / f"store-{rounds}", dict[str, bytes]()
        while len(before) < len(expected) and done < wanted:
            driver, moment = sweep(folder, executor, store.name, jobs), rng.uniform(1.5, 9)
            try:
                driver.wait(moment)
            except subprocess.TimeoutExpired:
                running = processes_of(folder)
                victim = driver.pid if rng.random() < 0.6 or not running else rng.choice(running).pid
                with_driver = victim == driver.pid
                try:
                    psutil.Process(victim).kill()
                    done += 1
                except psutil.NoSuchProcess:
                    continue
                finally:
                    if with_driver or rng.random() < 0.5:
                        driver.kill()
                    driver.wait()
            wrong += [f"{executor}: process {left} is left" for left in gone(folder)]
            after = cells(store)
            wrong += [f"{executor}: {name} was lost or changed" for name in before if after.get(name) != before[name]
                      and json.loads(before[name])["status"] == "ok"]  # fmt: skip
            before = after
        sweep(folder, executor, store.name, jobs).wait()
        for name, digest in expected.items():
            found = cells(store).get(name, b'{"digest": null, "status": "missing", "reason": ""}')
            if (plain := json.loads(found))["digest"] != digest:
                wrong.append(f"{executor}: {name} differs: {plain['status']} {plain['reason']}")
        for path in store.iterdir():  # as if a minute had passed, after which the next sweep tidies
            if path.suffix != ".json":
                os.utime(path, (time.time() - FRESH_SECONDS - 1,) * 2)
        tidy(Store(store))
        wrong += [f"{executor}: {path.name} is left" for path in store.iterdir() if path.suffix != ".json"]
        wrong += [f"{executor}: process {left} is left" for left in gone(folder)]
    print(f"{executor}: {done} kills over {rounds} sweeps of {len(expected)} cells; wrong: {len(wrong)}", flush=True)
    return wrong


def many(folder: Path, executor: str, jobs: int) -> list[str]:
    """One sweep, with the driver's resident set by the number of cells done; what did not hold."""
    start, held = time.monotonic(), list[tuple[int, float]]()
    driver = sweep(folder, executor, "many", jobs)
    process = psutil.Process(driver.pid)
    first = 0.0
    while driver.poll() is None:
        count = len(list((folder / "many").glob("*.json")))
        if count and not first:
            first = time.monotonic()
        try:
            held.append((count, process.memory_info().rss / 2**20))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    end, found = time.monotonic(), cells(folder / "many")
    inside = sum(json.loads(content)["ledger"]["wall_seconds"] for content in found.values())
    late = [mib for count, mib in held if count >= min(FLAT_FROM, len(found) // 2)]
    cost = (end - first) * (1 if executor == "serial" else jobs) / len(found) - inside / len(found)
    growth = max(late) / late[0] - 1
    print(
        f"{executor}: {len(found)} cells in {end - start:.0f} s, {cost:.2f} s per cell and job beside the run itself; "
        f"driver {late[0]:.0f} MiB at cell {held[-len(late)][0]}, at most {max(late):.0f} MiB ({growth:+.1%})",
        flush=True,
    )
    wrong = [f"{executor}: the driver grew by {growth:.0%}"] if growth > 0.1 else []
    wrong += [f"{executor}: exit code {driver.returncode}"] if driver.returncode else []
    wrong += [f"{executor}: {path.name} is left" for path in (folder / "many").iterdir() if path.suffix != ".json"]
    return wrong + [f"{executor}: process {left} is left" for left in gone(folder)]


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "cells"])
    parser.add_argument("--executors", default="serial,processes", help="comma-separated")
    parser.add_argument("--kills", type=int, default=200, help="per executor")
    parser.add_argument("--cells", type=int, default=60, help="number of cells in the study")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    wrong, rng = list[str](), random.Random(asked.seed)
    for executor in asked.executors.split(","):
        with tempfile.TemporaryDirectory(prefix="polobench-soak-") as name:
            folder = Path(name)
            (folder / "soak.toml").write_text(STUDY.format(cells=asked.cells))
            if asked.what == "kills":
                wrong += kills(folder, executor, asked.kills, asked.jobs, rng)
            else:
                wrong += many(folder, executor, asked.jobs)
    print("\n".join(wrong) or "everything holds")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
