"""How a causal language model is read, and the self-test that decides it by the model's own numbers.

A policy wants three things of a model: the last hidden states (for a value head), logits at some positions alone, and
decoding with a cache. Models differ in what they do around their output layer (scales, soft caps, transforms) and in
what their cache holds (windows, shared or recurrent states). So nothing is assumed:

- The base model gives hidden states, and the model's own `forward`, with its base replaced by these states, gives the
  logits: everything around the output layer is the model's own code. Where that equals the bare output layer bit for
  bit, the bare layer is used.
- For some types the base model's pass is written out (`native.py`), and used where it gives the same hidden states.
- Decoding tries a cache that is allocated once, then the model's own cache, then none.
- Rows of unequal length are padded where padding changes nothing, else rows of equal length are read together.

`self_test` compares each with full passes of single rows, and refuses a model that no way reads right.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from polobench.core.errors import UsageError, first_line
from polobench.policies import native
from polobench.policies.pretrained import stated_length

# largest difference of log-probabilities [nats] that rounding explains, as a share of the largest logit (many models
# compute some of their parts in float32, whatever type their weights have)
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
NATIVE_TOLERANCE = TOLERANCE | {torch.float32: 1e-5}  # the same of a pass that is written out
CACHES = ("native", "preallocated", "own", "none")
# from the fastest to the most careful; any cache before none, whose cost grows with the square of the length
WAYS = [("native", True)]
WAYS += [(kind, pads) for kinds in (CACHES[1:3], CACHES[3:]) for pads in (True, False) for kind in kinds]
HiddenStates = Callable[[Tensor], Tensor]  # of tokens `[N, L]`: `[N, L, H]`
Read = Callable[[Tensor, HiddenStates], Tensor]  # tokens, and what gives their states: logits `[N, V]` after the last
LENGTH, DECODED = 8, 3  # tokens of the self-test's longest row, and how many of them are decoded one by one


@dataclass(frozen=True)
class Reading:
    """How a model is read right.

    Attributes:
        bare_head: its logits are its output layer's, with nothing around it.
        cache: one of `CACHES`; with "native", passes are `native.hidden_states` on a preallocated cache.
        pads: rows of unequal length may stand side by side, padded on the left.
        width: of the last hidden states.
    """

    bare_head: bool
    cache: str
    pads: bool
    width: int


class Head:
    """Hidden states `[..., H]` to logits `[..., V]`, by the model's own `forward` or by its bare output layer."""

    def __init__(self, model: Any, bare: bool) -> None:
        self._bare, self._model = bare, model
        if not bare:
            self._model = copy.copy(model)
            self._model._modules = dict(model._modules) | {base_name(model): _Given(base_of(model))}

    def __call__(self, hidden: Tensor) -> Tensor:
        if self._bare:
            logits: Tensor = self._model.get_output_embeddings()(hidden)
            return logits
        rows = hidden.reshape(-1, 1, hidden.shape[-1]) if hidden.dim() == 2 else hidden
        logits = self._model(inputs_embeds=rows, use_cache=False).logits
        return logits.view(*hidden.shape[:-1], logits.shape[-1])


class _Given(nn.Module):
    """Stands for a base model (and for its decoder) and answers with the hidden states that it was given."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self._instead_of = (base,)  # in a tuple, so that it is no module of this one

    def __getattr__(self, name: str) -> Any:
        return self if name in ("decoder", "model") else getattr(self._instead_of[0], name)

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> Any:
        return _Outputs(inputs_embeds)


class _Outputs(tuple[Tensor, ...]):
    """A base model's outputs: the hidden states first, None for whatever else a model may ask for."""

    def __new__(cls, hidden: Tensor) -> _Outputs:
        return super().__new__(cls, (hidden,))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def base_name(model: Any) -> str:
    """The attribute of a model that is its base model; empty where there is none."""
    return next((name for name in (model.base_model_prefix, "model") if name in model._modules), "")


def base_of(model: Any) -> Any:
    """The part of a model that gives hidden states."""
    return getattr(model, base_name(model))


