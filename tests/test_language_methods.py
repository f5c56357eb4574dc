"""The methods on sort-digits: budgets, digests, refusals, and what a first update must be."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from functools import cache
from importlib import resources
from typing import Any

import checks
import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("transformers")

import polobench
from polobench import Budget, RunResult
from polobench.analysis.overall import score_at
from polobench.analysis.reliability import scores
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.optimization import Tally
from polobench.core.task import Task
from polobench.methods.dpo import DPO
from polobench.methods.grpo import GRPO, token_weights
from polobench.methods.ranking import Ranking
from polobench.methods.reinforce import Reinforce
from polobench.objectives.preference import group_advantages
from polobench.objectives.reference import log_probs_of
from polobench.objectives.surrogates import score_function_objective
from polobench.tasks import reward as reward_tasks
from polobench.tasks.digits import (
    LENGTHS,
    ORDER,
    PROBLEMS,
    SORT,
    SPLITS,
    ascending,
    copied,
    descending,
    order_digits_partial,
    sort_digits,
)
from polobench.tasks.reward import RewardTask

ROWS, THREE_UPDATES = 16, Budget(updates=3)
GROUPED = {"n_groups": 4, "group_size": 4}
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo": (GRPO, GROUPED),
    "dpo": (DPO, GROUPED),
    "ranking": (Ranking, GROUPED),
    "reinforce": (Reinforce, {"n_episodes": ROWS, "baseline": "batch_mean", "gamma": 1.0}),
    "rloo": (Reinforce, {"n_episodes": ROWS, "baseline": "leave_one_out", "gamma": 1.0}),
}
EVERY = pytest.mark.parametrize("name", METHODS)
IN_GROUPS_AND_ALONE = pytest.mark.parametrize("name", ["grpo", "reinforce"])  # what lies in the task and the sampler


@pytest.fixture(autouse=True)
def few_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("final_episodes", "evaluation_episodes"):
        monkeypatch.setattr(RewardTask, name, 20)
    monkeypatch.setattr(RewardTask, "pass_prompts", 8)
    monkeypatch.setattr(reward_tasks, "PROBE_PROMPTS", 8)


def run(name: str, task: Task, seed: int = 0, budget: Budget | int = THREE_UPDATES) -> RunResult:
    method, settings = METHODS[name]
    return method(task, **settings).run(seed, budget)


@cache
def first_run(name: str) -> RunResult:
    return run(name, sort_digits())


@EVERY
def test_three_updates(name):
    result = first_run(name)
    assert (result.status, result.traceback) == ("ok", "")
    assert result.ledger.updates == len(result.updates) == 3
    assert np.isfinite(result.updates["loss"]).all()
    assert 0 <= result.final_return <= 1


@pytest.mark.parametrize("temperature", [0.1, 3.0])
def test_a_temperature_alone_scores_exactly_nothing(temperature, monkeypatch):
    """A sharper policy has learned nothing, on the curve's prompts and on all."""
    monkeypatch.setattr(RewardTask, "final_episodes", 50)
    settings = {"temperature": temperature, "learning_rate": 0.0, "n_episodes": ROWS, "baseline": "batch_mean"}
    result = Reinforce(sort_digits(), **settings).run(0, budget=600)
    assert (result.status, result.final_score) == ("ok", 0)
    assert result.curve["return_mean"][0] != result.floor, "of the first 20 and of all 50 prompts"
    assert set(scores(result).found) == {score_at(result, result.ledger.cpu_seconds)} == {0.0}
    measures = result.curve.filter(like="heldout_")
    assert measures["heldout_kl"].tolist() == [0] * len(measures)
    pd.testing.assert_series_equal(measures.iloc[0], measures.iloc[-1], check_names=False)


