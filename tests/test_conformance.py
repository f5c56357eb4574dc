"""Every built-in method and task passes the suites that a stranger's has to pass."""

from __future__ import annotations

from functools import partial
from importlib import resources
from importlib.metadata import entry_points
from typing import Any

import pytest

import polobench
from polobench.policies.pretrained import Pretrained
from polobench.registry import METHODS, TASKS
from polobench.tasks import reward
from polobench.tasks.judged import digit_preferences_learned
from polobench.tasks.preference import PreferenceTask
from polobench.tasks.preference_data import PreferenceData, RankedGroup
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2
from polobench.testing import MethodConformance, TaskConformance
from polobench.testing.methods import CURVE_COLUMNS

# learns nothing on purpose, or is measured with its faults
EXCUSED_FROM_BEATING_RANDOM = (
    "random",
    "best-temperature",
    "article-pg",
    "article-trpo",
    "article-ppo",
    "article-dpo",
    "article-grpo",
)
CHARACTERS, CONTEXT = "abcdefgh?", 32
TINY_MODEL = resources.files("polobench.tasks").joinpath("checkpoints", "preferences-bytes")


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    """What a task owes does not depend on how many prompts it is evaluated on."""
    for name in ("final_episodes", "evaluation_episodes"):
        monkeypatch.setattr(reward.RewardTask, name, 60)
    monkeypatch.setattr(reward, "PROBE_PROMPTS", 8)


def tiny_model() -> Pretrained:
    return Pretrained(tiny_gpt2(len(CHARACTERS) + 1, CONTEXT, seed=0), character_tokenizer(CHARACTERS), CONTEXT)


class Ranked(PreferenceTask):
    """Eight prompts with three ranked responses each."""

    def __init__(self) -> None:
        scored = ("aa", "bb", "cc"), (2.0, 1.0, 0.0)
        groups = tuple(RankedGroup(f"{letter}?", *scored, "here") for letter in CHARACTERS[:-1])
        super().__init__("ranked", PreferenceData("ranked", groups, (), "digest"), tiny_model, max_new_tokens=4)


class Paired(PreferenceTask):
    """Eight prompts, each with a response that is preferred although the model finds it the less likely one."""

    def __init__(self) -> None:
        groups = tuple(RankedGroup(f"{letter}?", ("bb", "aa"), (1.0, 0.0), "here") for letter in CHARACTERS[:-1])
        super().__init__("paired", PreferenceData("paired", groups, (), "digest"), tiny_model, max_new_tokens=4)
        self.target = 1.0


CHANGES: dict[str, dict[str, Any]] = {
    "reinforce": {"hyperparameters": {"n_episodes": 32}},  # of one step each
    # standardised over an episode of one step there is nothing left to follow
    "article-pg": {"task": "CartPole-v1", "budgets": (1, 331)},
    "article-trpo": {"task": "CartPole-v1", "budgets": (1, 331)},
    "article-ppo": {"task": "CartPole-v1", "budgets": (1, 331)},
    "sft": {"task": Paired, "budgets": (1, 331, 2003), "hyperparameters": {"learning_rate": 1e-2}},  # it reads data
    "article-dpo": {"task": Ranked, "budgets": (1, 331)},  # they read data
    "article-grpo": {"task": Ranked, "budgets": (1, 331)},
    # its reward model takes the most of a budget, of 2,000 pairs 82,000
    "digit-preferences-learned": {"task": partial(digit_preferences_learned, pairs=200), "budget": 20_000},
    "preferences": {"task": f"preferences@{TINY_MODEL}"},  # the model that it names may be absent, and is large
}


def built_in(group: str) -> list[str]:
    return sorted(entry.name for entry in entry_points(group=group) if entry.dist and entry.dist.name == "polobench")


def suite(base: type, kind: str, name: str) -> type:
    """What an author writes, for the built-in one of this name."""
    excused = {"test_beats_random": None} if name in EXCUSED_FROM_BEATING_RANDOM else {}
    return type(f"Test_{name}", (base,), {kind: name, "__module__": __name__} | excused | CHANGES.get(name, {}))


SUITES = [suite(MethodConformance, "method", name) for name in built_in(METHODS)]
SUITES += [suite(TaskConformance, "task", name) for name in built_in(TASKS)]
globals().update({cls.__name__: cls for cls in SUITES})


def test_whoever_is_excused_is_there():
    assert set(EXCUSED_FROM_BEATING_RANDOM) <= set(built_in(METHODS))


def test_the_reserved_names_are_the_columns_of_a_curve_without_updates():
    curve = polobench.make("random", task="probe-bandit").run(seed=0, budget=1).curve
    assert {name for name in curve.columns if not name.startswith("heldout_")} == set(CURVE_COLUMNS)


@pytest.mark.parametrize("suite", SUITES, ids=lambda cls: cls.__name__)
def test_no_check_of_a_suite_is_missing(suite):
    base = suite.__mro__[1]
    gone = {name for name in vars(base) if name.startswith("test_") and not callable(getattr(suite, name))}
    assert gone <= ({"test_beats_random"} if suite.__name__[5:] in EXCUSED_FROM_BEATING_RANDOM else set())
