"""A preference problem solved in several ways: its pairs, the reward model, what is charged, and what measures as 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import ttest_1samp

import polobench
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.methods.sft import best_of_each_group
from polobench.policies.causal_lm import CausalLM
from polobench.registry import find_task
from polobench.tasks import judged
from polobench.tasks.comparisons import Comparisons, scale_for
from polobench.tasks.digits import SORT
from polobench.tasks.judged import (
    JudgedTask,
    RewardModelTask,
    digit_preferences,
    digit_preferences_gold,
    digit_preferences_learned,
)
from polobench.tasks.reward_model import Course, RewardModel, calibration

SMALL = {"n_groups": 8, "group_size": 4, "learning_rate": 3e-4}


def bound(task: JudgedTask, seed: int = 0, samples: int = 10**6) -> Any:
    task.floor = 0.3  # not measured
    return task.bind(SeedAxes(seed), Ledger(Budget(samples=samples)), torch.device("cpu"), lambda policy: None)


@cache
def learned(seed: int = 0) -> tuple[RewardModelTask, Any]:
    """A task whose reward model is trained, and a policy."""
    task = bound(digit_preferences_learned(pairs=1000), seed)
    return task, task.floor_policy()


def short(task: JudgedTask) -> JudgedTask:
    task.final_episodes, task.evaluation_episodes, task.sampled_prompts, task.evaluations = 60, 40, 40, 2
    return task


@pytest.fixture
def few_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of n, which each run measures at both ends, is of few prompts."""
    monkeypatch.setattr(judged, "BEST_OF_PROMPTS", 20)


def test_the_scale_of_labels_is_the_one_that_agrees_as_often_as_asked() -> None:
    assert scale_for(np.array([[1.0, 0.0], [0.0, 1.0]]), 0.8) == pytest.approx(math.log(4))
    gold = np.random.default_rng(0).random((500, 2))
    scale = scale_for(gold, 0.77)
    assert expit(scale * abs(gold[:, 0] - gold[:, 1])).mean() == pytest.approx(0.77)


def test_pairs_differ_in_gold_and_labels_agree_with_it_as_often_as_wanted() -> None:
    task, _ = learned()
    tokenizer: Any = task.codec._tokenizer
    for data in (task.data, task.heldout):
        assert 0.75 <= ((data.gold[:, 0] > data.gold[:, 1]) == data.first_preferred).mean() <= 0.85
        assert (data.gold[:, 0] != data.gold[:, 1]).all()
        assert data.responses.returns.reshape(-1, 2).sum(1).eq(1).all(), "one of the two is preferred"
    texts = [
        task.codec.text(row[mask].tolist()) for row, mask in zip(task.data.responses.actions, task.data.responses.mask)
    ]
    prompts = [
        "".join(tokenizer.convert_ids_to_tokens(row[mask].tolist()))
        for row, mask in zip(task.data.responses.prompts, task.data.responses.prompt_mask)
    ]
    assert SORT.partial_credit(prompts, texts) == task.data.gold.ravel().tolist()
    assert set(prompts) <= set(SORT.prompts()["train"])


def test_pairs_are_nested_and_labels_follow_the_seed() -> None:
    few, more, fixed = (
        bound(digit_preferences(pairs=pairs, labels=labels), seed).data
        for pairs, labels, seed in ((50, None, 0), (100, None, 0), (100, 0, 7))
    )
    other = bound(digit_preferences(pairs=100), seed=7).data
    assert (few.gold == more.gold[:50]).all()
    assert (few.first_preferred == more.first_preferred[:50]).all()
    assert (fixed.first_preferred == more.first_preferred).all()
    assert (other.gold == more.gold).all()
    assert (other.first_preferred != more.first_preferred).any()


def test_a_part_of_the_pairs_holds_whole_pairs() -> None:
    task, _ = learned()
    part = task.data.pairs([5, 2])
    assert part.groups.tolist() == [0, 0, 1, 1]
    assert torch.equal(part.actions, task.data.responses.actions[[10, 11, 4, 5]])


def test_a_reward_model_learns_true_labels_and_nothing_from_shuffled_ones() -> None:
    """On held-out labels that are true. One shuffle may lean to a way of answering, so that several are averaged."""
    task, _ = learned()
    assert task.reward_model is not None
    true = task.reward_model.checked(task.heldout)
    assert true.accuracy > 0.65
    assert true.gold_accuracy > 0.75, "its own errors are fewer than those of the labels"

    few, gold = task.data.responses.select(torch.arange(600)), task.data.gold[:300]

    def accuracy(scale: float, seed: int) -> float:
        """On true labels, of a model that is fitted to labels of this scale; at 0 they are a fair coin's."""
        model, labels = RewardModel(task.reference_policy()), np.random.default_rng(seed)
        model.fit(Comparisons.drawn(few, gold, scale, labels), Course(epochs=1), SeedAxes(0))
        return model.checked(task.heldout).accuracy

    shuffled = [accuracy(0.0, seed) for seed in range(6)]
    assert ttest_1samp(shuffled, 0.5).pvalue > 0.05
    assert ttest_1samp(shuffled, accuracy(scale_for(gold), 0)).pvalue < 0.05


