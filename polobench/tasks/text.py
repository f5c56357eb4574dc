"""Between text and tokens, and between tokens and a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polobench.core.errors import UsageError, first_line
from polobench.core.rollout import Rollout
from polobench.policies.generation import Completions
from polobench.tasks.fields import Prompt, messages_of

CONTENT = "polobench answers"  # stands for a response, to see how a chat template ends one
TODAY = datetime(2024, 7, 26)  # for chat templates that write the date: a prompt is the same every day
DAYS = {"%-d": str(TODAY.day), "%-m": str(TODAY.month)}  # which Windows does not know
DAYS |= {f"%{letter}": TODAY.strftime(f"%{letter}") for letter in "aAbBcdHIjmMpSUwWxXyY"}
# takes the place of the function that chat templates call; transformers gives them no other function
DATED = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{directive}', '{written}')" for directive, written in DAYS.items())
    + " }}{%- endmacro -%}"
)


class TextCodec:
    """A tokenizer as the tasks use it.

    A prompt goes through the tokenizer's chat template where it has one: plain text as a single message of the user.
    The template writes its own special tokens. Without a template a conversation is its messages' texts, one per line,
    with the special tokens that the tokenizer itself puts before a text (a BOS, say).

    A response is tokenized together with its prompt, as TRL does it: it starts where the prompt's tokens end, or, where
    a token spans that boundary, at that token, which then is no longer the prompt's. It ends with its first end token,
    or as the chat template ends a message of the assistant; without a template, with the tokenizer's end token.

    Args:
        tokenizer: of transformers, with an end token.
        end_tokens: tokens at which generation stops beside the tokenizer's own end token.
        embedded: so many tokens the model has embeddings for; any number by default.

    Attributes:
        end_token: the tokenizer's, which also pads.
        end_tokens: all that may end a response, that of the chat template among them.
    """

    def __init__(self, tokenizer: Any, end_tokens: Sequence[int] = (), embedded: int | None = None) -> None:
        self._tokenizer, self._embedded = tokenizer, embedded
        self.end_token = int(tokenizer.eos_token_id)
        self._added_behind = self._count_added_behind()
        self._ending = self._template_ending({self.end_token, *end_tokens})
        self.end_tokens = {self.end_token, *end_tokens, self._ending[-1]}

    def prompt(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt; at least one.

        Raises:
            UsageError: there is none, or one that the model has no embedding for.
        """
        tokens = self._encode(self._written(prompt), with_special=not self._tokenizer.chat_template)
        if not tokens:
            raise UsageError(f"prompt {prompt!r} has no tokens")
        return tokens

    def response(self, text: str) -> list[int]:
        """The tokens of a response on its own, its end included."""
        return self._ended(self._encode(text))

    def answered(self, prompt: Prompt, responses: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The tokens of a prompt, and of its responses with their ends.

        The prompt's tokens are those that all of the texts begin with.

        Raises:
            UsageError: as `prompt`.
        """
        before = self.prompt(prompt)
        wholes = [self._whole(prompt, text) for text in responses]
        differing = (position for position, tokens in enumerate(zip(before, *wholes)) if len(set(tokens)) > 1)
        shared = next(differing, min(map(len, (before, *wholes))))
        if not shared or set(before[shared:]) & self.end_tokens:  # the template rewrites what went before
            return before, [self.response(text) for text in responses]
        return before[:shared], [self._ended(whole[shared:]) for whole in wholes]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a completion, its end and special tokens left out."""
        said = tokens[:-1] if tokens and tokens[-1] in self.end_tokens else tokens
        text: str = self._tokenizer.decode(said, skip_special_tokens=True)
        return text

    def _whole(self, prompt: Prompt, response: str) -> list[int]:
        """The tokens of a prompt with its response, also where the template would leave out a part of the response."""
        if not self._tokenizer.chat_template:
            return self._encode(self._written(prompt) + response, with_special=True)
        with suppress(UsageError):  # a template that only asks
            rendered = self._rendered([*messages_of(prompt), ("assistant", response)], asks=False)
            if response.strip() in rendered.removeprefix(self._written(prompt)):
                return self._encode(rendered)
        return self._encode(self._written(prompt) + response)

    def _ended(self, tokens: list[int]) -> list[int]:
        """Up to the first end token, or with an end put behind."""
        first = next((position for position, token in enumerate(tokens) if token in self.end_tokens), None)
        return [*tokens, *self._ending] if first is None else tokens[: first + 1]

    def _written(self, prompt: Prompt) -> str:
        if not self._tokenizer.chat_template:
            return "\n".join(content for _, content in messages_of(prompt))
        return self._rendered(messages_of(prompt), asks=True)

    @property
    def _template(self) -> str | None:
        """One that writes the date, made to write the same one every day; None for the tokenizer's own."""
        own = self._tokenizer.chat_template
        return DATED + own if isinstance(own, str) and "strftime_now" in own else None

    def _rendered(self, messages: Sequence[tuple[str, str]], *, asks: bool) -> str:
        said = [{"role": role, "content": content} for role, content in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(
                said, chat_template=self._template, tokenize=False, add_generation_prompt=asks
            )
        except Exception as error:  # a template may raise whatever its author wrote
            roles = ", ".join(role for role, _ in messages)
            raise UsageError(f"the chat template refuses messages of {roles}: {first_line(error)}") from error
        return text

    def _template_ending(self, ends: set[int]) -> list[int]:
        """What the chat template writes behind an answer, up to its first end or special token; else the end token."""
        if self._tokenizer.chat_template:
            with suppress(UsageError):
                rendered = self._rendered([("user", "?"), ("assistant", CONTENT)], asks=False)
                _, found, behind = rendered.rpartition(CONTENT)
                tokens = self._encode(behind) if found else []
                special = ends | set(self._tokenizer.all_special_ids)
                last = next((position for position, token in enumerate(tokens) if token in special), None)
                if last is not None:
                    return tokens[: last + 1]
        return [self.end_token]

    def _count_added_behind(self) -> int:
        """How many special tokens the tokenizer puts behind a text: an end there would end the prompt."""
        text, whole = (self._tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        ends = (len(whole) - behind for behind in range(len(whole)))
        return next((len(whole) - end for end in ends if whole[max(0, end - len(text)) : end] == text), 0)

    def _encode(self, text: str, *, with_special: bool = False) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=with_special)["input_ids"]
        if with_special and self._added_behind:
            tokens = tokens[: -self._added_behind]
        if self._embedded is not None and tokens and max(tokens) >= self._embedded:
            unknown = self._tokenizer.convert_ids_to_tokens(max(tokens))
            raise UsageError(f"the model has no embedding for token {unknown!r} ({max(tokens)}) of its tokenizer")
        return tokens


def shown(prompt: Prompt) -> str:
    """A prompt as a person reads it."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{role}: {content}" for role, content in prompt)


def as_completions(responses: Sequence[Sequence[int]], end_token: int, device: torch.device) -> Completions:
    """Given responses in the shape of sampled ones; their log-probabilities are not known and 0."""
    tokens, mask = _padded(responses, end_token, device)
    return Completions(tokens, mask, torch.zeros(mask.shape, device=device))


def as_rollout(
    prompts: Sequence[Sequence[int]], completions: Completions, returns: Sequence[float], groups: Sequence[int]
) -> Rollout:
    """`[B, T]`: completions as episodes of the token MDP; the return is the reward of the last token.

    Every completion terminates there, also one that the length limit cut: there is no value beyond it.

    Args:
        prompts: B lists of tokens.
        completions: `[B, T]`.
        returns, groups: B numbers.
    """
    tokens, mask = completions.tokens, completions.mask
    padded, prompt_mask = (found.flip(1) for found in _padded([row[::-1] for row in prompts], 0, tokens.device))
    last = torch.zeros_like(mask).scatter(1, mask.sum(1, keepdim=True) - 1, True)
    rewards = last * torch.tensor(returns, dtype=torch.float32, device=tokens.device).unsqueeze(1)
    return Rollout(
        observations=torch.cat([padded[:, -1:], tokens[:, :-1]], 1),
        final_observations=tokens[:, -1],
        actions=tokens,
        rewards=rewards,
        terminated=last,
        truncated=torch.zeros_like(mask),
        mask=mask,
        groups=torch.tensor(groups, device=tokens.device),
        rows_independent=False,
        prompts=padded,
        prompt_mask=prompt_mask,
    )


def _padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`[B, T]` the rows, padded behind, and where they are not."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.full(mask.shape, fill)
    tokens[mask] = np.fromiter(chain.from_iterable(rows), int, lengths.sum())
    return torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)
