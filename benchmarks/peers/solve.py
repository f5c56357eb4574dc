"""CPU seconds to a sustained solve of CartPole-v1: our tuned PPO and TRPO beside SB3's and sb3-contrib's.

The peers run at rl-baselines3-zoo's settings, as in `control`; ours at the tuned values of `methods/tuned.toml`. Both
have 100,000 samples and are evaluated every 5,000 by 20 greedy episodes, which no clock counts. A run has solved the
task at the first of two evaluations in a row of at least 475; one that never does counts all its training's seconds.
The ratio is that of the restricted mean times over the seeds, one run of each side per seed, with the 95 % percentile
bootstrap over seeds. The goal is a ratio of 10 whose interval lies above 5.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from benchmarks.peers.alternation import row
from benchmarks.peers.control import FIRST_SEED, SETTINGS, peer_model
from polobench.registry import make

TASK, SAMPLES, EVERY, EPISODES, ENOUGH = "CartPole-v1", 100_000, 5_000, 20, 475.0
SEEDS, GOAL, LEAST = 10, 10.0, 5.0


def sustained(seconds: Sequence[float], returns: Sequence[float]) -> float | None:
    """The seconds at the first of two evaluations in a row that are good enough; None without such two."""
    good = np.asarray(returns) >= ENOUGH
    twice = np.flatnonzero(good[:-1] & good[1:])
    return float(seconds[twice[0]]) if len(twice) else None


@dataclass(frozen=True)
class Solves:
    """Seconds to a sustained solve, or of a whole run without one, by seed."""

    work: str
    peer: str
    ours_seconds: Sequence[float]
    theirs_seconds: Sequence[float]

    def row(self) -> dict[str, Any]:
        """A line of the table; the ratio is of the means."""
        ours, theirs = np.asarray(self.ours_seconds), np.asarray(self.theirs_seconds)

        def ratio(a: Any, b: Any, axis: int = -1) -> Any:
            return np.mean(a, axis) / np.mean(b, axis)

        found = bootstrap((theirs, ours), ratio, paired=True, vectorized=True, method="percentile", random_state=0)
        low, high = found.confidence_interval
        return row(
            self.work, "sustained solves/s", 1 / float(ours.mean()), f"{GOAL:g} times, interval above {LEAST:g}",
            bool(ratio(theirs, ours) >= GOAL and low > LEAST), (low, high), peer=self.peer,
            theirs=1 / float(theirs.mean()), ratio=float(ratio(theirs, ours)), rounds=len(ours),
        )  # fmt: skip


def compare(name: str, method: str, rounds: int | None) -> Solves:
    """A run of each side for each seed, in an order drawn by a fixed seed."""
    import torch
    from threadpoolctl import threadpool_limits

    draw, sides = random.Random(name), {"ours": _ours, "theirs": _theirs}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for seed in range(FIRST_SEED, FIRST_SEED + (rounds or SEEDS)):
            for side in draw.sample(list(sides), len(sides)):
                seconds[side].append(sides[side](method, seed))
    peer = {"ppo": "stable-baselines3", "trpo": "sb3-contrib"}[method]
    return Solves(name, peer, seconds["ours"], seconds["theirs"])


WORKS: dict[str, Callable[[int | None], Solves]] = {
    f"solve-cartpole-{method}": partial(compare, f"solve-cartpole-{method}", method) for method in ("ppo", "trpo")
}


def _ours(method: str, seed: int) -> float:
    result = our_curve(make(method, TASK), seed)
    trained = result.curve[result.curve["updates"] > 0]
    solved = sustained(trained["cpu_seconds"].to_numpy(), trained["return_mean"].to_numpy())
    return float(result.ledger.cpu_seconds) if solved is None else solved


def _theirs(method: str, seed: int) -> float:
    seconds, returns, spent = peer_curve(method, seed, lambda seconds, returns: sustained(seconds, returns) is not None)
    solved = sustained(seconds, returns)
    return spent if solved is None else solved


Enough = Callable[[list[float], list[float]], bool]  # of the seconds and returns so far


def peer_curve(method: str, seed: int, enough: Enough) -> tuple[list[float], list[float], float]:
    """The peer's seconds and mean greedy returns at each evaluation until it is enough, and all seconds of training."""
    model = peer_model(SETTINGS[f"{method}-cartpole"], seed)  # which says what is missing

    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    evaluated = make_vec_env(TASK, n_envs=EPISODES, seed=seed + 1_000)
    seconds, returns, paused = list[float](), list[float](), 0.0

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            nonlocal paused
            if self.num_timesteps < EVERY * (len(seconds) + 1):
                return True
            begun = time.process_time()
            seconds.append(begun - start - paused)
            mean, _ = evaluate_policy(self.model, evaluated, EPISODES, deterministic=True)
            returns.append(float(mean))
            paused += time.process_time() - begun
            return not enough(seconds, returns)

    start = time.process_time()
    model.learn(SAMPLES, callback=Watch())
    spent = time.process_time() - start - paused
    model.get_env().close()
    evaluated.close()
    return seconds, returns, spent


def our_curve(method: Any, seed: int) -> Any:
    """The result of a run that is evaluated as the peer is."""
    method.task.evaluations, method.task.evaluation_episodes = SAMPLES // EVERY, EPISODES
    method.task.final_episodes = EPISODES
    return method.run(seed, SAMPLES)
