"""The language models that both sides run, and the tasks that these are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from polobench.core.seeding import SeedAxes
from polobench.policies.model_files import locate
from polobench.policies.pretrained import Pretrained, load
from polobench.tasks.preference import HELDOUT_SHARE, SPLIT_SEED, PreferenceTask
from polobench.tasks.preference_data import PreferenceData, split_by_prompt
from polobench.tasks.preference_formats import RankedGroup
from polobench.tasks.reward import RewardTask
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2

PAIRS, PAIR_PROMPT, RESPONSE = 8, 13, 16
PROMPT, NEW_TOKENS = 16, 16
CONTEXT = PROMPT + NEW_TOKENS


@dataclass(frozen=True)
class World:
    """A model and what is asked of it.

    Attributes:
        letters: of which texts are drawn, a token each.
        load: gives model and tokenizer, each time anew.
        tolerance: of the difference between the two sides' first losses and, relatively, gradients.
        goal: the ratio that is wanted.
        groups, group_size: prompts of a step that samples, and completions of each.
        rounds, warmup: steps of each side.
    """

    name: str
    letters: str
    load: Callable[[], Pretrained]
    compute_dtype: str = "float32"
    tolerance: float = 1e-5
    goal: float = 2.0
    groups: int = 8
    group_size: int = 8
    rounds: int = 60
    warmup: int = 10

    @property
    def rows(self) -> int:
        return self.groups * self.group_size

    def endless(self) -> Pretrained:
        """With an end token that the model cannot say."""
        found = self.load()
        found.model.generation_config.eos_token_id = found.model.config.vocab_size
        found.tokenizer.add_special_tokens({"eos_token": "<unreachable>", "pad_token": "<unreachable>"})
        return Pretrained(found.model, found.tokenizer, found.context_length)  # without the model's other ends

    def texts(self, count: int, length: int, axis: str) -> list[str]:
        """Random ones, different from each other, as good as surely."""
        drawn = SeedAxes(0).numpy(axis).choice(list(self.letters), (count, length))
        return ["".join(row) for row in drawn]

    def first_half_share(self, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        """So many of a completion's characters are of the first half of the letters, as a share of its tokens."""
        half = set(self.letters[: len(self.letters) // 2])
        return [sum(letter in half for letter in text) / NEW_TOKENS for text in completions]


LETTERS = "".join(map(chr, range(0x100, 0x163)))  # 99 of them, which with the end token make a vocabulary of 100


def tiny(context: int = CONTEXT) -> Pretrained:
    """The GPT-2 of 2 layers and 64 units."""
    return Pretrained(tiny_gpt2(len(LETTERS) + 1, context, seed=0), character_tokenizer(LETTERS), context)


def smollm2() -> Pretrained:
    """Without its chat template, in which TRL does not put a plain text either."""
    found = load(locate("smollm2"))
    found.tokenizer.chat_template = None
    return found


TINY = World("tiny GPT-2", LETTERS, tiny)
# digits are tokens of their own; the tolerances are for the rounding of 30 layers, and of another mix of types
_SMOLLM2 = partial(World, "SmolLM2-135M", "0123456789", smollm2, goal=1.0, groups=4, group_size=4, rounds=5, warmup=2)
SMOLLM2 = _SMOLLM2(tolerance=1e-4)
SMOLLM2_BFLOAT16 = _SMOLLM2(compute_dtype="bfloat16", tolerance=0.1)


def training_pairs(world: World) -> list[RankedGroup]:
    """8 pairs that a task trains on: on which side of its split a pair is, its prompt decides."""
    return list(split_by_prompt(_pairs(world, 100), HELDOUT_SHARE, SPLIT_SEED)[0][:PAIRS])


def pair_task(world: World, groups: Sequence[RankedGroup]) -> PreferenceTask:
    heldout = split_by_prompt(_pairs(world, 100), HELDOUT_SHARE, SPLIT_SEED)[1][:1]
    return PreferenceTask("random-pairs", PreferenceData("random pairs", (*groups, *heldout), (), ""), world.load)


def _pairs(world: World, count: int) -> PreferenceData:
    """Responses a token short of `RESPONSE`, since both libraries add the end token."""
    prompts = world.texts(count, PAIR_PROMPT, "pairs/prompts")
    better, worse = (world.texts(count, RESPONSE - 1, f"pairs/{side}") for side in ("chosen", "rejected"))
    rows = zip(prompts, better, worse, strict=True)
    groups = [RankedGroup(prompt, (good, bad), (1.0, 0.0), "random") for prompt, good, bad in rows]
    return PreferenceData("random pairs", tuple(groups), (), "")


def sampling_task(world: World) -> RewardTask:
    return RewardTask(
        "first-half",
        world.endless,
        world.texts(1_000, PROMPT, "prompts"),
        world.texts(4, PROMPT, "heldout"),
        world.first_half_share,
        max_new_tokens=NEW_TOKENS,
        floor=0.5,
    )
