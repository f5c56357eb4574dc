"""How often `polobench ab` raises an alarm: `python -m benchmarks.gate_speed`, about 35 minutes.

A scratch clone of this checkout's HEAD gets a commit that slows PPO's update down, by a busy wait of 15 % of the CPU
time that it took. The worktrees of HEAD, of HEAD again and of the slow commit are made once. Then null trials (HEAD
against itself) and slow ones take turns, so that what else the machine does meets both. The trials share the process
that has the libraries loaded; each forks processes of its own from it, in every block.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest
from tabulate import tabulate

from polobench.ab.processes import OpenBoth, servers
from polobench.ab.sides import checked_out
from polobench.ab.speed import CellSpeed, cell_speed
from polobench.ab.timing import PARTS, load_cells, time_cells
from polobench.kinds.cell import Cell

WHERE = "polobench/methods/ppo.py"
BUSY_WAIT = """

import time

_improve = PPO.improve


def _slow_improve(self, *arguments):
    start = time.process_time()
    found = _improve(self, *arguments)
    until = time.process_time() + {share} * (time.process_time() - start)
    while time.process_time() < until:
        pass
    return found


PPO.improve = _slow_improve
"""
COLUMNS = (
    "trial",
    "alarms",
    "of",
    "share [95 %]",
    *(f"{part}, median [min, max]" for part in PARTS),
    "pairs",
    "longest s",
)


@dataclass(frozen=True)
class Trial:
    """What one run of `ab` said of the cell, and the wall seconds that it took."""

    kind: str
    seed: int
    wall_seconds: float
    found: CellSpeed


def main(
    trials: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 40,
    seconds: Annotated[float, typer.Option(min=1, help="A trial.")] = 27,
    study: Annotated[Path, typer.Option(help="It has the cell.")] = Path("speed"),
    slowdown: Annotated[float, typer.Option(min=0, help="Of PPO's update, as a share.")] = 0.15,
    as_json: Annotated[bool, typer.Option("--json", help="Print every trial as JSON.")] = False,
) -> None:
    """Run null and slow trials of `polobench ab` on PPO's cell and count the alarms."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        refs = slowed_clone(clone, slowdown)
        with (
            checked_out(clone, refs, lambda line: typer.echo(line, err=True)) as (base, same, slow),
            servers(base, same, slow) as between,
        ):
            cells = load_cells(study, base, ["ppo"], ["CartPole-v1"])
            kinds = {"null": between(base, same), "slow": between(base, slow)}
            plan = [(kind, seed) for seed in range(trials) for kind in kinds]
            shown = track(plan, "trials", console=Console(stderr=True))
            found = [run_trial(kind, kinds[kind], cells[:1], seconds, seed) for kind, seed in shown]
    if as_json:
        print(json.dumps([asdict(trial) for trial in found], indent=2))
    else:
        print(tabulate([row(kind, found) for kind in kinds], COLUMNS, "pipe"))


def slowed_clone(clone: Path, share: float) -> tuple[str, str, str]:
    """Clone this checkout and commit the slow update there; HEAD twice, and that commit."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("clone", "-q", str(Path(__file__).parents[1]), str(clone))
    inside = ("-C", str(clone), "-c", "user.name=polobench", "-c", "user.email=polobench@example.org")
    head = git(*inside, "rev-parse", "HEAD")
    path = clone / WHERE
    path.write_text(path.read_text(encoding="utf-8") + BUSY_WAIT.format(share=share), encoding="utf-8")
    git(*inside, "commit", "-q", "-a", "-m", "a busy wait in PPO's update")
    return head, head, git(*inside, "rev-parse", "HEAD")


def run_trial(kind: str, open_both: OpenBoth, cells: Sequence[Cell], seconds: float, seed: int) -> Trial:
    began = time.monotonic()
    measured = time_cells(open_both, cells, seconds, seed, lambda share: None)[0]
    took = time.monotonic() - began
    parts = {part: measured.seconds(part) for part in PARTS}
    found = cell_speed(str(measured.cell), measured.clock, parts, *measured.problems)
    if found.reason:
        raise SystemExit(f"a {kind} trial could not run: {found.reason}")
    update = found.parts["update"]
    typer.echo(
        f"{kind} {seed}: {found.verdict}, update {update.value:.3f} [{update.low:.3f}, {update.high:.3f}]", err=True
    )
    return Trial(kind, seed, took, found)


def row(kind: str, trials: Sequence[Trial]) -> list[object]:
    chosen = [trial for trial in trials if trial.kind == kind]
    alarms = sum(trial.found.regression for trial in chosen)
    ends = binomtest(alarms, len(chosen)).proportion_ci(method="exact")
    ratios = [[trial.found.parts[part].value for trial in chosen] for part in PARTS]
    spans = [f"{np.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]" for values in ratios]
    pairs = np.median([trial.found.parts[PARTS[0]].pairs for trial in chosen])
    share = f"{alarms / len(chosen):.3f} [{ends.low:.3f}, {ends.high:.3f}]"
    longest = f"{max(trial.wall_seconds for trial in chosen):.1f}"
    return [kind, alarms, len(chosen), share, *spans, f"{pairs:.0f}", longest]


if __name__ == "__main__":
    typer.run(main)
