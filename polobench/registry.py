"""Methods and tasks by name, over entry points; the built-in ones come through the same door as anyone's.

A plug-in declares `[project.entry-points."polobench.methods"]` or `"polobench.tasks"` in its own pyproject. A method's
entry is a subclass of `Method`; a task's is a class or function that takes nothing and gives a `Task`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any

import gymnasium

from polobench.core.errors import PoloError, Unavailable, UsageError, first_line, unknown
from polobench.core.hyperparameters import tuned_values
from polobench.core.method import Method
from polobench.core.modules import import_named
from polobench.core.task import Task
from polobench.kinds.environment import parse_task

METHODS, TASKS = "polobench.methods", "polobench.tasks"
DATA_FILES = tuple(f"{kind}{packed}" for kind in (".jsonl", ".json", ".csv", ".parquet") for packed in ("", ".gz"))


@dataclass(frozen=True)
class Listing:
    """One name of a registry: the distribution it comes from, and why it cannot be used (empty if it can)."""

    name: str
    source: str
    reason: str = ""


def _entries(group: str) -> dict[str, EntryPoint]:
    """The entry points by name; where two share one, polobench's own stays, then the first in order."""
    return _entries_on(tuple(sys.path), group)


@lru_cache(maxsize=8)
def _entries_on(path: tuple[str, ...], group: str) -> dict[str, EntryPoint]:
    """Read once per path: to read the metadata of all packages takes longer than all else that a cell needs."""
    ordered = sorted(entry_points(group=group), key=lambda entry: (_source(entry) != "polobench", _source(entry)))
    return {entry.name: entry for entry in reversed(ordered)}


def _source(entry: EntryPoint) -> str:
    return _name_of(entry.dist) if entry.dist else "unknown"


@lru_cache(maxsize=64)
def _name_of(distribution: Distribution) -> str:
    """Read once per distribution, of which each entry point has one: a mail parser reads it."""
    return distribution.name


def method_class(name: str) -> type[Method]:
    """The method of this name.

    Raises:
        UsageError: unknown.
        Unavailable: its plug-in does not load; the text is the reason.
    """
    entries = _entries(METHODS)
    if name not in entries:
        raise unknown("method", name, entries)
    found = _load(entries[name], "method")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise Unavailable(f"method {name!r} of {_source(entries[name])} is not a subclass of polobench.Method")
    return found


def find_task(name: str, environment: Mapping[str, Any] | None = None) -> Task:
    """The task of this name: a registered one, a file or hub id of preference data, else a gymnasium id.

    `NAME@MODEL` is a language task with another model: smollm2, a folder, a .gguf file or an id of the hub. With an
    `environment`, what a study says of it (`kinds/environment.py`), the name is only what the task is called.

    Raises:
        UsageError: unknown, or its spaces are not supported.
        Unavailable: its plug-in or its environment does not load; the text is the reason.
    """
    entries = _entries(TASKS)
    if environment:
        return _described_task(name, environment, entries)
    base, at, model = _split_model(name)
    if at and not model:
        raise UsageError(f"task {name!r} names no model after the @")
    if _is_data(base):
        return _data_task(name, base, model)
    if base not in entries:
        from polobench.tasks.control import described  # the one task that serves the names of others

        return described(name, _environment_id(name, entries))
    return _registered_task(name, entries[base], {"model": model} if at else {})


def _registered_task(name: str, entry: EntryPoint, arguments: Mapping[str, Any]) -> Task:
    """The task of an entry point, called `name` where arguments make it another one."""
    make_task, source = _load(entry, "task"), _source(entry)
    if odd := [argument for argument in arguments if argument not in inspect.signature(make_task).parameters]:
        raise UsageError(f"task {name!r}: {entry.name} takes no {odd[0]}")
    try:
        task = _named(make_task(**arguments), name) if arguments else make_task()
    except PoloError:
        raise
    except Exception as error:
        raise Unavailable(f"task {name!r} of {source} does not start: {first_line(error)}") from error
    if not isinstance(task, Task):
        raise Unavailable(f"task {name!r} of {source} does not give a polobench.Task")
    if source != "polobench":
        task.made_in = entry.module
    return task


def _is_data(base: str) -> bool:
    return base.startswith("hub:") or base.endswith(DATA_FILES)


def _data_task(name: str, source: str, model: str, **options: Any) -> Task:
    from polobench.tasks.preference import from_data

    return _named(from_data(source, *filter(None, [model]), **options), name)


def _named(task: Task, name: str) -> Task:
    task.name = name
    return task


