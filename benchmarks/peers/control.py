"""Our PPO and TRPO beside Stable-Baselines3's PPO and sb3-contrib's TRPO, at rl-baselines3-zoo's settings.

Both sides take the same minibatches and epochs on networks of 64-64 in float32, and normalise observations and rewards
where rl-baselines3-zoo does. Two departures from it, on both sides alike: no state-dependent exploration on
Pendulum-v1, which we have not; TRPO on Acrobot-v1 at sb3-contrib's defaults. Evaluation, logging and making the
environments are not timed.

SB3 steps gymnasium's environments one by one. Ours steps the same ones side by side where it can (`tasks/classic.py`),
and EnvPool's in the work named after it, which SB3 does with gymnasium's.

The limit of a work is measured in the same rounds: our environment steps alone, and every row that the ledger counted
through the networks as bare matrix products of numpy, without biases, activations, losses or optimizers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.peers.alternation import Comparison
from polobench.core.errors import PoloError, Unavailable
from polobench.methods.ppo import PPO
from polobench.methods.trpo import TRPO
from polobench.registry import find_task
from polobench.tasks.control import ControlTask

ROUNDS, FIRST_SEED, HIDDEN = 10, 40, 64


@dataclass(frozen=True)
class Setting:
    """One method on one task: hyper-parameters by the peer's names and by ours, samples of a run, and the goal."""

    method: str
    task: str
    theirs: dict[str, Any]
    ours: dict[str, Any]
    samples: int
    goal: float
    normalize: bool = False


def _ppo(shared: dict[str, Any], epochs: int, minibatch: int, rate: float, falling: bool) -> tuple[dict[str, Any], ...]:
    """The same settings by the peer's names and by ours."""
    schedule = "linear" if falling else "constant"
    theirs = {"n_epochs": epochs, "batch_size": minibatch, "ent_coef": 0.0}
    theirs |= {"learning_rate": (lambda left: rate * left) if falling else rate}
    theirs |= {"clip_range": (lambda left: 0.2 * left) if falling else 0.2}
    ours = {"epochs": epochs, "minibatch_size": minibatch, "learning_rate": rate, "clip_eps": 0.2}
    ours |= {"learning_rate_schedule": schedule, "clip_schedule": schedule, "adam_eps": 1e-5}
    return shared | theirs, shared | ours


def _trpo(shared: dict[str, Any], critic_epochs: int, minibatch: int) -> tuple[dict[str, Any], ...]:
    theirs = {"n_critic_updates": critic_epochs, "batch_size": minibatch, "cg_max_steps": 15, "learning_rate": 1e-3}
    ours = {"critic_epochs": critic_epochs, "critic_minibatch_size": minibatch, "cg_steps": 15, "max_kl": 0.01}
    ours |= {"critic_learning_rate": 1e-3, "adam_eps": 1e-5, "max_gradient_norm": 1e9}  # the peer does not clip
    return shared | theirs, shared | ours


