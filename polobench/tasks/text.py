"""Between text and tokens, and between tokens and a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polobench.core.errors import UsageError
from polobench.core.rollout import Rollout
from polobench.policies.generation import Completions
from polobench.tasks.preference_formats import Prompt


class TextCodec:
    """A tokenizer as the tasks use it.

    A prompt goes through the tokenizer's chat template where it has one: plain text as a single message of the user.
    Without a template a conversation is its messages' texts, a line each. A response ends with the end token.

    Args:
        tokenizer: of transformers, with an end token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.end_token = int(tokenizer.eos_token_id)

    def prompt(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt; at least one.

        Raises:
            UsageError: there is none.
        """
        messages = (("user", prompt),) if isinstance(prompt, str) else prompt
        if self._tokenizer.chat_template:
            turns = [{"role": role, "content": content} for role, content in messages]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        else:
            text = "\n".join(content for _, content in messages)
        tokens = self._encode(text)
        if not tokens:
            raise UsageError(f"prompt {prompt!r} has no tokens")
        return tokens

    def response(self, text: str) -> list[int]:
        """The tokens of a response, the end token included."""
        return [*self._encode(text), self.end_token]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a completion, special tokens left out."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
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
