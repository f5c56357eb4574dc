"""The self-test: what no way reads right is refused with the number; a way that fails gives way to another."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import transformers
from torch import nn

from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError
from polobench.core.rollout import Rollout
from polobench.policies import native, reading
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import Completions, complete
from polobench.policies.reading import Reading, self_test
from polobench.tasks.text import as_rollout

SIZES = {
    "vocab_size": 12, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 32,
}  # fmt: skip


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=12, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config).eval()


def llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()


def scaled(model: Any) -> Any:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    return model.eval()


def gemma2() -> Any:
    torch.manual_seed(0)
    return scaled(transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SIZES, sliding_window=4)))


def refusal(model: Any) -> str:
    with pytest.raises(UsageError) as refused:
        self_test(model, "this one")
    text = str(refused.value)
    assert text.startswith("model 'this one'")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("build", [gpt2, llama])
def test_an_ordinary_model_is_read_the_fastest_way(build: Any) -> None:
    before = torch.random.get_rng_state()
    assert self_test(build().eval(), "x") == Reading(True, "native", pads=True, width=8)
    torch.random.set_rng_state(before)
    build()
    state = torch.random.get_rng_state()
    torch.random.set_rng_state(before)
    self_test(build().eval(), "x")
    assert torch.equal(torch.random.get_rng_state(), state), "the self-test draws nothing"


def test_what_stands_around_the_output_layer_is_read() -> None:
    config = transformers.GraniteConfig(
        **{name: size for name, size in SIZES.items() if name != "head_dim"}, logits_scaling=8.0
    )
    assert not self_test(transformers.GraniteForCausalLM(config).eval(), "x").bare_head


def test_a_type_in_which_padding_fails_is_tested_by_itself() -> None:
    """In float64 Gemma 2 gives no numbers for padded rows, in float32 it does."""
    found = self_test(gemma2(), "x")
    assert found.pads
    policy = CausalLM(gemma2(), compute_dtype="float64", reading=found)
    assert not policy.reading.pads
    policy.ledger = Ledger(Budget(updates=1))
    drawn = complete(policy, [[1, 2, 3], [4]], None, limit=2, end_token=99, batch=2)
    assert drawn.log_probs.isfinite().all()


def test_a_reading_for_its_own_type_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = self_test(llama(), "x")
    monkeypatch.setattr("polobench.policies.causal_lm.self_test", lambda *of: pytest.fail("tested again"))
    assert CausalLM(llama(), reading=found).reading is found


class Forgetful(nn.Module):
    """An attention that, with a cache, says something else."""

    def __init__(self, inner: Any, says: Any) -> None:
        super().__init__()
        self.inner, self.says = inner, says

    def forward(self, hidden: Any = None, **state: Any) -> Any:
        output, weights = self.inner(hidden if hidden is not None else state.pop("hidden_states"), **state)
        return self.says(output, state), weights


def with_attention(says: Any) -> Any:
    model = scaled(llama())
    for layer in model.model.layers:
        layer.self_attn = Forgetful(layer.self_attn, says)
    return model


def test_a_cache_that_fails_gives_way_to_none() -> None:
    def says(output: Any, state: Any) -> Any:
        caches = [state[name] for name in ("cache", "past_key_values") if state.get(name) is not None]
        return output * (0.5 if caches else 1.0)

    model = with_attention(says)
    assert self_test(model, "x").cache == "none"


def test_a_mask_that_fails_gives_way_to_rows_of_equal_length() -> None:
    def says(output: Any, state: Any) -> Any:
        rows = output.shape[0]
        return output * torch.linspace(1, 1 if state.get("attention_mask") is None else 2, rows).view(-1, 1, 1)

    found = self_test(with_attention(says), "x")
    assert (found.cache, found.pads) == ("preallocated", False)


def test_a_batch_that_changes_its_rows_is_refused_with_the_number() -> None:
    text = refusal(with_attention(lambda output, state: output * output.shape[0]))
    assert "change by" in text
    assert "nats" in text


def test_no_number_is_no_agreement() -> None:
    text = refusal(with_attention(lambda output, state: output * (torch.nan if output.shape[0] > 1 else 1)))
    assert "inf nats" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: setattr(model, "peft_config", {}), "wrapped by PEFT"),
        (lambda model: setattr(model, "lm_head", nn.Linear(8, 13)), "can say 13 tokens, but has embeddings for 12"),
        (lambda model: setattr(type(model), "base_model_prefix", "decoder"), ""),
    ],
)
def test_what_does_not_fit_is_named(change: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    monkeypatch.setattr(type(model), "base_model_prefix", type(model).base_model_prefix)
    change(model)
    if said:
        assert said in refusal(model)
    else:
        assert self_test(model, "x")  # its base model is found under its usual name


def test_a_model_without_a_base_is_refused() -> None:
    model = gpt2()
    model._modules["hidden"] = model._modules.pop("transformer")
    model.forward = lambda **of: transformers.modeling_outputs.CausalLMOutput(
        logits=torch.zeros(1, of["input_ids"].shape[1], 12)
    )
    model.get_input_embeddings = lambda: model.hidden.wte
    assert "no base model" in refusal(model)


def test_memory_that_runs_out_is_not_the_models_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*of: Any, **more: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(reading, "_decoding_error", full)
    with pytest.raises(MemoryError):
        self_test(llama(), "x")


def test_rows_of_equal_length_are_tested_where_a_model_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bamba's own cache is right with a mask alone; a self-test of padded rows would not have seen it."""
    batches: list[int] = []

    class Counting(reading.Decoder):
        def __init__(self, model: Any, read: Any, way: Any, prompts: Any, limit: int) -> None:
            batches.append(len(prompts))
            super().__init__(model, read, way, prompts, limit)

    monkeypatch.setattr(reading, "Decoder", Counting)
    self_test(llama(), "x")
    assert batches == [2, 3]


