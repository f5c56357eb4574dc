"""Language tasks: a completion is an episode of the token MDP, and samples are completion tokens.

`LanguageTask` is what all of them share: a model, prompts in tokens, fixed pairs, and what is measured of a policy. All
measures are at temperature 1, so that a policy's own temperature, which changes no skill, changes none of them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from polobench.core.budget import Budget, Ledger
from polobench.core.device import TORCH_COMPILER
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import Policy, unmetered
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import Completions, complete
from polobench.policies.pretrained import ModelSource, Pretrained, load, locate
from polobench.tasks.fields import Prompt
from polobench.tasks.pairs import Columns, PairSet, accuracies, implicit_accuracy, margin
from polobench.tasks.text import TextCodec, as_rollout, shown

Tokens = list[int]

SHOWN_PROMPTS = 8
BEGIN_BATCH = 16  # rows through the model before there is a policy, or as many as generation_batch if that is fewer
MEMORY = ("micro_batch", "n_envs", "generation_batch")  # hyper-parameters that say how much is needed
PROBE_SEED = 20_000


class LanguageTask(Task):
    """A causal language model and what it is asked.

    Args:
        name: the task's name.
        model: a name as `polobench.policies.pretrained.locate` takes it, or a function that makes one.
        max_new_tokens: the longest completion.
        unit, target, floor: as of every task; a floor of NaN is measured: the starting checkpoint's own evaluation.

    Raises:
        UsageError, Unavailable: as `locate`.
    """

    final_episodes = 2500
    evaluation_episodes = 500
    has_checkpoint = True
    has_tuning_split = False
    libraries = ("transformers.models.gpt2.modeling_gpt2", TORCH_COMPILER)
    lengthy = "max_new_tokens"  # the argument that says how long texts may be

    def __init__(
        self,
        name: str,
        model: str | Callable[[], Pretrained],
        *,
        max_new_tokens: int,
        unit: str,
        target: float | None = None,
        floor: float = math.nan,
    ) -> None:
        self.name, self.unit, self.target, self.floor = name, unit, target, floor
        self.horizon = max_new_tokens
        self._source = locate(model) if isinstance(model, str) else model

    def identity(self) -> dict[str, str]:
        model = {"model": self._source.identity()} if isinstance(self._source, ModelSource) else {}
        return super().identity() | model

    def begin(self) -> None:
        self._loaded: Pretrained | None = self._load()
        self.codec = TextCodec(self._loaded.tokenizer, self._loaded.end_tokens, self._loaded.embedded_tokens)
        self.notes: Counter[str] = Counter()
        self.pairs: dict[str, PairSet] = {}
        self._first_columns: dict[str, dict[str, list[float]]] = {}
        self._finished_returns: list[float] = []
        self._queue: list[int] = []
        self._passes = 0
        self._prepare(self._loaded.context_length)
        rows = min(BEGIN_BATCH, self._rows_at_once or BEGIN_BATCH)
        checkpoint = CausalLM(self._loaded.model, generation_batch=rows, reading=self._loaded.reading)
        checkpoint = checkpoint.to(self.device)
        checkpoint.ledger = Ledger(Budget(updates=1))
        with torch.no_grad():
            self._prepare_pairs(checkpoint)
            if math.isnan(self.floor):
                self.floor = self.floor_of(checkpoint)

    def floor_of(self, checkpoint: CausalLM) -> float:
        """What the starting checkpoint reaches: score 0."""
        self._initial_policy = checkpoint
        floor = self.evaluate(checkpoint, 0, range(self.final_episodes)).mean
        self._first_columns = {}  # the run's own reference may have another type
        return floor

    @contextmanager
    def _at_temperature_1(self, policy: CausalLM) -> Iterator[None]:
        """The policy and its reference."""
        with policy.at_temperature(1), language_policy(self.reference_policy()).at_temperature(1):
            yield

    def memory_advice(self, hyperparameters: Hyperparameters) -> str:
        names = [name for name in MEMORY if hasattr(hyperparameters, name)]
        return f"lower {', '.join(names)} or the task's {self.lengthy}"

    def _load(self) -> Pretrained:
        return load(self._source) if isinstance(self._source, ModelSource) else self._source()

    @abstractmethod
    def _prepare(self, context_length: int) -> None:
        """Turn the task's texts into tokens; what does not fit is named, or left out and counted in `notes`."""

    @abstractmethod
    def _prepare_pairs(self, checkpoint: CausalLM) -> None:
        """Fill `pairs`: the fixed ones by which every policy is measured."""

    def close(self) -> None:
        self._loaded = None

    def drain_episode_returns(self) -> list[float]:
        drained, self._finished_returns = self._finished_returns, []
        return drained

    def build_policy(self, hyperparameters: Hyperparameters, *, critic: bool) -> Policy:
        hp = hyperparameters
        return self._policy(hp.temperature, hp.compute_dtype, critic, hp.generation_batch)

    def build_floor_policy(self) -> Policy:
        return self._policy()

    def _policy(
        self, temperature: float = 1.0, dtype: str = "float32", critic: bool = False, generation_batch: int = 64
    ) -> CausalLM:
        """The model that `begin` loaded goes into the first policy, so that it is not twice in memory."""
        loaded, self._loaded = self._loaded or self._load(), None
        generator = self.rng.torch("policy")
        return CausalLM(loaded.model, temperature, dtype, critic, generator, generation_batch, loaded.reading)

    def _next_prompts(self, count: int, of: int) -> list[int]:
        """Numbers of training prompts, all `of` them in an order that is drawn anew for every pass."""
        while len(self._queue) < count:
            self._queue += self.rng.numpy("prompts", self._passes).permutation(of).tolist()
            self._passes += 1
        taken, self._queue = self._queue[:count], self._queue[count:]
        return taken

    def _complete(
        self,
        policy: Policy,
        prompts: Sequence[Tokens],
        uniforms: np.ndarray | None,
        before_step: Callable[[int], None] = lambda live: None,
    ) -> Completions:
        language = language_policy(policy)
        drawn = None if uniforms is None else torch.from_numpy(uniforms)
        if drawn is not None and self.device.type == "mps":  # which has no float64
            drawn = drawn.float()
        return complete(
            language,
            prompts,
            None if drawn is None else drawn.to(self.device),
            limit=self.horizon,
            end_token=self.codec.end_token,
            end_tokens=self.codec.end_tokens,
            batch=language.generation_batch,
            before_step=before_step,
        )

    def _texts(self, completions: Completions) -> list[str]:
        return [self.codec.text(row[mask].tolist()) for row, mask in zip(completions.tokens, completions.mask)]

    def _measures_of_samples(self, policy: CausalLM, sampled: Rollout) -> dict[str, float]:
        """Length, entropy and KL to the starting checkpoint over sampled completions.

        Entropy and `kl` are those of the distributions [nats a token]; `response_kl` is the mean of
        log(pi / pi_0) of whole completions [nats a completion].
        """
        reference, distribution = language_policy(self.reference_policy()), policy.distribution
        sums = dict.fromkeys(("entropy", "kl", "log_ratio"), 0.0)
        with torch.no_grad(), unmetered(reference):
            for part in sampled.split(policy.generation_batch):
                outputs, fixed = policy.outputs(part), reference.outputs(part)
                sums["entropy"] += float((distribution.entropy(outputs) * part.mask).sum())
                sums["kl"] += float((distribution.kl(outputs, fixed) * part.mask).sum())
                log_ratios = distribution.log_prob(outputs, part.actions) - distribution.log_prob(fixed, part.actions)
                sums["log_ratio"] += float((log_ratios * part.mask).cpu().double().sum())
        response_kl = sums.pop("log_ratio") / len(sampled.mask)
        means = {name: value / sampled.n_samples for name, value in sums.items()}
        return means | {"response_kl": response_kl, "completion_length": sampled.mean_length}

    def _pair_columns(self, policy: CausalLM) -> dict[str, Columns]:
        return {name: pairs.columns(policy, policy.generation_batch) for name, pairs in self.pairs.items()}

    def _measures_of_pairs(self, policy: CausalLM, found: Mapping[str, Columns]) -> dict[str, float]:
        """Accuracies and margin on the fixed pairs, of which the policy's columns were `found`."""
        if not self._first_columns:
            self._first_columns = self._columns_of_checkpoint(policy, found)
        measures: dict[str, float] = {}
        for name, columns in found.items():
            summed, normalised = accuracies(columns)
            measures |= {f"{name}_accuracy": summed, f"{name}_accuracy_normalised": normalised}
            before = self._first_columns[name]
            measures |= {f"{name}_margin": margin(columns, before)}
            measures |= {f"{name}_accuracy_implicit": implicit_accuracy(columns, before)}
        return measures

    def _columns_of_checkpoint(self, policy: CausalLM, found: Mapping[str, Columns]) -> dict[str, Columns]:
        """Those of the policy, where it still is the checkpoint: to read all pairs again is dear with a large model."""
        reference = language_policy(self.reference_policy())
        if reference.equals(policy):
            return dict(found)
        with unmetered(reference):
            return self._pair_columns(reference)

    def _snapshot(
        self, policy: CausalLM, prompts: Sequence[Prompt], tokens: Sequence[Tokens], rewards: Callable[..., Any]
    ) -> dict[str, Any]:
        """The greedy answers to the first prompts, and measures of sampled answers."""
        few = list(tokens[:SHOWN_PROMPTS])
        if not few:
            return {"notes": dict(self.notes)}
        texts = self._texts(self._complete(policy, few, None))
        said = zip(prompts, texts, rewards([shown(prompt) for prompt in prompts[: len(few)]], texts))
        uniforms = SeedAxes(PROBE_SEED).numpy("snapshot").random((len(few), self.horizon))
        with self._at_temperature_1(policy):
            drawn = as_rollout(few, self._complete(policy, few, uniforms), [0.0] * len(few), range(len(few)))
            measures = self._measures_of_samples(policy, drawn)
        return {
            "completions": [{"prompt": shown(p), "completion": text, "reward": reward} for p, text, reward in said],
            "measures": {"kl_to_reference": measures.pop("kl")} | measures,
            "notes": dict(self.notes),
        }


def language_policy(policy: Policy) -> CausalLM:
    """The policy as a language model.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(policy, CausalLM):
        raise UsageError(f"a language task needs a causal language model as its policy, not {type(policy).__name__}")
    return policy
