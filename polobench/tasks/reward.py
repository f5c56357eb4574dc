"""Tasks with a reward: any function of prompts and completions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polobench.core.errors import UsageError, first_line
from polobench.core.policy import Policy
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Evaluation
from polobench.policies.causal_lm import CausalLM
from polobench.policies.pretrained import Pretrained
from polobench.tasks.language import PROBE_SEED, LanguageTask, Tokens, language_policy
from polobench.tasks.pairs import PairSet
from polobench.tasks.text import as_rollout

Reward = Callable[[list[str], list[str]], Sequence[float]]

PROBE_PROMPTS, PROBE_SAMPLES = 48, 8


class RewardTask(LanguageTask):
    """Completions are rewarded by a function of the texts, the same one or a stricter one on held-out prompts.

    The floor is the starting checkpoint's mean reward, sampled. The fixed pairs are completions that the checkpoint
    gave to held-out prompts and that differ in reward.

    Args:
        name, model, max_new_tokens, unit, target, floor: as `LanguageTask`.
        train_prompts: texts.
        heldout_prompts: other texts; None evaluates on the training prompts.
        reward: gives a finite number for each prompt and completion.
        heldout_reward: of the evaluation; the same by default.

    Raises:
        UsageError: no prompt, or one that is in both lists.
    """

    def __init__(
        self,
        name: str,
        model: str | Callable[[], Pretrained],
        train_prompts: Sequence[str],
        heldout_prompts: Sequence[str] | None,
        reward: Reward,
        *,
        max_new_tokens: int,
        heldout_reward: Reward | None = None,
        unit: str = "held-out sampled reward",
        target: float | None = None,
        floor: float = math.nan,
    ) -> None:
        super().__init__(name, model, max_new_tokens=max_new_tokens, unit=unit, target=target, floor=floor)
        self._train_texts = list(train_prompts)
        self._heldout_texts = self._train_texts if heldout_prompts is None else list(heldout_prompts)
        both = set(self._train_texts) & set(self._heldout_texts) if heldout_prompts is not None else set()
        if not self._train_texts or not self._heldout_texts or both:
            wrong = f"prompt {min(both)!r} is both trained on and held out" if both else "it has no prompts"
            raise UsageError(f"task {name!r}: {wrong}")
        self._reward, self._heldout_reward = reward, heldout_reward or reward

    def modules(self) -> set[str]:
        functions = (self._reward, self._heldout_reward, self._source)
        found = {getattr(function, "__module__", None) for function in functions}
        return super().modules() | {name for name in found if name and name.partition(".")[0] != "builtins"}

    def _prepare(self, context_length: int) -> None:
        self._train = [self._fitting(text, context_length) for text in self._train_texts]
        self._heldout = [self._fitting(text, context_length) for text in self._heldout_texts]
        self._calls = 0

    def _fitting(self, text: str, context_length: int) -> Tokens:
        tokens = self.codec.prompt(text)
        if len(tokens) + self.horizon > context_length:
            raise UsageError(
                f"task {self.name!r}: the prompt {text[:40]!r} has {len(tokens)} tokens, which with {self.horizon} new "
                f"ones pass the model's context of {context_length}"
            )
        return tokens

    def _prepare_pairs(self, checkpoint: CausalLM) -> None:
        prompts = range(min(PROBE_PROMPTS, len(self._heldout)))
        rows = [(prompt, sample) for prompt in prompts for sample in range(PROBE_SAMPLES)]
        rollout = self._sampled(checkpoint, SeedAxes(PROBE_SEED), 0, rows)
        if rollout.has_ranking:
            self.pairs = {"heldout": PairSet.of(rollout)}

    def fragments(self, policy: Policy, batch: int, n_steps: int) -> Rollout:
        """Whole completions, as many as `batch` x `n_steps` tokens may hold at their longest; at least one."""
        return self.episodes(policy, max(1, batch * n_steps // self.horizon), 1)

    def episodes(self, policy: Policy, groups: int, size: int) -> Rollout:
        with self.ledger.timing_rollout():
            prompts = self._next_prompts(groups, len(self._train))
            seen: Counter[int] = Counter()
            rows = []
            for prompt in prompts:  # where few prompts come round within one call, their samples are numbered on
                rows += [(prompt, seen[prompt] + sample) for sample in range(size)]
                seen[prompt] += size
            tokens = [self._train[prompt] for prompt, _ in rows]
            uniforms = self._uniforms(self.rng, self._calls, rows)
            self._calls += 1
            completions = self._complete(policy, tokens, uniforms, self.ledger.charge_generated)
            texts = [self._train_texts[prompt] for prompt, _ in rows]
            returns = self._rewards(self._reward, texts, self._texts(completions))
            self.ledger.reward_calls += len(rows)
            self._finished_returns += returns
            return as_rollout(tokens, completions, returns, [index // size for index in range(len(rows))])

    def _uniforms(self, rng: SeedAxes, call: int, rows: Sequence[tuple[int, int]]) -> np.ndarray:
        """`[B, horizon]`, a stream for each (call, prompt, sample) and a number in it for each position."""
        return np.stack([rng.numpy("tokens", call, *row).random(self.horizon) for row in rows])

    def _rewards(self, reward: Reward, prompts: list[str], completions: list[str]) -> list[float]:
        try:
            values = [float(value) for value in reward(prompts, completions)]
        except Exception as error:
            raise UsageError(f"the reward of task {self.name!r} failed: {first_line(error)}") from error
        if len(values) != len(completions):
            raise UsageError(
                f"the reward of task {self.name!r} gave {len(values)} numbers for {len(completions)} completions"
            )
        wrong = next((index for index, value in enumerate(values) if not math.isfinite(value)), None)
        if wrong is not None:
            raise UsageError(
                f"the reward of task {self.name!r} gave {values[wrong]} for the prompt {prompts[wrong][:60]!r} and the "
                f"completion {completions[wrong][:60]!r} (allowed: finite numbers)"
            )
        return values

    def evaluate(self, policy: Policy, seed: int, episodes: int) -> Evaluation:
        language, count = language_policy(policy), len(self._heldout)
        rows = [(index % count, index // count) for index in range(episodes)]
        sampled = self._sampled(language, SeedAxes(seed), 0, rows)
        returns = sampled.returns.cpu().double()
        few = range(min(count, episodes))
        texts = self._texts(self._complete(policy, [self._heldout[index] for index in few], None))
        greedy = self._rewards(self._heldout_reward, [self._heldout_texts[index] for index in few], texts)
        measures = {"greedy_return": sum(greedy) / len(greedy)} | self._measures_of_samples(language, sampled)
        measures = {f"heldout_{name}": value for name, value in measures.items()}
        pairs = self._pair_columns(language)
        measures |= self._measures_of_pairs(language, pairs)
        spread = float(returns.std()) if episodes > 1 else 0.0
        return Evaluation(float(returns.mean()), spread, episodes, measures, pairs)

    def _sampled(self, policy: CausalLM, rng: SeedAxes, call: int, rows: Sequence[tuple[int, int]]) -> Rollout:
        """Completions of held-out prompts; each of `rows` is a prompt's number and a sample's."""
        tokens = [self._heldout[prompt] for prompt, _ in rows]
        completions = self._complete(policy, tokens, self._uniforms(rng, call, rows))
        texts = [self._heldout_texts[prompt] for prompt, _ in rows]
        returns = self._rewards(self._heldout_reward, texts, self._texts(completions))
        return as_rollout(tokens, completions, returns, [prompt for prompt, _ in rows])

    def snapshot(self, policy: Policy) -> dict[str, Any]:
        def rewards(prompts: list[str], texts: list[str]) -> list[float]:
            return self._rewards(self._heldout_reward, prompts, texts)

        return self._snapshot(language_policy(policy), self._heldout_texts, self._heldout, rewards)
