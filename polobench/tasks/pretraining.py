"""Supervised training of the tiny models that ship with the package.

    python -m polobench.tasks.pretraining sort-digits polobench/tasks/checkpoints/sort-digits

The same platform gives the same bytes: every draw has a named stream, one thread computes, and the files are sorted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from polobench.core.errors import UsageError, ending_in_one_line, unknown
from polobench.core.seeding import SeedAxes, isolated
from polobench.tasks.article import MODEL, builtin_split
from polobench.tasks.digits import (
    CHARACTERS,
    ORDER,
    SORT,
    Problem,
    Way,
    ascending,
    copied,
    descending,
    rotated,
)
from polobench.tasks.tiny import byte_tokenizer, character_tokenizer, tiny_gpt2

LEARNING_RATE = 3e-3
IGNORED = -100
Texts = list[tuple[str, str]]


@dataclass(frozen=True)
class Course:
    """What a model is trained on, and for how long.

    Attributes:
        texts: gives what comes first and what is to be predicted after it.
        tokenizer: makes the tokenizer.
        context: the longest sequence that the model can take; None for the longest text.
        steps, batch: gradient steps, and texts in each.
    """

    texts: Callable[[], Texts]
    tokenizer: Callable[[], Any]
    context: int | None
    steps: int
    batch: int


def _answered(problem: Problem, *ways: Way) -> Texts:
    """Every training prompt, answered once in each of the ways; a way that is named twice is learned twice as often."""
    return [(prompt, way(prompt[:-1])) for prompt in problem.prompts()["train"] for way in ways]


def _whole_preferences() -> Texts:
    """Every response to a training prompt of the built-in set, its prompt before it; both are to be predicted."""
    train, _ = builtin_split()
    return [("", f"{group.prompt}{response}") for group in train for response in group.responses]


def _digits(steps: int, problem: Problem, *ways: Way) -> Course:
    return Course(partial(_answered, problem, *ways), partial(character_tokenizer, CHARACTERS), None, steps, batch=128)


COURSES = {
    "sort-digits": _digits(600, SORT, *3 * [ascending], *5 * [descending], *2 * [copied]),
    "sort-digits-right": _digits(600, SORT, SORT.way),
    "order-digits": _digits(1200, ORDER, ascending, descending, copied, rotated, rotated),
    "order-digits-right": _digits(1200, ORDER, ORDER.way),
    "sharpen-digits": _digits(60, SORT, SORT.way),
    MODEL: Course(_whole_preferences, byte_tokenizer, context=256, steps=600, batch=16),
}


def pretrain(name: str, folder: Path) -> None:
    """Train the model of that name on its texts, and write model and tokenizer to `folder`.

    Raises:
        UsageError: the folder cannot be written to.
    """
    course, rng = COURSES[name], SeedAxes(0)
    with isolated(rng, threads=1):
        tokenizer = course.tokenizer()
        rows, targets = _sequences(course.texts(), tokenizer)
        model = tiny_gpt2(len(tokenizer), course.context or max(map(len, rows)), rng.integer("weights"))
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        order = rng.numpy("order")
        for step in track(range(course.steps), f"pretraining {name}"):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / course.steps)
            chosen = order.integers(0, len(rows), course.batch)
            inputs = pad_sequence([rows[index] for index in chosen], batch_first=True)
            wanted = pad_sequence([targets[index] for index in chosen], batch_first=True, padding_value=IGNORED)
            logits = model(inputs, attention_mask=torch.ones_like(inputs)).logits
            loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UsageError(f"folder {str(folder)!r} cannot be written to: {error.strerror}") from error


def _sequences(texts: Texts, tokenizer: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """`[L]` tokens of each text, and what follows each of them: the second part of the text, and its end."""
    rows, targets = [], []
    for given, wanted in texts:
        asked = tokenizer(given)["input_ids"]
        tokens = [*asked, *tokenizer(wanted)["input_ids"], tokenizer.eos_token_id]
        first = max(1, len(asked))  # nothing comes before the first token to predict it
        rows.append(torch.tensor(tokens))
        targets.append(torch.tensor([*[IGNORED] * (first - 1), *tokens[first:], IGNORED]))
    return rows, targets


def main(arguments: Sequence[str]) -> None:
    """The command of the module's first lines."""
    if len(arguments) != 2:
        raise UsageError(f"usage: python -m polobench.tasks.pretraining MODEL FOLDER (models: {', '.join(COURSES)})")
    name, folder = arguments
    if name not in COURSES:
        raise unknown("model", name, COURSES)
    pretrain(name, Path(folder))
    print(f"{folder}: {sum(path.stat().st_size for path in Path(folder).iterdir()):,} bytes")


if __name__ == "__main__":
    with ending_in_one_line():
        main(sys.argv[1:])
