"""Verifiable tasks on digits, small enough that every method learns or fails within a minute.

A prompt is 3 to 8 digits and "=". There are four ways of answering "50317=": ascending "01357", descending "75310",
copied "50317" and rotated "03175". Which one is right is the task's:

- `sort-digits`: ascending. Its checkpoint knows several ways (ascending 30 %, descending 50 %, copied 20 %), so what
  is to be learned is which one to take.
- `order-digits`: the first digit tells. 0, 3, 6, 9: ascending; 1, 4, 7: descending; 2, 5, 8: copied. Its checkpoint
  rotates (40 %) or takes one of the other three ways (20 % each) whatever the first digit. One of them for all prompts
  is right for 0.40, 0.32 or 0.30 of these.
- `sharpen-digits`: `sort-digits` with a checkpoint that was trained on right answers, but for 60 steps only. Measured:
  methods make it surer of what it says, and hardly more often right.

All start from a tiny GPT-2 (2 layers, 64 wide); its checkpoint ships with the package, and

    python -m polobench.tasks.pretraining sort-digits FOLDER

makes it again, bit for bit on the same platform. The reward is 1 for an exact answer and 0 otherwise;
`order-digits-partial` is trained on the share of places that are right, and evaluated like the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources

import torch

from polobench.core.policy import Policy
from polobench.core.seeding import SeedAxes
from polobench.policies.causal_lm import CausalLM
from polobench.tasks.floors import stored, stored_floor
from polobench.tasks.language import language_policy
from polobench.tasks.reward import PASS_AT, RewardTask

CHARACTERS = "0123456789="
LENGTHS = range(3, 9)
FEWEST_POSSIBLE = 2000  # a length with fewer possible prompts is for training only
SPLITS = {"heldout": 2500, "tuning": 2500, "train": 4000}  # prompts in each, in the order in which they are drawn
UNIT = "held-out greedy exact match"

Way = Callable[[str], str]


def ascending(digits: str) -> str:
    """The smallest digit first."""
    return "".join(sorted(digits))


def descending(digits: str) -> str:
    """The largest digit first."""
    return ascending(digits)[::-1]


def copied(digits: str) -> str:
    """The digits as they are."""
    return digits


def rotated(digits: str) -> str:
    """The first digit behind the others."""
    return digits[1:] + digits[0]


def told_by_first_digit(digits: str) -> str:
    """Ascending, descending or copied, by the remainder that three leaves of the first digit."""
    return (ascending, descending, copied)[int(digits[0]) % 3](digits)


@dataclass(frozen=True)
class Problem:
    """A family of prompts with one right answer each.

    Attributes:
        name: of the task whose prompts they are.
        way: from digits to the right answer.
        target: what counts as solved: the same model after as many steps of supervised training, on right answers
            alone, greedy on the held-out prompts; `python -m polobench.tasks.pretraining NAME-right FOLDER` makes it.
    """

    name: str
    way: Way
    target: float

    def prompts(self) -> Mapping[str, list[str]]:
        """The prompts of each split of `SPLITS`, which share none; the same ones in every run."""
        return _prompts(self.name)

    def answer(self, prompt: str) -> str:
        """The right one."""
        return self.way(prompt[:-1])

    def exact_match(self, prompts: list[str], completions: list[str]) -> list[float]:
        """1 where the completion is the answer."""
        return [float(text == self.answer(prompt)) for prompt, text in zip(prompts, completions, strict=True)]

    def partial_credit(self, prompts: list[str], completions: list[str]) -> list[float]:
        """The share of the answer's places that are right; a completion of another length loses its places, too."""
        return [_share_right(self.answer(prompt), text) for prompt, text in zip(prompts, completions, strict=True)]


@cache
def _prompts(name: str) -> Mapping[str, list[str]]:
    rng = SeedAxes(0).numpy(f"prompts/{name}")
    seen: set[str] = set()
    splits: dict[str, list[str]] = {}
    for split, count in SPLITS.items():
        lengths = [n for n in LENGTHS if split == "train" or 10**n >= FEWEST_POSSIBLE]
        drawn = splits[split] = []
        while len(drawn) < count:
            prompt = "".join(map(str, rng.integers(0, 10, rng.choice(lengths)))) + "="
            if prompt not in seen:
                seen.add(prompt)
                drawn.append(prompt)
    return splits


def _share_right(answer: str, text: str) -> float:
    right = sum(mine == theirs for mine, theirs in zip(answer, text, strict=False))
    return right / max(len(answer), len(text))


SORT = Problem("sort-digits", ascending, target=0.982)
ORDER = Problem("order-digits", told_by_first_digit, target=0.959)
PROBLEMS = {problem.name: problem for problem in (SORT, ORDER)}


class DigitsTask(RewardTask):
    """A problem with a checkpoint, whose greedy return (the floor) and pass@k are measured once on a platform."""

    def floor_of(self, checkpoint: CausalLM) -> float:
        return stored_floor(self.modules(), self._definition, lambda: super(DigitsTask, self).floor_of(checkpoint))

    def measures_at_ends(self, policy: Policy, seed: int) -> dict[str, float]:
        """As every reward task's. Every run begins at the checkpoint, so what is measured of that is stored."""
        language, measure = language_policy(policy), partial(super().measures_at_ends, policy, seed)
        if not language.equals(language_policy(self.reference_policy())):
            return measure()
        rows_at_once, dtype, threads = language.generation_batch, language.model.dtype, torch.get_num_threads()
        how = f"{self.pass_prompts} prompts, {seed}, {rows_at_once}, {dtype}, {self.device}, {threads}"
        return stored("passes", self.modules(), f"{self._definition}, {how}", measure, _as_pass_at)

    @property
    def _definition(self) -> str:
        return f"{self.name}, {self.final_episodes} of {self.split}, {sorted(self.identity().items())}"


def _as_pass_at(found: Mapping[str, float]) -> dict[str, float]:
    return {name: float(found[name]) for name in PASS_AT}


def digits_task(
    name: str,
    problem: Problem,
    model: str | None = None,
    *,
    with_partial_credit: bool = False,
) -> DigitsTask:
    """The task of a problem.

    Args:
        name: of the task, and of the shipped checkpoint that it starts from.
        problem: `SORT` or `ORDER`.
        model: a name as `polobench.policies.pretrained.locate` takes it; the shipped checkpoint by default.
        with_partial_credit: of the training reward; the evaluation is always of exact match.
    """
    prompts = problem.prompts()
    shipped = str(resources.files("polobench.tasks").joinpath("checkpoints", name.removesuffix("-partial")))
    return DigitsTask(
        name,
        model or shipped,
        prompts["train"],
        prompts["heldout"],
        problem.partial_credit if with_partial_credit else problem.exact_match,
        tuning_prompts=prompts["tuning"],
        heldout_reward=problem.exact_match,
        max_new_tokens=LENGTHS[-1] + 1,
        unit=UNIT,
        target=problem.target,
        right_from=1.0,
    )


sort_digits = partial(digits_task, "sort-digits", SORT)
order_digits = partial(digits_task, "order-digits", ORDER)
order_digits_partial = partial(digits_task, "order-digits-partial", ORDER, with_partial_credit=True)
sharpen_digits = partial(digits_task, "sharpen-digits", SORT)
