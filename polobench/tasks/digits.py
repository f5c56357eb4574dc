"""Two verifiable tasks on digits, small enough that every method learns or fails within a minute.

`sort-digits`: "503172=" asks for "012357". `add-digits`: "47+85=" asks for "231", the digits of the sum from the last
one on, since a model that writes the last digit first can carry. Both start from a tiny GPT-2 (2 layers, 64 wide) that
supervised training has brought part of the way; its checkpoint ships with the package, and

    python -m polobench.tasks.pretraining sort-digits FOLDER

makes it again, bit for bit on the same platform. The reward is 1 for an exact answer and 0 otherwise; `-partial` tasks
are trained on the share of places that are right, and evaluated like the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources

import numpy as np

from polobench.core.seeding import SeedAxes
from polobench.tasks.reward import RewardTask

CHARACTERS = "0123456789+="
TRAIN_PROMPTS, HELDOUT_PROMPTS = 4000, 500
SORTED_DIGITS = 6
UNIT = "held-out sampled exact match"


@dataclass(frozen=True)
class Problem:
    """A family of prompts with one right answer each.

    Attributes:
        name: of the task.
        draw: gives a prompt.
        answer: of a prompt.
        longest: tokens of an answer, the end token included.
        floor: what the shipped checkpoint reaches: 20 samples of each held-out prompt.
        target: what counts as solved.
    """

    name: str
    draw: Callable[[np.random.Generator], str]
    answer: Callable[[str], str]
    longest: int
    floor: float
    target: float

    def prompts(self) -> tuple[list[str], list[str]]:
        """Training and held-out prompts, which have none in common; the same ones in every run."""
        rng = SeedAxes(0).numpy(f"prompts/{self.name}")
        drawn: dict[str, None] = {}
        while len(drawn) < TRAIN_PROMPTS + HELDOUT_PROMPTS:
            drawn[self.draw(rng)] = None
        every = list(drawn)
        return every[HELDOUT_PROMPTS:], every[:HELDOUT_PROMPTS]

    def exact_match(self, prompts: list[str], completions: list[str]) -> list[float]:
        """1 where the completion is the answer."""
        return [float(text == self.answer(prompt)) for prompt, text in zip(prompts, completions, strict=True)]

    def partial_credit(self, prompts: list[str], completions: list[str]) -> list[float]:
        """The share of the answer's places that are right; a completion of another length loses its places, too."""
        return [_share_right(self.answer(prompt), text) for prompt, text in zip(prompts, completions, strict=True)]


def _share_right(answer: str, text: str) -> float:
    right = sum(mine == theirs for mine, theirs in zip(answer, text, strict=False))
    return right / max(len(answer), len(text))


def _sort_prompt(rng: np.random.Generator) -> str:
    return "".join(map(str, rng.integers(0, 10, SORTED_DIGITS))) + "="


def _add_prompt(rng: np.random.Generator) -> str:
    first, second = rng.integers(0, 100, 2)
    return f"{first:02d}+{second:02d}="


def _sorted(prompt: str) -> str:
    return "".join(sorted(prompt[:-1]))


def _sum_reversed(prompt: str) -> str:
    first, second = prompt[:-1].split("+")
    return f"{int(first) + int(second):03d}"[::-1]


SORT = Problem("sort-digits", _sort_prompt, _sorted, SORTED_DIGITS + 1, floor=0.384, target=0.8)
ADD = Problem("add-digits", _add_prompt, _sum_reversed, 4, floor=0.362, target=0.8)
PROBLEMS = {problem.name: problem for problem in (SORT, ADD)}


def digits_task(problem: Problem, model: str | None = None, *, with_partial_credit: bool = False) -> RewardTask:
    """The task of a problem.

    Args:
        problem: `SORT` or `ADD`.
        model: a name as `polobench.policies.pretrained.locate` takes it; the shipped checkpoint by default.
        with_partial_credit: of the training reward; the evaluation is always of exact match.
    """
    train, heldout = problem.prompts()
    shipped = str(resources.files("polobench.tasks").joinpath("checkpoints", problem.name))
    return RewardTask(
        f"{problem.name}-partial" if with_partial_credit else problem.name,
        model or shipped,
        train,
        heldout,
        problem.partial_credit if with_partial_credit else problem.exact_match,
        heldout_reward=problem.exact_match,
        max_new_tokens=problem.longest,
        unit=UNIT,
        target=problem.target,
        floor=float("nan") if model else problem.floor,
    )


sort_digits = partial(digits_task, SORT)
sort_digits_partial = partial(digits_task, SORT, with_partial_credit=True)
add_digits = partial(digits_task, ADD)
add_digits_partial = partial(digits_task, ADD, with_partial_credit=True)