def test_calibration_of_known_predictions() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(0, 2, 20_000)
    honest = calibration(gaps, rng.random(20_000) < expit(gaps), gaps > 0)
    assert honest.calibration_error < 0.01
    assert honest.gold_accuracy == 1
    assert sum(honest.counts) == honest.pairs == 20_000
    sure = calibration(np.full(10, 50.0), np.arange(10) < 6, np.ones(10, dtype=bool))
    assert sure.calibration_error == pytest.approx(0.4)
    assert (sure.predicted, sure.observed, sure.counts) == ([1.0], [0.6], [10])
    assert calibration(np.zeros(4), np.array([1, 0, 0, 0], dtype=bool), np.ones(4, dtype=bool)).accuracy == 0.5


def test_the_learned_reward_is_standardised_and_never_asks_the_gold_reward() -> None:
    task, policy = learned()
    scores = task._reward_of(task._ordinary)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std()) == pytest.approx(1, abs=1e-4)

    def forbidden(*arguments: Any) -> Any:
        raise AssertionError("a method has seen the gold reward")

    before = task._reward, task._heldout_reward
    try:
        task._reward = task._heldout_reward = forbidden  # type: ignore[assignment]
        rollout = task.episodes(policy, 4, 4)
    finally:
        task._reward, task._heldout_reward = before
    assert torch.equal(rollout.returns, task._reward_of(rollout)), "what is scored is what was sampled"


def test_a_reward_model_of_a_bfloat16_checkpoint_is_trained_in_float32() -> None:
    task, policy = learned()
    halved = CausalLM(deepcopy(policy.model), compute_dtype="bfloat16")
    halved.ledger = task.ledger
    model = RewardModel(halved)
    assert {parameter.dtype for parameter in model.body.model.parameters()} == {torch.float32}


@pytest.mark.usefixtures("few_answers")
def test_the_learned_reward_is_charged() -> None:
    task = short(digit_preferences_learned(pairs=100))
    data = bound(digit_preferences_learned(pairs=100)).data
    tokens, prompts = int(data.responses.mask.sum()), int(data.responses.prompt_mask.sum())
    epochs = task.course.epochs
    result = polobench.make("grpo", task=task, tuned=False, **SMALL).run(seed=0, budget=epochs * tokens + 3000)
    assert result.status == "ok"
    ledger = result.ledger
    steps = epochs * math.ceil(100 / task.course.pairs_per_step)
    assert ledger.samples_read == epochs * tokens
    assert ledger.gradient_steps == steps + ledger.updates
    assert ledger.reward_tokens > epochs * (tokens + prompts) + ledger.samples_generated * 0.9
    assert ledger.reward_calls % 32 == 0
    cost = result.snapshots["before"]["reward_model"]
    assert (cost["gradient_steps"], cost["samples_read"]) == (steps, epochs * tokens)
    assert 0 < cost["cpu_seconds"] <= ledger.cpu_seconds
    small = polobench.make("grpo", task=task, tuned=False, **SMALL).run(seed=0, budget=tokens)
    assert small.status == "failed"
    assert small.ledger.samples <= tokens


@pytest.mark.usefixtures("few_answers")
@pytest.mark.parametrize(
    ("method", "batch"),
    [("trpo", {"n_envs": 32, "n_steps": 9}), ("dpo", {"n_groups": 8}), ("ranking", {"n_groups": 8})],
)
def test_what_no_study_runs_on_a_reward_model_runs_there_too(method: str, batch: dict[str, int]) -> None:
    task = short(digit_preferences_learned(pairs=60))
    ledger = polobench.make(method, task=task, tuned=False, **batch).run(seed=0, budget=6000).ledger
    assert ledger.updates >= 3
    assert ledger.samples_generated > 1000
    assert ledger.reward_calls % 32 == 0 < ledger.reward_calls, "the reward model scores every completion"


@pytest.mark.usefixtures("few_answers")
@pytest.mark.parametrize(
    ("make_task", "method"),
    [(digit_preferences, "dpo"), (digit_preferences_learned, "grpo"), (digit_preferences_gold, "grpo")],
    ids=["offline", "learned", "gold"],
)
def test_what_does_not_learn_has_no_kl_and_the_checkpoints_gold(
    make_task: Callable[..., JudgedTask], method: str
) -> None:
    task = short(make_task(pairs=60))
    result = polobench.make(method, task=task, tuned=False, **SMALL | {"learning_rate": 0.0}).run(seed=0, budget=6000)
    assert result.status == "ok"
    assert set(result.curve["heldout_response_kl"]) == {0.0}
    assert len(set(result.curve["return_mean"])) == len(set(result.curve["heldout_sampled_return"])) == 1
    assert result.final_return == result.floor
    assert result.final_score == 0


