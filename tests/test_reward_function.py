"""Reward functions as people write them: arguments by name, columns, conversations, None, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polobench
from polobench.core.errors import UsageError
from polobench.policies.pretrained import Pretrained
from polobench.tasks.reward import RewardTask
from polobench.tasks.reward_function import RewardFunction, read_questions
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2

LETTERS = "SayTel 0123456"
ROWS = [{"prompt": "Say 1", "answer": "a"}, {"prompt": "Say 2", "answer": "b"}]


def tiny() -> Pretrained:
    return Pretrained(tiny_gpt2(len(LETTERS) + 1, 32, seed=0), character_tokenizer(LETTERS), 32)


def rewards(function: Callable[..., Any], prompts: Any = ("one", "two")) -> list[float | None]:
    questions = read_questions(list(prompts))
    return RewardFunction(function, tuple(questions[0].columns))(questions, ["x", "yy"])


def by_name(completions: list[str], prompts: list[str]) -> list[float]:
    return [10.0 * len(completion) + len(prompt) for prompt, completion in zip(prompts, completions)]


def by_position(prompts: list[str], completions: list[str]) -> list[float]:
    return by_name(completions, prompts)


def only_completions(completions: list[str], **kwargs: Any) -> list[float]:
    return by_name(completions, kwargs["prompts"])


@pytest.mark.parametrize("function", [by_name, by_position, only_completions, lambda p, c: by_name(c, p)])
def test_arguments_go_by_name(function: Callable[..., Any]) -> None:
    assert rewards(function) == [13.0, 23.0]


def test_columns_of_the_data_are_arguments() -> None:
    def right(completions: list[str], answer: list[str]) -> list[float]:
        return [float(a == "b") for a in answer]

    assert rewards(right, ROWS) == [0.0, 1.0]


def test_a_conversation_gets_messages() -> None:
    def last(prompts: Any, completions: Any) -> list[float]:
        assert prompts[0] == [{"role": "user", "content": "one"}]
        return [len(completion[0]["content"]) for completion in completions]

    conversations = [[{"role": "user", "content": text}] for text in ("one", "two")]
    assert rewards(last, conversations) == [1.0, 2.0]


@pytest.mark.parametrize("make", [torch.tensor, np.array, tuple], ids=["tensor", "array", "tuple"])
def test_numbers_come_in_many_shapes(make: Callable[[list[float]], Any]) -> None:
    assert rewards(lambda prompts, completions: make([0.5, 1.5])) == [0.5, 1.5]


def test_none_does_not_apply() -> None:
    assert rewards(lambda prompts, completions: [None, 1]) == [None, 1.0]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda question, completions: [], "parameter 'question' does not fit"),
        (lambda prompts: [], "takes no completions"),
        (lambda promtps, completions: [], "did you mean 'prompts'"),
        (len("").__add__, "allowed: prompts, completions|cannot be read|does not fit|takes no completions"),
    ],
    ids=["unknown argument", "no completions", "a slip", "no Python function"],
)
def test_a_signature_that_does_not_fit_is_refused_before_anything_runs(function: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        RewardTask("mine", tiny, ["Say 1"], ["Tell"], function, max_new_tokens=4)


@pytest.mark.parametrize(
    ("given", "said"),
    [([1.0], "1 numbers for 2"), ([1.0, float("nan")], "finite"), ("ab", "allowed"), ([1.0, "x"], "allowed")],
    ids=["too few", "not finite", "a text", "a text within"],
)
def test_what_is_no_reward_is_named(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rewards(lambda prompts, completions: given)


def test_prompts_that_differ_in_blanks_are_one() -> None:
    assert len(read_questions(["Say 1", "Say  1 ", "Say 2"])) == 2
    with pytest.raises(UsageError, match="both trained on and held out"):
        RewardTask("mine", tiny, ["Say 1"], ["Say 1  "], by_name, max_new_tokens=4)


def test_completions_that_the_reward_does_not_apply_to_leave_their_group() -> None:
    def some(completions: list[str]) -> list[float | None]:
        return [
            None if index % 4 == 0 and len(completions) > 1 else float(len(text))
            for index, text in enumerate(completions)
        ]

    task = RewardTask("some", tiny, ["Say 1", "Say 2"], ["Tell"], some, max_new_tokens=6)
    task.final_episodes = task.evaluation_episodes = 4
    result = polobench.make("grpo", task=task, n_groups=2, group_size=4, epochs=1).run(seed=0, budget=200)
    assert result.status == "ok", result.reason
    assert result.snapshots["after"]["notes"]["the reward does not apply"] > 0


def test_a_reward_that_applies_to_nothing_ends_the_run() -> None:
    task = RewardTask("none", tiny, ["Say 1"], ["Tell"], lambda prompts, completions: [None] * len(completions),
                      max_new_tokens=4, floor=0.0)  # fmt: skip
    result = polobench.make("grpo", task=task).run(seed=0, budget=200)
    assert result.status == "failed"
    assert "applies to none" in result.reason
