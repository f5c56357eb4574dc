"""The passes of GPT-2 and Llama written out: the model's own layers in the model's own order, without the calls around
them (masks, caches, captures, renamed arguments), which cost a tiny model more than its arithmetic.

`reading.self_test` compares them with the model before they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, layer_norm, scaled_dot_product_attention

# a layer's number and module, a first column, and queries, keys and values `[N, L, heads, width]`: what the columns
# from there on attend to, `[N, L - first, H]`
Attend = Callable[..., Tensor]


def hidden_states(base: Any, tokens: Tensor, first: int = 0, cache: Any = None, mask: Tensor | None = None) -> Tensor:
    """`[N, L - first, H]` the last hidden states of rows of `tokens` `[N, L]`, or of one more token of each.

    Args:
        base: of a type in `PASSES`.
        first: the states of the columns from here on; the last block computes no others.
        cache: as `reading.preallocated_cache` makes it, empty or with what came before the one token.
        mask: `[N, M]` which of the tokens so far count; for one more token only.
    """
    past = cache.layers[0].get_seq_length() if cache else 0
    if mask is None:
        positions, seen = torch.arange(past, past + tokens.shape[1], device=tokens.device).unsqueeze(0), None
    else:
        positions, seen = mask.sum(1, keepdim=True) - 1, mask[:, None, None]

    def attend(number: int, layer: Any, start: int, *states: Tensor) -> Tensor:
        query, key, value = (part.transpose(1, 2) for part in states)
        if cache:
            key, value = cache.layers[number].update(key, value)
        alone = start + 1 == tokens.shape[1]  # the last column sees all, without a mask
        mixed = scaled_dot_product_attention(
            query[:, :, start:] if alone else query, key, value, attn_mask=seen, is_causal=not alone,
            scale=layer.scaling, enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        mixed = mixed.transpose(1, 2).flatten(2)
        return mixed if alone else mixed[:, start:]

    hidden: Tensor = PASSES[type(base).__name__](base, tokens, positions, first, attend)
    return hidden


def _gpt2(base: Any, tokens: Tensor, positions: Tensor, first: int, attend: Attend) -> Any:
    hidden = (embedding(tokens, base.wte.weight) + embedding(positions, base.wpe.weight)).flatten(0, 1)
    for number, block in enumerate(base.h):
        attention, mlp = block.attn, block.mlp
        start = first if number + 1 == len(base.h) else 0
        joint = _affine(attention.c_attn, _normed(block.ln_1, hidden)).view(*tokens.shape, 3, -1, attention.head_dim)
        mixed = attend(number, attention, start, *joint.unbind(2)).flatten(0, 1)
        if start:
            hidden = hidden.view(*tokens.shape, -1)[:, start:].flatten(0, 1)
        hidden = _affine(attention.c_proj, mixed) + hidden
        hidden = hidden + _affine(mlp.c_proj, mlp.act(_affine(mlp.c_fc, _normed(block.ln_2, hidden))))
    return _normed(base.ln_f, hidden).view(len(tokens), -1, hidden.shape[-1])


def _affine(layer: Any, rows: Tensor) -> Tensor:
    return torch.addmm(layer.bias, rows, layer.weight)


def _normed(layer: Any, rows: Tensor) -> Tensor:
    return layer_norm(rows, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _llama(base: Any, tokens: Tensor, positions: Tensor, first: int, attend: Attend) -> Any:
    hidden: Tensor = base.embed_tokens(tokens)
    cos, sin = (part.unsqueeze(2) for part in base.rotary_emb(hidden, positions))
    for number, layer in enumerate(base.layers):
        start = first if number + 1 == len(base.layers) else 0
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (of(normed).unflatten(-1, (-1, attention.head_dim)) for of in projections)
        turned = (part * cos + _rotated(part) * sin for part in (query, key))
        hidden = hidden[:, start:] + attention.o_proj(attend(number, attention, start, *turned, value))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return base.norm(hidden)


def _rotated(states: Tensor) -> Tensor:
    first, second = states.chunk(2, -1)
    return torch.cat([-second, first], -1)


PASSES = {"GPT2Model": _gpt2, "LlamaModel": _llama}