def _split_model(name: str) -> tuple[str, str, str]:
    """The task, the @ and the model; a file that exists may have an @ in its path, and the longest such path counts."""
    for cut in [len(name), *(at for at in reversed(range(len(name))) if name[at] == "@")]:
        if name[:cut].endswith(DATA_FILES) and Path(name[:cut]).is_file():
            return name[:cut], name[cut : cut + 1], name[cut + 1 :]
    return (name, "", "") if name.endswith(DATA_FILES) else name.partition("@")


def _described_task(name: str, environment: Mapping[str, Any], registered: Mapping[str, EntryPoint]) -> Task:
    from polobench.tasks.control import described

    if name in registered or name in gymnasium.registry:
        raise UsageError(f"tasks: label {name!r} is the name of another task")
    rest = dict(environment)
    described_id = rest.pop("id")
    base, _, model = _split_model(described_id)
    if base in registered and base not in gymnasium.registry:
        if odd := rest.keys() - {"kwargs"}:
            raise UsageError(f"tasks: {', '.join(sorted(odd))} of {described_id!r} does not apply to this task")
        chosen, given = {"model": model} if model else {}, rest.get("kwargs", {})
        task = _named(_registered_task(name, registered[base], {**given, **chosen}), name)
        task.arguments = given
        return task
    is_data = _is_data(base)
    odd = rest.keys() - {"max_length"} if is_data else rest.keys() & {"max_length"}
    if odd:
        kind = "preference data" if is_data else "an environment"
        raise UsageError(f"tasks: {', '.join(sorted(odd))} of {described_id!r} does not apply to {kind}")
    if is_data:
        return _data_task(name, base, model, **rest)
    return described(name, _environment_id(described_id, registered), **rest)


def _environment_id(name: str, registered: Iterable[str]) -> str:
    """The gymnasium id in `name`, once the module before its colon is imported, which registers it; EnvPool registers
    nothing, so `tasks/envpool.py` does.
    """
    module, colon, env_id = name.rpartition(":")
    if module == "envpool":
        from polobench.tasks.envpool import register

        return register(env_id)
    if colon:
        try:
            import_named(module)
        except UsageError as error:
            raise UsageError(f"task {name!r}: {error}") from error
    if env_id not in gymnasium.registry:
        others = "any other gymnasium id, module:Id for one that a module registers"
        raise unknown("task", name, registered, others=gymnasium.registry, called=others)
    return env_id


def _load(entry: EntryPoint, kind: str) -> Any:
    try:
        return entry.load()
    except Exception as error:
        raise Unavailable(f"{kind} {entry.name!r} of {_source(entry)} does not load: {first_line(error)}") from error


def listings(group: str) -> list[Listing]:
    """Every name of `METHODS` or `TASKS`, the broken ones with their reason; loads each of them."""
    kept = _entries(group)
    rows = []
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, _source(entry))):
        reason = "" if kept[entry.name] == entry else f"the name is taken by {_source(kept[entry.name])}"
        rows.append(Listing(entry.name, _source(entry), reason or _why_not(group, entry.name)))
    return rows


def _why_not(group: str, name: str) -> str:
    try:
        method_class(name) if group == METHODS else find_task(name)
    except PoloError as error:
        return str(error)
    return ""


def make(
    method: str,
    task: str | Task | Mapping[str, Any],
    device: str = "cpu",
    *,
    label: str | None = None,
    threads: int = 1,
    tuned: bool = True,
    **hyperparameters: Any,
) -> Method:
    """A method on a task, by name; `make("ppo", task="CartPole-v1", clip_eps=0.1).run(seed=0, budget=50_000)`.

    A mapping describes a task as a study does: `{"id": "FrozenLake-v1", "kwargs": {"is_slippery": False}}`, or
    `{"id": "pairs.jsonl@smollm2", "max_length": 512}`.
    Hyper-parameters that are not given take the task's tuned values (`methods/tuned.toml`), then their defaults;
    with `tuned=False` their defaults alone.

    Raises:
        UsageError: an unknown or impossible name or value.
        Unavailable: a plug-in that does not load, or a device that is absent.
    """
    if not isinstance(task, (str, Task, Mapping)):
        raise UsageError(
            f"task is {task!r} (allowed: a name, a polobench.Task or a table as in a study; for an environment a "
            "function that makes it, polobench.tasks.control.ControlTask('name', lambda: gymnasium.make(...)))"
        )
    found = task if isinstance(task, Task) else find_task(*parse_task(task))
    values = (tuned_values(method, found.name, label) if tuned else {}) | hyperparameters
    return method_class(method)(found, device, label, threads, **values)
