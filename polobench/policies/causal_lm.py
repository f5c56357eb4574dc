"""A causal language model as a policy: a state is a prompt and the tokens so far, an action is the next token.

Shapes: `[B, T]` as in `Rollout`: B completions, T token positions; P prompt tokens, H hidden units, V tokens.

A pass over a rollout moves every row to the left, so that padding stands only behind it: causal attention then needs no
mask, and a row's numbers do not depend on the padding of its neighbours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from polobench.core.errors import UsageError
from polobench.core.policy import Distribution, Policy
from polobench.core.rollout import Rollout
from polobench.policies import native
from polobench.policies.distributions import Categorical
from polobench.policies.layers import blank_linear
from polobench.policies.pretrained import stated_end_tokens
from polobench.policies.reading import Decoder, Head, HiddenStates, Reading, base_of, self_test

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class CausalLM(Policy):
    """A causal language model of transformers, with the softmax of its logits over `temperature` as the policy.

    The critic, where there is one, is a small network on the detached last hidden states: the value loss cannot move
    the policy, and the critic needs no model of its own.

    Args:
        model: in float32, without dropout; it is taken over, not copied.
        temperature: above 0.
        compute_dtype: a key of `DTYPES`. With bfloat16 the model computes on a rounded copy of float32 master weights,
            which collect the gradients in float32 and are what the optimiser steps.
        critic: with a value head.
        generator: of the value head's initial weights.
        generation_batch: so many completions are sampled, or read without gradients, side by side.
        reading: how the model is read, as `self_test` found for its present type of numbers; found here by default,
            and again where `compute_dtype` is another type: a model may fail in one alone.

    Attributes:
        end_tokens: at which the model's own generation stops.

    Raises:
        UsageError: there is no way of reading the model that gives its own log-probabilities.
    """

    def __init__(
        self,
        model: Any,
        temperature: float = 1.0,
        compute_dtype: str = "float32",
        critic: bool = False,
        generator: torch.Generator | None = None,
        generation_batch: int = 64,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.distribution: Distribution = Categorical()
        self.temperature = temperature
        self.generation_batch = generation_batch
        self.model = _with_one_kernel_gelu(model.eval())
        self.end_tokens = stated_end_tokens(model)
        self.model.config.pad_token_id = None  # else the model looks for padding in every pass
        loaded_dtype = model.dtype
        masters = [nn.Parameter(weight.detach().clone()) for weight in model.parameters()]
        self.masters = nn.ParameterList(masters) if compute_dtype == "bfloat16" else None
        if self.masters is None:
            self.model.to(DTYPES[compute_dtype])
            if compute_dtype == "float64":  # which the fast kernels of experts cannot
                self.model.set_experts_implementation("eager")
        for master, weight in zip(self.masters or (), self.model.parameters()):
            weight.data = weight.data.bfloat16()  # weights alone: rounded rotary frequencies would be another model
            weight.register_post_accumulate_grad_hook(partial(_move_gradient, master))
        if reading is None or model.dtype != loaded_dtype:
            reading = self_test(model, model.config.model_type)
        self.reading = reading
        self._logits = Head(model, reading.bare_head)
        self.head = _value_head(reading.width, generator) if critic else None

    @property
    def actor_parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters() if self.masters is None else self.masters)

    @property
    def critic_parameters(self) -> list[nn.Parameter]:
        return [] if self.head is None else list(self.head.parameters())

    def outputs(self, rollout: Rollout) -> Tensor:
        return self.logits(self._hidden(rollout, rollout.mask.shape[1]))

    def values(self, rollout: Rollout) -> Tensor:
        with torch.no_grad():
            hidden = self._hidden(rollout, rollout.mask.shape[1] + 1)
        return self._values(hidden)

    def state_values(self, rollout: Rollout) -> Tensor:
        inputs = self.with_critic_inputs(rollout).critic_inputs
        assert inputs is not None
        return self._values(inputs)

    def last_states(self, rollout: Rollout) -> Tensor:
        """`[B, H]` the hidden states after the last token of each row, with gradients."""
        hidden = self._hidden(rollout, rollout.mask.shape[1] + 1)
        return hidden[torch.arange(len(hidden), device=hidden.device), rollout.mask.sum(1)]

    def outputs_and_values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        hidden = self._hidden(rollout, rollout.mask.shape[1])
        return self.logits(hidden), self._values(hidden.detach())

    def outputs_and_all_values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            hidden = self._hidden(rollout, rollout.mask.shape[1] + 1)
            return self.logits(hidden[:, :-1]), self._values(hidden)

    def with_critic_inputs(self, rollout: Rollout) -> Rollout:
        if rollout.critic_inputs is not None:
            return rollout
        with torch.no_grad():
            return rollout.attach(critic_inputs=self._hidden(rollout, rollout.mask.shape[1]))

    def _values(self, hidden: Tensor) -> Tensor:
        """Detached hidden states `[B, columns, H]` to values `[B, columns]`."""
        if self.head is None:
            raise RuntimeError("this policy was made without a critic")
        values: Tensor = self.head(hidden.to(next(self.head.parameters()).dtype))
        return values.squeeze(-1)

    def _hidden(self, rollout: Rollout, columns: int) -> Tensor:
        """`[B, columns, H]` the last hidden states, from the last prompt token on."""
        tokens, first = _left_aligned(rollout, columns - 1)
        self.count_rows(tokens.numel())
        if isinstance(first, int):
            return self._whole_rows(tokens, first)[:, :columns]
        start = int(first.min())
        hidden = self._whole_rows(tokens, start)
        index = (first - start).unsqueeze(1) + torch.arange(columns, device=first.device)
        return hidden.gather(1, index.clamp(max=hidden.shape[1] - 1).unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))

    def _whole_rows(self, tokens: Tensor, first: int) -> Tensor:
        """`[N, L - first, H]` the last hidden states of `tokens` `[N, L]`, from a column on."""
        base = base_of(self.model)
        rows = len(tokens) if torch.is_grad_enabled() else self.generation_batch  # a graph keeps all rows anyway
        if self.reading.cache == "native":
            parts = [native.hidden_states(base, part, first) for part in torch.split(tokens, rows)]
        else:
            parts = [base(input_ids=part, use_cache=False)[0][:, first:] for part in torch.split(tokens, rows)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states `[..., H]` to logits over the temperature `[..., V]`, in float32 at least."""
        logits = self._logits(hidden)
        logits = logits.float() if logits.dtype == torch.bfloat16 else logits
        return logits if self.temperature == 1 else logits / self.temperature

    def read(self, tokens: Tensor, hidden_states: HiddenStates) -> Tensor:
        """`[N, V]` logits after the last of `tokens` `[N, L]`, whose states are taken from `hidden_states`."""
        self.count_rows(tokens.numel())
        return self.logits(hidden_states(tokens)[:, -1])

    def next_token_logits(self, tokens: Tensor) -> Tensor:
        """`[N, V]` after whole sequences `[N, L]`."""
        return self.read(tokens, partial(self._whole_rows, first=tokens.shape[1] - 1))

    def decoder(self, prompts: Sequence[Sequence[int]], limit: int) -> Decoder:
        """What reads these prompts and up to `limit` tokens after each, one by one."""
        return Decoder(self.model, self.read, self.reading, prompts, limit)

    def act(self, observations: Tensor, noise: Tensor) -> Tensor:
        """The next tokens after whole sequences `[N, L]`, without a cache."""
        return self.distribution.sample(self.next_token_logits(observations), noise)

    def act_greedily(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.distribution.mode(self.next_token_logits(observations))

    def linearize(self, rollout: Rollout) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """As every policy's, with plain attention, whose backward pass can be differentiated again."""
        if self.masters is not None:
            raise UsageError("compute_dtype is 'bfloat16', which has no Jacobian products (allowed: float32, float64)")
        with sdpa_kernel(SDPBackend.MATH):
            return super().linearize(rollout)

    def frozen_copy(self) -> Self:
        """As every policy's, without master weights, which nothing will step, and what layers keep of the last pass."""
        kept = (value for module in self.modules() for value in vars(module).values() if isinstance(value, Tensor))
        dropped = {id(value): None for value in kept if value.grad_fn is not None}
        frozen = copy.deepcopy(self, {id(self.ledger): self.ledger, id(self.masters): None, **dropped})
        return frozen.requires_grad_(False)

    @contextmanager
    def at_temperature(self, temperature: float) -> Iterator[None]:
        """Another temperature for as long as the block lasts."""
        own, self.temperature = self.temperature, temperature
        try:
            yield
        finally:
            self.temperature = own

    def equals(self, other: CausalLM) -> bool:
        """Whether both give the same numbers: the same weights bit by bit, temperature and batch of a pass."""
        if (self.temperature, self.generation_batch) != (other.temperature, other.generation_batch):
            return False
        pairs = zip(self.model.parameters(), other.model.parameters(), strict=True)
        return all(one.dtype == two.dtype and torch.equal(one, two) for one, two in pairs)

    def _parameters_changed(self) -> None:
        if self.masters is not None:
            with torch.no_grad():
                for master, weight in zip(self.masters, self.model.parameters(), strict=True):
                    weight.copy_(master)


def _move_gradient(master: nn.Parameter, weight: Tensor) -> None:
    """Add a weight's gradient to its master's, as soon as it is there: all of them at once would be in memory twice."""
    assert weight.grad is not None
    if master.grad is None:
        master.grad = weight.grad.to(master.dtype)
    else:
        master.grad += weight.grad
    weight.grad = None


def _with_one_kernel_gelu(model: Any) -> Any:
    """GPT-2's activation as torch's own kernel: transformers writes the same formula as eight operations, each with a
    tensor of its own, which costs a fifth of an update of a tiny model.
    """
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def _value_head(width: int, generator: torch.Generator | None) -> nn.Sequential:
    """Two layers; the last one starts at 0, so that the first advantages are the rewards."""
    first, last = blank_linear(width, width), blank_linear(width, 1)
    nn.init.orthogonal_(first.weight, generator=generator)
    for zero in (first.bias, last.weight, last.bias):
        nn.init.zeros_(zero)
    return nn.Sequential(first, nn.Tanh(), last)


def _left_aligned(rollout: Rollout, width: int) -> tuple[Tensor, Tensor | int]:
    """Prompts and the first `width` actions, padding last: `[B, L]`, and the column of the last prompt token `[B]`."""
    assert rollout.prompts is not None
    assert rollout.prompt_mask is not None
    tokens = torch.cat([rollout.prompts, rollout.actions[:, :width]], 1)
    lengths = rollout.prompt_mask.sum(1)
    longest = rollout.prompts.shape[1]
    if bool((lengths == longest).all()):
        return tokens, longest - 1
    columns = int((lengths + rollout.mask.sum(1)).max().clamp(max=tokens.shape[1]))
    index = torch.arange(columns, device=tokens.device) + (longest - lengths).unsqueeze(1)
    return tokens.gather(1, index.clamp(max=tokens.shape[1] - 1)), lengths - 1
