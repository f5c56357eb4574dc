"""A reward function as people write it: which arguments it takes, and what it may give back.

As in TRL, a function takes what it names: `prompts`, `completions` and further columns of the data, each a list with an
entry per completion. `prompt`, `p` and other beginnings of the two names stand for them. To a conversation, given as a
list of messages, the completion is a list of one message. What it gives back is a number per completion, in a list, a
tensor or an array; None says that the function does not apply to a completion.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from numbers import Real
from typing import Any

from polobench.core.errors import UsageError, first_line
from polobench.tasks.fields import Field, Prompt, brief, prompt_key

Reward = Callable[..., Any]
GivenPrompt = str | list[dict[str, str]] | Mapping[str, Any]  # text, messages, or a row with one of them as `prompt`

ARGUMENTS = ("prompts", "completions")
RESERVED = {*ARGUMENTS, "completion", "completion_ids"}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class Question:
    """A prompt, and the further columns of its row."""

    prompt: Prompt
    columns: Mapping[str, Any]

    def with_completion(self, text: str) -> dict[str, Any]:
        """The arguments of a reward function for one completion."""
        if isinstance(self.prompt, str):
            return {"prompts": self.prompt, "completions": text, **self.columns}
        messages = [{"role": role, "content": content} for role, content in self.prompt]
        return {"prompts": messages, "completions": [{"role": "assistant", "content": text}], **self.columns}


def read_questions(prompts: Sequence[GivenPrompt]) -> list[Question]:
    """Prompts, each once: blanks do not tell two apart, other columns do.

    Raises:
        UsageError: no prompts, one that is no prompt, or rows with different columns.
    """
    if isinstance(prompts, (str, Mapping)):
        raise UsageError(f"prompts: {brief(prompts)} (allowed: a list of prompts)")
    questions: dict[tuple[str, str], Question] = {}
    names: set[str] | None = None
    for number, given in enumerate(prompts, start=1):
        row = dict(given) if isinstance(given, Mapping) else {"prompt": given}
        try:
            prompt = Field("prompt", row.pop("prompt", None)).prompt()
        except UsageError as error:
            raise UsageError(f"prompt {number}: {error}") from None
        names = set(row) if names is None else names
        if set(row) != names or names & RESERVED:
            raise UsageError(f"prompt {number}: columns {sorted(row)} (allowed: the same in each row, no {RESERVED})")
        questions.setdefault((prompt_key(prompt), repr(row)), Question(prompt, row))
    if not questions:
        raise UsageError("it has no prompts")
    return list(questions.values())


def described(value: Any) -> str:
    """A value of a row, or a function with what is bound to it, as text that is the same in every process.

    The text of what has no name of its own, such as a lambda, has a `<` in it.
    """
    if isinstance(value, partial):
        return f"partial({described(value.func)}, {described(value.args)}, {described(value.keywords)})"
    if inspect.ismethod(value):
        return f"{described(value.__self__)}.{value.__name__}"
    if is_dataclass(value) and not isinstance(value, type):
        held = {item.name: getattr(value, item.name) for item in fields(value)}
        return f"{type(value).__qualname__}({described(held)})"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {described(item)}" for key, item in sorted(value.items(), key=repr)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(described, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(described, value))) + "}"
    plain = value.tolist() if hasattr(value, "tolist") else value  # an array writes its first and last numbers alone
    return _ADDRESS.sub("", repr(plain))


def functions_in(value: Any) -> Iterator[Callable[..., Any]]:
    """The functions that decide what a callable gives: itself, and those that are bound to it."""
    if isinstance(value, partial):
        for item in (value.func, *value.args, *value.keywords.values()):
            yield from functions_in(item)
    elif callable(value):
        yield value
        bound = getattr(value, "__self__", None)
        if is_dataclass(bound) and not isinstance(bound, type):
            for item in fields(bound):
                yield from functions_in(getattr(bound, item.name))


class RewardFunction:
    """A function of a user, called by the names of its arguments.

    Args:
        function: see this module.
        columns: what the data have beside prompts.

    Raises:
        UsageError: its signature does not fit.
    """

    def __init__(self, function: Reward, columns: Sequence[str]) -> None:
        self.function = function
        self._arguments = _arguments(function, (*ARGUMENTS, *columns))

    def __call__(self, questions: Sequence[Question], completions: Sequence[str]) -> list[float | None]:
        """A reward for each completion, None where the function does not apply.

        Raises:
            UsageError: the function raised an error, or gave something else than one finite number per completion.
        """
        rows = [question.with_completion(text) for question, text in zip(questions, completions, strict=True)]
        positional, named = self._arguments
        lists = {name: [row[name] for row in rows] for name in {*positional, *named.values()}}
        try:
            given = self.function(
                *(lists[name] for name in positional), **{called: lists[name] for called, name in named.items()}
            )
            values = _as_list(given)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"failed: {first_line(error)}") from error
        if len(values) != len(rows):
            raise UsageError(f"gave {len(values)} numbers for {len(rows)} completions")
        for value, row in zip(values, rows):
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                about = f"the prompt {brief(row['prompts'])} and the completion {brief(row['completions'])}"
                raise UsageError(f"gave {brief(value)} for {about} (allowed: a finite number, or None)")
        return [None if value is None else float(value) for value in values]


def _arguments(function: Reward, allowed: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Which lists the function takes by position, and which under which name."""
    positional: list[str] = []
    named: dict[str, str] = {}
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise UsageError(f"its parameters cannot be read: {first_line(error)} (allowed: a Python function)") from None
    if inspect.iscoroutinefunction(function):
        raise UsageError("it is a coroutine (allowed: a plain function)")
    for index, parameter in enumerate(parameters):
        name = _meant(parameter.name, index, allowed)
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= {name: name for name in allowed if name not in {*positional, *named.values()}}
        elif parameter.kind is parameter.VAR_POSITIONAL:
            positional += [] if named or positional else ARGUMENTS
        elif name and parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(name)
        elif name:
            named[parameter.name] = name
        elif parameter.default is parameter.empty:
            near = difflib.get_close_matches(parameter.name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"its parameter {parameter.name!r} does not fit{hint} (allowed: {', '.join(allowed)})")
    if "completions" not in {*positional, *named.values()}:
        raise UsageError(f"it takes no completions (allowed: {', '.join(allowed)})")
    return positional, named


def _meant(name: str, index: int, allowed: Sequence[str]) -> str:
    """The list that a parameter of this name and place stands for, or nothing."""
    if name in allowed:
        return name
    plain = name.lstrip("_")
    if not plain:
        return ARGUMENTS[index] if index < len(ARGUMENTS) else ""
    return next((argument for argument in ARGUMENTS if argument.startswith(plain)), "")


def _as_list(values: Any) -> list[Any]:
    if hasattr(values, "tolist"):  # a tensor, an array or a column of a table
        values = values.tolist()
    if isinstance(values, (str, Mapping, Set)) or not hasattr(values, "__iter__"):
        raise UsageError(f"gave {brief(values)} (allowed: a number for each completion, in a list, tensor or array)")
    return [value.item() if hasattr(value, "item") and getattr(value, "shape", 0) == () else value for value in values]
