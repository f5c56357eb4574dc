"""One row of preference data, in any shape of the table `SHAPES`, as a prompt and scored responses.

A prompt is text or a conversation: a list of `{"role", "content"}`, or of ShareGPT's `{"from", "value"}`, the last
message the user's. A response is text, a message of the assistant or a list of one. Beside such a response, a prompt
that is text counts as a user message. The columns `system` and `system_prompt` become the first message.

A column that is null counts as absent, and one that no shape names is ignored, such as `id`, `category` or `source`.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polobench.core.errors import UsageError

Message = tuple[str, str]  # role and content
Prompt = str | tuple[Message, ...]  # plain text, or a conversation
Row = Mapping[str, Any]

ROLES = ("system", "user", "assistant")
SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
LARGEST_RANK = 1_000_000
PROMPTS = ("prompt", "question", "instruction", "input", "query", "conversations")
CONTEXT = ("history", "images", "image", "tools", "documents")  # would change what the model is asked
PAIR_SCORES = [names for mark in ("score", "rating") for names in (
    (f"{mark}_chosen", f"{mark}_rejected"), (f"chosen_{mark}", f"rejected_{mark}"),
    (f"chosen-{mark}", f"rejected-{mark}"),
)]  # fmt: skip
# what other data sets call a column: beside one of these, a column is misnamed rather than absent
ALIASES = {
    "prompt": PROMPTS[1:],
    "chosen": ("preferred", "accepted", "better"),
    "rejected": ("dispreferred", "refused", "worse"),
    "responses": ("outputs", "candidates"),
}
ASSISTANT_TURN = re.compile(r"^(Assistant:|AI:|### Response:|<\|assistant\|>|<\|im_start\|>assistant$)", re.MULTILINE)
CELL_OF_MESSAGES = re.compile(r"""\s*(\[\s*\{\s*['"](role|content|from|value)|\{\s*['"](role|from))['"]\s*:""")


class Cell(str):
    """A cell of a file whose cells are all text, such as CSV: read as a number or as JSON where a shape wants one."""


class LeftOut(Exception):
    """A row that is sound but of no use; the text is the reason."""


@dataclass(frozen=True)
class RankedGroup:
    """A prompt and two or more responses, none empty; higher scores are better, some may tie but not all.

    `where` names the row it comes from, as in "file.jsonl:12".
    """

    prompt: Prompt
    responses: tuple[str, ...]
    scores: tuple[float, ...]
    where: str


@dataclass
class Candidates:
    """A row that is well formed, before it is known whether it prefers anything; `names` are those of its columns."""

    prompt: Prompt
    names: list[str]
    responses: list[str]
    scores: list[float]

    def extend(self, other: Candidates) -> None:
        """Add the responses of another row to the same prompt."""
        self.names += other.names
        self.responses += other.responses
        self.scores += other.scores

    def settle(self, where: str) -> tuple[RankedGroup | None, str]:
        """The ranked group, and what was left out and why ("" for nothing); no group where nothing is preferred."""
        kept = [(text, score) for text, score in zip(self.responses, self.scores) if text.strip()]
        empty = [name for name, text in zip(self.names, self.responses) if not text.strip()]
        note = f"field {empty[0]!r} is empty" if len(empty) == 1 else f"fields {brief(empty)} are empty"
        responses, scores = tuple(text for text, _ in kept), tuple(score for _, score in kept)
        reason = _prefers_nothing(responses, scores)
        if reason:
            return None, f"{note}: {reason}" if empty else reason
        group = RankedGroup(self.prompt, responses, scores, where)
        return group, f"{note}: left out of its group of {len(self.names)}" if empty else ""


@dataclass(frozen=True)
class Shape:
    """One way in which people keep preferences.

    Attributes:
        name: of the data set or the format.
        columns: what a row must have, separated by ", "; alternatives by "|". A prompt may be any of `PROMPTS`.
        read: gives the candidates of a row.
        one_response: rows of the same prompt make one group.
    """

    name: str
    columns: str
    read: Callable[[Row], Candidates]
    one_response: bool = False

    def fits(self, row: Row) -> bool:
        """The row has every column."""
        return not self.lacks(row)

    def lacks(self, row: Row) -> list[str]:
        """The columns that the row does not have."""
        return [part for part in self.columns.split(", ") if not _has(row, part)]

    def nearness(self, row: Row) -> float:
        """The share of the columns that the row has, perhaps misspelled."""
        parts = self.columns.split(", ")
        return sum(1.0 if _has(row, part) else 0.6 * bool(_near(row, part)) for part in parts) / len(parts)


def _has(row: Row, part: str) -> bool:
    if part == MARKED:
        return any(isinstance(value, dict) and MarkedFields.mark in value for value in row.values())
    return any(name in row for name in (PROMPTS if part == "prompt" else part.split("|")))


@dataclass(frozen=True)
class MarkedFields:
    """What the fields of a row of marked answers are called."""

    question: str = ""  # any of `PROMPTS`
    answer: str = "solution"
    mark: str = "is_correct"


def recognise(row: object) -> tuple[Shape, Row]:
    """The shape of a row, and its columns that are there.

    Raises:
        UsageError: it has none of the shapes of this module, or a column that would be part of what is asked.
    """
    present = present_columns(row)
    filled = {name: value for name, value in present.items() if not isinstance(value, Cell) or value.strip()}
    fitting = ((shape, columns) for columns in (filled, present) for shape in SHAPES if shape.fits(columns))
    shape, columns = next(fitting, (None, present))
    if shape is None:
        raise _unknown_shape(present)
    if "responses" in columns and ("chosen" in columns or "rejected" in columns):
        raise UsageError("fields 'responses' and 'chosen' or 'rejected' exclude each other (allowed: one of them)")
    unread = next((name for name in CONTEXT if columns.get(name) and name not in shape.columns), "")
    if unread:
        raise UsageError(f"field {unread!r} would be part of what is asked, and is not read (allowed: none, or empty)")
    return shape, columns


def present_columns(row: object) -> dict[str, Any]:
    """The columns that are not null.

    Raises:
        UsageError: it is no row.
    """
    if not isinstance(row, dict):
        raise UsageError(f"{brief(row)} is not a row (allowed: an object with columns)")
    return {str(name): value for name, value in row.items() if value is not None}


def _unknown_shape(row: Row) -> UsageError:
    nearest = max(SHAPES, key=lambda shape: shape.nearness(row))
    if nearest.nearness(row) > 0.5:
        missing = nearest.lacks(row)[0]
        hint = _near(row, missing) or f"; columns {brief(list(row))} would fit {nearest.name} ({nearest.columns})"
        called = missing.replace("|", "' or '")
        return UsageError(f"field '{called}' is missing{hint}")
    fitting = [shape.columns for shape in SHAPES if shape.read is not _pair or shape.name == "pair"]
    return UsageError(f"columns {brief(list(row))} are no preference (allowed: {'; '.join(fitting)})")


def prompt_key(prompt: Prompt) -> str:
    """Equal for prompts that ask the same: blanks do not count, and text is a conversation of one user message."""
    messages = (("user", prompt),) if isinstance(prompt, str) else prompt
    return "\n".join(f"{role} {' '.join(content.split())}" for role, content in messages if content.strip())


def brief(value: object) -> str:
    """The value as Python writes it, cut to what fits into a line."""
    text = repr(value[:80] if isinstance(value, (str, list)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _prefers_nothing(responses: Sequence[str], scores: Sequence[float]) -> str:
    if len(responses) < 2:
        return f"{len(responses)} response{'' if len(responses) == 1 else 's'} to choose from (needed: 2)"
    if len(set(scores)) == 1:
        return "its responses tie everywhere"
    seen: dict[str, float] = {}
    if any(seen.setdefault(text.strip(), score) != score for text, score in zip(responses, scores)):
        return "its two responses are the same" if len(responses) == 2 else "two equal responses are ranked apart"
    return ""


# how each shape is read


def _pair(row: Row) -> Candidates:
    given = {name: _decoded(name, row[name]) for name in ("chosen", "rejected")}
    whole = all(isinstance(value, list) and len(value) > 1 for value in given.values())
    asked = _prompt_column(row)
    if not asked and _near(row, "prompt", least=0.85):
        _required(row, "prompt")
    if not asked or (whole and isinstance(row[asked], str)):  # some sets repeat the prompt as text
        prompt, responses = _dialogues(given)
        if asked and not isinstance(prompt, str) and ("user", row[asked].strip()) not in _stripped(prompt):
            raise UsageError(f"field {asked!r} is none of the user's messages in 'chosen'")
        prompt = _with_system(row, prompt)
    else:
        prompt = _asked_prompt(row, as_message=any(not isinstance(value, str) for value in given.values()))
        responses = [_response(name, value) for name, value in given.items()]
    return Candidates(prompt, list(given), responses, _pair_scores(row))


def _pair_scores(row: Row) -> list[float]:
    for names in PAIR_SCORES:
        if all(name in row for name in names):
            chosen, rejected = (_score(name, row[name]) for name in names)
            if chosen < rejected:
                raise LeftOut("the chosen response has the lower score")
            return [float(chosen > rejected), 0.0]
    return [1.0, 0.0]


def _dialogues(given: Mapping[str, Any]) -> tuple[Prompt, list[str]]:
    """Two whole dialogues: what stands before the last turn is the prompt."""
    blank = next((name for name, value in given.items() if isinstance(value, str) and not value.strip()), "")
    if blank or given["chosen"] == given["rejected"]:
        raise LeftOut(f"field {blank!r} is empty" if blank else "its two responses are the same")
    as_messages = all(isinstance(value, list) for value in given.values())
    cut = _cut_messages if as_messages else _cut_text
    cuts: list[tuple[Any, str]] = [cut(name, value) for name, value in given.items()]
    (asked, chosen), (other, rejected) = cuts
    if asked != other:
        raise LeftOut("the two dialogues differ before their last turn")
    return (_asked("chosen[:-1]", asked) if as_messages else asked), [chosen, rejected]


def _cut_messages(name: str, value: list[Any]) -> tuple[list[Message], str]:
    messages = _messages(name, value)
    if len(messages) < 2:
        raise UsageError(f"field {name!r}: one message, and field 'prompt' is missing (allowed: a whole dialogue)")
    return messages[:-1], _answer(f"{name}[-1]", messages[-1:])


def _cut_text(name: str, value: object) -> tuple[str, str]:
    text = _text(name, value)
    turns = list(ASSISTANT_TURN.finditer(text))
    if not turns or not text[: turns[-1].start()].strip():
        raise UsageError(
            f"field 'prompt' is missing, and {name!r} has no turns to cut at (needed: lines 'Human:' and 'Assistant:')"
        )
    return text[: turns[-1].end()], text[turns[-1].end() :]


def _ranked(row: Row) -> Candidates:
    called = next(name for name in ("responses", "answers", "completions") if name in row)
    values = _list(called, row[called])
    names = [f"{called}[{index}]" for index in range(len(values))]
    responses = [_response(name, "" if value is None else value) for name, value in zip(names, values)]
    prompt = _asked_prompt(row, as_message=any(isinstance(value, (list, dict)) for value in values))
    return Candidates(prompt, names, responses, _scores(row, called, len(values)))


def _scores(row: Row, called: str, count: int) -> list[float]:
    given = [name for name in ("ranks", "scores") if name in row]
    if len(given) == 2:
        raise UsageError("fields 'ranks' and 'scores' exclude each other (allowed: one of them)")
    name = given[0]
    values = _list(name, row[name])
    if len(values) != count:
        raise UsageError(f"field {name!r}: {brief(values)} (allowed: a list of {count}, as many as {called!r})")
    number = _rank if name == "ranks" else _score
    return [number(f"{name}[{index}]", value) for index, value in enumerate(values)]


def _listed(column: str, answer: str, mark: str) -> Callable[[Row], Candidates]:
    """A list of objects, one per response."""

    def read(row: Row) -> Candidates:
        found = Candidates(_asked_prompt(row), [], [], [])
        for index, item in enumerate(_list(column, row[column])):
            name = f"{column}[{index}]"
            if not isinstance(item, dict):
                raise UsageError(f"field {name!r}: {brief(item)} (allowed: an object with {answer} and {mark})")
            number = _rank if mark == "rank" else _score
            found.names.append(name)
            found.responses.append(_text(f"{name}.{answer}", _required(item, answer, f"{name}.")))
            found.scores.append(number(f"{name}.{mark}", _required(item, mark, f"{name}.")))
        return found

    return read


def _shp(row: Row) -> Candidates:
    """`labels` is 1 where A is preferred, whatever the scores say, unless they tie."""
    prefers_a = float(_truth("labels", row["labels"]))
    scores = [_score(name, row[name]) for name in ("score_A", "score_B") if name in row]
    tie = len(scores) == 2 and scores[0] == scores[1]
    names = ["human_ref_A", "human_ref_B"]
    responses = [_text(name, row[name]) for name in names]
    return Candidates(_asked_prompt(row, "history"), names, responses, [prefers_a, prefers_a if tie else 1 - prefers_a])


def _helpsteer_preference(row: Row) -> Candidates:
    """`preference_strength` is below 0 where the first response is the better one."""
    strength = _score("preference_strength", row["preference_strength"])
    names = ["response_1", "response_2"]
    responses = [_response(name, row[name]) for name in names]
    return Candidates(_asked_prompt(row), names, responses, [-strength, strength])


def _one_response(answer: str, mark: str) -> Callable[[Row], Candidates]:
    def read(row: Row) -> Candidates:
        value = _decoded(answer, row[answer])
        prompt = _asked_prompt(row, as_message=not isinstance(value, str))
        number = float(_truth(mark, row[mark])) if mark == "label" else _score(mark, row[mark])
        return Candidates(prompt, [answer], [_response(answer, value)], [number])

    return read


def read_marked(row: object, fields: MarkedFields | None = None) -> Candidates:
    """A question with answers that are each marked right (score 1) or wrong (score 0)."""
    present, called = present_columns(row), fields or MarkedFields()
    if called.question:
        _required(present, called.question)
    prompt = _asked_prompt(present, called.question)
    objects = [(name[:80], value) for name, value in present.items() if isinstance(value, dict)]
    marked = [(name, value) for name, value in objects if called.mark in value or called.answer in value]
    if not marked:
        needed = f"objects with {called.answer!r}, and true or false {called.mark!r}"
        raise UsageError(f"no field holds a marked answer (needed: {needed})")
    found = Candidates(prompt, [], [], [])
    for name, value in marked:
        found.names.append(name)
        found.responses.append(_text(f"{name}.{called.answer}", _required(value, called.answer, f"{name}.")))
        found.scores.append(float(_truth(f"{name}.{called.mark}", _required(value, called.mark, f"{name}."))))
    return found


MARKED = f"objects with {MarkedFields.mark}"
SHAPES = (
    Shape("ShareGPT", "conversations, chosen, rejected", _pair),
    Shape("UltraFeedback, binarized", "prompt, chosen, rejected, score_chosen, score_rejected", _pair),
    Shape("Orca pairs", "system, question, chosen, rejected", _pair),
    Shape("pair", "prompt, chosen, rejected", _pair),
    Shape("dialogues (HH-RLHF)", "chosen, rejected", _pair),
    Shape("ranked group", "prompt, responses|answers|completions, ranks|scores", _ranked),
    Shape("Nectar", "prompt, answers", _listed("answers", "answer", "rank")),
    Shape("UltraFeedback", "prompt, completions", _listed("completions", "response", "overall_score")),
    Shape("SHP", "history, human_ref_A, human_ref_B, labels", _shp),
    Shape("HelpSteer2 preference", "prompt, response_1, response_2, preference_strength", _helpsteer_preference),
    Shape("HelpSteer2", "prompt, response, helpfulness", _one_response("response", "helpfulness"), one_response=True),
    Shape("KTO", "prompt, completion, label", _one_response("completion", "label"), one_response=True),
    Shape("marked answers", f"prompt, {MARKED}", read_marked),
)

# prompts, responses and their messages


def _prompt_column(row: Row) -> str:
    """The name of the column that is the prompt, or nothing."""
    given = [name for name in PROMPTS if row.get(name)] or [name for name in PROMPTS if name in row]
    if len(given) > 1 and given[0] != "prompt":
        raise UsageError(f"fields {brief(given)} might each be the prompt (allowed: one of them, or 'prompt')")
    return given[0] if given else ""


def _asked_prompt(row: Row, column: str = "", *, as_message: bool = False) -> Prompt:
    """The prompt of a row, with its system prompt."""
    name = column or _prompt_column(row) or "prompt"
    return _with_system(row, read_prompt(name, _required(row, name), as_message=as_message))


def _with_system(row: Row, prompt: Prompt) -> Prompt:
    name = next((name for name in ("system", "system_prompt") if row.get(name)), "")
    if not name or not _text(name, row[name]).strip():
        return prompt
    messages = (("user", prompt),) if isinstance(prompt, str) else prompt
    if messages[0][0] != "system":
        return (("system", row[name]), *messages)
    if messages[0][1].strip() != row[name].strip():
        raise UsageError(f"field {name!r} and the system message of the prompt differ (allowed: one of them)")
    return prompt


def read_prompt(name: str, value: object, *, as_message: bool = False) -> Prompt:
    """A prompt in either of its forms, checked.

    Raises:
        UsageError: it is neither text nor a conversation that ends with a message of the user.
    """
    value = _decoded(name, value)
    if isinstance(value, list):
        return _asked(name, _messages(name, value))
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: text, or a list of {{role, content}}; not empty)")
    text = _text(name, value)
    return (("user", text),) if as_message else text


def _response(name: str, value: object) -> str:
    value = _decoded(name, value)
    if isinstance(value, (list, dict)):
        return _answer(name, _messages(name, value if isinstance(value, list) else [value]))
    if not isinstance(value, str):
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: text, or a list of one assistant message)")
    return _text(name, value)


def _stripped(messages: Sequence[Message]) -> list[Message]:
    return [(role, content.strip()) for role, content in messages]


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
    if item.get("from") is not None and item.get("role") is None:
        speaker, said, roles = "from", "value", SPEAKERS
    else:
        speaker, said, roles = "role", "content", dict(zip(ROLES, ROLES))
    role = _required(item, speaker, f"{name}.")
    if not isinstance(role, str) or role not in roles:
        raise UsageError(f"field '{name}.{speaker}': {brief(role)} (allowed: {', '.join(roles)})")
    return roles[role], _text(f"{name}.{said}", _required(item, said, f"{name}."))


# values


def _required(row: Row, name: str, prefix: str = "") -> Any:
    if row.get(name) is None:
        raise UsageError(f"field {prefix + name!r} is missing{_near(row, name)}")
    return row[name]


def _near(row: Row, part: str, least: float = 0.6) -> str:
    """A hint at the column that was meant, perhaps: spelled alike, or what others call it."""
    names = {key.lower(): key for key in row}
    for name in part.split("|"):
        near = difflib.get_close_matches(name, names, n=1, cutoff=least)
        near += [alias for alias in ALIASES.get(name, ()) if alias in names]
        if near:
            return f"; it has {brief(names[near[0]])}: did you mean {name!r}?"
    return ""


def _rank(name: str, value: object) -> float:
    number = _number(value)
    if number is None or not 1 <= number <= LARGEST_RANK:
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: a number from 1, the best, to {LARGEST_RANK:,})")
    return -number


def _score(name: str, value: object) -> float:
    number = _number(value)
    if number is None:
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: a finite number, higher is better)")
    return number


def _number(value: object) -> float | None:
    """A finite number, or nothing."""
    if isinstance(value, Cell):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    return None


def _truth(name: str, value: object) -> bool:
    known = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, Cell) and value.lower() in known:
        return known[value.lower()]
    if isinstance(value, bool) or (type(value) in (int, float) and value in (0, 1)):
        return bool(value)
    raise UsageError(f"field {name!r}: {brief(value)} (allowed: true, false)")


def _list(name: str, value: object) -> list[Any]:
    found = _json(name, value) if isinstance(value, Cell) else value
    if not isinstance(found, list):
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: a list of them)")
    return found


def _decoded(name: str, value: object) -> object:
    """The messages that a cell of text holds; any other value as it is."""
    return _json(name, value) if isinstance(value, Cell) and CELL_OF_MESSAGES.match(value) else value


def _json(name: str, value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise UsageError(f"field {name!r}: {brief(str(value))} (allowed in a cell: text, or a list as JSON)") from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"field {name!r}: {brief(value)} (allowed: text)")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"field {name!r}: it has half of a surrogate pair (allowed: text that is Unicode)") from None
    return str(value)
