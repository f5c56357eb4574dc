"""Language models by name, loaded: `smollm2`, a folder, a GGUF file, or an id of the Hugging Face hub.

Nothing here runs code of a model's author, nor reads pickled weights.
"""

from __future__ import annotations

import inspect
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from polobench.core.errors import PoloError, Unavailable, UsageError, first_line
from polobench.core.kept import kept
from polobench.policies.model_files import INSTALL, ModelSource, cached_revision, conversion, converted, locate

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from polobench.policies.reading import Reading

__all__ = ["ModelSource", "Pretrained", "load", "locate", "stated_end_tokens", "stated_length"]

LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")


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
            return _load(source, str(converted(source)) if source.kind == "gguf" else source.location)
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
    copy = conversion(source) if source.kind == "gguf" else None
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
        options["revision"] = cached_revision(source) or None  # what `identity` names
    config = AutoConfig.from_pretrained(place, **options)
    _refuse(source, _faults_of_config(config))
    _drop_dropout(config)
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        place, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
    )
    model, info = loaded
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.eval()
    _refuse(source, _faults(model, tokenizer, sorted(info["missing_keys"])))
    if tokenizer.pad_token_id is None or int(tokenizer.pad_token_id) >= model.get_input_embeddings().weight.shape[0]:
        tokenizer.pad_token = tokenizer.eos_token
    length = stated_length(model.config) or tokenizer.model_max_length
    context = min(int(length), _rotary_limit(model.config), sys.maxsize)  # a tokenizer without a limit says 1e30
    return Pretrained(model, tokenizer, context, stated_end_tokens(model), _tested(source, model))


def _refuse(source: ModelSource, faults: Iterator[str]) -> None:
    for fault in faults:
        raise UsageError(f"model {source.name!r}: {fault}")


def _faults_of_config(config: PreTrainedConfig) -> Iterator[str]:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        yield f"it is no causal language model, but of type {config.model_type!r}"
    if getattr(config, "quantization_config", None) is not None:
        yield "it is quantized; its weights must be floating-point, or a GGUF file"


def _faults(model: Any, tokenizer: PreTrainedTokenizerBase, missing: list[str]) -> Iterator[str]:
    """What makes a loaded model of no use; `missing` are weights that were drawn at random."""
    import torch

    if tokenizer.eos_token_id is None:
        yield "the tokenizer has no EOS token; without one no answer ends"
    if hasattr(model, "peft_config"):
        yield "it comes with an adapter (merge it into its model first)"
    if missing:
        yield f"the weights lack {missing[0]!r} and {len(missing) - 1} more"
    embedded = model.get_input_embeddings().weight.shape[0]
    known = max(
        tokenizer.vocab_size, int(tokenizer.eos_token_id) + 1
    )  # added tokens are often neither embedded nor used
    if known > embedded:
        yield f"the tokenizer has {known:,} tokens, the model {embedded:,}"
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            yield f"weight {name!r} holds numbers that are not finite"
    with torch.no_grad():
        first, same = model(torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1]])).logits[:, 0]
    if not first.isfinite().all():
        yield "it gives logits that are not finite"
    if not torch.allclose(first, same, rtol=0.0, atol=1e-5 * float(first.abs().max())):
        yield "it is no causal language model: its logits depend on later tokens"


def stated_end_tokens(model: PreTrainedModel) -> tuple[int, ...]:
    """The end tokens of a model's generation config: none, one or several."""
    stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return tuple(stated) if isinstance(stated, (list, tuple)) else () if stated is None else (int(stated),)


def _tested(source: ModelSource, model: PreTrainedModel) -> Reading:
    """What the self-test finds, which is kept by the bytes of the model and of the code."""
    import torch
    import transformers

    from polobench.policies import native, reading

    code = map(inspect.getsource, (reading, native))
    decided_by = [source.identity(), torch.__version__, transformers.__version__, *code]
    measure = lambda: asdict(reading.self_test(model, source.name))  # noqa: E731
    return kept("readings", decided_by, measure, lambda found: reading.Reading(**found))


def _drop_dropout(config: PreTrainedConfig) -> None:
    """Set each probability of dropping to 0: policies are sampled and differentiated by the same function."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_diff_dict"):  # a configuration within the configuration
            _drop_dropout(value)
        elif "drop" in name and type(value) in (int, float):  # a flag is neither
            setattr(config, name, type(value)(0))


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