def test_what_is_sampled_in_training_has_the_policys_temperature():
    cold = {"temperature": 0.1, "learning_rate": 0.0, "n_episodes": 64, "baseline": "batch_mean"}
    assert Reinforce(sort_digits(), **cold).run(0, Budget(updates=1)).updates["entropy"][0] < 0.1
    assert (
        Reinforce(sort_digits(), **(cold | {"temperature": 1.0})).run(0, Budget(updates=1)).updates["entropy"][0] > 0.2
    )


@pytest.mark.parametrize(("k", "right", "chance"), [(1, [0, 16], 0.5), (1, [4], 0.25), (8, [0], 0), (8, [9], 1)])
def test_pass_at_k_is_known(k, right, chance):
    assert reward_tasks.pass_at(k, np.array(right), 16) == pytest.approx(chance)


def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_one():
    right = [True, False, False, False, False, True]
    subsets = list(itertools.combinations(right, 3))
    expected = sum(map(any, subsets)) / len(subsets)
    assert reward_tasks.pass_at(3, np.array([2]), 6) == pytest.approx(expected)


def test_the_checkpoints_pass_at_k_is_measured_once_and_that_of_what_learned_each_time(tmp_path, monkeypatch):
    monkeypatch.setenv("POLOBENCH_CACHE", str(tmp_path))
    measured = []

    def watched(task, policy, seed):
        measured.append(policy)
        return measure(task, policy, seed)

    measure = RewardTask.measures_at_ends
    monkeypatch.setattr(RewardTask, "measures_at_ends", watched)
    columns = ["heldout_pass_1", "heldout_pass_8"]
    first, again, other = (run(name, sort_digits()) for name in ("reinforce", "reinforce", "grpo"))
    assert len(measured) == 1 + 3, "one checkpoint, and the ends of three runs"
    assert first.digest == again.digest
    for found in (first, again, other):
        assert found.curve[columns].iloc[0].tolist() == first.curve[columns].iloc[0].tolist()
    assert first.curve[columns].iloc[-1].tolist() != first.curve[columns].iloc[0].tolist()
    narrower = METHODS["reinforce"][1] | {"generation_batch": 16}
    Reinforce(sort_digits(), **narrower).run(0, THREE_UPDATES)
    assert len(measured) == 6, "another batch of a pass rounds otherwise"


