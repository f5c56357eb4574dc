"""A preference problem to be solved in several ways: pairs of a checkpoint's completions, judged by a gold reward.

- `digit-preferences`: the pairs are a data set to read, and nothing else is known (`dpo`, `ranking`, `sft`).
- `digit-preferences-learned`: a reward model is fitted to the same pairs when a run begins, on the run's clock and out
  of its budget; its score is the reward of whatever a method samples.
- `digit-preferences-gold`: an oracle; the gold reward itself is given.

Checkpoint, prompts, pairs and evaluation are the same in all three: the gold reward of greedy and of sampled answers,
the KL to the checkpoint, and held-out preference accuracy. The first two never show a method a gold reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
import torch

from polobench.core.errors import UsageError
from polobench.core.policy import Policy, unmetered
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.objectives.reference import log_probs_of
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import Completions
from polobench.tasks.comparisons import Comparisons, scale_for
from polobench.tasks.digits import LENGTHS, SORT, DigitsTask
from polobench.tasks.floors import stored
from polobench.tasks.language import Tokens, language_policy
from polobench.tasks.pairs import PairSet
from polobench.tasks.reward_model import Course, RewardModel
from polobench.tasks.text import as_completions, as_rollout

DATA_SEED = 0
CHUNK, MOST_PASSES = 1000, 50  # prompts whose pairs are sampled together; how often all prompts may be asked
PAIRED_PROMPTS = 600  # held-out ones
SCALED_PAIRS = 500  # by which the scale of the labels is found
SAMPLING_BATCH = 250
BEST_OF, BEST_OF_PROMPTS = (4, 16), 200
LARGEST = 20_000  # number of pairs, and seed of labels
TARGET = 0.995  # greedy, after as many steps of supervised training on right answers alone; the checkpoint has 0.304


class JudgedTask(DigitsTask):
    """The oracle, and what it shares with the tasks that hide the gold reward.

    The pairs are the same in every run, and those of a smaller number are the first of those of a larger one. Their
    labels are drawn anew for every seed of a run, unless `labels` fixes them; those of the held-out pairs are fixed.

    Attributes:
        n_pairs: of the data set.
        labels: the seed of its labels; None for that of the run.
        data, heldout: the pairs to train on, and those to measure by, once `bind` has made them.
    """

    sampled_prompts = 500
    n_pairs: int
    labels: int | None = None
    data: Comparisons
    heldout: Comparisons

    def identity(self) -> dict[str, str]:
        return super().identity() | {"pairs": str(self.n_pairs), "labels": str(self.labels)}

    def _prepare_pairs(self, checkpoint: CausalLM) -> None:
        rng, before = SeedAxes(DATA_SEED), checkpoint.generation_batch
        checkpoint.generation_batch = SAMPLING_BATCH
        answers, gold = self._stored_pairs(checkpoint)
        scale = scale_for(gold[:SCALED_PAIRS])
        kept = slice(2 * self.n_pairs)
        labels = SeedAxes(self.rng.seed if self.labels is None else self.labels).numpy("labels")
        self.data = Comparisons.drawn(answers.select(kept), gold[: self.n_pairs], scale, labels)
        rows = [(prompt, sample) for prompt in range(PAIRED_PROMPTS) for sample in (0, 1)]
        self._ordinary = self._sampled(checkpoint, rng, 0, rows)
        gold = self._ordinary.returns.reshape(-1, 2).cpu().double().numpy()
        differ = gold[:, 0] != gold[:, 1]
        answers = self._ordinary.select(torch.from_numpy(np.flatnonzero(np.repeat(differ, 2))))
        self.heldout = Comparisons.drawn(answers, gold[differ], scale, rng.numpy("held-out labels"))
        self.pairs = {"heldout": PairSet.of(self.heldout.responses)}
        checkpoint.generation_batch = before

    def _stored_pairs(self, checkpoint: CausalLM) -> tuple[Rollout, np.ndarray]:
        """`[2N, T]` two completions each of training prompts, and their gold `[N, 2]`, which differs in every pair."""
        asked = f"{self.n_pairs} pairs, {sorted(super().identity().items())}"
        prompts, rows, gold = stored("pairs", self.modules(), asked, lambda: self._sampled_pairs(checkpoint), list)
        completions = as_completions(rows, self.codec.end_token, self.device)
        answers = as_rollout([self._train_tokens[i] for i in prompts], completions, [0.0] * len(rows), prompts)
        return answers, np.array(gold, dtype=np.float64)

    def _sampled_pairs(self, checkpoint: CausalLM) -> tuple[list[int], list[Tokens], list[list[float | None]]]:
        """For each completion the number of its prompt and its tokens, and gold for each two; N or more of these."""
        rng, numbers, rows = SeedAxes(DATA_SEED), list[int](), list[Tokens]()
        gold: list[list[float | None]] = []
        for number, asked in enumerate(self._chunks_of_prompts(rng)):
            if len(gold) >= self.n_pairs:
                return numbers, rows, gold
            twice = np.repeat(asked, 2).tolist()
            uniforms = self._uniforms(rng, number + 1, [(prompt, i % 2) for i, prompt in enumerate(twice)])
            completions = self._complete(checkpoint, [self._train_tokens[prompt] for prompt in twice], uniforms)
            questions = [self._train[prompt] for prompt in twice]
            values = self._rewards(self._heldout_reward, questions, self._texts(completions))
            said = [row[mask].tolist() for row, mask in zip(completions.tokens, completions.mask)]
            for pair in (slice(i, i + 2) for i in range(0, len(twice), 2) if values[i] != values[i + 1]):
                numbers += twice[pair]
                rows += said[pair]
                gold.append(values[pair])
        raise UsageError(f"task {self.name!r}: {len(gold)} pairs differ in gold reward (wanted: {self.n_pairs})")

    def _chunks_of_prompts(self, rng: SeedAxes) -> Iterator[np.ndarray]:
        for number in range(MOST_PASSES):
            order = rng.numpy("paired prompts", number).permutation(len(self._train))
            yield from np.split(order, range(CHUNK, len(order), CHUNK))

    def measures_at_ends(self, policy: Policy, seed: int) -> dict[str, float]:
        """The gold reward of the best of n sampled answers, where the reward that is given in training chooses."""
        language, size = language_policy(policy), max(BEST_OF)
        rows = [(prompt, sample) for prompt in range(BEST_OF_PROMPTS) for sample in range(size)]
        with language.at_temperature(1):
            sampled = self._sampled(language, SeedAxes(seed), 1, rows)
        gold = sampled.returns.reshape(-1, size)
        chosen_by = self._reward_of(sampled).reshape(-1, size)
        best = {n: gold.gather(1, chosen_by[:, :n].argmax(1, keepdim=True)).mean() for n in BEST_OF}
        return {f"heldout_best_of_{n}": float(value) for n, value in best.items()}

    def _reward_of(self, sampled: Rollout) -> torch.Tensor:
        """`[B]` what training would give for completions of held-out prompts, whose returns are the gold reward."""
        return sampled.returns


class OfflineTask(JudgedTask):
    """The pairs are all there is."""

    has_preferences = True

    def begin(self) -> None:
        super().begin()
        self._fixed: torch.Tensor | None = None

    def preferences(self, count: int) -> Rollout:
        with self.ledger.timing_rollout():
            chosen = self._next_prompts(count, len(self.data))
            rollout = self.data.pairs(chosen)
            self.ledger.charge_read(rollout.n_samples)
            rows = [row for number in chosen for row in (2 * number, 2 * number + 1)]
            return rollout.attach(reference_log_probs=self._reference_log_probs()[rows])

    def _reference_log_probs(self) -> torch.Tensor:
        """`[2N, T]` of all responses under the starting checkpoint, computed once."""
        if self._fixed is None:
            reference = language_policy(self.reference_policy())
            self._fixed = log_probs_of(reference, self.data.responses, reference.generation_batch)
        return self._fixed

    def episodes(self, policy: Policy, groups: int, size: int) -> Rollout:
        raise UsageError(f"task {self.name!r} has pairs and no reward (allowed methods: dpo, ranking, sft)")

    def measures_at_ends(self, policy: Policy, seed: int) -> dict[str, float]:
        return {}


class RewardModelTask(JudgedTask):
    """The reward of a completion is the score of a model that was fitted to the pairs."""

    course = Course()
    reward_model: RewardModel | None

    def begin(self) -> None:
        self.reward_model = None
        super().begin()

    def adopt(self, policy: Policy) -> Policy:
        """As every task's; the first policy waits until there is a reward model."""
        if self.reward_model is None:
            self._fit_reward_model()
        return super().adopt(policy)

    def _fit_reward_model(self) -> None:
        clock, ledger = self.ledger.clock, self.ledger
        seconds, steps, read = clock.cpu_seconds, ledger.gradient_steps, ledger.samples_read
        self.reward_model = RewardModel(language_policy(self.reference_policy()))
        self.reward_model.fit(self.data, self.course, self.rng)
        self._cost = {
            "cpu_seconds": clock.cpu_seconds - seconds,
            "gradient_steps": ledger.gradient_steps - steps,
            "samples_read": ledger.samples_read - read,
        }
        self.reward_model.standardise(self._ordinary)

    def _training_rewards(self, prompts: Sequence[int], completions: Completions) -> list[float | None]:
        assert self.reward_model is not None
        tokens = [self._train_tokens[prompt] for prompt in prompts]
        rewards = self.reward_model(as_rollout(tokens, completions, [0.0] * len(tokens), range(len(tokens))))
        return list(rewards.tolist())

    def _reward_of(self, sampled: Rollout) -> torch.Tensor:
        assert self.reward_model is not None
        with unmetered(self.reward_model.body):
            return self.reward_model(sampled)

    def _measures_of_samples(self, policy: CausalLM, sampled: Rollout) -> dict[str, float]:
        measures = super()._measures_of_samples(policy, sampled)
        if self.reward_model is None:  # the floor is measured before
            return measures
        return measures | {"learned_return": float(self._reward_of(sampled).cpu().double().mean())}

    def snapshot(self, policy: Policy) -> dict[str, Any]:
        """With what the reward model took to train, and its calibration on the held-out pairs."""
        assert self.reward_model is not None
        checked = asdict(self.reward_model.checked(self.heldout))
        return super().snapshot(policy) | {"reward_model": self._cost | checked}


