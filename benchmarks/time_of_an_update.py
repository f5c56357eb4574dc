"""Where the time of one update goes: CPU milliseconds in its parts, for six works.

    python -m benchmarks.time_of_an_update

from the repository's root, in one thread. PPO and TRPO have rl-baselines3-zoo's settings, online DPO and GRPO on
CartPole-v1 their tuned values, the two on the tiny GPT-2 those beside TRL (`benchmarks/peers`), GRPO with a KL term, so
that its reference runs. A part excludes the other parts that it calls. With many updates online DPO solves CartPole-v1
and ends, for want of pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from tabulate import tabulate

from benchmarks.peers.control import SETTINGS
from benchmarks.peers.worlds import PAIRS, TINY, pair_task, sampling_task, training_pairs
from benchmarks.spent import Places, spent
from polobench.cells.throughput import ThroughputProbe
from polobench.core.optimization import Descent
from polobench.methods import dpo, grpo, ppo, trpo
from polobench.registry import make
from polobench.tasks.control import ControlTask, VectorRunner
from polobench.tasks.preference import PreferenceTask
from polobench.tasks.reward import RewardTask

WARMUP, SEED = 3, 1000
PARTS: dict[str, Places] = {
    "acting, sampling, reading": [
        (ControlTask, "fragments"), (ControlTask, "_whole_episodes"), (RewardTask, "_episodes"),
        (PreferenceTask, "ranked_groups"),
    ],
    "environment": [(VectorRunner, "step")],
    "reward": [(RewardTask, "_rewards")],
    "reference": [(dpo, "with_reference"), (grpo, "with_reference")],
    "old log-probabilities, values": [(grpo, "log_probs_of"), (ppo.PPO, "with_targets")],
    "trust region": [(trpo.TRPO, "improve")],
    "gradient steps": [(Descent, "fit"), (trpo, "fit_critic")],
}  # fmt: skip


def _zoo(name: str) -> Any:
    setting = SETTINGS[name]
    return make(setting.method, setting.task, tuned=False, **setting.ours)


def _language(kind: Any, task: Any, **settings: Any) -> Any:
    return kind(task, learning_rate=1e-4, max_gradient_norm=1.0, **settings)


WORKS: dict[str, Callable[[], Any]] = {
    "PPO, CartPole-v1": lambda: _zoo("ppo-cartpole"),
    "TRPO, CartPole-v1": lambda: _zoo("trpo-cartpole"),
    "online DPO, CartPole-v1": lambda: make("dpo", "CartPole-v1"),
    "GRPO, CartPole-v1": lambda: make("grpo", "CartPole-v1"),
    "DPO, tiny GPT-2": lambda: _language(dpo.DPO, pair_task(TINY, training_pairs(TINY)), n_groups=PAIRS),
    "GRPO, tiny GPT-2": lambda: _language(
        grpo.GRPO, sampling_task(TINY), n_groups=TINY.groups, group_size=TINY.group_size, beta=0.04
    ),
}


def main(
    updates: Annotated[int, typer.Option(min=1, help="Updates of each work that count.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure every work and print a column for each."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        found = {work: measured(method(), updates) for work, method in WORKS.items()}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    names = list(next(iter(found.values())))
    rows = [
        [name, *("" if column[name] == 0 else f"{column[name]:,.4g}" for column in found.values())] for name in names
    ]
    print(tabulate(rows, ["", *found], tablefmt="github", disable_numparse=True))


def measured(method: Any, updates: int) -> dict[str, float]:
    """Means over so many updates, in CPU milliseconds, and the samples of one."""
    with ThroughputProbe(method, SEED, WARMUP + updates) as probe:
        for _ in range(WARMUP):
            probe.step()
        with spent(PARTS) as seconds:
            for _ in range(updates):
                probe.step()
        samples = sum(probe.samples[WARMUP:]) / updates
    parts = {name: 1e3 * value / updates for name, value in seconds.items()}
    return {"samples": samples, "ms": sum(parts.values())} | parts


if __name__ == "__main__":
    typer.run(main)