def self_test(model: Any, name: str) -> Reading:
    """How this model is read right; takes a few passes over three rows of at most 8 tokens, and draws nothing.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        name: what messages call it.

    Raises:
        UsageError: no way of reading it gives its own log-probabilities; the text says by how much the best one fails.
    """
    rows = _rows(model)
    try:
        with torch.no_grad():
            whole = [model(input_ids=row[None], use_cache=False).logits[0] for row in rows[:2]]
            allowed = TOLERANCE[whole[0].dtype] * max(1.0, *(float(logits.abs().max()) for logits in whole))
            return _reading(model, name, rows, [logits.log_softmax(-1) for logits in whole], allowed)
    except (UsageError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UsageError(f"model {name!r} cannot be read: {first_line(error)}") from error


def _rows(model: Any) -> list[Tensor]:
    """Three rows of tokens that do not repeat soon: two of unequal length, and one with the first one's prompt."""
    table = model.get_input_embeddings().weight
    longest = min(LENGTH, stated_length(model.config) or LENGTH)
    lengths = (longest, max(2, longest // 2 + 1))
    rows = [(torch.arange(n, device=table.device) * 7 + 3 + row) % table.shape[0] for row, n in enumerate(lengths)]
    split = _decoded(rows)
    return [*rows, torch.cat([rows[0][:-split], rows[0][-split:].flip(0)])]


def _decoded(rows: Sequence[Tensor]) -> int:
    """How many of the last tokens of each row are decoded one by one; the others are its prompt."""
    return max(1, min(DECODED, min(map(len, rows)) - 2))


def _reading(model: Any, name: str, rows: Sequence[Tensor], own: Sequence[Tensor], allowed: float) -> Reading:
    _check_parts(model, name, own[0].shape[-1])
    batch = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    hidden = base_of(model)(input_ids=batch, use_cache=False).last_hidden_state
    logits = Head(model, bare=False)(hidden)
    off = max(_difference(row[: len(alone)], alone) for row, alone in zip(logits, own))
    if not off <= allowed:
        alone = Head(model, bare=False)(base_of(model)(input_ids=rows[0][None], use_cache=False).last_hidden_state)
        by_itself = _difference(alone[0], own[0])
        fault = f"log-probabilities from its hidden states are off by {by_itself:.2g} nats from its own"
        if by_itself <= allowed:
            fault = f"the log-probabilities of a row change by {off:.2g} nats with what is padded behind it"
        raise UsageError(f"model {name!r}: {fault} (allowed: {allowed:.2g}), so it is not supported")
    own = [*own, logits[2].log_softmax(-1)]  # of a batch that has been found right
    output_layer = model.get_output_embeddings()
    bare = output_layer is not None and torch.equal(output_layer(hidden), logits)
    worst: list[str] = []
    for kind, pads in WAYS[not _is_written_out(model, batch, hidden) :]:
        reading = Reading(bare, kind, pads, hidden.shape[-1])
        found = _decoding_error(model, reading, rows, own)
        share = NATIVE_TOLERANCE[logits.dtype] / TOLERANCE[logits.dtype] if kind == "native" else 1.0
        if isinstance(found, float) and found <= allowed * share:
            return reading
        worst.append(f"{reading.cache} cache: {found if isinstance(found, str) else f'{found:.2g} nats'}")
    raise UsageError(f"model {name!r}: decoding differs from full passes ({'; '.join(worst)}), so it is not supported")


def _is_written_out(model: Any, batch: Tensor, hidden: Tensor) -> bool:
    """There is a pass for the model's type, and it gives these hidden states."""
    if type(base_of(model)).__name__ not in native.PASSES:
        return False
    try:
        found = native.hidden_states(base_of(model), batch)
        return bool((found - hidden).abs().max() <= 1e-5 * hidden.abs().max())
    except (AttributeError, TypeError, RuntimeError):  # parts of a model that are not its type's own
        return False


def _check_parts(model: Any, name: str, logits: int) -> None:
    if hasattr(model, "peft_config"):
        raise UsageError(f"model {name!r} is wrapped by PEFT (merge it first: model.merge_and_unload())")
    if not base_name(model):
        raise UsageError(f"model {name!r} ({type(model).__name__}) has no base model that gives hidden states")
    embedded = model.get_input_embeddings().weight.shape[0]
    if logits > embedded:
        raise UsageError(f"model {name!r} can say {logits:,} tokens, but has embeddings for {embedded:,} only")


def _decoding_error(model: Any, reading: Reading, rows: Sequence[Tensor], own: Sequence[Tensor]) -> float | str:
    """How far log-probabilities of decoded tokens are from those of full passes [nats], or what went wrong.

    Rows of equal length are decoded together. Where the reading pads, those of the first one's length are, and then all
    of them: without padding a model gets no mask, and may take another way through its code.
    """
    head = Head(model, reading.bare_head)

    def read(tokens: Tensor, hidden_states: HiddenStates) -> Tensor:
        return head(hidden_states(tokens)[:, -1])

    lengths = dict.fromkeys(map(len, rows))
    groups = [[index for index, row in enumerate(rows) if len(row) == length] for length in lengths]
    groups = [groups[0], list(range(len(rows)))] if reading.pads else groups
    worst, steps = 0.0, _decoded(rows)
    try:
        for group in groups:
            prompts = [rows[index][: len(rows[index]) - steps].tolist() for index in group]
            decoder = Decoder(model, read, reading, prompts, steps)
            logits = decoder.read_prompts()
            for step in range(steps):
                for position, index in enumerate(group):
                    at = len(prompts[position]) - 1 + step
                    worst = max(worst, _difference(logits[position], own[index][at]))
                if step + 1 < steps:
                    taken = [rows[index][len(prompt) + step] for index, prompt in zip(group, prompts, strict=True)]
                    logits = decoder.read(torch.stack(taken))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        return first_line(error)
    return worst


def _difference(logits: Tensor, own: Tensor) -> float:
    """The largest difference of log-probabilities; infinite where one is not a number."""
    return float((logits.log_softmax(-1) - own).abs().nan_to_num(nan=math.inf).max())


class Decoder:
    """A model's state after the tokens read so far, for N rows.

    Args:
        model, reading: the model and how to read it.
        read: takes tokens and what gives their hidden states.
        prompts: N lists of tokens, which may repeat; of one length unless the reading pads.
        limit: so many tokens will follow at most.
    """

    def __init__(self, model: Any, read: Read, reading: Reading, prompts: Sequence[Sequence[int]], limit: int) -> None:
        self._read_model, self._cache_kind = read, reading.cache
        device = next(model.parameters()).device
        shares = reading.cache in ("native", "preallocated")  # rows that share a prompt can take its states
        distinct = list(dict.fromkeys(map(tuple, prompts))) if shares else list(map(tuple, prompts))
        where = {prompt: index for index, prompt in enumerate(distinct)}
        rows = [where[tuple(prompt)] for prompt in prompts] if shares else list(range(len(prompts)))
        self._rows = torch.tensor(rows, device=device)
        lengths = torch.tensor([len(prompt) for prompt in distinct], device=device)
        longest = max(map(len, distinct))
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in distinct]
        self._tokens = torch.tensor(padded, device=device)
        self._padded = bool((lengths < longest).any())
        self._mask = torch.arange(longest, device=device) >= (longest - lengths).unsqueeze(1)
        self._cache: Any = None
        if shares:
            self._cache = preallocated_cache(model.config.get_text_config().num_hidden_layers, longest + limit)
        self._base = base_of(model)
        self._cache_name = _cache_name(type(self._base).forward)

    def read_prompts(self) -> Tensor:
        """`[N, V]` the logits after the prompts; a prompt that several rows share is read once where that can be."""
        logits = self._read_model(self._tokens, self._hidden_states)
        if len(self._tokens) == len(self._rows):  # each row has a prompt of its own, in the same order
            return logits
        for layer in self._cache.layers:
            layer.take(self._rows)
        self._mask = self._mask[self._rows]
        return logits[self._rows]

    def read(self, tokens: Tensor) -> Tensor:
        """`[N, V]` the logits after one more token `[N]` of each row."""
        if self._padded:
            self._mask = nn.functional.pad(self._mask, (0, 1), value=True)
        if self._cache_kind == "none":
            self._tokens = torch.cat([self._tokens, tokens.unsqueeze(1)], 1)
            return self._read_model(self._tokens, self._hidden_states)
        return self._read_model(tokens.unsqueeze(1), self._hidden_states)

    def _hidden_states(self, tokens: Tensor) -> Tensor:
        """Of these tokens, the last ones so far; the cache takes them in."""
        mask = self._mask if self._padded else None
        if self._cache_kind == "native" and (mask is None or tokens.shape[1] == 1):
            return native.hidden_states(self._base, tokens, tokens.shape[1] - 1, self._cache, mask)
        state: dict[str, Any] = {"use_cache": self._cache_kind != "none"}
        if self._cache is not None:
            state[self._cache_name] = self._cache
        if mask is not None:  # else the model finds the mask and the positions by itself
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            state |= {"attention_mask": mask, "position_ids": positions[:, -tokens.shape[1] :]}
        outputs = self._base(input_ids=tokens, **state)
        if self._cache_kind == "own":
            self._cache = getattr(outputs, self._cache_name)
        hidden: Tensor = outputs.last_hidden_state
        return hidden


@cache
def _cache_name(forward: Any) -> str:
    """What a model calls its cache; transformers 5 came to rename `past_key_values`, and drops the old name in 5.40."""
    names = inspect.signature(forward).parameters
    return next((name for name in ("cache", "past_key_values", "cache_params", "state") if name in names), "cache")


def preallocated_cache(layers: int, capacity: int) -> Any:
    """A transformers `Cache` whose keys and values are written in place: growing by `cat` is its greatest cost."""
    from transformers.cache_utils import Cache

    return Cache(layers=[_preallocated_layer()(capacity) for _ in range(layers)])


@cache
def _preallocated_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is typed in part
        """Keys and values `[N, heads, capacity, width]`; what has been read so far is a view of them."""

        is_initialized: bool

        def __init__(self, capacity: int) -> None:
            super().__init__()
            self._capacity = capacity

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            start, count = self.get_seq_length(), key_states.shape[-2]
            if not self.is_initialized:
                self.is_initialized, self.dtype, self.device = True, key_states.dtype, key_states.device
                self._buffers = [
                    states.new_empty(*states.shape[:2], self._capacity, states.shape[-1])
                    for states in (key_states, value_states)
                ]
            for buffer, states in zip(self._buffers, (key_states, value_states)):
                buffer.narrow(2, start, count).copy_(states)
            self.keys, self.values = (buffer.narrow(2, 0, start + count) for buffer in self._buffers)
            return self.keys, self.values

        def take(self, rows: Tensor) -> None:
            """The rows of these indices in place of all."""
            end = self.get_seq_length()
            self._buffers = [buffer[rows] for buffer in self._buffers]
            self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)

    return PreallocatedLayer
