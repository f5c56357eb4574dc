"""Control tasks: gymnasium environments under the ledger, in the reward's own unit."""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache, partial
from importlib import resources
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from polobench.core.arrays import Array
from polobench.core.budget import Budget, BudgetExhausted, Ledger
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import Policy
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Evaluation, Task
from polobench.policies.mlp import MLPPolicy
from polobench.policies.uniform import UniformPolicy
from polobench.tasks.classic import with_vector_version
from polobench.tasks.environments import LONGEST_EPISODE, ById, Checked, MakeEnv, definition, sources, start
from polobench.tasks.floors import stored_floor
from polobench.tasks.spaces import ActionCodec, ObservationCodec, membership
from polobench.tasks.vector import VectorRunner, has_equal_vector_version, vectorized, without_time_limit

EVALUATED_STEPS = 2_000
COLUMNS = ("observations", "actions", "rewards", "terminated", "truncated", "mask")
EVALUATED_TOGETHER = 100  # more environments side by side wait longer for the last one to finish

Act = Callable[[Any, Any], torch.Tensor]


@cache
def _references() -> dict[str, Any]:
    return tomllib.loads(resources.files("polobench.tasks").joinpath("control.toml").read_text())


class ControlTask(Task):
    """A gymnasium environment by id, or one made by `make_env`.

    Args:
        name: the task's name; a gymnasium id, `module:` before it or not, unless `make_env` is given.
        make_env: makes one environment, a new one at each call; it must end its episodes.
        floor, target: in the unit of the episode return. By default `control.toml`'s; for others the floor is
            measured by `begin` (100 episodes of the random policy; `tasks/floors.py`) and the target is the
            registered reward threshold.
        action_scaling: how a Box takes a policy's numbers, a member of `spaces.ACTION_SCALINGS`.

    Raises:
        UsageError: the spaces are not supported, or the environment has another API than gymnasium's.
        Unavailable: the environment does not start, for instance for want of a package.
    """

    unit = "episode return"

    def __init__(
        self,
        name: str,
        make_env: MakeEnv | None = None,
        *,
        floor: float | None = None,
        target: float | None = None,
        action_scaling: str = "bounds",
    ) -> None:
        self.name, self._maker = name, make_env or ById(name.rpartition(":")[2])
        env = start(name, self._maker)
        with closing(env):
            self._observation_codec = ObservationCodec(name, env.observation_space)
            self._action_codec = ActionCodec(name, env.action_space, action_scaling)
            self._contains = membership(env.observation_space)
            self._sources, self._definition = sources(self._maker, env), definition(self._maker, env)
            self._vector_spec = _vector_spec(self._maker, env)
        spec, reference = env.spec, _references().get(name, {}) if make_env is None else {}
        self._scaling = action_scaling
        self.horizon = (spec.max_episode_steps if spec else None) or LONGEST_EPISODE
        if spec and self.horizon > EVALUATED_STEPS:
            self.unit = f"return of an episode's first {EVALUATED_STEPS:,} steps"
        threshold = spec.reward_threshold if spec else None
        self.target = target if target is not None else reference.get("target", threshold)
        self.floor = floor if floor is not None else reference.get("floor", math.nan)

    def vector_env(self, count: int) -> VectorEnv[Any, Any, Any]:
        """So many of its environments side by side."""
        return vectorized(self._vector_spec, self._make_env, count)

    def _make_env(self) -> gymnasium.Env[Any, Any]:
        return Checked(self._maker(), self.name, self._contains)

    def measured_floor(self, episodes: int, deadline: float | None = None) -> float:
        """The random policy's mean return over so many episodes, on a fixed seed; `RunTimeout` past the deadline."""
        policy = self.build_floor_policy()
        policy.ledger = Ledger(Budget(updates=1), deadline=deadline)
        probe = copy.copy(self)
        probe.floor = 0.0
        bound = probe.bind(SeedAxes(0), policy.ledger, torch.device("cpu"), lambda made: None)
        try:
            return bound.evaluate(policy, 0, range(episodes)).mean
        finally:
            bound.close()

    def modules(self) -> set[str]:
        return super().modules() | self._sources

    def identity(self) -> dict[str, str]:
        return super().identity() | {"environment": self._definition, "action_scaling": self._scaling}

    @property
    def evaluation_steps(self) -> int:
        return min(self.horizon, EVALUATED_STEPS)

    def begin(self) -> None:
        if math.isnan(self.floor):
            measure = partial(self.measured_floor, self.floor_episodes, self.ledger.deadline)
            self.floor = stored_floor(self.modules(), self._definition, measure)
        self._runners: dict[tuple[str, int], VectorRunner] = {}
        self._finished_returns: list[float] = []
        self._actions_rng = self.rng.numpy("actions")
        self._episode_calls = 0

    def close(self) -> None:
        for runner in self._runners.values():
            runner.env.close()
        self._runners = {}

    def drain_episode_returns(self) -> list[float]:
        drained, self._finished_returns = self._finished_returns, []
        return drained

    def build_policy(self, hyperparameters: Hyperparameters, *, critic: bool) -> Policy:
        width, actions = self._observation_codec.width, self._action_codec
        generator = self.rng.torch("policy")
        return MLPPolicy(width, actions.size, actions.continuous, hyperparameters, critic, generator)

    def build_floor_policy(self) -> Policy:
        codec = self._action_codec
        return UniformPolicy(codec.size, codec.continuous, codec.center, codec.half)

    def fragments(self, policy: Policy, batch: int, n_steps: int) -> Rollout:
        with self.ledger.timing_rollout(), _sampling(policy):
            runner = self._runner("fragments", batch)
            recording = _Recording()
            while len(recording.columns) < n_steps or not recording.n_samples:
                self._step(runner, policy, runner.live, recording)
            return self._finish(policy, runner, recording, np.arange(batch))

    def episodes(self, policy: Policy, groups: int, size: int) -> Rollout:
        runner = self._runner("episodes", groups * size)
        return self._whole_episodes(policy, runner, size)

    def untruncated_episode(self, policy: Policy) -> Rollout:
        limits = self.ledger.budget
        if limits.samples is None and limits.seconds is None:
            raise UsageError(
                f"task {self.name!r}: an episode without a time limit may never end (needed: a budget of samples or "
                "seconds)"
            )
        return self._whole_episodes(policy, self._runner("untruncated", 1), 1)

    def _whole_episodes(self, policy: Policy, runner: VectorRunner, size: int) -> Rollout:
        """One episode of each environment; runs of `size` neighbours share a start state."""
        with self.ledger.timing_rollout(), _sampling(policy):
            runner.reset(self.rng, self._episode_calls, size)
            self._episode_calls += 1
            groups = np.arange(len(runner.live)) // size
            unfinished = runner.live
            recording = _Recording()
            while np.count_nonzero(unfinished):
                self._step(runner, policy, unfinished, recording)
                unfinished = runner.rest(unfinished)
            return self._finish(policy, runner, recording, groups)

    def evaluate(self, policy: Policy, seed: int, episodes: range) -> Evaluation:
        """An episode counts with its first `EVALUATED_STEPS` steps, so that an evaluation always ends."""
        returns = self._held_out(policy, policy.act_greedily, seed, episodes)
        spread = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
        return Evaluation(float(returns.mean()), spread, len(returns), returns=tuple(returns.tolist()))

    def measures_at_ends(self, policy: Policy, seed: int) -> dict[str, float]:
        """The return of sampled actions, from the start states of the evaluations during the run."""
        returns = self._held_out(policy, policy.act, seed, range(self.evaluation_episodes))
        return {"heldout_sampled_return": float(returns.mean())}

    def _held_out(self, policy: Policy, act: Act, seed: int, episodes: range) -> np.ndarray:
        """`[len(episodes)]` returns, of at most `EVALUATED_TOGETHER` episodes side by side."""
        together = next(count for count in range(EVALUATED_TOGETHER, 0, -1) if len(episodes) % count == 0)
        starts = range(episodes.start, episodes.stop, together)
        return np.concatenate([self._side_by_side(policy, act, SeedAxes(seed), start, together) for start in starts])

    def _side_by_side(self, policy: Policy, act: Act, rng: SeedAxes, first: int, count: int) -> np.ndarray:
        runner = self._runner("evaluation", count)
        runner.reset(rng, first)
        generator = rng.numpy("actions", first)
        unfinished, returns = runner.live, np.zeros(count)
        for _ in range(EVALUATED_STEPS):
            if not np.count_nonzero(unfinished):
                break
            self.ledger.check_deadline()
            noise = policy.distribution.noise(generator, (count,))
            rewards, _, _ = runner.step(self._choose(policy, act, runner, noise))
            returns += rewards * unfinished
            unfinished = runner.rest(unfinished)
        return returns

    def _runner(self, purpose: str, count: int) -> VectorRunner:
        key = (purpose, count)
        if key not in self._runners:
            untruncated = purpose == "untruncated"
            env = without_time_limit(self._make_env) if untruncated else self.vector_env(count)
            self._runners[key] = VectorRunner(env, self._observation_codec, self._action_codec)
            self._runners[key].reset(self.rng, -1)
        return self._runners[key]

    def _step(self, runner: VectorRunner, policy: Policy, mask: np.ndarray, recording: _Recording) -> None:
        """One charged step of all environments; `mask` `[N]` says which of them count."""
        ledger, counted = self.ledger, int(np.count_nonzero(mask))
        ledger.charge_generated(counted)
        ledger.reward_calls += counted
        ledger.discarded_transitions += len(mask) - counted - runner.resting
        observations = runner.observations
        noise = policy.distribution.noise(self._actions_rng, mask.shape)
        actions = self._choose(policy, policy.act, runner, noise)
        rewards, terminated, truncated = runner.step(actions)
        recording.add(observations, actions, rewards.astype(np.float32), terminated, truncated, mask)
        recording.n_samples += counted
        if runner.any_over:
            self._finished_returns += runner.episode_returns[mask & ~runner.live].tolist()

    def _choose(self, policy: Policy, act: Act, runner: VectorRunner, noise: np.ndarray) -> np.ndarray:
        if policy.takes_arrays:
            return act(Array(runner.observations), Array(noise)).numpy()
        with torch.no_grad():
            observations = torch.from_numpy(runner.observations).to(self.device)
            return act(observations, torch.from_numpy(noise).to(self.device)).cpu().numpy()

    def _finish(self, policy: Policy, runner: VectorRunner, recording: _Recording, groups: np.ndarray) -> Rollout:
        rollout = recording.rollout(runner.observations, groups, self.device)
        policy.absorb(rollout.observations[rollout.mask])
        return rollout


