"""Tasks with a reward: any function of prompts, completions and further columns of the data."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from scipy.special import comb

from polobench.core.errors import UsageError
from polobench.core.policy import Policy
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Evaluation
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import Completions
from polobench.policies.pretrained import Pretrained
from polobench.tasks.fields import brief, prompt_key
from polobench.tasks.language import PROBE_SEED, LanguageTask, Tokens, language_policy
from polobench.tasks.pairs import PairSet
from polobench.tasks.reward_function import (
    GivenPrompt,
    Question,
    Reward,
    RewardFunction,
    described,
    functions_in,
    read_questions,
)
from polobench.tasks.text import as_rollout, shown

PROBE_PROMPTS, PROBE_SAMPLES = 48, 8
PASS_SAMPLES, PASS_AT = 16, {"heldout_pass_1": 1, "heldout_pass_8": 8}
IDLE_BATCHES = 20  # to which the reward applied nowhere


class RewardTask(LanguageTask):
    """Completions are rewarded by a function of the texts, the same one or a stricter one on held-out prompts.

    The floor is the starting checkpoint's mean reward, greedy. The fixed pairs are completions that the checkpoint
    gave to held-out prompts and that differ in reward.

    A completion to which the reward does not apply is left out of its group and counted in the notes; so is one that
    stays behind alone in a group. An evaluation is the mean over the others.

    Args:
        name, model, max_new_tokens, unit, target, floor: as `LanguageTask`.
        train_prompts: texts, lists of messages, or rows: mappings with a `prompt` and further columns.
        heldout_prompts: other prompts; None evaluates on the training prompts, which the default unit says.
        tuning_prompts: again others, on which settings are chosen (`for_tuning`); as many as held-out ones.
        reward: gives a finite number, or None, for each completion; see `reward_function`.
        heldout_reward: of the evaluation; the same by default.
        right_from: the reward from which on a completion counts as right, for pass@k; None where none does.

    Raises:
        UsageError: no prompt, one that is in two lists whatever its blanks, or a reward whose signature does not fit.
    """

    sampled_prompts = 200  # held-out ones to which an evaluation samples answers
    pass_prompts = 500  # held-out ones of pass@k

    def __init__(
        self,
        name: str,
        model: str | Callable[[], Pretrained],
        train_prompts: Sequence[GivenPrompt],
        heldout_prompts: Sequence[GivenPrompt] | None,
        reward: Reward,
        *,
        tuning_prompts: Sequence[GivenPrompt] = (),
        max_new_tokens: int,
        heldout_reward: Reward | None = None,
        unit: str = "",
        right_from: float | None = None,
        target: float | None = None,
        floor: float = math.nan,
    ) -> None:
        unit = unit or ("greedy reward on training prompts" if heldout_prompts is None else "held-out greedy reward")
        super().__init__(name, model, max_new_tokens=max_new_tokens, unit=unit, target=target, floor=floor)
        try:
            self._train = read_questions(train_prompts)
            self._heldout = self._train if heldout_prompts is None else read_questions(heldout_prompts)
            self._tuning = read_questions(tuning_prompts) if tuning_prompts else []
            self.has_tuning_split = bool(self._tuning)
            if heldout_prompts is not None:
                _refuse_common(self._train, self._heldout, "trained on and held out")
            _refuse_common(self._train, self._tuning, "trained on and tuned on")
            _refuse_common(self._heldout, self._tuning, "held out and tuned on")
            self._reward = RewardFunction(reward, tuple(self._train[0].columns))
            self._heldout_reward = RewardFunction(heldout_reward or reward, tuple(self._heldout[0].columns))
            self._right_from = right_from
            self._data = _digest(self._train, self._heldout, self._tuning)
            self.final_episodes = min(self.final_episodes, len(self._heldout))
            self.evaluation_episodes = min(self.evaluation_episodes, self.final_episodes)
        except UsageError as error:
            raise UsageError(f"task {name!r}: {error}") from None

    def for_tuning(self) -> Self:
        tuning = super().for_tuning()
        tuning._heldout = self._tuning
        return tuning

    def identity(self) -> dict[str, str]:
        rewards = described([self._reward.function, self._heldout_reward.function])
        how = f"{rewards}, right from {self._right_from}, {self.horizon} tokens"
        return super().identity() | {"data": self._data, "reward": how}

    def modules(self) -> set[str]:
        deciding = (self._reward.function, self._heldout_reward.function, self._source)
        found = {getattr(function, "__module__", None) for given in deciding for function in functions_in(given)}
        return super().modules() | {name for name in found if name and name.partition(".")[0] != "builtins"}

    def _prepare(self, context_length: int) -> None:
        self._train_tokens = [self._fitting(question, context_length) for question in self._train]
        self._heldout_tokens = [self._fitting(question, context_length) for question in self._heldout]
        self._calls = 0

    def _fitting(self, question: Question, context_length: int) -> Tokens:
        tokens = self.codec.prompt(question.prompt)
        if len(tokens) + self.horizon > context_length:
            raise UsageError(
                f"task {self.name!r}: the prompt {shown(question.prompt)[:40]!r} has {len(tokens)} tokens, which with "
                f"{self.horizon} new ones pass the model's context of {context_length}"
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
        for _ in range(IDLE_BATCHES):
            rollout = self._episodes(policy, groups, size)
            if rollout is not None:
                return rollout
        raise UsageError(f"the reward of task {self.name!r} applied to nothing in {IDLE_BATCHES} batches in a row")

    def _episodes(self, policy: Policy, groups: int, size: int) -> Rollout | None:
        with self.ledger.timing_rollout():
            prompts = self._next_prompts(groups, len(self._train))
            seen: Counter[int] = Counter()
            rows = []
            for prompt in np.repeat(prompts, size).tolist():  # one that comes round again has its samples numbered on
                rows.append((prompt, seen[prompt]))
                seen[prompt] += 1
            tokens = [self._train_tokens[prompt] for prompt, _ in rows]
            uniforms = self._uniforms(self.rng, self._calls, rows)
            self._calls += 1
            completions = self._complete(policy, tokens, uniforms, self.ledger.charge_generated)
            rewards = self._training_rewards([prompt for prompt, _ in rows], completions)
            self.ledger.reward_calls += len(rows)
            return self._rewarded(tokens, completions, rewards, size)

    def _training_rewards(self, prompts: Sequence[int], completions: Completions) -> list[float | None]:
        """Of completions of the training prompts of these numbers."""
        return self._rewards(self._reward, [self._train[prompt] for prompt in prompts], self._texts(completions))

    def _rewarded(
        self, tokens: Sequence[Tokens], completions: Completions, rewards: list[float | None], size: int
    ) -> Rollout | None:
        """The completions to which the reward applies, where their group has more than one; None if there are none."""
        groups = [index // size for index in range(len(tokens))]
        applied = Counter(group for group, value in zip(groups, rewards) if value is not None)
        alone = {group for group, count in applied.items() if count < min(size, 2)}
        returns = [None if group in alone else value for group, value in zip(groups, rewards)]
        left_out = {"the reward does not apply": rewards.count(None), "alone in its group, others left out": len(alone)}
        self.notes.update({reason: count for reason, count in left_out.items() if count})
        self._finished_returns += [value for value in returns if value is not None]
        numbers = {group: number for number, group in enumerate(sorted(applied.keys() - alone))}
        return _applied(tokens, completions, returns, [numbers.get(group, 0) for group in groups])

    def _uniforms(self, rng: SeedAxes, call: int, rows: Sequence[tuple[int, int]]) -> np.ndarray:
        """`[B, horizon]`: a stream per (call, prompt, sample), a number per position."""
        return np.stack([rng.numpy("tokens", call, *row).random(self.horizon) for row in rows])

    def _rewards(
        self, reward: RewardFunction, questions: Sequence[Question], completions: Sequence[str]
    ) -> list[float | None]:
        try:
            return reward(questions, completions)
        except UsageError as error:
            raise UsageError(f"the reward of task {self.name!r} {error}") from error

    def evaluate(self, policy: Policy, seed: int, episodes: range) -> Evaluation:
        """Greedy returns of these prompts, and measures of sampled answers to the first ones and of the pairs."""
        language = language_policy(policy)
        own_temperature = language.temperature
        with self._at_temperature_1(language):
            returns = self._greedy_returns(language, episodes)
            spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
            complete = tuple(returns) if len(returns) == len(self._heldout[episodes.start : episodes.stop]) else ()
            evaluation = Evaluation(float(np.mean(returns)), spread, len(returns), returns=complete)
            if episodes.start > 0:
                return evaluation
            rows = [(prompt, 0) for prompt in episodes[: self.sampled_prompts] if prompt < len(self._heldout)]
            sampled = self._sampled(language, SeedAxes(seed), 0, rows)
            measures = {"sampled_return": float(sampled.returns.cpu().double().mean())}
            measures |= self._measures_of_samples(language, sampled)
            if own_temperature != 1:
                with language.at_temperature(own_temperature):
                    measures["own_return"] = float(self._sampled(language, SeedAxes(seed), 0, rows).returns.mean())
            measures = {f"heldout_{name}": value for name, value in measures.items()}
            pairs = self._pair_columns(language)
            return replace(evaluation, measures=measures | self._measures_of_pairs(language, pairs), pairs=pairs)

    def _greedy_returns(self, policy: CausalLM, episodes: range) -> list[float]:
        asked = slice(episodes.start, episodes.stop)
        texts = self._texts(self._complete(policy, self._heldout_tokens[asked], None))
        given = [
            value for value in self._rewards(self._heldout_reward, self._heldout[asked], texts) if value is not None
        ]
        if not given:
            raise UsageError(f"the reward of task {self.name!r} applies to none of {len(texts)} held-out completions")
        return given

    def measures_at_ends(self, policy: Policy, seed: int) -> dict[str, float]:
        """pass@k: the chance that one of k sampled completions is right, mean over prompts."""
        if self._right_from is None:
            return {}
        language, prompts = language_policy(policy), range(min(self.pass_prompts, len(self._heldout)))
        rows = [(prompt, sample) for prompt in prompts for sample in range(PASS_SAMPLES)]
        with language.at_temperature(1):
            tokens = [self._heldout_tokens[prompt] for prompt, _ in rows]
            texts = self._texts(self._complete(language, tokens, self._uniforms(SeedAxes(seed), 1, rows)))
        given = self._rewards(self._heldout_reward, [self._heldout[prompt] for prompt, _ in rows], texts)
        right = np.array([value is not None and value >= self._right_from for value in given])
        counts = right.reshape(-1, PASS_SAMPLES).sum(1)
        return {name: pass_at(k, counts, PASS_SAMPLES) for name, k in PASS_AT.items()}

    def _sampled(self, policy: CausalLM, rng: SeedAxes, call: int, rows: Sequence[tuple[int, int]]) -> Rollout:
        """Completions of held-out prompts; each of `rows` is a prompt's number and a sample's."""
        tokens = [self._heldout_tokens[prompt] for prompt, _ in rows]
        completions = self._complete(policy, tokens, self._uniforms(rng, call, rows))
        questions = [self._heldout[prompt] for prompt, _ in rows]
        returns = self._rewards(self._heldout_reward, questions, self._texts(completions))
        sampled = _applied(tokens, completions, returns, [prompt for prompt, _ in rows])
        if sampled is None:
            raise UsageError(f"the reward of task {self.name!r} applies to none of {len(rows)} held-out completions")
        return sampled

    def snapshot(self, policy: Policy) -> dict[str, Any]:
        def rewards(shown_prompts: Sequence[str], texts: Sequence[str]) -> list[float | None]:
            return self._rewards(self._heldout_reward, self._heldout[: len(texts)], texts)

        prompts = [question.prompt for question in self._heldout]
        return self._snapshot(language_policy(policy), prompts, self._heldout_tokens, rewards)


def _refuse_common(some: Sequence[Question], others: Sequence[Question], roles: str) -> None:
    known = {prompt_key(question.prompt) for question in some}
    both = [question.prompt for question in others if prompt_key(question.prompt) in known]
    if both:
        raise UsageError(f"prompt {brief(both[0])} is both {roles}")


def _digest(*parts: Sequence[Question]) -> str:
    """Of all prompts and their columns, in order."""
    rows = [[[described(question.prompt), described(question.columns)] for question in part] for part in parts]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _applied(
    prompts: Sequence[Tokens], completions: Completions, returns: Sequence[float | None], groups: Sequence[int]
) -> Rollout | None:
    """The rows that have a return, or nothing."""
    kept = [index for index, value in enumerate(returns) if value is not None]
    if not kept:
        return None
    return as_rollout(
        [prompts[index] for index in kept],
        Completions(*(column[kept] for column in (completions.tokens, completions.mask, completions.log_probs))),
        [value for value in returns if value is not None],
        [groups[index] for index in kept],
    )


def pass_at(k: int, right: np.ndarray, samples: int) -> float:
    """The chance that one of k completions is right, from `[N]` right ones of so many samples for each prompt.

    1 - C(n - c, k) / C(n, k), without bias (Chen et al. 2021, "Evaluating Large Language Models Trained on Code").
    """
    return float(np.mean(1 - comb(samples - right, k) / comb(samples, k)))
