"""One row of preference data, in any shape of the table `SHAPES`, as a prompt and scored responses.

Beside a response that is a message, a prompt that is text counts as a user message. The columns `system` and
`system_prompt` become the first message. A column that is null counts as absent, and one that no shape names is
ignored, such as `id`, `category` or `source`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polobench.core.errors import UsageError
from polobench.tasks.fields import PROMPTS, Cell, Field, Prompt, Row, brief, messages_of, near, required

CONTEXT = ("history", "images", "image", "tools", "documents")  # would change what the model is asked
PAIR_SCORES = [names for mark in ("score", "rating") for names in (
    (f"{mark}_chosen", f"{mark}_rejected"), (f"chosen_{mark}", f"rejected_{mark}"),
    (f"chosen-{mark}", f"rejected-{mark}"),
)]  # fmt: skip
ASSISTANT_TURN = re.compile(r"^(Assistant:|AI:|### Response:|<\|assistant\|>|<\|im_start\|>assistant$)", re.MULTILINE)
MARK, MARKED = "is_correct", "objects with is_correct"


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
    """A row that is well formed, before it is known whether it prefers anything.

    `answers` are the responses: the name of the field, the text and the score of each.
    """

    prompt: Prompt
    answers: list[tuple[str, str, float]]

    def settle(self, where: str) -> tuple[RankedGroup | None, str]:
        """The ranked group, and what was left out and why ("" for nothing); no group where nothing is preferred."""
        empty = [name for name, text, _ in self.answers if not text.strip()]
        note = f"field {empty[0]!r} is empty" if len(empty) == 1 else f"fields {brief(empty)} are empty"
        kept = [(text, score) for _, text, score in self.answers if text.strip()]
        responses, scores = tuple(text for text, _ in kept), tuple(score for _, score in kept)
        reason = _prefers_nothing(responses, scores)
        if reason:
            return None, f"{note}: {reason}" if empty else reason
        group = RankedGroup(self.prompt, responses, scores, where)
        return group, f"{note}: left out of its group of {len(self.answers)}" if empty else ""


def _prefers_nothing(responses: Sequence[str], scores: Sequence[float]) -> str:
    if len(responses) < 2:
        return f"{len(responses)} response{'' if len(responses) == 1 else 's'} to choose from (needed: 2)"
    if len(set(scores)) == 1:
        return "its responses tie everywhere"
    seen: dict[str, float] = {}
    if any(seen.setdefault(text.strip(), score) != score for text, score in zip(responses, scores)):
        return "its two responses are the same" if len(responses) == 2 else "two equal responses are ranked apart"
    return ""


Scored = list[tuple[Field, float]]  # the responses and their scores


@dataclass(frozen=True)
class Shape:
    """One way in which people keep preferences.

    Attributes:
        name: of the data set or the format.
        columns: what a row must have, separated by ", "; alternatives by "|". A prompt may be any of `PROMPTS`.
        read: the scored responses of a row, and its prompt where that is no column.
        asked: the column that is the prompt, where it is none of `PROMPTS`.
        one_response: rows of the same prompt make one group.
    """

    name: str
    columns: str
    read: Callable[[Row], Scored | tuple[Scored, Field]]
    asked: str = ""
    one_response: bool = False

    def candidates(self, row: Row) -> Candidates:
        """The responses of a row and its prompt, with its system prompt."""
        found = self.read(row)
        scored, prompt = found if isinstance(found, tuple) else (found, required(row, self.asked or _prompt_of(row)))
        as_message = any(isinstance(field.decoded().value, (list, dict)) for field, _ in scored)
        answers = [(field.name, field.response(), score) for field, score in scored]
        return Candidates(_with_system(row, prompt.prompt(as_message=as_message)), answers)

    def lacks(self, row: Row) -> list[str]:
        """The columns that the row does not have."""
        return [part for part in self.columns.split(", ") if not _has(row, part)]

    def nearness(self, row: Row) -> float:
        """The share of the columns that the row has, perhaps misspelled."""
        parts = self.columns.split(", ")
        return sum(1.0 if _has(row, part) else 0.6 * bool(near(row, part)) for part in parts) / len(parts)


def _has(row: Row, part: str) -> bool:
    if part == MARKED:
        return any(isinstance(value, dict) and MARK in value for value in row.values())
    return any(name in row for name in (PROMPTS if part == "prompt" else part.split("|")))


def recognise(row: object) -> tuple[Shape, Row]:
    """The shape of a row, and its columns that are there.

    Raises:
        UsageError: it has none of the shapes of this module, or a column that would be part of what is asked.
    """
    if not isinstance(row, dict):
        raise UsageError(f"{brief(row)} is not a row (allowed: an object with columns)")
    present = {str(name): value for name, value in row.items() if value is not None}
    filled = {name: value for name, value in present.items() if not isinstance(value, Cell) or value.strip()}
    fitting = ((shape, columns) for columns in (filled, present) for shape in SHAPES if not shape.lacks(columns))
    shape, columns = next(fitting, (None, present))
    if shape is None:
        raise _unknown_shape(present)
    if "responses" in columns and ("chosen" in columns or "rejected" in columns):
        raise UsageError("fields 'responses' and 'chosen' or 'rejected' exclude each other (allowed: one of them)")
    unread = next((name for name in CONTEXT if columns.get(name) and name not in shape.columns), "")
    if unread:
        raise UsageError(f"field {unread!r} would be part of what is asked, and is not read (allowed: none, or empty)")
    return shape, columns


def _unknown_shape(row: Row) -> UsageError:
    nearest = max(SHAPES, key=lambda shape: shape.nearness(row))
    if nearest.nearness(row) > 0.5:
        missing = nearest.lacks(row)[0]
        hint = near(row, missing) or f"; columns {brief(list(row))} would fit {nearest.name} ({nearest.columns})"
        called = missing.replace("|", "' or '")
        return UsageError(f"field '{called}' is missing{hint}")
    fitting = [shape.columns for shape in SHAPES if shape.read is not _pair or shape.name == "pair"]
    return UsageError(f"columns {brief(list(row))} are no preference (allowed: {'; '.join(fitting)})")


def _prompt_of(row: Row) -> str:
    """The name of the column that is the prompt, whether it is there or not."""
    given = [name for name in PROMPTS if row.get(name)] or [name for name in PROMPTS if name in row]
    if len(given) > 1 and given[0] != "prompt":
        raise UsageError(f"fields {brief(given)} might each be the prompt (allowed: one of them, or 'prompt')")
    return given[0] if given else "prompt"


def _with_system(row: Row, prompt: Prompt) -> Prompt:
    name = next((name for name in ("system", "system_prompt") if row.get(name)), "")
    said = Field(name, row[name]).text() if name else ""
    messages = tuple(messages_of(prompt))
    if not said.strip() or (messages[0][0] == "system" and messages[0][1].strip() == said.strip()):
        return prompt
    if messages[0][0] == "system":
        raise UsageError(f"field {name!r} and the system message of the prompt differ (allowed: one of them)")
    return (("system", said), *messages)


# how each shape is read


def _pair(row: Row) -> Scored | tuple[Scored, Field]:
    given = [Field(name, row[name]).decoded() for name in ("chosen", "rejected")]
    scores, asked = _pair_scores(row), _prompt_of(row)
    if asked not in row and near(row, "prompt", least=0.85):
        required(row, "prompt")
    repeated = isinstance(row.get(asked), str) and all(isinstance(f.value, list) and len(f.value) > 1 for f in given)
    if asked in row and not repeated:  # some sets repeat the prompt, as text, beside whole dialogues
        return list(zip(given, scores))
    prompt, responses = _dialogues(*given)
    if repeated and ("user", row[asked].strip()) not in [(role, said.strip()) for role, said in prompt.messages()]:
        raise UsageError(f"field {asked!r} is none of the user's messages in 'chosen'")
    return list(zip(responses, scores)), prompt


def _pair_scores(row: Row) -> list[float]:
    for names in PAIR_SCORES:
        if all(name in row for name in names):
            chosen, rejected = (Field(name, row[name]).score() for name in names)
            if chosen < rejected:
                raise LeftOut("the chosen response has the lower score")
            return [float(chosen > rejected), 0.0]
    return [1.0, 0.0]


def _dialogues(chosen: Field, rejected: Field) -> tuple[Field, list[Field]]:
    """Two whole dialogues: what stands before the last turn is the prompt."""
    for field in (chosen, rejected):
        if isinstance(field.value, str) and not field.value.strip():
            raise LeftOut(f"field {field.name!r} is empty")
    if chosen.value == rejected.value:
        raise LeftOut("its two responses are the same")
    as_messages = isinstance(chosen.value, list) and isinstance(rejected.value, list)
    cut, said = (_cut_messages, Field.messages) if as_messages else (_cut_text, Field.text)
    cuts = [cut(field) for field in (chosen, rejected)]
    asked, other = (said(before) for before, _ in cuts)
    if asked != other:
        raise LeftOut("the two dialogues differ before their last turn")
    return cuts[0][0], [last for _, last in cuts]


def _cut_messages(dialogue: Field) -> tuple[Field, Field]:
    name, turns = dialogue.name, dialogue.value
    if len(dialogue.messages()) < 2:
        raise UsageError(f"field {name!r}: one message, and field 'prompt' is missing (allowed: a whole dialogue)")
    last = Field(f"{name}[-1]", turns[-1])
    last.response()  # which refuses a message of another than the assistant
    return Field(f"{name}[:-1]", turns[:-1]), last


def _cut_text(dialogue: Field) -> tuple[Field, Field]:
    name, text = dialogue.name, dialogue.text()
    turns = list(ASSISTANT_TURN.finditer(text))
    if not turns or not text[: turns[-1].start()].strip():
        raise UsageError(
            f"field 'prompt' is missing, and {name!r} has no turns to cut at (needed: lines 'Human:' and 'Assistant:')"
        )
    return Field(name, text[: turns[-1].end()]), Field(name, text[turns[-1].end() :])


def _ranked(row: Row) -> Scored:
    """A list of responses, and one of their ranks or scores."""
    responses = _first_of(row, "responses", "answers", "completions")
    if "ranks" in row and "scores" in row:
        raise UsageError("fields 'ranks' and 'scores' exclude each other (allowed: one of them)")
    marks = _first_of(row, "ranks", "scores")
    read = Field.rank if marks.name == "ranks" else Field.score
    texts, numbers = responses.items(), marks.items()
    if len(texts) != len(numbers):
        raise marks.refusal(f"a list of {len(texts)}, as many as {responses.name!r}")
    empty = [Field(field.name, "") if field.value is None else field for field in texts]
    return list(zip(empty, map(read, numbers)))


def _first_of(row: Row, *names: str) -> Field:
    name = next(name for name in names if name in row)
    return Field(name, row[name])


def _objects(column: str, answer: str, mark: str, read: Callable[[Field], float]) -> Callable[[Row], Scored]:
    """A list of objects, one per response."""
    return lambda row: [_scored(item, answer, mark, read) for item in Field(column, row[column]).items()]


def _marked(row: Row) -> Scored:
    """Objects with any names, each an answer that is right or wrong."""
    fields = [Field(name[:80], value) for name, value in row.items() if isinstance(value, dict)]
    marked = [field for field in fields if MARK in field.value or "solution" in field.value]
    return [_scored(field, "solution", MARK, Field.truth) for field in marked]


def _scored(item: Field, answer: str, mark: str, read: Callable[[Field], float]) -> tuple[Field, float]:
    text, number = item.members(answer, mark)
    return text, read(number)


def _one(answer: str, mark: str, read: Callable[[Field], float]) -> Callable[[Row], Scored]:
    return lambda row: [(Field(answer, row[answer]), read(Field(mark, row[mark])))]


def _two(first: str, second: str, scores: Callable[[Row], tuple[float, float]]) -> Callable[[Row], Scored]:
    return lambda row: list(zip((Field(first, row[first]), Field(second, row[second])), scores(row)))


def _labels(row: Row) -> tuple[float, float]:
    """SHP's `labels` is 1 where A is preferred, whatever the scores say, unless they tie."""
    prefers_a = Field("labels", row["labels"]).truth()
    scores = [Field(name, row[name]).score() for name in ("score_A", "score_B") if name in row]
    tie = len(scores) == 2 and scores[0] == scores[1]
    return prefers_a, prefers_a if tie else 1 - prefers_a


