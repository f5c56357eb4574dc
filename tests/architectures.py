"""Tiny models of many architectures, made from configurations, and whether a `CausalLM` reads them as they are.

`python tests/architectures.py` writes docs/architectures.md.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import polobench
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError
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
        "llama", PLAIN | {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "Qwen2": ("qwen2", PLAIN),
    "Qwen3": ("qwen3", PLAIN | {"head_dim": 8}),
    "Gemma": ("gemma", PLAIN | {"head_dim": 8}),
    "Gemma 2": ("gemma2", PLAIN | MIXED | {"head_dim": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0}),
    "Gemma 3 (text)": ("gemma3_text", PLAIN | MIXED | {"head_dim": 8}),
    "Gemma 3n (text)": (
        "gemma3n_text", PLAIN | MIXED | {"head_dim": 8, "num_hidden_layers": 4, "layer_types": MIXED["layer_types"] * 2,
        "num_kv_shared_layers": 2, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8,
        "laurel_rank": 8, "intermediate_size": [48] * 4, "activation_sparsity_pattern": [0.0] * 4, "altup_num_inputs": 2},
    ),
    "Gemma 4 (text)": (
        "gemma4_text", PLAIN | MIXED | {"head_dim": 8, "global_head_dim": 8, "num_hidden_layers": 4,
        "layer_types": MIXED["layer_types"] * 2, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8, "final_logit_softcapping": 3.0},
    ),
    "Mistral, window of 4": ("mistral", PLAIN | WINDOW),
    "Ministral": ("ministral", PLAIN | MIXED | {"head_dim": 8}),
    "Phi": ("phi", MANY),
    "Phi-3": ("phi3", PLAIN),
    "GPT-2": ("gpt2", GPT),
    "GPT-Neo, window of 4": (
        "gpt_neo", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 4,
        "max_position_embeddings": CONTEXT, "attention_types": [[["global", "local"], 1]]},
    ),
    "GPT-NeoX": ("gpt_neox", MANY),
    "GPT-J": ("gptj", GPT | {"rotary_dim": 4}),
    "GPT-BigCode": ("gpt_bigcode", GPT),
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
        "granite", PLAIN | {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
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
    "Persimmon": ("persimmon", MANY),
    "BioGPT": ("biogpt", MANY),
    "XGLM": (
        "xglm", {"vocab_size": VOCABULARY, "d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": CONTEXT},
    ),
    "DeepSeek-V2": ("deepseek_v2", PLAIN | LATENT),
    "DeepSeek-V3": ("deepseek_v3", PLAIN | LATENT),
    "GPT-OSS": ("gpt_oss", PLAIN | MIXED | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "Llama 4 (text)": (
        "llama4_text", PLAIN | {"head_dim": 8, "num_local_experts": 4, "intermediate_size_mlp": 48, "attention_chunk_size": 4,
        "interleave_moe_layer_step": 2, "no_rope_layers": [1, 0]},
    ),
    "DiffLlama": ("diffllama", PLAIN),
    "Lfm2": ("lfm2", PLAIN | {"layer_types": ["conv", "full_attention"]}),
    "Mamba": ("mamba", STATES),
    "Mamba 2": ("mamba2", STATES | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}),
    "Falcon-Mamba": ("falcon_mamba", STATES),
    "Jamba": (
        "jamba", PLAIN | {"mamba_d_state": 8, "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4, "use_mamba_kernels": False},
    ),
    "Bamba": ("bamba", PLAIN | MAMBA2 | {"attn_layer_indices": [1]}),
    "Falcon-H1": ("falcon_h1", PLAIN | MAMBA2 | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.2, "embedding_multiplier": 3.0}),
    "Zamba2": ("zamba2", MANY | {"mamba_d_state": 8, "mamba_headdim": 16, "mamba_ngroups": 1, "n_mamba_heads": 4, "chunk_size": 8}),
    "RecurrentGemma": (
        "recurrent_gemma", {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "lru_width": 32, "attention_window_size": 8, "logits_soft_cap": 3.0},
    ),
    "RWKV": ("rwkv", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "context_length": CONTEXT}),
    "xLSTM": ("xlstm", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4}),
    "Reformer": ("reformer", {"vocab_size": VOCABULARY, "is_decoder": True}),
    "XLNet": ("xlnet", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
}  # fmt: skip
