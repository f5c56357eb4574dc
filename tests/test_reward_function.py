"""Reward functions: arguments by name, what is refused before anything runs, what may be given back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polobench.core.errors import UsageError
from polobench.tasks import reward_function
from polobench.tasks.digits import SORT
from polobench.tasks.reward import RewardTask
from polobench.tasks.reward_function import Question, RewardFunction, described, functions_in, read_questions

ASKED = [Question("Say 1", {"answer": "one"}), Question("Say 2", {"answer": "two"})]


class Judge:
    def __call__(self, completions: list[str], **columns: list[Any]) -> list[float]:
        assert set(columns) == {"prompts", "answer"}
        return [float(len(text)) for text in completions]

    def by_method(self, prompts: list[str], completions: list[str]) -> list[float]:
        return [float(len(text)) for text in completions]


def swapped(completions: list[str], prompts: list[str]) -> list[float]:
    assert prompts == ["Say 1", "Say 2"]
    return [float(len(text)) for text in completions]


def singular(completion: list[str], prompt: list[str]) -> list[float]:
    return swapped(completion, prompt)


def with_column(completions: list[str], answer: list[str], weight: float = 1.0) -> list[float]:
    assert answer == ["one", "two"]
    return [weight * len(text) for text in completions]


def by_place(prompts: list[str], completions: list[str], /) -> list[float]:
    return swapped(completions, prompts)


FITTING = [
    swapped, singular, with_column, by_place, Judge(), Judge().by_method, partial(with_column, weight=1.0),
    lambda p, c: swapped(c, p), lambda _, completions: list(map(len, completions)), lambda *both: swapped(*both[::-1]),
    lambda completions, **others: swapped(completions, others["prompts"]),
]  # fmt: skip


@pytest.mark.parametrize("function", FITTING)
def test_arguments_are_given_by_name(function: Any) -> None:
    assert RewardFunction(function, ["answer"])(ASKED, ["a", "bcd"]) == [1, 3]


def test_arguments_given_by_place_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_function, "_meant", lambda name, index, allowed: allowed[index])
    with pytest.raises(UsageError, match="failed: AssertionError"):
        RewardFunction(swapped, [])(ASKED, ["a", "bcd"])


async def later(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.0]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x, y: [], "its parameter 'x' does not fit (allowed: prompts, completions, answer)"),
        (lambda completions, anser: [], "its parameter 'anser' does not fit; did you mean 'answer'?"),
        (lambda prompts: [], "it takes no completions"),
        (later, "it is a coroutine"),
        (3, "its parameters cannot be read"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused_before_anything_runs(function: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        RewardTask("x", _never, [{"prompt": "Say", "answer": "a"}], None, function, max_new_tokens=1)
    assert said in str(caught.value)
    assert str(caught.value).startswith("task 'x': ")
    assert "\n" not in str(caught.value)


def _never() -> Any:
    raise AssertionError("no model is needed to read a signature")


CELL = """
import json, sys
from functools import partial
from pathlib import Path
from polobench.core.provenance import code_hash
from polobench.tasks.reward import RewardTask
from polobench.tasks.token_bandit import make_model
import rewards

given = (rewards.reward, partial(rewards.reward, scale=2.0), rewards.Judge(), rewards.Judge().by_method)
for files in json.loads(sys.argv[1]):
    for name, text in files.items():
        Path(name).write_text(text)
    code_hash.cache_clear()
    for reward in given:
        task = RewardTask("x", make_model, ["?"], None, reward, max_new_tokens=1)
        print(code_hash(*sorted(task.modules())))
"""
REWARDS = """
from judging import judged

def reward(completions, scale=1.0):
    return [scale * judged(text) for text in completions]

class Judge:
    def __call__(self, completions):
        return reward(completions)
    by_method = __call__