def _strength(row: Row) -> tuple[float, float]:
    """HelpSteer's is below 0 where the first response is the better one."""
    strength = Field("preference_strength", row["preference_strength"]).score()
    return -strength, strength


SHAPES = (
    Shape("ShareGPT", "conversations, chosen, rejected", _pair),
    Shape("UltraFeedback, binarized", "prompt, chosen, rejected, score_chosen, score_rejected", _pair),
    Shape("Orca pairs", "system, question, chosen, rejected", _pair),
    Shape("pair", "prompt, chosen, rejected", _pair),
    Shape("dialogues (HH-RLHF)", "chosen, rejected", _pair),
    Shape("ranked group", "prompt, responses|answers|completions, ranks|scores", _ranked),
    Shape("Nectar", "prompt, answers", _objects("answers", "answer", "rank", Field.rank)),
    Shape("UltraFeedback", "prompt, completions", _objects("completions", "response", "overall_score", Field.score)),
    Shape("SHP", "history, human_ref_A, human_ref_B, labels", _two("human_ref_A", "human_ref_B", _labels), "history"),
    Shape(
        "HelpSteer2 preference", "prompt, response_1, response_2, preference_strength",
        _two("response_1", "response_2", _strength),
    ),
    Shape(
        "HelpSteer2", "prompt, response, helpfulness", _one("response", "helpfulness", Field.score), one_response=True
    ),
    Shape("KTO", "prompt, completion, label", _one("completion", "label", Field.truth), one_response=True),
    Shape("marked answers", f"prompt, {MARKED}", _marked),
)  # fmt: skip