@pytest.mark.parametrize("damage", ["{}", "[]", "{", '{"heldout_pass_1": "x"}'])
def test_a_damaged_pass_at_k_is_measured_again(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("POLOBENCH_CACHE", str(tmp_path))
    assert run("reinforce", sort_digits()).digest == first_run("reinforce").digest
    (stored,) = (tmp_path / "passes").iterdir()
    sound = stored.read_text()
    stored.write_text(damage)
    assert run("reinforce", sort_digits()).digest == first_run("reinforce").digest
    assert stored.read_text() == sound


@IN_GROUPS_AND_ALONE
def test_the_seed_decides_the_digest(name):
    assert run(name, sort_digits()).digest == first_run(name).digest
    assert run(name, sort_digits(), seed=1).digest != first_run(name).digest


@IN_GROUPS_AND_ALONE
def test_a_budget_is_not_overspent(name):
    result = run(name, sort_digits(), budget=1_000)
    assert result.status == "ok"
    assert result.ledger.updates > 3
    assert result.ledger.samples <= 1_000
    assert result.ledger.samples_unspent == 1_000 - result.ledger.samples < ROWS
    assert result.ledger.reward_calls % ROWS == 0


@IN_GROUPS_AND_ALONE
def test_a_reward_call_for_each_completion(name):
    counted = 0

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        nonlocal counted
        counted += len(completions)
        return SORT.partial_credit(prompts, completions)

    result = run(name, task_of(reward, heldout_reward=SORT.exact_match))
    assert result.status == "ok"
    assert result.ledger.reward_calls == counted == 3 * ROWS


@EVERY
def test_a_stored_run_keeps_its_snapshots(name):
    result = first_run(name)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    again = RunResult.from_dict(plain)
    assert set(result.snapshots) == {"before", "after"}
    assert again.to_dict() == result.to_dict()
    assert json.dumps(again.snapshots) == json.dumps(result.snapshots)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_no_prompt_is_both_trained_on_and_held_out(problem):
    prompts = problem.prompts()
    assert {split: len(texts) for split, texts in prompts.items()} == SPLITS
    assert len(set().union(*prompts.values())) == sum(SPLITS.values())
    assert problem.prompts() == prompts


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_lengths_vary_and_those_with_few_prompts_are_only_trained_on(problem):
    for split, texts in problem.prompts().items():
        lengths = Counter(len(text) - 1 for text in texts)
        allowed = [length for length in LENGTHS if split == "train" or 10**length >= 2_000]
        assert sorted(lengths) == allowed
        assert min(lengths.values()) > 0.7 * len(texts) / len(allowed)


def test_one_way_for_all_prompts_does_not_solve_order_digits():
    for split, texts in ORDER.prompts().items():
        for way in (ascending, descending, copied):
            assert np.mean(ORDER.exact_match(texts, [way(text[:-1]) for text in texts])) < 0.41, split


def test_tuning_reads_prompts_of_its_own():
    with pytest.raises(UsageError, match="'mine' has no tuning split"):
        RewardTask("mine", lambda: None, ["a"], ["b"], SORT.exact_match, max_new_tokens=1).for_tuning()
    with checks.bound(sort_digits().for_tuning()) as task:
        shown = task.snapshot(task.make_policy(Hyperparameters(), critic=False))["completions"]
    assert [answer["prompt"] for answer in shown] == SORT.prompts()["tuning"][: len(shown)]


@pytest.mark.parametrize(
    ("problem", "prompt", "completion", "exact", "partial"),
    [
        (SORT, "503172=", "012357", 1.0, 1.0),
        (SORT, "503172=", "012375", 0.0, 4 / 6),
        (SORT, "503172=", "0123", 0.0, 4 / 6),
        (SORT, "503172=", "01235777", 0.0, 6 / 8),
        (SORT, "503172=", "", 0.0, 0.0),
        (ORDER, "3102=", "0123", 1.0, 1.0),
        (ORDER, "4102=", "4210", 1.0, 1.0),
        (ORDER, "5102=", "5102", 1.0, 1.0),
        (ORDER, "5102=", "0125", 0.0, 1 / 4),
    ],
)
def test_known_answers(problem, prompt, completion, exact, partial):
    assert problem.exact_match([prompt], [completion]) == [exact]
    assert problem.partial_credit([prompt], [completion]) == pytest.approx([partial])


def test_every_answer_is_right_and_fits():
    for problem in PROBLEMS.values():
        prompts = problem.prompts()["train"]
        answers = [problem.answer(prompt) for prompt in prompts]
        assert set(problem.exact_match(prompts, answers)) == set(problem.partial_credit(prompts, answers)) == {1.0}
        assert max(map(len, answers)) + 1 == LENGTHS[-1] + 1


def task_of(reward: Any, prompts: list[str] | None = None, **settings: Any) -> RewardTask:
    shipped = str(resources.files("polobench.tasks").joinpath("checkpoints", "sort-digits"))
    given = SORT.prompts()
    train = prompts or given["train"]
    return RewardTask("my-task", shipped, train, given["heldout"], reward, max_new_tokens=9, floor=0.0, **settings)


def no_number(prompts: list[str], completions: list[str]) -> list[float]:
    return [float("nan")] * len(prompts)


def too_few(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.0] * (len(prompts) - 1)


def raising(prompts: list[str], completions: list[str]) -> list[float]:
    raise KeyError("nothing here\nnor there")


def of_words(prompts: list[str], completions: list[str]) -> Any:
    return ["good"] * len(prompts)


@pytest.mark.parametrize("only_in_training", [False, True])
@pytest.mark.parametrize(
    ("reward", "said"), [(no_number, "nan"), (too_few, "15 numbers"), (raising, "nothing"), (of_words, "good")]
)
def test_a_bad_reward_fails_the_run_with_one_line(reward, said, only_in_training):
    settings = {"heldout_reward": SORT.exact_match} if only_in_training else {}
    result = run("grpo", task_of(reward, **settings))
    assert result.status == "failed"
    assert "'my-task'" in result.reason
    assert "\n" not in result.reason
    assert said in result.reason or not only_in_training


def test_a_prompt_beyond_the_context_fails_the_run_with_one_line():
    result = run("grpo", task_of(SORT.exact_match, ["1" * 60 + "="]))
    assert result.status == "failed"
    assert "'my-task'" in result.reason
    assert "61 tokens" in result.reason
    assert "\n" not in result.reason


def test_a_prompt_in_both_lists_is_refused():
    heldout = SORT.prompts()["heldout"]
    with pytest.raises(UsageError, match="both trained on and held out"):
        task_of(SORT.exact_match, heldout[:1])


@pytest.mark.parametrize("normalization", ["grpo", "dapo", "dr_grpo"])
def test_grpos_first_gradient_is_that_of_reinforce(normalization):
    """With one weight for all tokens; "grpo" has one for each row, which goes into the advantages."""
    with checks.bound(order_digits_partial()) as task:
        policy = task.make_policy(Hyperparameters(), critic=False)
        rollout = task.episodes(policy, 4, 4)
    mask = rollout.mask
    by_row = group_advantages(rollout.returns, rollout.groups, divide_by_std=True)
    assert (by_row != 0).any()
    advantages = by_row.unsqueeze(1).expand_as(mask)
    learner: Any = polobench.make("grpo", task="probe-bandit", normalization=normalization)
    batch = rollout.attach(advantages=advantages, weights=token_weights(mask, normalization, task.horizon))
    tally = Tally()
    loss = sum(learner.losses(policy, ROWS, [batch], tally))
    assert "clip_fraction" not in tally.means(1)

    lengths = mask.sum(1, keepdim=True)
    per_row = {"grpo": 1 / lengths, "dapo": ROWS / lengths.sum(), "dr_grpo": torch.tensor(1 / task.horizon)}
    scaled = advantages * per_row[normalization]
    expected_loss = -(scaled * mask).sum() / ROWS  # each ratio is 1
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-6)
    if normalization == "grpo":
        assert loss.item() == pytest.approx(0, abs=1e-6)

    log_probs = policy.distribution.log_prob(policy.outputs(rollout), rollout.actions)
    objective = score_function_objective(log_probs, scaled, mask, ROWS)
    found = torch.autograd.grad(loss, policy.actor_parameters)
    for mine, other in zip(found, torch.autograd.grad(-objective, policy.actor_parameters), strict=True):
        checks.close(mine, other, atol=1e-6)


def test_grpos_kl_is_that_from_before_an_update_to_its_end():
    """Fault: the mean over the steps counted the first one's 0, and never what the last one did."""
    learner = polobench.make("grpo", task="sort-digits", tuned=False, epochs=3, learning_rate=1e-3)
    with checks.bound(learner.task) as task:
        before, seen = [], task.episodes

        def episodes(policy, groups, size):
            rollout = seen(policy, groups, size)
            before[:] = [(rollout, log_probs_of(policy, rollout, None))]
            return rollout

        task.episodes = episodes
        update = next(iter(learner.learn(task, task.rng)))
        ((rollout, old),) = before
        now = log_probs_of(update.policy, rollout, None)
    ratio = (old - now)[rollout.mask]
    expected = float((torch.exp(-ratio) - 1 + ratio).mean())
    assert update.metrics["kl"] == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-6


def test_the_first_update_of_a_run_has_loss_0():
    """Each row has the same weight, so the advantages of a group cancel."""
    result = GRPO(order_digits_partial(), **GROUPED).run(0, Budget(updates=1))
    assert result.status == "ok"
    assert result.updates["loss"][0] == pytest.approx(0, abs=1e-6)
    assert result.updates["gradient_norm"][0] > 1e-3
