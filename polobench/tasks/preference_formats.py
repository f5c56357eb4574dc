"""One row of preference data, in any of the shapes that people keep it in, as a ranked group.

| shape | fields |
|---|---|
| pair | `prompt`, `chosen`, `rejected` |
| pair, implicit prompt | `chosen`, `rejected`: what both begin with is the prompt |
| ranked group | `prompt`, `responses`, and `ranks` (1 is best) or `scores` (higher is better) |
| marked answers | `question`, and one object an answer: `{"solution": ..., "is_correct": true}` |

A prompt is text or a conversation (a list of `{"role", "content"}`, the last one the user's). A response is text or a
conversation of one assistant message. Beside such a response, a prompt that is text counts as a user message.
Fields that are not in this table are ignored: data sets have many, such as `id`, `category`, `source`, `metadata`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from polobench.core.errors import UsageError

Message = tuple[str, str]  # role and content
Prompt = str | tuple[Message, ...]  # plain text, or a conversation

ROLES = ("system", "user", "assistant")
WORST_RANK = 1_000_000
# what other data sets call a field: beside one of these, a field is rather misnamed than absent
ALIASES = {
    "prompt": ("question", "instruction", "input", "query"),
    "chosen": ("preferred", "accepted", "better"),
    "rejected": ("dispreferred", "refused", "worse"),
    "responses": ("completions", "answers", "outputs", "candidates"),
    "question": ("prompt", "instruction", "input", "query"),
}
SHAPES = "prompt, chosen and rejected; or prompt, responses, and ranks or scores; or question and marked answers"


@dataclass(frozen=True)
class RankedGroup:
    """A prompt and two or more responses, none empty; higher scores are better, some may tie but not all.

    `where` names the row it comes from, as in "file.jsonl:12".
    """

    prompt: Prompt
    responses: tuple[str, ...]
    scores: tuple[float, ...]
    where: str


@dataclass(frozen=True)
class _Candidates:
    """A row that is well formed, before it is known whether it prefers anything; `names` are those of its fields."""

    prompt: Prompt
    names: Sequence[str]
    responses: Sequence[str]
    scores: Sequence[float]


@dataclass(frozen=True)
class MarkedFields:
    """What the fields of a row of marked answers are called."""

    question: str = "question"
    answer: str = "solution"
    mark: str = "is_correct"


ReadRow = Callable[[Mapping[str, Any]], _Candidates]


def parse_row(row: object, where: str, read: ReadRow | None = None) -> tuple[RankedGroup | None, str]:
    """The group of a row, and what was left out and why ("" for nothing); no group where the row prefers nothing.

    Raises:
        UsageError: the row has none of the shapes of this module, or a field of it has a wrong value.
    """
    try:
        if not isinstance(row, dict):
            raise UsageError(f"{brief(row)} is not a row (allowed: one JSON object a line)")
        return _settle((read or read_row)(row), where)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def read_row(row: Mapping[str, Any]) -> _Candidates:
    """A row whose shape shows in its fields."""
    pair, group = "chosen" in row or "rejected" in row, "responses" in row
    if pair and group:
        raise UsageError("fields 'responses' and 'chosen' or 'rejected' exclude each other (allowed: one of them)")
    if group:
        return _ranked(row)
    if pair:
        return _pair(row)
    if any(isinstance(value, dict) and MarkedFields.mark in value for value in row.values()):
        return read_marked(row)
    raise UsageError(f"fields {brief(list(row))} are no preference{_hint(row)} (allowed: {SHAPES})")


def read_marked(row: Mapping[str, Any], fields: MarkedFields | None = None) -> _Candidates:
    """A question with answers that are each marked right (score 1) or wrong (score 0)."""
    called = fields or MarkedFields()
    prompt = _prompt(called.question, _required(row, called.question))
    objects = [(name[:80], value) for name, value in row.items() if isinstance(value, dict)]
    marked = [(name, value) for name, value in objects if called.mark in value or called.answer in value]
    if not marked:
        needed = f"objects with {called.answer!r}, and true or false {called.mark!r}"
        raise UsageError(f"no field holds a marked answer (needed: {needed})")
    responses, scores = [], []
    for name, value in marked:
        responses.append(_text(f"{name}.{called.answer}", _required(value, called.answer, f"{name}.")))
        scores.append(float(_truth(f"{name}.{called.mark}", _required(value, called.mark, f"{name}."))))
    return _Candidates(prompt, [name for name, _ in marked], responses, scores)


def prompt_key(prompt: Prompt) -> str:
    """Equal for prompts that ask the same: blanks do not count, and text is a conversation of one user message."""
    messages = (("user", prompt),) if isinstance(prompt, str) else prompt
    return "\n".join(f"{role} {' '.join(content.split())}" for role, content in messages)


def brief(value: object) -> str:
    """The value as Python writes it, cut to what fits into a line."""
    text = repr(value[:80] if isinstance(value, (str, list)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _settle(found: _Candidates, where: str) -> tuple[RankedGroup | None, str]:
    kept = [(text, score) for text, score in zip(found.responses, found.scores) if text.strip()]
    empty = [name for name, text in zip(found.names, found.responses) if not text.strip()]
    note = f"field {empty[0]!r} is empty" if len(empty) == 1 else f"fields {brief(empty)} are empty"
    responses, scores = tuple(text for text, _ in kept), tuple(score for _, score in kept)
    reason = _prefers_nothing(responses, scores)
    if reason:
        return None, f"{note}: {reason}" if empty else reason
    group = RankedGroup(found.prompt, responses, scores, where)
    return group, f"{note}: left out of its group of {len(found.names)}" if empty else ""


def _prefers_nothing(responses: Sequence[str], scores: Sequence[float]) -> str:
    if len(responses) < 2:
        return f"{len(responses)} response{'' if len(responses) == 1 else 's'} to choose from (needed: 2)"
    if len(set(scores)) == 1:
        return "its responses tie everywhere"
    seen: dict[str, float] = {}
    if any(seen.setdefault(text.strip(), score) != score for text, score in zip(responses, scores)):
        return "its two responses are the same" if len(responses) == 2 else "two equal responses are ranked apart"
    return ""


def _ranked(row: Mapping[str, Any]) -> _Candidates:
    values = row["responses"]
    if not isinstance(values, list):
        raise UsageError(f"field 'responses': {brief(values)} (allowed: a list of responses)")
    names = [f"responses[{index}]" for index in range(len(values))]
    responses = [_response(name, value) for name, value in zip(names, values)]
    prompt = _prompt("prompt", _required(row, "prompt"), as_message=any(isinstance(value, list) for value in values))
    return _Candidates(prompt, names, responses, _scores(row, len(values)))


def _scores(row: Mapping[str, Any], count: int) -> list[float]:
    given = [name for name in ("ranks", "scores") if name in row]
    if len(given) == 2:
        raise UsageError("fields 'ranks' and 'scores' exclude each other (allowed: one of them)")
    if not given:
        raise UsageError(f"field 'ranks' or 'scores' is missing{_near(row, 'ranks') or _near(row, 'scores')}")
    (name,) = given
    values = row[name]
    if not isinstance(values, list) or len(values) != count:
        raise UsageError(f"field {name!r}: {brief(values)} (allowed: a list of {count}, as many as 'responses')")
    number = _rank if name == "ranks" else _score
    return [number(f"{name}[{index}]", value) for index, value in enumerate(values)]


def _rank(name: str, value: object) -> float:
    if type(value) is not int or not 1 <= value <= WORST_RANK:
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: an integer from 1, the best, to {WORST_RANK:,})")
    return -float(value)


def _score(name: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise UsageError(f"field {name!r}: {brief(value)} (allowed: a finite number, higher is better)")


def _pair(row: Mapping[str, Any]) -> _Candidates:
    texts = [_required(row, name) for name in ("chosen", "rejected")]
    whole = all(isinstance(value, list) and len(value) > 1 for value in texts)
    if "prompt" not in row or (whole and isinstance(row["prompt"], str)):  # some sets repeat the prompt as text
        prompt, *responses = _implicit(row, *texts)
    else:
        prompt = _prompt("prompt", row["prompt"], as_message=any(isinstance(value, list) for value in texts))
        responses = [_response(name, value) for name, value in zip(("chosen", "rejected"), texts)]
    return _Candidates(prompt, ("chosen", "rejected"), responses, (1.0, 0.0))


def _implicit(row: Mapping[str, Any], chosen: object, rejected: object) -> tuple[Prompt, str, str]:
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _implicit_conversation(_messages("chosen", chosen), _messages("rejected", rejected))
    texts = [_text("chosen", chosen), _text("rejected", rejected)]
    near = _near(row, "prompt", least=0.85)
    if near:  # what the two texts share would be a wrong prompt, not a missing one
        raise UsageError(f"field 'prompt' is missing{near}")
    if texts[0] == texts[1] or not all(text.strip() for text in texts):
        return texts[0], texts[0], texts[1]  # `_settle` leaves it out, so that its prompt does not matter
    prompt = _whole_words(texts[0][: _shared(*texts)])
    if not prompt:
        raise UsageError("field 'prompt' is missing, and 'chosen' and 'rejected' do not begin with the same words")
    return prompt, texts[0][len(prompt) :], texts[1][len(prompt) :]


def _implicit_conversation(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Prompt, str, str]:
    shared = min(_shared(chosen, rejected), len(chosen) - 1, len(rejected) - 1)  # the last message is the response
    if not shared:
        raise UsageError("field 'prompt' is missing, and 'chosen' and 'rejected' do not begin with the same messages")
    answers = [_answer(f"chosen[{shared}:]", chosen[shared:]), _answer(f"rejected[{shared}:]", rejected[shared:])]
    return _asked(f"chosen[:{shared}]", chosen[:shared]), answers[0], answers[1]


def _shared(first: Sequence[object], second: Sequence[object]) -> int:
    """How many items, or characters, both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))


