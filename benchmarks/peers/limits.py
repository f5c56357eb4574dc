"""The limit of language works: what the model's matrix products alone take, in torch, in the type of the comparison.

A pass is every linear layer on every token of it, queries by keys and weights by values in every head (causal or not,
and whole), and the output layer on the columns whose logits are asked for. A backward pass takes two products for each
of these. Biases, norms, activations, softmax, embeddings, losses, optimizers and sampling are left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.worlds import CONTEXT, NEW_TOKENS, PAIR_PROMPT, PAIRS, PROMPT, RESPONSE, World


@dataclass(frozen=True)
class Pass:
    """`columns` new tokens of each row, which attend to `context` tokens; logits after the last `scored` of them."""

    rows: int
    columns: int
    context: int
    scored: int
    backward: bool = False


def passes(work: str, world: World, distinct: int) -> list[Pass]:
    """Those of one step of a work; where prompts repeat, the `distinct` ones are read once."""
    if work == "dpo":
        columns = PAIR_PROMPT + RESPONSE - 1  # nothing follows the last token
        return [Pass(2 * PAIRS, columns, columns, RESPONSE, backward=True)]
    read = Pass(distinct, PROMPT, PROMPT, 1)
    sampled = [read, *(Pass(world.rows, 1, PROMPT + done, 1) for done in range(1, NEW_TOKENS))]
    trained = Pass(world.rows, CONTEXT - 1, CONTEXT - 1, NEW_TOKENS, backward=True)
    return sampled if work == "sampling" else [*sampled, trained]


class Products:
    """The factors of every product of some passes, made once; `seconds` multiplies them."""

    def __init__(self, model: Any, asked: Sequence[Pass]) -> None:
        self._factors = [pair for each in asked for pair in _factors(model, each)]

    def seconds(self) -> float:
        """CPU seconds of all products, once."""
        start = time.process_time()
        with torch.inference_mode():
            for one, two in self._factors:
                torch.matmul(one, two)
        return time.process_time() - start


def _factors(model: Any, asked: Pass) -> list[tuple[Tensor, Tensor]]:
    config, head = model.config, model.get_output_embeddings()
    random = cache(partial(torch.randn, dtype=model.dtype))  # factors of one shape are one, to save memory
    forward = []
    for layer in model.modules():
        if (weight := _weight(layer)) is not None:
            forward.append(
                (random(asked.rows * (asked.scored if layer is head else asked.columns), len(weight)), weight)
            )
    heads = asked.rows * config.num_attention_heads
    size = config.hidden_size // config.num_attention_heads
    queries, keys = random(heads, asked.columns, size), random(heads, asked.context, size)
    forward += [(queries, keys.mT), (random(heads, asked.columns, asked.context), keys)] * config.num_hidden_layers
    found = list(forward)
    for one, two in forward if asked.backward else ():
        flow = random(*one.shape[:-1], two.shape[-1])
        found += [(flow, two.mT), (one.mT, flow)]
    return found


def _weight(layer: Any) -> Tensor | None:
    """`[inputs, outputs]` of a linear layer of torch, or of GPT-2."""
    if isinstance(layer, torch.nn.Linear):
        return layer.weight.detach().mT
    return layer.weight.detach() if type(layer).__name__ == "Conv1D" else None
