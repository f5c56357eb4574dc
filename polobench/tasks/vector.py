"""A gymnasium vector environment whose autoreset is handled right.

gymnasium resets a finished environment on the *next* step by default: that step ignores its action and gives reward 0.
Such an environment is not `live` in that step; the column is masked and never charged. Its observation there is the
final state of the episode before, which is what a truncated episode's value is bootstrapped from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from polobench.core.errors import UsageError
from polobench.core.seeding import SeedAxes
from polobench.tasks.spaces import ActionCodec, ObservationCodec

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]


def vectorized(env_id: str | None, make_env: MakeEnv, count: int) -> VectorEnv[Any, Any, Any]:
    """`count` environments: the id's own vector version where it autoresets on the next step, else one by one."""
    spec = gymnasium.registry.get(env_id) if env_id else None
    if spec is not None and spec.vector_entry_point is not None:
        env = gymnasium.make_vec(spec.id, num_envs=count, vectorization_mode="vector_entry_point")
        if env.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP:
            return env
        env.close()
    return SyncVectorEnv([make_env] * count, autoreset_mode=AutoresetMode.NEXT_STEP)


class Untruncated(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Goes on where a time limit would cut; termination alone ends an episode."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, _, info = self.env.step(action)
        return observation, reward, terminated, False, info


def without_time_limit(make_env: MakeEnv) -> VectorEnv[Any, Any, Any]:
    """One environment whose episodes are not truncated."""
    return SyncVectorEnv([lambda: Untruncated(make_env())], autoreset_mode=AutoresetMode.NEXT_STEP)


class VectorRunner:
    """Steps a vector environment of N environments.

    Attributes:
        observations: `[N, width]` float32, where the next action is to be taken.
        live: `[N]` bool; False where the next step only resets.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], observation_codec: ObservationCodec, action_codec: ActionCodec
    ) -> None:
        self.env, self._observation_codec, self._action_codec = env, observation_codec, action_codec
        self.observations = np.zeros((env.num_envs, observation_codec.width), np.float32)
        self.live = np.ones(env.num_envs, bool)
        self.episode_returns = np.zeros(env.num_envs)

    def reset(self, rng: SeedAxes, call: int, size: int = 1) -> None:
        """Start all environments anew; runs of `size` neighbours share a start state.

        A vector environment takes one seed, so a shared start is set explicitly: by equal seeds where the environments
        are separate (their dynamics then get streams of their own), by copying the state where they are one array.
        """
        groups = [index // size for index in range(self.env.num_envs)]
        starts: list[int | None] = [rng.integer("start", call, group) % 2**31 for group in groups]
        if isinstance(self.env, SyncVectorEnv):
            observations, _ = self.env.reset(seed=starts)
            if size > 1:
                for index, env in enumerate(self.env.envs):
                    env.unwrapped.np_random = rng.numpy("dynamics", call, index)
        else:
            observations, _ = self.env.reset(seed=starts[0])
            if size > 1:
                observations = self._share_state(size)
        self.observations = self._observation_codec.encode(observations)
        self.live = np.ones(self.env.num_envs, bool)
        self.episode_returns = np.zeros(self.env.num_envs)

    def _share_state(self, size: int) -> np.ndarray:
        state = getattr(self.env.unwrapped, "state", None)
        if not isinstance(state, np.ndarray) or state.shape[-1] != self.env.num_envs:
            raise UsageError(f"{self.env} has no state to start a group of episodes from")
        state[...] = state[..., ::size].repeat(size, axis=-1)
        return state.T.astype(np.float32)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take `[N]` actions; gives rewards, terminated and truncated `[N]`, and moves `observations` and `live` on."""
        observations, rewards, terminated, truncated, _ = self.env.step(self._action_codec.decode(actions))
        self.observations = self._observation_codec.encode(observations)
        self.episode_returns = np.where(self.live, self.episode_returns, 0.0) + rewards
        self.live = ~(terminated | truncated)
        return rewards, terminated, truncated