def _whole_words(text: str) -> str:
    """Without its last word, which may be the half of one, and the blanks before it."""
    if text[-1:].isspace():
        return text.rstrip()
    words = text.rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else ""


def _prompt(name: str, value: object, *, as_message: bool = False) -> Prompt:
    if isinstance(value, list):
        return _asked(name, _messages(name, value))
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: text, or a list of {{role, content}}; not empty)")
    text = _text(name, value)
    return (("user", text),) if as_message else text


def _response(name: str, value: object) -> str:
    if isinstance(value, list):
        return _answer(name, _messages(name, value))
    if not isinstance(value, str):
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: text, or a list of one assistant message)")
    return _text(name, value)


def _asked(name: str, messages: Sequence[Message]) -> tuple[Message, ...]:
    if messages[-1][0] != "user" or not messages[-1][1].strip():
        raise UsageError(
            f"field {name!r}: its last message is {brief(messages[-1])} (allowed: one of the user, not empty)"
        )
    return tuple(messages)


def _answer(name: str, messages: Sequence[Message]) -> str:
    if len(messages) != 1 or messages[0][0] != "assistant":
        roles = ", ".join(role for role, _ in messages[:5])
        raise UsageError(f"field {name!r}: messages of {roles} (allowed: one message, of the assistant)")
    return messages[0][1]


