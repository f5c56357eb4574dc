"""Tiny models of many architectures, made from configurations, and whether a `CausalLM` reads them as they are.

`python tests/architectures.py` writes docs/architectures.md.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from test_preference_objectives import trainer
from torch import Tensor

import polobench
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError
from polobench.core.optimization import Tally
from polobench.core.rollout import Rollout
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import complete
from polobench.tasks.text import as_completions, as_rollout

TABLE = Path(__file__).parents[1] / "docs" / "architectures.md"
TOLERANCE = 1e-6  # relative, of log-probabilities, of a loss and of its gradient
SCALE = 4.0  # of initial weights: what is skipped or read twice shows
VOCABULARY, CONTEXT, NEW, BETA = 96, 64, 6, 0.3
PROMPTS = ([5, 9, 23, 41, 7, 61, 30], [8, 44, 71])
RESPONSES = ([11, 35, 90, 2, 57], [63, 12], [19, 77, 29], [81, 3, 50, 15, 66, 28])
SCORES, GROUPS = (1.0, 0.0, 0.0, 1.0), (0, 0, 1, 1)
CPU = torch.device("cpu")

PLAIN = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
MANY = PLAIN | {"num_key_value_heads": 4}
WINDOW = {"sliding_window": 4}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]} | WINDOW
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 2, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "head_dim": 8,
}  # fmt: skip
GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
STATES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4,
}  # fmt: skip

# name in docs/architectures.md: type of transformers, and its configuration
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", PLAIN),
    "Llama, tied, dynamic rope": (
        "llama", PLAIN | {"tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "Qwen2": ("qwen2", PLAIN),
    "Qwen3": ("qwen3", PLAIN | {"head_dim": 8}),
    "Gemma": ("gemma", PLAIN | {"head_dim": 8}),
    "Gemma 2": (
        "gemma2", PLAIN | MIXED | {"head_dim": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0},
    ),
    "Gemma 3 (text)": ("gemma3_text", PLAIN | MIXED | {"head_dim": 8}),
    "Gemma 3 (images, too)": (
        "gemma3", {"text_config": PLAIN | MIXED | {"head_dim": 8}, "image_token_index": 95, "boi_token_index": 94,
        "eoi_token_index": 93, "mm_tokens_per_image": 4, "vision_config": {"hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}},
    ),
    "Gemma 3n (text)": (
        "gemma3n_text", PLAIN | MIXED | {"head_dim": 8, "num_hidden_layers": 4, "layer_types": MIXED["layer_types"] * 2,
        "num_kv_shared_layers": 2, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8,
        "laurel_rank": 8, "intermediate_size": [48] * 4, "activation_sparsity_pattern": [0.0] * 4,
        "altup_num_inputs": 2},
    ),
    "Gemma 4 (text)": (
        "gemma4_text", PLAIN | MIXED | {"head_dim": 8, "global_head_dim": 8, "num_hidden_layers": 4,
        "layer_types": MIXED["layer_types"] * 2, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8, "final_logit_softcapping": 3.0},
    ),
    "Mistral, window of 4": ("mistral", PLAIN | WINDOW),
    "Phi": ("phi", MANY),
    "Phi-3": ("phi3", PLAIN),
    "GPT-2": ("gpt2", GPT),
    "GPT-Neo, window of 4": (
        "gpt_neo", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 4,
        "max_position_embeddings": CONTEXT, "attention_types": [[["global", "local"], 1]]},
    ),
    "GPT-NeoX": ("gpt_neox", MANY),
    "GPT-J": ("gptj", GPT | {"rotary_dim": 4}),
    "CodeGen": ("codegen", GPT | {"rotary_dim": 4}),
    "OPT": ("opt", MANY | {"ffn_dim": 48}),
    "OPT, narrow embeddings": ("opt", MANY | {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "Bloom": ("bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "Falcon": ("falcon", MANY),
    "Falcon, ALiBi": ("falcon", MANY | {"alibi": True, "new_decoder_architecture": False}),
    "MPT": ("mpt", {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT}),
    "OLMo": ("olmo", PLAIN | {"clip_qkv": 3.0}),
    "OLMo 2": ("olmo2", PLAIN),
    "OLMo 3": ("olmo3", PLAIN | MIXED),
    "OLMoE": ("olmoe", MANY | {"num_experts": 4, "num_experts_per_tok": 2}),
    "Granite": (
        "granite", PLAIN | {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5,
        "attention_multiplier": 0.2},
    ),
    "Granite MoE": ("granitemoe", PLAIN | {"logits_scaling": 8.0, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "Granite 4 (hybrid)": (
        "granitemoehybrid", PLAIN | MAMBA2 | {"layer_types": ["mamba", "attention"], "num_local_experts": 4,
        "num_experts_per_tok": 2, "shared_intermediate_size": 48, "logits_scaling": 8.0},
    ),
    "Cohere": ("cohere", PLAIN | {"logit_scale": 0.0625}),
    "Cohere 2": ("cohere2", PLAIN | MIXED | {"logit_scale": 0.0625, "head_dim": 8}),
    "StableLM": ("stablelm", PLAIN),
    "Starcoder2": ("starcoder2", PLAIN | WINDOW),
    "Mixtral": ("mixtral", PLAIN | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Qwen2-MoE": ("qwen2_moe", PLAIN | EXPERTS | {"shared_expert_intermediate_size": 24}),
    "Qwen3-MoE": ("qwen3_moe", PLAIN | EXPERTS | {"head_dim": 8}),
    "Qwen3-Next": ("qwen3_next", PLAIN | EXPERTS | LINEAR | {"shared_expert_intermediate_size": 24}),
    "Qwen3.5 (text)": ("qwen3_5_text", PLAIN | LINEAR),
    "SmolLM3": ("smollm3", PLAIN | {"no_rope_layers": [1, 0]}),
    "GLM": ("glm", PLAIN | {"head_dim": 8}),
    "GLM-4": ("glm4", PLAIN | {"head_dim": 8}),
    "Helium": ("helium", PLAIN | {"head_dim": 8}),
    "Nemotron": ("nemotron", PLAIN),
    "EXAONE 4": ("exaone4", PLAIN | MIXED | {"sliding_window_pattern": 2}),
    "ERNIE 4.5": ("ernie4_5", PLAIN | {"head_dim": 8}),
    "Seed-OSS": ("seed_oss", PLAIN | {"head_dim": 8}),
    "Arcee": ("arcee", PLAIN),
    "Hunyuan": ("hunyuan_v1_dense", PLAIN | {"head_dim": 8}),
    "Apertus": ("apertus", PLAIN),
    "BioGPT": ("biogpt", MANY),
    "DeepSeek-V3": ("deepseek_v3", PLAIN | LATENT),
    "GPT-OSS": ("gpt_oss", PLAIN | MIXED | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "Llama 4 (text)": (
        "llama4_text", PLAIN | {"head_dim": 8, "num_local_experts": 4, "intermediate_size_mlp": 48,
        "attention_chunk_size": 4, "interleave_moe_layer_step": 2, "no_rope_layers": [1, 0]},
    ),
    "DiffLlama": ("diffllama", PLAIN),
    "Lfm2": ("lfm2", PLAIN | {"layer_types": ["conv", "full_attention"]}),
    "Mamba": ("mamba", STATES),
    "Mamba 2": ("mamba2", STATES | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}),
    "Jamba": (
        "jamba", PLAIN | {"mamba_d_state": 8, "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4, "use_mamba_kernels": False},
    ),
    "Bamba": ("bamba", PLAIN | MAMBA2 | {"attn_layer_indices": [1]}),
    "Falcon-H1": (
        "falcon_h1", PLAIN | MAMBA2 | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.2, "embedding_multiplier": 3.0},
    ),
    "RecurrentGemma": (
        "recurrent_gemma", {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 4, "lru_width": 32, "attention_window_size": 8,
        "logits_soft_cap": 3.0},
    ),
    "RWKV": ("rwkv", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "context_length": CONTEXT}),
    "xLSTM": ("xlstm", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4}),
    "XLNet": ("xlnet", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
}  # fmt: skip
WITHOUT_GENERATE = {"RWKV", "xLSTM"}  # whose `generate` fails or differs from full passes


@dataclass(frozen=True)
class Outcome:
    """What came of one architecture.

    Attributes:
        refused: why, in one line; empty where it is read.
        cache, pads: how it is decoded, as in `Reading`.
        difference: the largest one [relative].
        same_text: the most likely completions are the model's own.
    """

    refused: str = ""
    cache: str = ""
    pads: bool = False
    difference: float = 0.0
    same_text: bool = True

    @property
    def agrees(self) -> bool:
        return not self.refused and self.same_text and self.difference <= TOLERANCE

    def row(self, name: str) -> str:
        """Of the table, without the difference."""
        if self.refused:
            return f"| {name} | refused: {self.refused} | - | - |"
        return f"| {name} | {'agrees' if self.agrees else 'differs'} | {self.cache} | {'yes' if self.pads else 'no'} |"


def made(name: str) -> Any:
    """The model of this name in float64, the same each time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval().double()
    model.set_experts_implementation("eager")  # the other one has no float64
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(SCALE)
    return model


