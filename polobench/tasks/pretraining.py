"""Supervised training of the tiny models that ship with the package.

    python -m polobench.tasks.pretraining sort-digits polobench/tasks/checkpoints/sort-digits

The same platform gives the same bytes: every draw has a named stream, one thread computes, and the files are sorted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch.nn.functional import cross_entropy

from polobench.core.errors import PoloError, UsageError, unknown
from polobench.core.seeding import SeedAxes, isolated
from polobench.tasks.digits import CHARACTERS, PROBLEMS, Problem
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2

STEPS = {"sort-digits": 80, "add-digits": 270}
BATCH = 128
LEARNING_RATE = 3e-3
IGNORED = -100


def pretrain(problem: Problem, folder: Path) -> None:
    """Train on the problem's training prompts with their answers, and write model and tokenizer to `folder`.

    Raises:
        UsageError: the folder cannot be written to.
    """
    rng = SeedAxes(0)
    with isolated(rng, threads=1):
        tokenizer = character_tokenizer(CHARACTERS)
        prompts, _ = problem.prompts()
        texts = [(prompt, problem.answer(prompt)) for prompt in prompts]
        inputs, targets = _batches(texts, tokenizer)
        model = tiny_gpt2(len(CHARACTERS) + 1, inputs.shape[1], rng.integer("weights"))
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        order = rng.numpy("order")
        for step in track(range(STEPS[problem.name]), f"pretraining {problem.name}"):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / STEPS[problem.name])
            chosen = torch.from_numpy(order.integers(0, len(texts), BATCH))
            logits = model(inputs[chosen], attention_mask=torch.ones_like(inputs[chosen])).logits
            loss = cross_entropy(logits.flatten(0, 1), targets[chosen].flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UsageError(f"folder {str(folder)!r} cannot be written to: {error.strerror}") from error


def _batches(texts: Sequence[tuple[str, str]], tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """`[N, L]` tokens and what follows each of them; only the answer and its end are to be predicted."""
    rows, targets = [], []
    for prompt, answer in texts:
        asked = tokenizer(prompt)["input_ids"]
        tokens = [*asked, *tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
        rows.append(tokens)
        targets.append([*[IGNORED] * (len(asked) - 1), *tokens[len(asked) :], IGNORED])
    return torch.tensor(rows), torch.tensor(targets)


def main(arguments: Sequence[str]) -> None:
    """The command of the module's first lines."""
    if len(arguments) != 2:
        raise UsageError(f"usage: python -m polobench.tasks.pretraining TASK FOLDER (tasks: {', '.join(PROBLEMS)})")
    name, folder = arguments
    if name not in PROBLEMS:
        raise unknown("task", name, PROBLEMS)
    pretrain(PROBLEMS[name], Path(folder))
    print(f"{folder}: {sum(path.stat().st_size for path in Path(folder).iterdir()):,} bytes")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PoloError as error:
        sys.exit(f"polobench: {error}")