def _messages(name: str, value: Sequence[object]) -> list[Message]:
    if not value:
        raise UsageError(f"field {name!r}: it is empty (allowed: text, or a list of {{role, content}})")
    return [_message(f"{name}[{index}]", item) for index, item in enumerate(value)]


def _message(name: str, item: object) -> Message:
    if not isinstance(item, dict):
        raise UsageError(f"field {name!r}: {brief(item)} (allowed: an object with role and content)")
    role = _required(item, "role", f"{name}.")
    if role not in ROLES:
        raise UsageError(f"field '{name}.role': {brief(role)} (allowed: {', '.join(ROLES)})")
    return role, _text(f"{name}.content", _required(item, "content", f"{name}."))


def _required(row: Mapping[str, Any], name: str, prefix: str = "") -> Any:
    if name not in row:
        raise UsageError(f"field {prefix + name!r} is missing{_near(row, name)}")
    return row[name]


def _near(row: Mapping[str, Any], name: str, least: float = 0.6) -> str:
    """A hint at the field that was meant, perhaps: spelled alike, or what others call it."""
    names = {key.lower(): key for key in row}
    near = difflib.get_close_matches(name, names, n=1, cutoff=least)
    near += [alias for alias in ALIASES.get(name, ()) if alias in names]
    return f"; it has {brief(names[near[0]])}: did you mean {name!r}?" if near else ""


def _hint(row: Mapping[str, Any]) -> str:
    hints = (_near(row, name) for name in ("chosen", "rejected", "responses"))
    return next((hint for hint in hints if hint), "")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: text)")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"field {name!r}: it has half of a surrogate pair (allowed: text that is Unicode)") from None
    return value


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: true, false)")
    return value