@contextmanager
def _sampling(policy: Policy) -> Iterator[None]:
    """A rollout with the statistics absorbed before it. If the budget ends in it, the statistics of the last update are
    put back, since that policy is evaluated.
    """
    put_back = policy.keep_statistics()
    policy.refresh_statistics()
    try:
        with torch.no_grad():
            yield
    except BudgetExhausted:
        put_back()
        raise


class _Recording:
    """Columns of a rollout as they come, `[N]` each."""

    def __init__(self) -> None:
        self.columns: list[tuple[np.ndarray, ...]] = []
        self.n_samples = 0

    def add(self, *column: np.ndarray) -> None:
        """One of each of `COLUMNS`."""
        self.columns.append(column)

    def rollout(self, final_observations: np.ndarray, groups: np.ndarray, device: torch.device) -> Rollout:
        joined = [(np.concatenate(columns), columns[0].shape) for columns in zip(*self.columns, strict=True)]
        series = [flat.reshape(len(self.columns), *shape).swapaxes(0, 1) for flat, shape in joined]
        stacked = dict(zip(COLUMNS, map(np.ascontiguousarray, series), strict=True))
        for name in ("rewards", "terminated", "truncated"):  # nothing where nothing was decided
            stacked[name] *= stacked["mask"]
        columns: dict[str, Any] = {name: torch.from_numpy(column) for name, column in stacked.items()}
        columns |= {"final_observations": torch.from_numpy(final_observations), "groups": torch.from_numpy(groups)}
        return Rollout(**{name: column.to(device) for name, column in columns.items()})


def described(
    name: str,
    env_id: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str | Mapping[str, Any]] = (),
    max_episode_steps: int | None = None,
    **references: Any,
) -> ControlTask:
    """A task of this name on a registered environment; the arguments are those of `ById` and of `ControlTask`."""
    return ControlTask(name, ById(env_id, kwargs or {}, wrappers, max_episode_steps), **references)


def _vector_spec(maker: MakeEnv, env: gymnasium.Env[Any, Any]) -> EnvSpec | None:
    """The spec of a vector version that can stand for the environment."""
    if isinstance(maker, ById) and maker.is_plain:
        spec = with_vector_version(maker.spec)
        return spec if has_equal_vector_version(spec, env) else None
    return None


cartpole = partial(ControlTask, "CartPole-v1")
acrobot = partial(ControlTask, "Acrobot-v1")
mountain_car = partial(ControlTask, "MountainCar-v0")
pendulum = partial(ControlTask, "Pendulum-v1")
