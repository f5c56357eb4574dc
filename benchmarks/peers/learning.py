"""Do runs learn the same? Scores (0 the random policy, 1 the target) of two sides, over the same seeds.

- Our PPO and SB3's on CartPole-v1, both at rl-baselines3-zoo's settings, as in `control`; 100,000 samples, 20 greedy
  episodes every 5,000. Ours is non-inferior where Welch's one-sided 95 % bound of the difference is above -0.05, of the
  final score and of the mean over the curve.
- Our tuned PPO on EnvPool's simulator and on gymnasium's of the same id, by the mean over the curve (the final score
  of CartPole-v1 is the same in every run): 10 evaluations of 20 greedy episodes. They are equivalent where Welch's
  95 % interval of the difference lies within 0.1 on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.stats import ttest_ind

from benchmarks.peers.alternation import row
from benchmarks.peers.control import FIRST_SEED, SETTINGS
from benchmarks.peers.solve import TASK, our_curve, peer_curve
from polobench.registry import find_task, make

MARGIN, SIMULATORS_MARGIN, SEEDS = 0.05, 0.1, 10
SIMULATED = {"CartPole-v1": 30_000, "Acrobot-v1": 60_000}  # samples of a run


@dataclass(frozen=True)
class Scores:
    """`[seeds]` scores of both sides; ours may be better by more than the margin, unless `both_ways`."""

    work: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]
    margin: float
    both_ways: bool = False

    def row(self) -> dict[str, Any]:
        ours, theirs = np.asarray(self.ours), np.asarray(self.theirs)
        interval: Any = ()
        bound, note = float(ours.mean() - theirs.mean()), "all runs alike"
        if np.ptp(ours) or np.ptp(theirs):  # else a test says nothing
            interval, note = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95), ""
            bound = ttest_ind(ours, theirs, equal_var=False, alternative="greater").confidence_interval(0.95).low
        met = bound > -self.margin
        if self.both_ways:
            met = max(map(abs, interval or (bound,))) < self.margin
        wanted = f"within {self.margin}" if self.both_ways else f"at most {self.margin} less"
        return row(
            self.work, "score", float(ours.mean()), wanted, bool(met), interval, peer=self.peer,
            theirs=float(theirs.mean()), interval_of="difference" if interval else "", note=note,
            rounds=len(ours),
        )  # fmt: skip


def _single_threaded() -> Any:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    return threadpool_limits(1)


def _scores(name: str, returns: Any) -> np.ndarray:
    task = find_task(name)
    assert task.target is not None
    found: np.ndarray = (np.asarray(returns) - task.floor) / (task.target - task.floor)
    return found


def _curve(result: Any) -> np.ndarray:
    """Mean returns after each evaluation but the first, which is of the policy before it learned."""
    found: np.ndarray = result.curve[result.curve["updates"] > 0]["return_mean"].to_numpy()
    return found


@cache
def _curves(seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """`[seeds, evaluations]` scores of ours and of SB3's."""
    ours, theirs = [], []
    with _single_threaded():
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            ours.append(_curve(our_curve(make("ppo", TASK, tuned=False, **SETTINGS["ppo-cartpole"].ours), seed)))
            theirs.append(peer_curve("ppo", seed, lambda seconds, returns: False)[1])
    return _scores(TASK, ours), _scores(TASK, theirs)


def _beside_sb3(work: str, of: Callable[[np.ndarray], Any], rounds: int | None) -> Scores:
    return Scores(work, "stable-baselines3", *map(of, _curves(rounds or SEEDS)), MARGIN)


def _simulated(env_id: str, rounds: int | None) -> Scores:
    """The same hyper-parameters on both; EnvPool draws other random numbers, so equal seeds share nothing."""
    tuned = asdict(make("ppo", env_id).hp)
    found = []
    with _single_threaded():
        for name in (f"envpool:{env_id}", env_id):
            task = find_task(name)
            task.evaluations, task.evaluation_episodes, task.final_episodes = 10, 20, 20
            method = make("ppo", task, tuned=False, **tuned)
            runs = [method.run(FIRST_SEED + number, SIMULATED[env_id]) for number in range(rounds or SEEDS)]
            found.append(_scores(env_id, [_curve(run).mean() for run in runs]))
    return Scores(f"PPO learns {env_id} through EnvPool", "gymnasium", *found, SIMULATORS_MARGIN, both_ways=True)


WORKS: dict[str, Callable[[int | None], Scores]] = {
    "learning-final": partial(_beside_sb3, "PPO learns CartPole-v1, final score", lambda curves: curves[:, -1]),
    "learning-curve": partial(_beside_sb3, "PPO learns CartPole-v1, mean of curve", lambda curves: curves.mean(1)),
    "learning-envpool-cartpole": partial(_simulated, "CartPole-v1"),
    "learning-envpool-acrobot": partial(_simulated, "Acrobot-v1"),
}
