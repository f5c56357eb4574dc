"""Sampling completions: a loop of our own beside transformers' `generate`, because the uniforms must be keyed.

Each completion has its own row of uniforms, one a position, so that what is sampled depends on neither the other rows
nor on how many are generated side by side (in exact arithmetic; in float32 and bfloat16 a sum may round the other way).

    token_t = the first token whose cumulative probability exceeds u_t     (inverse transform sampling)

What the model remembers between tokens, and how prompts are read, is `policies/reading.py`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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
    end_tokens: Iterable[int] = (),
    before_step: Callable[[int], None] = lambda live: None,
) -> Completions:
    """One completion for each of B prompts, which may repeat.

    Args:
        policy: gives the distribution of the next token.
        prompts: token ids, none empty.
        uniforms: `[B, limit]` in [0, 1), or None for the most likely token at each step.
        limit: the most tokens of a completion.
        end_token: ends a completion, as each of the policy's own `end_tokens` does, and pads.
        batch: so many rows are generated side by side.
        end_tokens: others that end one, such as that of the chat template.
        before_step: hears the number of unfinished rows before each of them takes a token; may raise.
    """
    ends = tuple(dict.fromkeys((end_token, *policy.end_tokens, *end_tokens)))
    parts, order = [], []
    for rows in _batches(prompts, batch, policy.reading.pads):
        drawn = None if uniforms is None else uniforms[rows]
        parts.append(_complete(policy, [prompts[row] for row in rows], drawn, limit, ends, before_step))
        order += rows
    width = max(part.tokens.shape[1] for part in parts)
    back = torch.tensor(order, device=parts[0].tokens.device).argsort()
    return Completions(
        tokens=_stacked([part.tokens for part in parts], width, end_token)[back],
        mask=_stacked([part.mask for part in parts], width, False)[back],
        log_probs=_stacked([part.log_probs for part in parts], width, 0.0)[back],
    )


def _batches(prompts: Sequence[Sequence[int]], batch: int, pads: bool) -> list[list[int]]:
    """Numbers of prompts to be read side by side: in order, or, where the model cannot pad, those of equal length."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        groups[0 if pads else len(prompt)].append(row)
    return [rows[start : start + batch] for rows in groups.values() for start in range(0, len(rows), batch)]


def _complete(
    policy: CausalLM,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor | None,
    limit: int,
    end_tokens: Sequence[int],
    before_step: Callable[[int], None],
) -> Completions:
    device = next(policy.model.parameters()).device
    live = torch.ones(len(prompts), dtype=torch.bool, device=device)
    ends = torch.tensor(end_tokens, device=device)
    tokens, masks, log_probs = [], [], []
    with torch.inference_mode():
        decoder = policy.decoder(prompts, limit)
        logits = decoder.read_prompts()
        unfinished = len(prompts)
        for column in range(limit):
            before_step(unfinished)
            chosen, log_prob = _choose(logits, None if uniforms is None else uniforms[:, column])
            tokens.append(torch.where(live, chosen, end_tokens[0]))
            masks.append(live)
            log_probs.append(torch.where(live, log_prob, 0))
            live = live & (chosen.unsqueeze(-1) != ends).all(-1)
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
        chosen = torch.searchsorted(cumulative, aim, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return chosen, log_probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def _stacked(parts: list[Tensor], width: int, fill: float) -> Tensor:
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts])
