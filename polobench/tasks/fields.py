"""Values of rows that others wrote, each with its name: read as numbers, text, messages or a prompt, or refused.

A prompt is text or a conversation: a list of `{"role", "content"}`, or of ShareGPT's `{"from", "value"}`, the last
message the user's. A response is text, a message of the assistant or a list of one.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from polobench.core.errors import UsageError

Message = tuple[str, str]  # role and content
Prompt = str | tuple[Message, ...]  # plain text, or a conversation
Row = Mapping[str, Any]

ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
TRUTHS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
LARGEST_RANK = 1_000_000
PROMPTS = ("prompt", "question", "instruction", "input", "query", "conversations")
# what other data sets call a column: beside one of these, a column is misnamed rather than absent
ALIASES = {
    "prompt": PROMPTS[1:],
    "chosen": ("preferred", "accepted", "better"),
    "rejected": ("dispreferred", "refused", "worse"),
    "responses": ("outputs", "candidates"),
}
CELL_OF_MESSAGES = re.compile(r"""\s*(\[\s*\{\s*['"](role|content|from|value)|\{\s*['"](role|from))['"]\s*:""")


class Cell(str):
    """A cell of a file whose cells are all text, such as CSV: read as a number or as JSON where a shape wants one."""


@dataclass(frozen=True)
class Field:
    """A value and its name, as in "responses[2]"; each way of reading it raises `UsageError` where it does not fit."""

    name: str
    value: Any

    def refusal(self, allowed: str) -> UsageError:
        return UsageError(f"field {self.name!r}: {brief(self.value)} (allowed: {allowed})")

    def score(self) -> float:
        """Higher is better."""
        number = self._number()
        if math.isnan(number):
            raise self.refusal("a finite number, higher is better")
        return number

    def rank(self) -> float:
        """The score of a rank, of which 1 is the best."""
        number = self._number()
        if not 1 <= number <= LARGEST_RANK:
            raise self.refusal(f"a number from 1, the best, to {LARGEST_RANK:,}")
        return -number

    def truth(self) -> float:
        """1 for true, 0 for false."""
        said = str(self.value).lower() if isinstance(self.value, (int, float, Cell)) else ""
        if said not in TRUTHS:
            raise self.refusal("true, false")
        return TRUTHS[said]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.refusal("text")
        try:
            self.value.encode()
        except UnicodeEncodeError:
            fault = f"field {self.name!r}: it has half of a surrogate pair (allowed: text that is Unicode)"
            raise UsageError(fault) from None
        return str(self.value)

    def items(self) -> list[Field]:
        found = self._json() if isinstance(self.value, Cell) else self.value
        if not isinstance(found, list):
            raise self.refusal("a list of them")
        return [Field(f"{self.name}[{index}]", item) for index, item in enumerate(found)]

    def members(self, *names: str) -> list[Field]:
        """Those of an object, which it must have."""
        if not isinstance(self.value, dict):
            raise self.refusal(f"an object with {' and '.join(names)}")
        return [required(self.value, name, f"{self.name}.") for name in names]

    def decoded(self) -> Field:
        """With the messages that a cell of text holds; any other value as it is."""
        holds_messages = isinstance(self.value, Cell) and CELL_OF_MESSAGES.match(self.value)
        return Field(self.name, self._json()) if holds_messages else self

    def messages(self) -> list[Message]:
        """Those of a list of messages, or the one that it is itself."""
        items = [self] if isinstance(self.value, dict) else self.items()
        if not items:
            raise UsageError(f"field {self.name!r}: it is empty (allowed: text, or a list of {{role, content}})")
        return [item._message() for item in items]

    def prompt(self, *, as_message: bool = False) -> Prompt:
        """A prompt in either of its forms; with `as_message`, text is a message of the user."""
        field = self.decoded()
        if not isinstance(field.value, list):
            if not isinstance(field.value, str) or not field.value.strip():
                raise field.refusal("text, or a list of {role, content}; not empty")
            return (("user", field.text()),) if as_message else field.text()
        messages = field.messages()
        role, content = messages[-1]
        if role != "user" or not content.strip():
            raise UsageError(
                f"field {self.name!r}: its last message is {brief(messages[-1])} (allowed: one of the user, not empty)"
            )
        return tuple(messages)

    def response(self) -> str:
        field = self.decoded()
        if not isinstance(field.value, (list, dict)):
            if not isinstance(field.value, str):
                raise field.refusal("text, or a list of one assistant message")
            return field.text()
        messages = field.messages()
        if [role for role, _ in messages] != ["assistant"]:
            roles = ", ".join(role for role, _ in messages[:5])
            raise UsageError(f"field {self.name!r}: messages of {roles} (allowed: one message, of the assistant)")
        return messages[0][1]

    def _message(self) -> Message:
        by_speaker = isinstance(self.value, dict) and "from" in self.value and self.value.get("role") is None
        role, said = self.members(*(("from", "value") if by_speaker else ("role", "content")))
        roles = SPEAKERS if by_speaker else ROLES
        if not isinstance(role.value, str) or role.value not in roles:
            raise role.refusal(", ".join(roles))
        return roles[role.value], said.text()

    def _number(self) -> float:
        """NaN where it is no finite number."""
        value = self.value
        if isinstance(value, Cell):
            with suppress(ValueError):
                value = float(value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if is_number and abs(value) <= sys.float_info.max else math.nan

    def _json(self) -> Any:
        try:
            return json.loads(self.value)
        except (ValueError, RecursionError):
            raise self.refusal("in a cell: text, or a list as JSON") from None


def required(row: Row, name: str, prefix: str = "") -> Field:
    """The field of a row, which it must have; messages call it by the prefix and its name."""
    if row.get(name) is None:
        raise UsageError(f"field {prefix + name!r} is missing{near(row, name)}")
    return Field(prefix + name, row[name])


def near(row: Row, part: str, least: float = 0.6) -> str:
    """A hint at the column that was meant, perhaps: spelled alike, or what others call it; `|` parts alternatives."""
    names = {key.lower(): key for key in row}
    for name in part.split("|"):
        found = difflib.get_close_matches(name, names, n=1, cutoff=least)
        found += [alias for alias in ALIASES.get(name, ()) if alias in names]
        if found:
            return f"; it has {brief(names[found[0]])}: did you mean {name!r}?"
    return ""


def messages_of(prompt: Prompt) -> Sequence[Message]:
    """A prompt as a conversation: text is one message of the user."""
    return (("user", prompt),) if isinstance(prompt, str) else prompt


def prompt_key(prompt: Prompt) -> str:
    """Equal for prompts that ask the same: blanks do not count, and text is a conversation of one user message."""
    return "\n".join(f"{role} {' '.join(said.split())}" for role, said in messages_of(prompt) if said.strip())


def brief(value: object) -> str:
    """The value as Python writes it, cut to what fits into a line."""
    text = repr(value[:80] if isinstance(value, (str, list)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