PPO_CARTPOLE = {"n_envs": 8, "n_steps": 32, "gae_lambda": 0.8, "gamma": 0.98}
PPO_PENDULUM = {"n_envs": 4, "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9}
PPO_ACROBOT = {"n_envs": 16, "n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99}
TRPO_CARTPOLE = {"n_envs": 2, "n_steps": 512, "gae_lambda": 0.98, "gamma": 0.99, "cg_damping": 1e-3}
TRPO_PENDULUM = {"n_envs": 2, "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "cg_damping": 0.1}
TRPO_ACROBOT = TRPO_PENDULUM | {"gamma": 0.99}
SETTINGS = {
    "ppo-cartpole": Setting("ppo", "CartPole-v1", *_ppo(PPO_CARTPOLE, 20, 256, 1e-3, True), 4096, 5.0),
    "trpo-cartpole": Setting("trpo", "CartPole-v1", *_trpo(TRPO_CARTPOLE, 20, 512), 4096, 5.0),
    "ppo-pendulum": Setting("ppo", "Pendulum-v1", *_ppo(PPO_PENDULUM, 10, 64, 1e-3, False), 4096, 6.0),
    "trpo-pendulum": Setting("trpo", "Pendulum-v1", *_trpo(TRPO_PENDULUM, 15, 128), 4096, 4.0),
    "ppo-acrobot": Setting("ppo", "Acrobot-v1", *_ppo(PPO_ACROBOT, 4, 64, 3e-4, False), 8192, 2.8, normalize=True),
    "ppo-acrobot-envpool": Setting(
        "ppo", "envpool:Acrobot-v1", *_ppo(PPO_ACROBOT, 4, 64, 3e-4, False), 8192, 5.0, normalize=True
    ),
    "trpo-acrobot": Setting("trpo", "Acrobot-v1", *_trpo(TRPO_ACROBOT, 10, 128), 4096, 2.8, normalize=True),
}


def compare(name: str, rounds: int | None) -> Comparison:
    """A run of each side and the limit in each round, in an order drawn by a fixed seed; a first round is not kept."""
    import torch
    from threadpoolctl import threadpool_limits

    setting, draw = SETTINGS[name], random.Random(name)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "limit": []}
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for number in range((rounds or ROUNDS) + 1):
            seed, order = FIRST_SEED + number % 10, ["ours", "theirs"]
            draw.shuffle(order)
            for side in order:
                if side == "theirs":
                    seconds[side].append(_run_theirs(setting, seed))
                else:
                    ledger = _run_ours(setting, seed)
                    seconds[side].append(ledger.cpu_seconds)
            minibatch = setting.ours.get("minibatch_size") or setting.ours["critic_minibatch_size"]
            seconds["limit"].append(limit_seconds(setting.task, setting.ours["n_envs"], minibatch, asdict(ledger)))
    ours, theirs, limit = (values[1:] for values in seconds.values())
    peer = {"ppo": "stable-baselines3", "trpo": "sb3-contrib"}[setting.method]
    return Comparison(name, peer, "samples", setting.samples, setting.goal, ours, theirs, limit)


WORKS: dict[str, Callable[[int | None], Comparison]] = {name: partial(compare, name) for name in SETTINGS}


def _run_ours(setting: Setting, seed: int) -> Any:
    task = find_task(setting.task)
    task.evaluations = task.evaluation_episodes = task.final_episodes = 1
    normalized = {"normalize_observations": setting.normalize, "normalize_rewards": setting.normalize}
    method = {"ppo": PPO, "trpo": TRPO}[setting.method](task, **setting.ours, **normalized)
    result = method.run(seed, setting.samples)
    updates = setting.samples // (setting.ours["n_envs"] * setting.ours["n_steps"])
    if result.status != "ok" or result.ledger.updates < updates:
        raise PoloError(f"{setting.task}: {result.reason} after {result.ledger.updates} updates (needed: {updates})")
    return result.ledger


def peer_model(setting: Setting, seed: int) -> Any:
    """SB3's or sb3-contrib's, untrained, on its environments."""
    try:
        import sb3_contrib
        import stable_baselines3
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import VecNormalize
    except ImportError as error:
        raise Unavailable(f"SB3 cannot be loaded: {error} (install it: pip install -e '.[peers]')") from None
    settings = dict(setting.theirs)
    env: Any = make_vec_env(setting.task.rpartition(":")[2], n_envs=settings.pop("n_envs"), seed=seed)
    env = VecNormalize(env, gamma=settings["gamma"]) if setting.normalize else env
    kind: Any = {"ppo": stable_baselines3.PPO, "trpo": sb3_contrib.TRPO}[setting.method]
    return kind("MlpPolicy", env, seed=seed, device="cpu", **settings)


def _run_theirs(setting: Setting, seed: int) -> float:
    model = peer_model(setting, seed)
    start = time.process_time()
    model.learn(setting.samples)
    spent = time.process_time() - start
    model.get_env().close()
    if model.num_timesteps != setting.samples:
        raise PoloError(f"{setting.task}: the peer took {model.num_timesteps} samples (allowed: {setting.samples})")
    return spent


def limit_seconds(task: str, n_envs: int, minibatch: int, counts: Mapping[str, Any]) -> float:
    """Seconds of the environment steps alone, and of all rows through the networks as bare matrix products.

    Args:
        n_envs: that are stepped together.
        minibatch: rows that go through a network at once when it learns.
        counts: of a run, by the ledger's names.
    """
    stepped = counts["samples"] + counts["discarded_transitions"]
    steps = stepped // n_envs
    environment, width, outputs = _environment_seconds(task, n_envs, steps)
    acting, _ = _product_seconds(n_envs, width, outputs)
    forward, backward = _product_seconds(minibatch, width, outputs)
    learned = counts["forward_rows"] - stepped
    return environment + steps * acting + (learned * forward + counts["backward_rows"] * backward) / minibatch


def _environment_seconds(name: str, n_envs: int, steps: int) -> tuple[float, int, int]:
    """Of so many steps with actions drawn beforehand; and how many numbers an observation and an action have."""
    task = find_task(name)
    assert isinstance(task, ControlTask)
    env = task.vector_env(n_envs)
    observations, _ = env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    start = time.process_time()
    for step in range(steps):
        env.step(actions[step % 64])
    spent = time.process_time() - start
    env.close()
    return spent, observations.shape[-1], int(getattr(env.single_action_space, "n", 1))


def _product_seconds(rows: int, width: int, outputs: int, repeats: int = 200) -> tuple[float, float]:
    """Of one network's forward and backward products on so many rows."""
    draw = np.random.default_rng(0)
    sizes = ((HIDDEN, width), (HIDDEN, HIDDEN), (outputs, HIDDEN))
    weights = [draw.standard_normal(size, dtype=np.float32) for size in sizes]
    states = [draw.standard_normal((rows, size), dtype=np.float32) for size in (width, HIDDEN, HIDDEN)]
    flows = [draw.standard_normal((rows, size), dtype=np.float32) for size in (HIDDEN, HIDDEN, outputs)]
    start = time.process_time()
    for _ in range(repeats):
        for state, weight in zip(states, weights, strict=True):
            np.dot(state, weight.T)
    middle = time.process_time()
    for _ in range(repeats):
        for depth, (state, weight, flow) in enumerate(zip(states, weights, flows, strict=True)):
            np.dot(flow.T, state)
            if depth:
                np.dot(flow, weight)
    return (middle - start) / repeats, (time.process_time() - middle) / repeats
