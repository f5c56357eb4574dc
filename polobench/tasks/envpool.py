"""EnvPool's simulators, written in C++, as environments of gymnasium: `envpool:Acrobot-v1`.

They follow gymnasium's rules but draw other random numbers, so each is a task of its own. One thread steps them. An
EnvPool takes its seeds when it is made, so every seeded reset makes a new one (1 ms for 8 of Acrobot-v1, 20 ms for 8 of
HalfCheetah-v5). Environments with equal seeds share the start and, where the dynamics are random, their draws as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from polobench.core.errors import Unavailable, first_line, unknown

PREFIX = "envpool:"
NO_LIMIT = 2**31 - 1  # steps


def register(env_id: str) -> str:
    """The id under which gymnasium has EnvPool's `env_id` from now on.

    Raises:
        UsageError: EnvPool has no such id.
        Unavailable: EnvPool does not import.
    """
    name = PREFIX + env_id
    try:
        import envpool
    except ImportError as error:
        install = "pip install 'polobench[envpool]'"
        raise Unavailable(f"task {name!r} needs EnvPool ({first_line(error)}): {install}") from error
    if name not in gymnasium.registry:
        if env_id not in envpool.list_all_envs():
            raise unknown("id of EnvPool", env_id, (), others=envpool.list_all_envs(), called="envpool.list_all_envs()")
        config = envpool.make_spec(env_id).config
        gymnasium.register(
            name,
            entry_point=f"{__name__}:OneOfEnvPool",
            vector_entry_point=f"{__name__}:EnvPoolVector",
            max_episode_steps=config.max_episode_steps,
            reward_threshold=getattr(config, "reward_threshold", None),
            kwargs={"env_id": env_id, "release": version("envpool"), "num_threads": 1},
        )
    return name


class EnvPoolVector(VectorEnv[Any, Any, Any]):
    """Many environments that one call steps.

    Args:
        env_id: as EnvPool calls it.
        release: of EnvPool, which defines the task together with the settings.
        num_envs: so many.
        settings: for `envpool.make`.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "one_seed_each": True}  # noqa: RUF012

    def __init__(self, env_id: str, release: str, num_envs: int = 1, **settings: Any) -> None:
        import envpool

        spec = envpool.make_spec(env_id, **settings)
        self.num_envs, self.max_episode_steps = num_envs, spec.config.max_episode_steps
        with warnings.catch_warnings(action="ignore"):  # float32 rounds some bounds
            self.single_observation_space = spec.gymnasium_observation_space
            self.single_action_space = spec.gymnasium_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._make = partial(envpool.make, env_id, "gymnasium", num_envs=num_envs, **settings)
        self._pool: Any = None

    def reset(self, *, seed: int | Sequence[int] | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        with warnings.catch_warnings(action="ignore"):  # as above
            if seed is not None or self._pool is None:
                self._pool = self._make(seed=0 if seed is None else seed)
            return self._pool.reset()  # type: ignore[no-any-return]

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        return self._pool.step(actions)  # type: ignore[no-any-return]


class OneOfEnvPool(gymnasium.Env[Any, Any]):
    """A single one, for wrappers and for episodes without a time limit; the limit is gymnasium's wrapper."""

    def __init__(self, env_id: str, release: str, **settings: Any) -> None:
        self._one = EnvPoolVector(env_id, release, 1, max_episode_steps=NO_LIMIT, **settings)
        self.observation_space, self.action_space = self._one.single_observation_space, self._one.single_action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        observations, _ = self._one.reset(seed=seed)
        return self._first(observations), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, _ = self._one.step(np.asarray(action)[None])
        return self._first(observations), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def _first(self, observations: Any) -> Any:
        return next(iter(iterate(self._one.observation_space, observations)))
