"""Soak: kill sweeps at random moments and go on; then many small cells, with the driver's memory watched.

    python benchmarks/soak.py kills --executors serial,processes,ray,slurm --kills 50 --cells 60
    python benchmarks/soak.py cells --executors processes --cells 2000

`kills` sends SIGKILL to the driver or to a process of any other role (a worker, a raylet, a job, ...), runs the same
command again until the study is done, and compares every cell with a sweep that nobody killed: none may be lost,
differ, or change once it was stored; no temporary file and no process may be left. `cells` prints the driver's resident
set over the sweep, what each cell costs, and what is left. Exits with 1 if something does not hold, and stops if
the sources change meanwhile, since the cells are then other ones. Figures: docs/reliability.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

import polobench
from polobench.run.status import FRESH_SECONDS

STUDY = 'devices = ["cpu"]\n[[grid]]\nmethods = ["random"]\ntasks = ["probe-bandit"]\nseeds = {cells}\nbudget = 200\n'
HOW = {
    "serial": [], "processes": ["--jobs", "2"], "ray": ["--jobs", "2"],
    "slurm": ["--jobs", "2", "--address", "local", "--chunk"],
}  # fmt: skip
MARK = "POLOBENCH_SOAK"
FLAT_FROM = 200  # cells, after which the driver's memory should not grow
PATIENCE = 120  # seconds in which a sweep has to end after one of its processes was killed, and those that it leaves
# the role of a process by what its command line holds
ROLES = {
    "raylet": "raylet/raylet", "gcs": "gcs_server", "ray worker": "ray::", "ray agent": "ray/_private|ray/dashboard",
    "job": "submitit", "server": "forkserver", "tracker": "resource_tracker",
}  # fmt: skip


def sources() -> str:
    """A hash of what the cells' ids depend on."""
    paths = sorted(Path(polobench.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


class Soak:
    """Sweeps of one executor in a folder of their own, and what did not hold of them."""

    def __init__(self, folder: Path, executor: str, cells: int, chunk: int, minutes: float) -> None:
        self.folder, self.executor = folder, executor
        self.how = ["--executor", executor, *HOW[executor], *([str(chunk)] if executor == "slurm" else [])]
        self.temporary = folder / "t"  # a short path, for Ray's sockets
        self.temporary.mkdir()
        (folder / "soak.toml").write_text(STUDY.format(cells=cells))
        self.wrong, self.killed, self.sources = list[str](), Counter[str](), sources()
        self.deadline = time.monotonic() + 60 * minutes

    def sweep(self, store: str) -> subprocess.Popen[bytes]:
        """Start a sweep; its processes carry a mark by which those that it leaves are found."""
        whole = [sys.executable, "-m", "polobench", "run", "soak.toml", "--store", store, *self.how]
        environment = os.environ | {MARK: str(self.folder), "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(self.folder / "torch")  # a cache, which is meant to stay
        with (self.folder / "said").open("wb") as said:
            return subprocess.Popen(whole, cwd=self.folder, env=environment, stdout=said, stderr=said)

    def wants(self, kills: int) -> int:
        """How many are still to come."""
        return 0 if time.monotonic() > self.deadline else kills - self.killed.total()

    def processes(self) -> list[psutil.Process]:
        """Every process that a sweep has started and that is still there."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return found

    def cells(self, store: str) -> dict[str, bytes]:
        """The content of each finished cell by the name of its file."""
        return {path.name: path.read_bytes() for path in (self.folder / store).glob("*.json")}

    def check(self, driver: subprocess.Popen[bytes]) -> None:
        """Look at how a sweep has ended, and at the processes that it has left."""
        if sources() != self.sources:
            sys.exit("the sources changed while the soak ran; run it from a clone that nobody edits")
        said = (self.folder / "said").read_text("utf-8", "replace")
        if driver.returncode not in (0, 1, -signal.SIGKILL) or ("Traceback" in said and driver.returncode >= 0):
            self.wrong.append(f"{self.executor}: exit code {driver.returncode}: {said[-2000:]}")
        for left in psutil.wait_procs(self.processes(), timeout=PATIENCE)[1]:
            with suppress(psutil.NoSuchProcess):
                self.wrong.append(f"{self.executor}: process {left.pid} is left: {left.cmdline()}")
                left.kill()

    def nothing_left(self, store: str) -> None:
        """Look for temporary files once a sweep has ended by itself."""
        left = [path for path in (self.folder / store).iterdir() if path.suffix != ".json"]
        self.wrong += [f"{self.executor}: {path.name} is left" for path in [*left, *self.temporary.iterdir()]]


def role(process: psutil.Process) -> str:
    """What the process does in a sweep; a worker is forked from its server, whose command line it keeps."""
    line, parent = " ".join(process.cmdline()), process.parent()
    if "forkserver" in line and parent is not None and "forkserver" in " ".join(parent.cmdline()):
        return "worker"
    return next((name for name, pattern in ROLES.items() if re.search(pattern, line)), "another")


def strike(soak: Soak, driver: subprocess.Popen[bytes], most: int, longest: float, rng: random.Random) -> None:
    """Kill processes of a running sweep, of any role, every now and then, until it ends or the driver is the one."""
    while most > 0:
        with suppress(subprocess.TimeoutExpired):
            driver.wait(rng.uniform(0.5, longest))
            return
        by_role: dict[str, list[psutil.Process]] = {"driver": [psutil.Process(driver.pid)]}
        for process in soak.processes():
            with suppress(psutil.Error):
                if process.pid != driver.pid:
                    by_role.setdefault(role(process), []).append(process)
        others = sorted(by_role.keys() - {"driver"})
        name = rng.choice(others) if others and rng.random() < 0.7 else "driver"
        victim = rng.choice(by_role[name])
        with suppress(psutil.NoSuchProcess):
            victim.kill()
            soak.killed[name] += 1
            most -= 1
        if name == "driver":
            break
    try:
        driver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        soak.wrong.append(f"{soak.executor}: the sweep hangs after {dict(soak.killed)}")
        driver.kill()
        driver.wait()


def kills(soak: Soak, wanted: int, rng: random.Random) -> None:
    """Kill that often, over as many stores as that takes."""
    start, whole = time.monotonic(), soak.sweep("whole")
    assert whole.wait() == 0, (soak.folder / "said").read_text()
    longest = (time.monotonic() - start) / 3
    expected = {name: json.loads(content)["digest"] for name, content in soak.cells("whole").items()}
    rounds = 0
    while soak.wants(wanted) > 0:
        rounds += 1
        store, before = f"store-{rounds}", dict[str, bytes]()
        while len(before) < len(expected) and soak.wants(wanted) > 0:
            driver = soak.sweep(store)
            strike(soak, driver, soak.wants(wanted), longest, rng)
            driver.wait()
            soak.check(driver)
            after = soak.cells(store)
            soak.wrong += [f"{soak.executor}: {name} was lost or changed" for name, content in before.items()
                           if after.get(name) != content and json.loads(content)["status"] == "ok"]  # fmt: skip
            before = after
        age(soak.folder / store)
        last = soak.sweep(store)
        last.wait()
        soak.check(last)
        found = soak.cells(store)
        for name, digest in expected.items():
            plain = json.loads(found.pop(name, b'{"digest": null, "status": "missing", "reason": ""}'))
            if plain["digest"] != digest:
                soak.wrong.append(f"{soak.executor}: {name} differs: {plain['status']} {plain['reason']}")
        soak.wrong += [f"{soak.executor}: {name} is a cell too many" for name in found]
        soak.nothing_left(store)
    roles = ", ".join(f"{name} {count}" for name, count in sorted(soak.killed.items()))
    print(f"{soak.executor}: {soak.killed.total()} kills ({roles}) over {rounds} stores of {len(expected)} cells")


def age(store: Path) -> None:
    """Make what killed sweeps left look a minute old, after which the next sweep removes it."""
    for path in store.glob("*"):  # none, if no sweep came as far as to make it
        if path.suffix != ".json":
            os.utime(path, (time.time() - FRESH_SECONDS - 1,) * 2)


def many(soak: Soak) -> None:
    """One sweep, with the driver's resident set by the number of cells done."""
    held, zombies, spent = list[tuple[float, int, float]](), 0, list[float]()
    driver = soak.sweep("many")
    process = psutil.Process(driver.pid)
    while driver.poll() is None:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            count = sum(name.endswith(".json") for name in os.listdir(soak.folder / "many"))
            held.append((time.monotonic(), count, process.memory_info().rss / 2**20))
            if count:
                spent.append(sum(process.cpu_times()[:2]))
            dead = [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE]
            zombies = max(zombies, len(dead))
        time.sleep(0.5)
    soak.check(driver)
    soak.nothing_left("many")
    found = [json.loads(content) for content in soak.cells("many").values()]
    begun = next(moment for moment, count, _ in held if count)
    wall, inside = held[-1][0] - begun, sum(plain["ledger"]["wall_seconds"] for plain in found) / len(found)
    late = [(count, mib) for _, count, mib in held if count >= min(FLAT_FROM, len(found) // 2)]
    most, jobs = max(mib for _, mib in late), 1 if soak.executor == "serial" else 2
    growth = most / late[0][1] - 1
    print(
        f"{soak.executor}: {len(found)} cells, {wall / len(found):.2f} s each with {jobs} at a time, or "
        f"{wall * jobs / len(found) - inside:.2f} s per cell and job beside the run itself ({inside:.2f} s); driver "
        f"{late[0][1]:.0f} MiB at cell {late[0][0]}, at most {most:.0f} MiB later ({growth:+.1%}); "
        f"{zombies} zombies at a time at most; {1000 * (spent[-1] - spent[0]) / len(found):.1f} ms of the driver's CPU "
        "per cell"
    )
    soak.wrong += [f"{soak.executor}: the driver grew by {growth:.0%}"] if growth > 0.1 else []
    soak.wrong += [f"{soak.executor}: {zombies} zombies"] if zombies > jobs else []
    soak.wrong += [f"{soak.executor}: exit code {driver.returncode}"] if driver.returncode else []


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "cells"])
    parser.add_argument("--executors", default="serial,processes", help=f"comma-separated: {', '.join(HOW)}")
    parser.add_argument("--kills", type=int, default=200, help="per executor")
    parser.add_argument("--cells", type=int, default=60, help="number of cells in the study")
    parser.add_argument("--chunk", type=int, default=10, help="cells per task of slurm")
    parser.add_argument("--minutes", type=float, default=600, help="per executor, after which no process is killed")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    wrong, rng = list[str](), random.Random(asked.seed)
    for executor in asked.executors.split(","):
        with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp", ignore_cleanup_errors=True) as name:
            soak = Soak(Path(name), executor, asked.cells, asked.chunk, asked.minutes)
            kills(soak, asked.kills, rng) if asked.what == "kills" else many(soak)
            wrong += soak.wrong
            print("\n".join(soak.wrong) or f"{executor}: everything holds", flush=True)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
