"""Sampling completions: a loop of our own beside transformers' `generate`, because the uniforms must be keyed.

Each completion has its own row of uniforms, one a position, so that what is sampled depends on neither the other rows
nor on how many are generated side by side (in exact arithmetic; in float32 and bfloat16 a sum may round the other way).

    token_t = the first token whose cumulative probability exceeds u_t     (inverse transform sampling)

The key-value cache is allocated once for the longest sequence, and a prompt that several rows share is read once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from polobench.policies.causal_lm import CausalLM


@dataclass(frozen=True)
class Completions:
    """Sampled tokens, padded behind their end.

    Attributes:
        tokens: `[B, T]`, T the longest completion; padded with the end token.
        mask: `[B, T]` bool; the end token of a completion is part of it.
        log_probs: `[B, T]` under the policy that sampled them, in nats; 0 where masked.
    """

    tokens: Tensor
    mask: Tensor
    log_probs: Tensor


def complete(
    policy: CausalLM,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor | None,
    *,
    limit: int,
    end_token: int,
    batch: int,
    before_step: Callable[[int], None] = lambda live: None,
) -> Completions:
    """One completion for each of B prompts, which may repeat.

    Args:
        policy: gives the distribution of the next token.
        prompts: token ids, none empty.
        uniforms: `[B, limit]` in [0, 1), or None for the most likely token at each step.
        limit: the most tokens of a completion.
        end_token: ends a completion.
        batch: so many rows are generated side by side.
        before_step: hears the number of unfinished rows before each of them takes a token; may raise.
    """
    parts = []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        drawn = None if uniforms is None else uniforms[rows]
        parts.append(_complete(policy, prompts[rows], drawn, limit, end_token, before_step))
    width = max(part.tokens.shape[1] for part in parts)
    return Completions(
        tokens=_stacked([part.tokens for part in parts], width, end_token),
        mask=_stacked([part.mask for part in parts], width, False),
        log_probs=_stacked([part.log_probs for part in parts], width, 0.0),
    )


def _complete(
    policy: CausalLM,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor | None,
    limit: int,
    end_token: int,
    before_step: Callable[[int], None],
) -> Completions:
    device = next(policy.model.parameters()).device
    live = torch.ones(len(prompts), dtype=torch.bool, device=device)
    tokens, masks, log_probs = [], [], []
    with torch.inference_mode():
        decoder = _Decoder(policy, prompts, limit, device)
        logits = decoder.read_prompts()
        unfinished = len(prompts)
        for column in range(limit):
            before_step(unfinished)
            chosen, log_prob = _choose(logits, None if uniforms is None else uniforms[:, column])
            tokens.append(torch.where(live, chosen, end_token))
            masks.append(live)
            log_probs.append(torch.where(live, log_prob, 0))
            live = live & (chosen != end_token)
            unfinished = int(live.sum())
            if column + 1 == limit or not unfinished:
                break
            logits = decoder.read(tokens[-1])
    # outside of inference mode, so that autograd may use the tokens
    return Completions(torch.stack(tokens, 1), torch.stack(masks, 1), torch.stack(log_probs, 1))


def _choose(logits: Tensor, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """`[N]` tokens and their log-probabilities, from logits `[N, V]` and uniforms `[N]`."""
    log_probs = logits.log_softmax(-1)
    if uniforms is None:
        chosen = log_probs.argmax(-1)
    else:
        cumulative = log_probs.exp().cumsum(-1)
        # below the last sum, which rounding leaves beside 1: no token of probability 0 can be taken
        drawn = uniforms.to(cumulative).clamp(max=1 - torch.finfo(cumulative.dtype).eps)
        aim = drawn.unsqueeze(-1) * cumulative[:, -1:]
        chosen = (cumulative <= aim).sum(-1).clamp(max=logits.shape[-1] - 1)
    return chosen, log_probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def _stacked(parts: list[Tensor], width: int, fill: float) -> Tensor:
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts])


class _Decoder:
    """The model's state after the tokens read so far, for N rows."""

    def __init__(self, policy: CausalLM, prompts: Sequence[Sequence[int]], limit: int, device: torch.device) -> None:
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        where = {prompt: index for index, prompt in enumerate(distinct)}
        self._policy, self._prompts = policy, distinct
        self._cache_name = _cache_name(type(policy.model.base_model).forward)
        self._rows = torch.tensor([where[tuple(prompt)] for prompt in prompts], device=device)
        self._lengths = torch.tensor([len(prompt) for prompt in distinct], device=device)
        self._longest = max(map(len, distinct))
        self._cache = preallocated_cache(policy.model.config.num_hidden_layers, self._longest + limit)
        self._padded = bool((self._lengths < self._longest).any())
        self._mask = torch.arange(self._longest, device=device) >= (self._longest - self._lengths).unsqueeze(1)

    def read_prompts(self) -> Tensor:
        """`[N, V]` the logits after the prompts; each distinct prompt is read once."""
        rows = [[0] * (self._longest - len(prompt)) + list(prompt) for prompt in self._prompts]
        tokens = torch.tensor(rows, device=self._mask.device)
        logits = self._policy.next_token_logits(tokens, **self._state(slice(None)))
        if len(self._prompts) == len(self._rows):  # each row has a prompt of its own, in the same order
            return logits
        for layer in self._cache.layers:
            layer.take(self._rows)
        self._mask = self._mask[self._rows]
        return logits[self._rows]

    def read(self, tokens: Tensor) -> Tensor:
        """`[N, V]` the logits after one more token `[N]` of each row."""
        if self._padded:
            self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=True)
        return self._policy.next_token_logits(tokens.unsqueeze(1), **self._state(slice(-1, None)))

    def _state(self, new: slice) -> dict[str, Any]:
        """What the model needs beside the tokens; without padding it finds the mask and the positions by itself."""
        state: dict[str, Any] = {self._cache_name: self._cache, "use_cache": True}
        if self._padded:
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)
            state |= {"attention_mask": self._mask, "position_ids": positions[:, new]}
        return state


@cache
def _cache_name(forward: Callable[..., Any]) -> str:
    """What a model calls its cache: transformers 5 came to rename `past_key_values`, and drops the old name in 5.40."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def preallocated_cache(layers: int, capacity: int) -> Any:
    """A transformers `Cache` whose keys and values are written in place: growing by `cat` is its greatest cost."""
    from transformers.cache_utils import Cache, DynamicLayer

    class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is typed in part
        """Keys and values `[N, heads, capacity, width]`; what has been read so far is a view of them."""

        is_initialized: bool

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            start = self.get_seq_length()
            end = start + key_states.shape[-2]
            if not self.is_initialized:
                self.is_initialized, self.dtype, self.device = True, key_states.dtype, key_states.device
                self._buffers = [_roomy(states, capacity) for states in (key_states, value_states)]
            for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
                buffer[:, :, start:end] = states
            self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
            return self.keys, self.values

        def take(self, rows: Tensor) -> None:
            """The rows of these indices in place of all."""
            end = self.get_seq_length()
            self._buffers = [buffer[rows] for buffer in self._buffers]
            self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)

    return Cache(layers=[PreallocatedLayer() for _ in range(layers)])


def _roomy(states: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = states.shape
    return states.new_empty(rows, heads, capacity, width)
