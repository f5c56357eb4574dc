"""Preference tasks: a fixed data set of ranked responses, and no reward.

The held-out evaluation is preference accuracy: the share of the held-out prompts' pairs whose better response has the
larger log-probability, summed over its tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from polobench.core.errors import UsageError
from polobench.core.policy import Policy
from polobench.core.rollout import Rollout
from polobench.core.task import Evaluation
from polobench.policies.causal_lm import CausalLM
from polobench.policies.pretrained import Pretrained
from polobench.tasks.language import LanguageTask, Tokens, language_policy
from polobench.tasks.pairs import PairSet, accuracies
from polobench.tasks.preference_data import (
    PreferenceData,
    RankedGroup,
    builtin_preferences,
    read_source,
    split_by_prompt,
)
from polobench.tasks.text import as_completions, as_rollout

HELDOUT_SHARE = 0.25
SPLIT_SEED = 0
MEASURED_TRAIN_GROUPS, MEASURED_HELDOUT_GROUPS = 12, 200
MAX_NEW_TOKENS = 48
DEFAULT_MODEL = "smollm2"
Encoded = tuple[RankedGroup, Tokens, list[Tokens]]


class PreferenceTask(LanguageTask):
    """Ranked groups that a policy is fitted to; a quarter of the prompts is held out.

    Accuracy on the training prompts is that of the first 12 of them, and there are 7 evaluations on the way: one reads
    as many responses as several updates, and they must not cost more than training.

    The reference's log-probabilities are computed once, when a group is first read. A prompt of which a response does
    not fit into the model's context is left out with its whole group, and counted.

    Args:
        name: the task's name.
        data: at least two prompts.
        model, max_new_tokens: as `LanguageTask`; so many tokens have the answers that a report shows.
        max_length: most tokens of a prompt and its response together; a longer response loses its end. A group whose
            prompt leaves no room, or in which cut responses of different scores are the same, is left out. All counted.
    """

    has_preferences = True
    lengthy = "max_length"
    evaluations = 7
    evaluation_episodes = final_episodes = 1

    def __init__(
        self,
        name: str,
        data: PreferenceData,
        model: str | Callable[[], Pretrained] = DEFAULT_MODEL,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_length: int | None = None,
    ) -> None:
        super().__init__(name, model, max_new_tokens=max_new_tokens, unit="held-out preference accuracy")
        self._data, self._max_length = data, max_length
        self._train_groups, self._heldout_groups = split_by_prompt(data, HELDOUT_SHARE, SPLIT_SEED)

    def identity(self) -> dict[str, str]:
        length = {} if self._max_length is None else {"max_length": str(self._max_length)}
        return super().identity() | {"data": self._data.digest} | length

    def _prepare(self, context_length: int) -> None:
        self.notes = Counter(reason for _, reason in self._data.skipped)
        self._train = self._encoded(self._train_groups, context_length)
        heldout = self._encoded(self._heldout_groups, context_length)
        few, heldout = self._train[:MEASURED_TRAIN_GROUPS], heldout[:MEASURED_HELDOUT_GROUPS]
        room = context_length - self.horizon
        self._asked = [(group.prompt, prompt) for group, prompt, _ in heldout if len(prompt) <= room]
        self.pairs = {"heldout": PairSet.of(self._rollout(heldout)), "train": PairSet.of(self._rollout(few))}
        self._reference_rows: dict[int, torch.Tensor] = {}

    def _prepare_pairs(self, checkpoint: CausalLM) -> None:
        """They are the data, which `_prepare` has read."""

    def _encoded(self, groups: Sequence[RankedGroup], context_length: int) -> list[Encoded]:
        """Each group that fits, with its prompt's and its responses' tokens."""
        kept = []
        for group in groups:
            prompt, whole = self.codec.answered(group.prompt, group.responses)
            room = None if self._max_length is None else max(0, self._max_length - len(prompt))
            responses = [row[:room] for row in whole]
            score_of = dict(zip(map(tuple, responses), group.scores))
            cut = sum(row != other for row, other in zip(responses, whole))
            if not all(responses):
                self.notes["prompt as long as max_length"] += 1
            elif len(prompt) + max(map(len, responses)) > context_length:
                self.notes["longer than the model's context"] += 1
            elif cut and any(score_of[tuple(row)] != score for row, score in zip(responses, group.scores)):
                self.notes["ranked apart, but the same up to max_length"] += 1
            else:
                self.notes.update({"responses cut at max_length": cut} if cut else {})
                kept.append((group, prompt, responses))
        if not kept:
            raise UsageError(f"task {self.name!r}: no prompt with its responses fits the context of {context_length}")
        return kept

    def _rollout(self, groups: Sequence[Encoded]) -> Rollout:
        """`[M, T]` the responses of these groups; their returns are the scores."""
        prompts = [prompt for _, prompt, responses in groups for _ in responses]
        rows = [row for _, _, responses in groups for row in responses]
        scores = [score for group, _, _ in groups for score in group.scores]
        numbers = [number for number, (_, _, responses) in enumerate(groups) for _ in responses]
        return as_rollout(prompts, as_completions(rows, self.codec.end_token, self.device), scores, numbers)

    def preferences(self, count: int) -> Rollout:
        with self.ledger.timing_rollout():
            chosen = self._next_prompts(count, len(self._train))
            rollout = self._rollout([self._train[index] for index in chosen])
            self.ledger.charge_read(rollout.n_samples)
            for index in chosen:
                if index not in self._reference_rows:
                    self._reference_rows[index] = self._reference_log_probs(index)
            width = rollout.mask.shape[1]
            fixed = [pad(self._reference_rows[index], (0, width)) for index in chosen]
            return rollout.attach(reference_log_probs=torch.cat([rows[:, :width] for rows in fixed]))

    def _reference_log_probs(self, index: int) -> torch.Tensor:
        """`[G, T]` of a training group, under the starting checkpoint."""
        reference = language_policy(self.reference_policy())
        group = self._rollout([self._train[index]])
        with torch.no_grad():
            return reference.distribution.log_prob(reference.outputs(group), group.actions) * group.mask

    def fragments(self, policy: Policy, batch: int, n_steps: int) -> Rollout:
        return self.episodes(policy, batch, 1)

    def episodes(self, policy: Policy, groups: int, size: int) -> Rollout:
        raise UsageError(f"task {self.name!r} has preference data and no reward (allowed methods: dpo, ranking)")

    def evaluate(self, policy: Policy, seed: int, episodes: range) -> Evaluation:
        """The same pairs at every call."""
        language = language_policy(policy)
        with self._at_temperature_1(language):
            pairs = self._pair_columns(language)
            measures = self._measures_of_pairs(language, pairs)
        return Evaluation(measures["heldout_accuracy"], math.nan, len(self.pairs["heldout"].better), measures, pairs)

    def floor_of(self, checkpoint: CausalLM) -> float:
        summed, _ = accuracies(self.pairs["heldout"].columns(checkpoint, checkpoint.generation_batch))
        return summed

    def snapshot(self, policy: Policy) -> dict[str, Any]:
        prompts, asked = [prompt for prompt, _ in self._asked], [tokens for _, tokens in self._asked]
        return self._snapshot(language_policy(policy), prompts, asked, lambda shown, texts: [None] * len(texts))


def builtin(model: str = DEFAULT_MODEL) -> PreferenceTask:
    """The project's own set: facts, arithmetic, style, refusals and jokes."""
    return PreferenceTask(
        "preferences" if model == DEFAULT_MODEL else f"preferences@{model}", builtin_preferences(), model
    )


def from_data(source: str, model: str = DEFAULT_MODEL, *, max_length: int | None = None) -> PreferenceTask:
    """A file or a data set of the hub, with a model; `max_length` as in `PreferenceTask`.

    Raises:
        UsageError, Unavailable: as `read_source`.
    """
    return PreferenceTask(source, read_source(source), model, max_length=max_length)
