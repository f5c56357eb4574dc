"""The tiny GPT-2 of 2 layers and 64 units that both sides run, and what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polobench.core.seeding import SeedAxes
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2

LETTERS = "".join(map(chr, range(0x100, 0x163)))  # 99 of them, which with the end token make a vocabulary of 100
CONTEXT = 32
PAIRS, PAIR_PROMPT, RESPONSE = 8, 13, 16
GROUPS, GROUP_SIZE, PROMPT, NEW_TOKENS = 8, 8, 16, 16
ROWS = GROUPS * GROUP_SIZE


def random_texts(count: int, length: int, axis: str) -> list[str]:
    """Different from each other, as good as surely."""
    drawn = SeedAxes(0).numpy(axis).choice(list(LETTERS), (count, length))
    return ["".join(row) for row in drawn]


def tiny_model() -> Any:
    return tiny_gpt2(len(LETTERS) + 1, CONTEXT, seed=0)


def endless_model() -> Any:
    """As `tiny_model`, with an end token that it cannot say."""
    model = tiny_model()
    model.generation_config.eos_token_id = model.config.vocab_size
    return model


def endless_tokenizer() -> Any:
    tokenizer = character_tokenizer(LETTERS)
    tokenizer.add_special_tokens({"eos_token": "<unreachable>", "pad_token": "<unreachable>"})
    return tokenizer


def first_half_share(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """The share of a completion's tokens that are of the first half of the letters."""
    half = set(LETTERS[: len(LETTERS) // 2])
    return [sum(letter in half for letter in text) / NEW_TOKENS for text in completions]
