"""Between text and tokens, and between tokens and a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polobench.core.errors import UsageError, first_line
from polobench.core.rollout import Rollout
from polobench.policies.generation import Completions
from polobench.tasks.preference_formats import Prompt

CONTENT = "polobench answers"  # stands for a response, to see how a chat template ends one


class TextCodec:
    """A tokenizer as the tasks use it.

    A prompt goes through the tokenizer's chat template where it has one: plain text as a single message of the user.
    The template writes its own special tokens. Without a template a conversation is its messages' texts, one per line,
    with the special tokens that the tokenizer itself puts before a text (a BOS, say).

    A response continues its prompt's text: both are tokenized together, and what follows the prompt's tokens is the
    response. Where the prompt's tokens are no prefix of the whole (a token would span the boundary), the response is
    tokenized alone, since a policy is asked at the prompt's own tokens. It ends as the chat template ends a message of
    the assistant, up to the first end token; without one, with the tokenizer's end token. A response that already ends
    with an end token gets no second one.

    Args:
        tokenizer: of transformers, with an end token.
        end_tokens: tokens at which generation stops beside the tokenizer's own end token.
        embedded: so many tokens the model has embeddings for; any number by default.

    Attributes:
        end_tokens: all of them; the first one pads.
    """

    def __init__(self, tokenizer: Any, end_tokens: Sequence[int] = (), embedded: int | None = None) -> None:
        self._tokenizer, self._embedded = tokenizer, embedded
        self.end_token = int(tokenizer.eos_token_id)
        self.end_tokens = tuple(dict.fromkeys([self.end_token, *end_tokens]))
        self._ending = self._template_ending()

    def prompt(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt; at least one.

        Raises:
            UsageError: there is none, or one that the model has no embedding for.
        """
        tokens = self._encode(self._written(prompt), with_special=not self._tokenizer.chat_template)
        if not tokens:
            raise UsageError(f"prompt {prompt!r} has no tokens")
        return tokens

    def response(self, text: str, prompt: Prompt | None = None) -> list[int]:
        """The tokens of a response to a prompt, its end included; on its own where no prompt is given."""
        tokens = self._continuation(text, prompt) if prompt else self._encode(text)
        return tokens if tokens and tokens[-1] in self.end_tokens else [*tokens, *self._ending]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a completion, special tokens left out."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _continuation(self, text: str, prompt: Prompt) -> list[int]:
        before = self.prompt(prompt)
        whole = self._encode(self._written(prompt) + text, with_special=not self._tokenizer.chat_template)
        return whole[len(before) :] if whole[: len(before)] == before else self._encode(text)

    def _written(self, prompt: Prompt) -> str:
        messages = (("user", prompt),) if isinstance(prompt, str) else prompt
        if not self._tokenizer.chat_template:
            return "\n".join(content for _, content in messages)
        return self._rendered([{"role": role, "content": content} for role, content in messages], asks=True)

    def _rendered(self, messages: list[dict[str, str]], *, asks: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        except Exception as error:  # a template may raise whatever its author wrote
            roles = ", ".join(message["role"] for message in messages)
            raise UsageError(f"the chat template refuses messages of {roles}: {first_line(error)}") from error
        return text

    def _template_ending(self) -> list[int]:
        """What the chat template writes behind an answer, up to its first end token; else the tokenizer's end token."""
        if self._tokenizer.chat_template:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": CONTENT}]
            behind = self._encode(self._rendered(turns, asks=False).rpartition(CONTENT)[2])
            ends = [position for position, token in enumerate(behind) if token in self.end_tokens]
            if ends:
                return behind[: ends[0] + 1]
        return [self.end_token]

    def _encode(self, text: str, *, with_special: bool = False) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=with_special)["input_ids"]
        if with_special and tokens and tokens[-1] in self.end_tokens:  # an end behind the text would end the prompt
            tokens = tokens[:-1]
        if self._embedded is not None and tokens and max(tokens) >= self._embedded:
            unknown = self._tokenizer.convert_ids_to_tokens(max(tokens))
            raise UsageError(f"the model has no embedding for token {unknown!r} ({max(tokens)}) of its tokenizer")
        return tokens


def shown(prompt: Prompt) -> str:
    """A prompt as a person reads it."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{role}: {content}" for role, content in prompt)


def as_completions(responses: Sequence[Sequence[int]], end_token: int, device: torch.device) -> Completions:
    """Given responses in the shape of sampled ones; their log-probabilities are not known and 0."""
    width = max(map(len, responses))
    tokens = torch.tensor([[*row, *[end_token] * (width - len(row))] for row in responses], device=device)
    lengths = torch.tensor([len(row) for row in responses], device=device)
    mask = torch.arange(width, device=device) < lengths.unsqueeze(1)
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
    padded, prompt_mask = _left_padded(prompts, tokens.device)
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


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    tokens = torch.tensor([[*[0] * (width - len(row)), *row] for row in prompts], device=device)
    lengths = torch.tensor([len(row) for row in prompts], device=device)
    return tokens, torch.arange(width, device=device) >= (width - lengths).unsqueeze(1)
