"""Does our PPO learn CartPole-v1 as well as SB3's, at equal settings?

    python -m benchmarks.peers.learning

Both at rl-baselines3-zoo's settings, as in `control`; 100,000 samples, 20 greedy episodes every 5,000. Of the final
return and of the mean over the curve, both as scores (0 the random policy, 1 the target): ours less theirs over the
seeds, and Welch's one-sided 95 % bound below. Ours is non-inferior where the bound is above -0.05.
"""

from __future__ import annotations

import sys
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from scipy.stats import ttest_ind
from tabulate import tabulate

from benchmarks.peers.control import FIRST_SEED, SETTINGS
from benchmarks.peers.solve import TASK, our_curve, peer_curve
from polobench.core.errors import PoloError
from polobench.registry import find_task, make

MARGIN = 0.05
COLUMNS = ("measure", "theirs", "ours", "difference", "bound", "non-inferior")


def main(seeds: Annotated[int, typer.Option(min=2, help="Runs of each side.")] = 10) -> None:
    """Train both and print the comparison."""
    import torch
    from threadpoolctl import threadpool_limits

    task, setting = find_task(TASK), SETTINGS["ppo-cartpole"]
    assert task.target is not None
    ours, theirs = [], []
    torch.set_num_threads(1)
    with threadpool_limits(1):
        shown = track(range(FIRST_SEED, FIRST_SEED + seeds), "learning", console=Console(stderr=True), transient=True)
        for seed in shown:
            curve = our_curve(make("ppo", TASK, tuned=False, **setting.ours), seed).curve
            ours.append(curve[curve["updates"] > 0]["return_mean"].to_numpy())
            theirs.append(peer_curve("ppo", seed, lambda seconds, returns: False)[1])
    scores = [(np.array(found) - task.floor) / (task.target - task.floor) for found in (theirs, ours)]
    rows = []
    for name, of in (("final score", lambda curves: curves[:, -1]), ("mean over the curve", lambda c: c.mean(1))):
        other, mine = map(of, scores)
        bound = ttest_ind(mine, other, equal_var=False, alternative="greater").confidence_interval(0.95).low
        difference = mine.mean() - other.mean()
        rows.append((name, other.mean(), mine.mean(), difference, bound, "yes" if bound > -MARGIN else "not shown"))
    print(tabulate(rows, COLUMNS, tablefmt="github", floatfmt=".3f"))


if __name__ == "__main__":
    try:
        typer.run(main)
    except PoloError as error:
        print(f"polobench: {error}", file=sys.stderr)
        sys.exit(1)
