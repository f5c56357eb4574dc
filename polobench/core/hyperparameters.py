"""Hyper-parameters: frozen dataclasses whose fields say what they are and what they allow.

A value comes from, in this order: the caller (or the study), the tuned values of the task (`methods/tuned.toml`), the
field's default.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

from polobench.core.errors import UsageError, unknown

SOURCES = ("auto", "data", "policy")


def hyperparameter(
    default: Any, doc: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A field with its meaning and its bounds (both inclusive)."""
    return dataclasses.field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What every method that trains a network of its own has; a task uses the fields that apply to it."""

    hidden_sizes: tuple[int, ...] = hyperparameter((64, 64), "units per hidden layer (control)", low=1)
    activation: str = hyperparameter("tanh", "activation function (control)", choices=("tanh", "relu"))
    initial_log_std: float = hyperparameter(0.0, "initial log standard deviation (control)", low=-10, high=3)
    normalize_observations: bool = hyperparameter(False, "running standardisation of observations (control)")
    temperature: float = hyperparameter(1.0, "softmax temperature of the policy (language)", low=0.01)
    compute_dtype: str = hyperparameter(
        "float32",
        "number type of the model; bfloat16 has float32 masters (language)",
        choices=("float32", "bfloat16", "float64"),
    )
    generation_batch: int = hyperparameter(64, "completions generated together (language)", low=1)


@dataclass(frozen=True, kw_only=True)
class GradientHyperparameters(Hyperparameters):
    """How every method follows its gradients, a critic's too; `core.optimization` applies them.

    The defaults are the same for all. Adam's eps is its paper's: the methods' losses differ in scale by orders of
    magnitude (a sum over an episode, a mean over tokens), and a larger one would slow down those that are small.
    """

    learning_rate_schedule: str = hyperparameter(
        "constant", "learning rates over time; linear: to 0 over the budget", choices=("constant", "linear")
    )
    adam_eps: float = hyperparameter(1e-8, "number added to Adam's denominator", low=0)
    max_gradient_norm: float = hyperparameter(0.5, "largest gradient norm; longer ones are scaled down", low=0)
    micro_batch: int | None = hyperparameter(None, "most rows per gradient pass; gradients add up", low=1)


@dataclass(frozen=True, kw_only=True)
class GroupHyperparameters(GradientHyperparameters):
    """What every method has that trains on groups of responses to one prompt, or of episodes from one start state."""

    n_groups: int = hyperparameter(8, "prompts (or start states) per batch", low=1)
    group_size: int = hyperparameter(8, "responses per prompt (or episodes per start state), where sampled", low=2)
    epochs: int = hyperparameter(1, "passes over each batch", low=1)
    learning_rate: float = hyperparameter(3e-4, "Adam learning rate", low=0)


@dataclass(frozen=True, kw_only=True)
class RankedHyperparameters(GroupHyperparameters):
    """What every method has that trains on ranked groups, of a data set or of the policy's own responses."""

    source: str = hyperparameter("auto", "source of groups; auto: data if any, else the policy", choices=SOURCES)
    minibatch_groups: int | None = hyperparameter(None, "groups per gradient step; None: all of the batch", low=1)


if TYPE_CHECKING:  # a default, so that a plain `Method` has the base's fields, is typing's own from Python 3.13
    import typing_extensions

    HP = typing_extensions.TypeVar("HP", bound=Hyperparameters, default=Hyperparameters, covariant=True)
else:
    HP = TypeVar("HP")


def build(cls: type[HP], owner: str, values: Mapping[str, Any]) -> HP:
    """Check `values` against the fields of `cls` and build it.

    Raises:
        UsageError: an unknown name, a wrong type, or a value out of bounds; one line that names `owner` and the field.
    """
    known = {item.name: item for item in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    checked = {}
    for name, value in values.items():
        if name not in known:
            raise unknown(f"hyper-parameter of {owner}", name, known)
        checked[name] = _checked(f"{owner}: {name}", value, hints[name], known[name].metadata)
    return cls(**checked)


def _checked(what: str, value: Any, hint: Any, limits: Mapping[str, Any]) -> Any:
    options = typing.get_args(hint) if NoneType in typing.get_args(hint) else (hint,)
    if value is None and NoneType in options:
        return None
    kind = next(option for option in options if option is not NoneType)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{what} is {value!r} (allowed: a list)")
        return tuple(_checked(what, item, typing.get_args(kind)[0], limits) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**63 else math.inf
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UsageError(f"{what} is {value!r} (allowed: {kind.__name__})")
    if limits.get("choices") and value not in limits["choices"]:
        raise UsageError(f"{what} is {value!r} (allowed: {', '.join(limits['choices'])})")
    low, high = limits.get("low"), limits.get("high")
    too_low, too_high = low is not None and value < low, high is not None and value > high
    if (kind is float and not math.isfinite(value)) or too_low or too_high:
        bounds = f"{'' if low is None else f'{low} <= '}{what.split(': ')[-1]}{'' if high is None else f' <= {high}'}"
        raise UsageError(f"{what} is {value!r} (allowed: {bounds}, finite)")
    return value


def describe(cls: type[Hyperparameters]) -> list[dict[str, Any]]:
    """Name, type, default, meaning and bounds of every field, for `polobench list --json`."""
    return [
        {"name": item.name, "type": str(item.type), "default": item.default}
        | {key: value for key, value in item.metadata.items() if value not in (None, ())}
        for item in dataclasses.fields(cls)
    ]


@cache
def _tuned_file() -> dict[str, Any]:
    return tomllib.loads(resources.files("polobench.methods").joinpath("tuned.toml").read_text())


def tuned_values(method: str, task: str, label: str | None = None) -> dict[str, Any]:
    """The tuned values of a variant on a task, by its label, else those of its method, or nothing.

    What stands before a comma of a label is a variant, too, whose values the label takes unless it has its own:
    "ipo, beta 3" those of "ipo".
    """
    by_name = _tuned_file()
    parts = (label or method).split(",")
    names = [",".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return dict(next(filter(None, (by_name.get(name, {}).get(task) for name in [*names, method])), {}))


def tuned_tasks(method: str) -> list[str]:
    """The tasks that a method was tuned for under its own name."""
    return sorted(_tuned_file().get(method, {}))
