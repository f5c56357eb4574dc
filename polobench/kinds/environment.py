"""A task that a study describes: an environment by its id, with arguments, wrappers, a time limit and references; or
preference data with the most tokens of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polobench.core.errors import UsageError
from polobench.kinds.checks import FINITE, OBJECT, TEXT, Rule
from polobench.kinds.parsing import check_keys, parse, parse_count, parse_text

KEYS = ("id", "label", "kwargs", "wrappers", "max_episode_steps", "floor", "target", "action_scaling", "max_length")


def parse_task(item: object) -> tuple[str, Mapping[str, Any]]:
    """A task's name and its description, which is empty where the name says it all.

    Args:
        item: a name, or a table with the `id` of an environment or of data and others of `KEYS`. The label is the name;
            by default it is the id with what differs. Anything else raises `UsageError`.
    """
    if not isinstance(item, Mapping):
        return parse_text("tasks", item), {}
    check_keys("key of a task", item, KEYS)
    name = parse_text("tasks: id", item.get("id"))
    table = {key: value for key, value in item.items() if key not in ("id", "label")}
    for key, value in table.items():
        parse(f"tasks: {key} of {name!r}", value, _RULES.get(key, FINITE))
    for key in {"max_episode_steps", "max_length"} & table.keys():
        parse_count(f"tasks: {key}", table[key])
    if not table and "label" not in item:
        return name, {}
    differs = ", ".join(
        f"{key}={value!r}" for key, value in {**table, **table.get("kwargs", {})}.items() if key != "kwargs"
    )
    label = parse_text("tasks: label", item.get("label", f"{name} ({differs})"))
    if label == name:
        raise UsageError(f"tasks: {label!r} with other arguments needs a label of its own")
    return label, {"id": name, **table}


def _is_wrappers(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(item.get("name") if isinstance(item, Mapping) else item, str) for item in value
    )


_RULES = {
    "kwargs": Rule("a table", OBJECT.holds),
    "wrappers": Rule('a list of names, or of {name = "...", ...}', _is_wrappers),
    "action_scaling": TEXT,
}