def test_the_kl_of_responses_is_that_of_an_enumeration() -> None:
    task = find_task("token-bandit").bind(
        SeedAxes(0), Ledger(Budget(samples=100)), torch.device("cpu"), lambda policy: None
    )
    policy: Any = task.floor_policy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        rows = [(0, sample) for sample in range(4000)]
        sampled = task._sampled(policy, SeedAxes(1), 0, rows)
        new, old = (
            each.outputs(sampled.select(slice(1)))[0, 0].double().log_softmax(-1)
            for each in (policy, task.reference_policy())
        )
        log_ratios = new - old
        wanted = float((new.exp() * log_ratios).sum())
        spread = float((new.exp() * (log_ratios - wanted) ** 2).sum().sqrt()) / math.sqrt(len(rows))
        found = task._measures_of_samples(policy, sampled)["response_kl"]
    assert wanted > 0.05
    assert abs(found - wanted) < 4 * spread


@pytest.mark.usefixtures("few_answers")
def test_a_run_is_decided_by_its_seed() -> None:
    def digest(seed: int) -> str | None:
        task = short(digit_preferences_learned(pairs=60))
        return polobench.make("grpo", task=task, tuned=False, **SMALL).run(seed=seed, budget=6000).digest

    assert digest(3) == digest(3) != digest(4)


@pytest.mark.usefixtures("few_answers")
def test_supervised_fine_tuning_takes_the_best_responses_and_raises_gold() -> None:
    task, _ = learned()
    part = task.data.pairs([0, 1, 2])
    best = best_of_each_group(part)
    assert best.groups.tolist() == [0, 1, 2]
    assert best.returns.tolist() == [1, 1, 1]
    tied: Rollout = part.attach(rewards=part.terminated.float())
    assert len(best_of_each_group(tied).mask) == 6
    easy = short(digit_preferences(pairs=500))
    result = polobench.make("sft", task=easy, tuned=False, n_groups=32, learning_rate=3e-4).run(seed=0, budget=30_000)
    assert result.status == "ok"
    assert result.curve["heldout_sampled_return"].iloc[-1] > result.curve["heldout_sampled_return"][0] + 0.05


def test_the_best_of_n_is_the_best_by_the_reward_that_is_given() -> None:
    task, policy = learned()
    with torch.no_grad():
        by_model = task.measures_at_ends(policy, 0)
        by_gold = JudgedTask._reward_of
        task._reward_of = lambda sampled: by_gold(task, sampled)  # type: ignore[method-assign]
        try:
            oracle = task.measures_at_ends(policy, 0)
        finally:
            del task._reward_of
    mean = float(task._ordinary.returns.mean())
    assert mean < by_model["heldout_best_of_4"] < oracle["heldout_best_of_4"] < oracle["heldout_best_of_16"] <= 1


def test_the_best_temperature_is_chosen_and_scores_nothing() -> None:
    task = short(digit_preferences_gold(pairs=60))
    method = polobench.make("best-temperature", task=task, tuned=False, n_episodes=16, temperatures=(0.3, 3.0))
    result = method.run(seed=0, budget=3000)
    assert result.status == "ok"
    assert result.final_score == 0
    assert result.updates["temperature"].iloc[-1] == 0.3
    assert set(result.updates["temperature"]) == {0.3, 3.0}
    assert result.curve["heldout_own_return"].iloc[-1] != result.curve["heldout_sampled_return"].iloc[-1]


def test_a_study_says_how_many_pairs_there_are() -> None:
    task = find_task("500 pairs", {"id": "digit-preferences", "kwargs": {"pairs": 500, "labels": 3}})
    assert isinstance(task, JudgedTask)
    assert (task.name, task.n_pairs, task.labels) == ("500 pairs", 500, 3)
    assert task.identity()["pairs"] == "500"
    for wrong, said in (
        ({"kwargs": {"pears": 500}}, "takes no pears"),
        ({"kwargs": {"pairs": 0}}, "pairs is 0"),
        ({"kwargs": {"pairs": True}}, "pairs is True"),
        ({"max_length": 5}, "max_length"),
    ):
        with pytest.raises(UsageError, match=said):
            find_task("named", {"id": "digit-preferences", **wrong})
    with pytest.raises(UsageError, match="pairs and no reward"):
        bound(digit_preferences(pairs=20)).episodes(None, 1, 1)
