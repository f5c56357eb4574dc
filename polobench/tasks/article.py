"""The source article's tiny sets of preferences, taken from the built-in one, and a model to match.

Its five pairs and its two ranked groups of four are not reprinted here. In their place stand the first training prompts
of the built-in set, in the order of its file: of five of them the best response and the worst, of two all four. The
prompts held out are those that the built-in set holds out.

The model is a byte-level GPT-2 (2 layers, 64 wide), trained on the texts of the built-in set's training prompts alone:

    python -m polobench.tasks.pretraining preferences-bytes FOLDER

makes it again, bit for bit on the same platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

from polobench.tasks.preference import HELDOUT_SHARE, SPLIT_SEED, PreferenceTask
from polobench.tasks.preference_data import RankedGroup, builtin_preferences, split_by_prompt

PAIRS, GROUPS = 5, 2
MODEL = "preferences-bytes"


def builtin_split() -> tuple[tuple[RankedGroup, ...], tuple[RankedGroup, ...]]:
    """The groups of the built-in set to train on and those held out, as the task `preferences` splits them."""
    return split_by_prompt(builtin_preferences(), HELDOUT_SHARE, SPLIT_SEED)


def article_pairs(model: str | None = None) -> PreferenceTask:
    """Five prompts with two responses each; an epoch of `article-dpo` is five updates.

    Args:
        model: a name as `polobench.policies.pretrained.locate` takes it; the shipped checkpoint by default.
    """
    train, _ = builtin_split()
    return _task("article-pairs", [_best_and_worst(group) for group in train[:PAIRS]], model)


def article_groups(model: str | None = None) -> PreferenceTask:
    """Two prompts with four ranked responses each; an epoch of `article-grpo` is two updates.

    Args:
        model: as `article_pairs`.
    """
    train, _ = builtin_split()
    return _task("article-groups", train[:GROUPS], model)


def _task(name: str, train: Sequence[RankedGroup], model: str | None) -> PreferenceTask:
    _, heldout = builtin_split()
    shipped = str(resources.files("polobench.tasks").joinpath("checkpoints", MODEL))
    data = replace(builtin_preferences(), groups=(*train, *heldout))  # a prompt's side depends on its text alone
    return PreferenceTask(name, data, model or shipped)


def _best_and_worst(group: RankedGroup) -> RankedGroup:
    order = sorted(range(len(group.scores)), key=lambda index: -group.scores[index])
    ends = (order[0], order[-1])
    return replace(
        group, responses=tuple(group.responses[i] for i in ends), scores=tuple(group.scores[i] for i in ends)
    )