"""


def test_an_edited_reward_file_makes_new_cells(tmp_path: Path) -> None:
    """What enters a cell's id is a hash of the file of the reward, and of what that imports."""
    files = {"rewards.py": REWARDS, "judging.py": "def judged(text):\n    return len(text)\n"}

    for name, text in files.items():
        (tmp_path / name).write_text(text)
    edits = {"rewards.py": REWARDS.replace("scale *", "-scale *")}, {"judging.py": "judged = str.__len__\n"}
    states = [files, files, *(files | edit for edit in edits)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    whole = [sys.executable, "-c", CELL, json.dumps(states)]
    printed = subprocess.check_output(whole, env=environment, cwd=tmp_path, text=True).split()
    before, again, *changed = (set(printed[i : i + 4]) for i in range(0, 16, 4))
    assert len(printed) == 16
    assert again == before
    assert [found & before for found in changed] == [set(), set()]


GIVEN = [
    [0.5, 2], (0.5, 2), np.array([0.5, 2]), torch.tensor([0.5, 2], requires_grad=True),
    torch.tensor([0.5, 2]).bfloat16(), [np.float32(0.5), torch.tensor(2)], (value for value in (0.5, 2)),
]  # fmt: skip


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: type(given).__name__)
def test_numbers_may_come_in_lists_arrays_and_tensors(given: Any) -> None:
    assert RewardFunction(lambda completions: given, [])(ASKED, ["a", "b"]) == [0.5, 2]


def test_none_and_truth_values() -> None:
    assert RewardFunction(lambda completions: [None, True], [])(ASKED, ["a", "b"]) == [None, 1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0.5], "gave 1 numbers for 2 completions"),
        (
            [0.5, float("nan")],
            "gave nan for the prompt 'Say 2' and the completion 'b' (allowed: a finite number, or None)",
        ),
        ([0.5, "1"], "gave '1' for the prompt 'Say 2'"),
        (np.zeros((2, 1)), "gave [0.0] for the prompt 'Say 1'"),
        ({"a": 1, "b": 2}, "allowed: a number for each completion"),
        ({0.5, 1.0}, "allowed: a number for each completion"),
        ("12", "allowed: a number for each completion"),
        (0.5, "allowed: a number for each completion"),
        (torch.tensor(0.5), "allowed: a number for each completion"),
        (None, "allowed: a number for each completion"),
    ],
)
def test_anything_else_is_named_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        RewardFunction(lambda completions: given, [])(ASKED, ["a", "b"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([], "it has no prompts"),
        ("Say", "a list of prompts"),
        ([""], "prompt 1: field 'prompt': ''"),
        (["Say", 3], "prompt 2: field 'prompt': 3"),
        ([{"answer": "a"}], "prompt 1: field 'prompt': None"),
        ([[{"role": "assistant", "content": "x"}]], "prompt 1: field 'prompt': its last message"),
        ([{"prompt": "a", "x": 1}, {"prompt": "b", "y": 1}], "prompt 2: columns ['y'] (allowed: the same in each row"),
        ([{"prompt": "a", "completions": 1}], "prompt 1: columns ['completions']"),
    ],
)
def test_bad_prompts_are_named_in_one_line(prompts: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_questions(prompts)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_description_is_the_same_in_every_process_and_tells_values_apart() -> None:
    long = np.arange(5000)
    other = long.copy()
    other[2500] = 0  # which numpy does not write out
    assert described(long) != described(other)
    assert described({"b": {"y", "x"}, "a": (1, None)}) == "{'a': [1, None], 'b': {'x', 'y'}}"
    assert described(object()) == "<object object>"
    assert described(partial(max, 1, key=len)) == "partial(builtins.max, [1], {'key': builtins.len})"
    assert "<" in described(lambda text: text)
    assert described(SORT.exact_match) == (
        "Problem({'name': 'sort-digits', 'target': 0.982, 'way': polobench.tasks.digits.ascending}).exact_match"
    )
    assert {function.__name__ for function in functions_in(SORT.exact_match)} == {"exact_match", "ascending"}


def test_questions_that_differ_in_another_column_are_two() -> None:
    rows = [{"prompt": "a", "x": 1}, {"prompt": "a ", "x": 1}, {"prompt": "a", "x": 2}]
    assert [question.columns["x"] for question in read_questions(rows)] == [1, 2]
