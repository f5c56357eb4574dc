"""Models and tokenizers small enough to be made on the spot."""

from __future__ import annotations

from typing import Any

import torch

WIDTH, LAYERS, HEADS = 64, 2, 4
END = "<end>"


def character_tokenizer(characters: str) -> Any:
    """A tokenizer of transformers with a token a character, and an end token with number 0, which also pads."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([END, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def byte_tokenizer() -> Any:
    """A tokenizer of transformers with a token a byte of UTF-8, and an end token with number 0, which also pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shown_bytes = sorted(pre_tokenizers.ByteLevel.alphabet())  # a printable character for each of the 256
    vocabulary = {token: number for number, token in enumerate([END, *shown_bytes])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def tiny_gpt2(vocabulary: int, context: int, seed: int) -> Any:
    """A GPT-2 of 2 layers, 64 wide, with initial weights from `seed`; without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary, n_positions=context, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, attn_pdrop=0.0,
        embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()