def test_a_copy_of_a_policy_reads_its_own_weights() -> None:
    policy = CausalLM(gemma2())
    policy.ledger = Ledger(Budget(updates=1))
    frozen = policy.frozen_copy()
    hidden = torch.ones(1, 8)
    before = frozen.logits(hidden)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.add_(1.0)
    assert torch.equal(frozen.logits(hidden), before)
    assert not torch.equal(policy.logits(hidden), before)
    assert not copy.deepcopy(policy)._logits._bare


def rows_of_unequal_length() -> Rollout:
    """Prompts of 2 to 4 tokens, completions of 3."""
    prompts = [[3, 1], [4, 1, 5, 9], [2, 6, 5]]
    tokens = torch.tensor([[7, 8, 2], [1, 1, 4], [9, 3, 3]])
    completions = Completions(tokens, torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]]).bool(), torch.zeros(3, 3))
    return as_rollout(prompts, completions, [0.0, 1.0, 2.0], [0, 1, 2])


@pytest.mark.parametrize("equal", [True, False], ids=["prompts of one length", "unequal prompts"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("build", [gpt2, llama])
def test_passes_that_are_written_out_are_the_models(build: Any, dtype: str, equal: bool) -> None:
    """Logits and gradients of training, and logits of decoding."""
    rollout = rows_of_unequal_length()
    rollout = replace(rollout, prompt_mask=torch.ones_like(rollout.prompt_mask)) if equal else rollout
    prompts = [row[kept].tolist() for row, kept in zip(rollout.prompts, rollout.prompt_mask)]
    found = []
    for cache in ("native", "preallocated"):
        torch.manual_seed(0)
        policy = CausalLM(scaled(build()), compute_dtype=dtype, critic=True)
        assert policy.reading.cache == "native"
        policy.reading = replace(policy.reading, cache=cache)
        policy.ledger = Ledger(Budget(updates=1))
        outputs = policy.outputs(rollout)
        (outputs.log_softmax(-1)[..., 2] * rollout.mask).sum().backward()
        gradient = torch.cat([weight.grad.flatten() for weight in policy.actor_parameters if weight.grad is not None])
        with torch.no_grad():
            decoder = policy.decoder(prompts, 4)
            said = [decoder.read_prompts(), *(decoder.read(rollout.actions[:, column]) for column in range(3))]
        found.append((outputs.detach()[rollout.mask], torch.stack(said), gradient))
    for native_one, own in zip(*found, strict=True):
        torch.testing.assert_close(native_one, own, rtol=0, atol=1e-5 * max(1.0, float(own.abs().max())))


RIGHT = native.PASSES["GPT2Model"]


def is_a_little_off(*of: Any) -> Any:
    return RIGHT(*of) * 1.0001


def forgets_positions(base: Any, tokens: Any, positions: Any, *of: Any) -> Any:
    return RIGHT(base, tokens, positions - positions[..., :1], *of)


@pytest.mark.parametrize("fault", [is_a_little_off, forgets_positions])
def test_a_pass_that_is_written_out_wrong_is_not_used(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is right in whole rows, and wrong behind a cache."""
    monkeypatch.setitem(native.PASSES, "GPT2Model", fault)
    assert self_test(scaled(gpt2()), "x") == Reading(True, "preallocated", pads=True, width=8)
