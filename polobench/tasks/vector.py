"""A gymnasium vector environment whose autoreset is handled right.

gymnasium resets a finished environment on the *next* step by default: that step ignores its action and gives reward 0.
Such an environment is not `live` in that step; the column is masked and never charged. Its observation there is the
final state of the episode before, which is what a truncated episode's value is bootstrapped from.
"""

from __future__ import annotations

import copy
from contextlib import closing
from itertools import pairwise
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from polobench.core.errors import UsageError
from polobench.core.seeding import SeedAxes
from polobench.tasks.environments import MakeEnv
from polobench.tasks.spaces import ActionCodec, ObservationCodec, membership


def vectorized(spec: EnvSpec | None, make_env: MakeEnv, count: int) -> VectorEnv[Any, Any, Any]:
    """`count` environments: the spec's own vector version (`has_equal_vector_version`), or one by one."""
    if spec is not None:
        return gymnasium.make_vec(spec, num_envs=count, vectorization_mode="vector_entry_point")
    return SyncVectorEnv([make_env] * count, autoreset_mode=AutoresetMode.NEXT_STEP)


def has_equal_vector_version(spec: EnvSpec, env: gymnasium.Env[Any, Any]) -> bool:
    """Whether the spec's vector version can stand for environments like `env`.

    Its spaces and its time limit must be the same, it must reset on the next step, what it gives must stay as it is,
    and groups of episodes must be able to share a start: its state is an array `[D, N]` that is its observation, or its
    `reset` takes a seed for each environment, as `metadata["one_seed_each"]` says.
    """
    if spec.vector_entry_point is None or spec.additional_wrappers or spec.max_episode_steps is None:
        return False
    count = 2 + sum(env.observation_space.shape or ())  # so that N is not D
    try:
        with closing(vectorized(spec, lambda: env, count)) as many:
            observations, _ = many.reset(seed=0)
            state = getattr(many.unwrapped, "state", None)
            return (
                many.single_observation_space == env.observation_space
                and many.single_action_space == env.action_space
                and many.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP
                and getattr(many.unwrapped, "max_episode_steps", None) == spec.max_episode_steps
                and (
                    many.metadata.get("one_seed_each", False)
                    or (isinstance(state, np.ndarray) and np.array_equal(state.T.astype(np.float32), observations))
                )
                and _gives_new_arrays(many, observations)
            )
    except Exception:  # what does not start is not used
        return False


def _gives_new_arrays(env: VectorEnv[Any, Any, Any], observations: Any) -> bool:
    """Whether a step writes into nothing that the reset or the step before it gave, which rollouts keep."""
    env.action_space.seed(0)
    given = [(observations,), *(env.step(env.action_space.sample())[:4] for _ in range(2))]
    arrays = [[part for part in parts if isinstance(part, np.ndarray) and part.flags.writeable] for parts in given]
    pairs = ((one, two) for before, after in pairwise(arrays) for one in before for two in after)
    return not any(np.may_share_memory(one, two) for one, two in pairs)


class Untruncated(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Goes on where a time limit would cut; termination alone ends an episode."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, _, info = self.env.step(action)
        return observation, reward, terminated, False, info


def without_time_limit(make_env: MakeEnv) -> VectorEnv[Any, Any, Any]:
    """One environment whose episodes are not truncated."""
    return SyncVectorEnv([lambda: Untruncated(make_env())], autoreset_mode=AutoresetMode.NEXT_STEP)


def _trust_actions(env: VectorEnv[Any, Any, Any]) -> None:
    """`ActionCodec` makes no action outside of the space; the environment's own check would be a third of a step."""
    space = copy.copy(env.unwrapped.action_space)
    space.contains = lambda x: True  # type: ignore[method-assign]
    env.unwrapped.action_space = space


class VectorRunner:
    """Steps a vector environment of N environments.

    Attributes:
        observations: `[N, width]` float32, where the next action is to be taken.
        live: `[N]` bool; False where the next step only resets.
        any_over: whether `live` is False anywhere, in few steps of many.
        resting: number of environments that `rest` has stopped, until the next reset.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], observation_codec: ObservationCodec, action_codec: ActionCodec
    ) -> None:
        self.env, self._observation_codec, self._action_codec = env, observation_codec, action_codec
        self._contains = membership(env.observation_space)
        one_by_one = isinstance(env, SyncVectorEnv)  # where `Checked` checks
        self._checks = not one_by_one and not env.metadata.get("always_finite", False)
        if not one_by_one:
            _trust_actions(env)
        self.observations = np.zeros((env.num_envs, observation_codec.width), np.float32)
        self._all = np.ones(env.num_envs, bool)
        self._all.flags.writeable = False
        self._begin()

    def _begin(self) -> None:
        self.live, self.any_over, self.resting = self._all, False, 0
        self.episode_returns = np.zeros(self.env.num_envs)

    def reset(self, rng: SeedAxes, call: int, size: int = 1) -> None:
        """Start all environments anew; runs of `size` neighbours share a start state.

        A vector environment of gymnasium's takes one seed, so a shared start is set explicitly: by equal seeds where
        the environments are separate (their dynamics then get streams of their own, if they draw from a numpy
        Generator; others of a group share theirs) or take a seed each, by copying the state where they are one array.
        """
        groups = [index // size for index in range(self.env.num_envs)]
        starts: list[int | None] = [rng.integer("start", call, group) % 2**31 for group in groups]
        if isinstance(self.env, SyncVectorEnv):
            observations, _ = self.env.reset(seed=starts)
            if size > 1:
                for index, env in enumerate(self.env.envs):
                    if isinstance(env.unwrapped.np_random, np.random.Generator):
                        env.unwrapped.np_random = rng.numpy("dynamics", call, index)
        elif self.env.metadata.get("one_seed_each", False):
            observations, _ = self.env.reset(seed=starts)  # type: ignore[arg-type]
        else:
            observations, _ = self.env.reset(seed=starts[0])
            if size > 1:
                observations = self._share_state(size)
        self.observations = self._encode(observations)
        self._begin()

    def _share_state(self, size: int) -> np.ndarray:
        state: np.ndarray = self.env.unwrapped.state  # type: ignore[attr-defined]  # `has_equal_vector_version`
        state[...] = state[..., ::size].repeat(size, axis=-1)
        return state.T.astype(np.float32)

    def _encode(self, observations: Any) -> np.ndarray:
        if self._checks and not self._contains(observations):
            raise UsageError(f"{self.env}: the observations {observations!r} are no member of its space")
        return self._observation_codec.encode(observations, self.env.observation_space)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take `[N]` actions; gives rewards, terminated and truncated `[N]`, and moves `observations` and `live` on."""
        observations, rewards, terminated, truncated, _ = self.env.step(self._action_codec.decode(actions))
        self.observations = self._encode(observations)
        before = self.episode_returns * self.live if self.any_over else self.episode_returns
        over = terminated | truncated
        self.episode_returns, self.any_over = before + rewards, bool(np.count_nonzero(over))
        self.live = ~over if self.any_over else self._all
        return rewards, terminated, truncated

    def rest(self, unfinished: np.ndarray) -> np.ndarray:
        """Which of the environments marked in `unfinished` `[N]` are so after the last step.

        The others are not stepped any more, if the environments are stepped one by one.
        """
        if not self.any_over:
            return unfinished
        if isinstance(self.env, SyncVectorEnv):
            over = (unfinished & ~self.live).nonzero()[0]
            self.resting += len(over)
            for index in over:
                self.env.envs[index].resting = True  # type: ignore[attr-defined]  # of `Checked`
        return unfinished & self.live