def judged_digits(
    kind: type[JudgedTask], name: str, model: str | None = None, *, pairs: int = 2000, labels: int | None = None
) -> JudgedTask:
    """`sort-digits` with pairs of its checkpoint's completions; gold is the share of places that are right.

    Args:
        kind: what the methods get.
        name: of the task.
        model: a name as `polobench.policies.pretrained.locate` takes it; the shipped checkpoint by default.
        pairs: how many are labelled.
        labels: seed of the labels; that of the run by default.

    Raises:
        UsageError: numbers that are none.
    """
    for argument, value, low in (("pairs", pairs, 1), ("labels", 0 if labels is None else labels, 0)):
        if type(value) is not int or not low <= value <= LARGEST:
            raise UsageError(f"{argument} is {value!r} (allowed: an integer from {low} to {LARGEST:,})")
    prompts = SORT.prompts()
    task = kind(
        name,
        model or str(resources.files("polobench.tasks").joinpath("checkpoints", SORT.name)),
        prompts["train"],
        prompts["heldout"],
        SORT.partial_credit,
        tuning_prompts=prompts["tuning"],
        max_new_tokens=LENGTHS[-1] + 1,
        unit="gold reward of greedy answers",
        target=TARGET,
    )
    task.n_pairs, task.labels = pairs, labels
    return task


digit_preferences = partial(judged_digits, OfflineTask, "digit-preferences")
digit_preferences_learned = partial(judged_digits, RewardModelTask, "digit-preferences-learned")
digit_preferences_gold = partial(judged_digits, JudgedTask, "digit-preferences-gold")
