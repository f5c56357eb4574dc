"""Environments as people bring them: made by id with arguments, checked at every step, and known by their sources."""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from types import FunctionType
from typing import Any, SupportsFloat

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from polobench.core.errors import Unavailable, UsageError, first_line, unknown
from polobench.core.modules import import_named
from polobench.core.provenance import modules_of, simulators_of

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
LONGEST_EPISODE = 10_000
LARGEST_REWARD = 1e30  # returns are computed in float32
NEW_API = (
    "needed: gymnasium's API, `reset(seed=...)` that gives (observation, info) and `step` that gives five values; "
    "shimmy's GymV21CompatibilityV0 wraps environments of the old one"
)


@dataclass(frozen=True)
class ById:
    """Makes a registered environment.

    Attributes:
        env_id: as registered.
        kwargs: of the environment, on top of the registered ones.
        wrappers: names in `gymnasium.wrappers` or `module:Class`, the innermost first; `{name, ...}` gives arguments.
        max_episode_steps: the time limit; by default the registered one, else `LONGEST_EPISODE`.
    """

    env_id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Sequence[str | Mapping[str, Any]] = ()
    max_episode_steps: int | None = None

    @property
    def is_plain(self) -> bool:
        """It is what the id alone means."""
        return not (self.kwargs or self.wrappers or self.max_episode_steps)

    @property
    def spec(self) -> EnvSpec:
        return gymnasium.spec(self.env_id)

    def __call__(self) -> gymnasium.Env[Any, Any]:
        if isinstance(self.spec.entry_point, str):
            load_env_creator(self.spec.entry_point)
        _let_python_show_mujoco_warnings()
        limit = self.max_episode_steps or self.spec.max_episode_steps or LONGEST_EPISODE
        env = gymnasium.make(self.spec, max_episode_steps=limit, disable_env_checker=True, **self.kwargs)
        for wrapper in self.wrappers:
            arguments = {"name": wrapper} if isinstance(wrapper, str) else dict(wrapper)
            env = _wrapper(str(arguments.pop("name", "")))(env, **arguments)
        return env


def _let_python_show_mujoco_warnings() -> None:
    """MuJoCo writes each of its warnings to stderr and to a file in the current folder, unless somebody takes them."""
    take = getattr(sys.modules.get("mujoco"), "set_mju_user_warning", None)
    if take is not None:
        take(lambda text: _warn_once(text.partition(" Time =")[0]))


@cache
def _warn_once(text: str) -> None:
    with suppress(Warning):  # no error may leave a function that C calls
        warnings.warn(f"MuJoCo: {text}", RuntimeWarning, stacklevel=2)


def _wrapper(name: str) -> Callable[..., gymnasium.Env[Any, Any]]:
    module, colon, attribute = name.partition(":")
    owner = import_named(module) if colon else gymnasium.wrappers
    found = getattr(owner, attribute if colon else name, None)
    if not callable(found):
        raise unknown("wrapper", name, gymnasium.wrappers.__all__, called="module:Class")
    return found  # type: ignore[no-any-return]


class Checked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Names the environment, the step and the value where an environment breaks its contract.

    Args:
        env: one environment.
        task: the task's name.
        contains: whether an observation lies in the space.

    Attributes:
        resting: after its episode it stays as it is, without a step, until a reset with a seed.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], task: str, contains: Callable[[Any], bool]) -> None:
        super().__init__(env)
        self._task, self._contains, self._step = task, contains, 0
        self.resting, self._last = False, None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.resting and seed is None:
            return self._last, {}
        self._step, self.resting = 0, False
        found = self.env.reset(seed=seed, options=options)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
            raise UsageError(f"task {self._task!r}: `reset` gives no (observation, info) ({NEW_API})")
        self._check(found[0])
        return found

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        if self.resting:
            return self._last, 0.0, False, False, {}
        self._step += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except ValueError as error:
            if "expected 5, got 4" not in str(error):
                raise
            raise UsageError(f"task {self._task!r}: `step` gives four values ({NEW_API})") from error
        if not _is_number(reward):
            raise self._refusal("reward", reward, f"a finite number, at most {LARGEST_REWARD:g} in size")
        self._check(observation)
        self._last = observation
        return observation, reward, terminated, truncated, info

    def _check(self, observation: Any) -> None:
        if not self._contains(observation):
            raise self._refusal("observation", observation, f"a member of {self.env.observation_space}")

    def _refusal(self, what: str, value: object, needed: str) -> UsageError:
        where = f"task {self._task!r}, step {self._step} of an episode"
        return UsageError(f"{where}: the {what} is {value!r} (needed: {needed})")


def _is_number(value: Any) -> bool:
    try:
        is_one = isinstance(value, float) or getattr(value, "ndim", 0) == 0
        return is_one and bool(abs(value) <= LARGEST_REWARD)
    except (TypeError, ValueError):
        return False


def start(name: str, make_env: MakeEnv) -> gymnasium.Env[Any, Any]:
    """A first environment, of which only the spaces and the sources are looked at.

    Raises:
        UsageError: it is none of gymnasium's, its `reset` takes no seed, or `make_env` gives it twice.
        Unavailable: it does not start.
    """
    try:
        env, second = make_env(), make_env()
    except UsageError:
        raise
    except Exception as error:
        raise Unavailable(f"task {name!r} does not start: {first_line(error)}") from error
    if not isinstance(env, gymnasium.Env):
        found = f"{type(env).__module__}.{type(env).__qualname__}"
        raise UsageError(f"task {name!r}: {found} is no gymnasium.Env ({NEW_API})")
    if env.unwrapped is second.unwrapped:
        wanted = "needed: a new one from each call"
        raise UsageError(f"task {name!r}: its maker gives the same environment twice ({wanted})")
    second.close()
    parameters = inspect.signature(env.unwrapped.reset).parameters.values()
    if not any(item.name == "seed" or item.kind is item.VAR_KEYWORD for item in parameters):
        raise UsageError(f"task {name!r}: `reset` takes no seed ({NEW_API})")
    return env


def sources(make_env: MakeEnv, env: gymnasium.Env[Any, Any]) -> set[str]:
    """The modules of the environment, of its simulator, of its wrappers and of what makes it."""
    found = modules_of(type(env)) | simulators_of(type(env.unwrapped))
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        found = found | modules_of(type(env))
    if isinstance(make_env, ById):
        return found
    maker = make_env.func if isinstance(make_env, partial) else make_env
    return found | {maker.__module__}


def definition(make_env: MakeEnv, env: gymnasium.Env[Any, Any]) -> str:
    """What else than sources defines an environment, as JSON: its maker, its arguments, its wrappers, its limit."""
    parts: list[Any] = [_qualified(make_env), list(make_env.wrappers) if isinstance(make_env, ById) else []]
    if env.spec is not None:
        spec = env.spec
        entry = spec.entry_point if isinstance(spec.entry_point, str) else _qualified(spec.entry_point)
        wrappers = [[item.name, item.entry_point, item.kwargs] for item in spec.additional_wrappers]
        parts += [entry, spec.kwargs, wrappers, spec.max_episode_steps]
    return json.dumps(parts, sort_keys=True, default=_plain)


def _plain(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else f"<{_qualified(value)}>"


def _qualified(value: object) -> str:
    """The name of a class or function; what has a state of its own is no more than `<...>`."""
    if isinstance(value, ById):
        return "a registered environment"
    known = value if hasattr(value, "__qualname__") else type(value)
    name = f"{known.__module__}.{known.__qualname__}"
    return name if isinstance(value, (type, FunctionType)) else f"<{name}>"