def outcome(name: str) -> Outcome:
    model = made(name)
    try:
        policy = CausalLM(copy.deepcopy(model), compute_dtype="float64")
    except UsageError as refusal:
        return Outcome(refused=str(refusal))
    policy.ledger = Ledger(Budget(updates=1))
    differences = [log_probs_off(policy, model), samples_off(policy, model), *dpo_off(policy, model)]
    differences.append(log_probs_off(policy.frozen_copy(), model))  # after a pass with gradients
    prompts = [list(prompt) for prompt in PROMPTS]
    ours = texts(complete(policy, prompts, None, limit=NEW, end_token=VOCABULARY, batch=8))
    same = ours == [most_likely(model, prompt, name not in WITHOUT_GENERATE) for prompt in PROMPTS]
    return Outcome("", policy.reading.cache, policy.reading.pads, max(differences), same)


def texts(completions: Any) -> list[list[int]]:
    return [row[mask].tolist() for row, mask in zip(completions.tokens, completions.mask, strict=True)]


def own_log_probs(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """`[T]` by a full pass over this row alone."""
    row = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        found = model(input_ids=row, use_cache=False).logits[0].log_softmax(-1)
    return found[len(prompt) - 1 : -1].gather(1, torch.tensor(response).unsqueeze(1)).squeeze(1).double()


def most_likely(model: Any, prompt: Sequence[int], by_generate: bool) -> list[int]:
    if by_generate:
        row = torch.tensor([prompt])
        asked = {"attention_mask": torch.ones_like(row), "max_new_tokens": NEW, "do_sample": False}
        return model.generate(input_ids=row, **asked)[0, len(prompt) :].tolist()
    said: list[int] = []
    with torch.no_grad():
        while len(said) < NEW:
            row = torch.tensor([[*prompt, *said]])
            said.append(int(model(input_ids=row, use_cache=False).logits[0, -1].argmax()))
    return said


def off(found: Tensor, right: Tensor) -> float:
    """The largest difference, as a share of the largest number; infinite where one is not a number."""
    return float(((found - right).abs().max() / right.abs().max()).nan_to_num(nan=float("inf")))


def pairs() -> Rollout:
    """Four responses to two prompts, all of unequal length."""
    prompts = [list(PROMPTS[group]) for group in GROUPS]
    return as_rollout(prompts, as_completions([list(row) for row in RESPONSES], 0, CPU), SCORES, GROUPS)


def log_probs_off(policy: CausalLM, model: Any) -> float:
    rollout = pairs()
    with torch.no_grad():
        found = policy.distribution.log_prob(policy.outputs(rollout), rollout.actions)[rollout.mask]
    right = [own_log_probs(model, PROMPTS[group], row) for group, row in zip(GROUPS, RESPONSES, strict=True)]
    return off(found.double(), torch.cat(right))


def samples_off(policy: CausalLM, model: Any) -> float:
    prompts = [list(PROMPTS[group]) for group in (0, 0, 1)]
    uniforms = torch.rand(3, NEW, generator=torch.Generator().manual_seed(0))
    drawn = complete(policy, prompts, uniforms, limit=NEW, end_token=VOCABULARY, batch=8)
    right = [own_log_probs(model, *row) for row in zip(prompts, texts(drawn), strict=True)]
    return off(drawn.log_probs[drawn.mask].double(), torch.cat(right))


def dpo_off(policy: CausalLM, model: Any) -> tuple[float, float]:
    """The loss and the gradient of all parameters, against TRL's loss on the model's own forward pass."""
    rollout = pairs()
    reference = -4 * torch.rand(rollout.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    learner: Any = polobench.make("dpo", task="probe-bandit", loss="sigmoid", beta=BETA)
    ours = sum(learner.losses(policy, [rollout.attach(reference_log_probs=reference)], Tally()))
    theirs = trl_loss(model, (reference * rollout.mask).sum(1))
    gradients = []
    for loss, parameters in ((ours, policy.actor_parameters), (theirs, list(model.parameters()))):
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    return off(ours.detach(), theirs.detach()), off(*gradients)


def trl_loss(model: Any, reference: Tensor) -> Tensor:
    from trl.trainer.dpo_trainer import DPOTrainer

    def forward(input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **rest: Any) -> Any:
        lengths = attention_mask.sum(1).tolist()
        whole = [model(input_ids=row[None, :n], use_cache=False).logits[0] for row, n in zip(input_ids, lengths)]
        logits = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)[:, :-1]  # rows read alone
        targets = labels[:, 1:].clamp(min=0)
        found = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1) * (labels[:, 1:] >= 0)
        zeros = torch.zeros_like(found)
        return SimpleNamespace(log_probs=found, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0)

    order = torch.tensor([0, 3, 1, 2])  # chosen first
    rows = [torch.tensor([*PROMPTS[GROUPS[row]], *RESPONSES[row]]) for row in order.tolist()]
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    before = torch.tensor([len(PROMPTS[GROUPS[row]]) for row in order.tolist()]).unsqueeze(1)
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    columns = torch.arange(tokens.shape[1])
    chosen, rejected = reference[order].chunk(2)
    inputs = {
        "input_ids": tokens, "attention_mask": (columns < lengths).long(),
        "completion_mask": ((columns >= before) & (columns < lengths)).long(),
        "ref_chosen_logps": chosen, "ref_rejected_logps": rejected,
    }  # fmt: skip
    settings = trainer(
        ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=["sigmoid"],
        loss_weights=[1.0], beta=BETA, label_smoothing=0.0, use_weighting=False, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    loss: Tensor = DPOTrainer._compute_loss(settings, forward, inputs, False)
    return loss


HEAD = """# Architectures

Which models of transformers polobench reads right. Each row is a tiny model of that architecture with random weights,
in float64. "Agrees" means: log-probabilities, sampled ones and those of given responses of unequal length, the loss of
DPO and its gradient are those of the model's own forward pass (the loss and gradient by TRL's code) to {tolerance:g}
relative, and the most likely completions are the model's own. What is refused, is refused when the model loads.

"Cache" says how tokens are decoded: into a cache that is allocated once, into the model's own, or by reading the whole
row again for each token, which is slow for long completions. "Padded" says whether prompts of unequal length are read
side by side. "Native" is a pass of our own, on a cache allocated once. The self-test at load finds these out. A model
may be read in another way in float32.

`python tests/architectures.py` writes this file; tests/test_architectures.py checks it.

| architecture | outcome | cache | padded | largest difference |
|---|---|---|---|---|
"""


def main() -> None:
    transformers.logging.set_verbosity_error()
    lines = []
    for name in ARCHITECTURES:
        found = outcome(name)
        lines.append(f"{found.row(name)} {'-' if found.refused else f'{found.difference:.0e}'} |")
        print(lines[-1], flush=True)
    TABLE.write_text(HEAD.format(tolerance=TOLERANCE) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
