"""`token-bandit`: one prompt, one token, a fixed reward for each token. Its optimum and gradients can be enumerated."""

from __future__ import annotations

from polobench.policies.pretrained import Pretrained
from polobench.tasks.reward import RewardTask
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2

REWARDS = {"a": 0.0, "b": 0.2, "c": 1.0, "d": 0.5}
PROMPT = "?"
CONTEXT = 4


def make_model() -> Pretrained:
    """A tiny GPT-2 with random weights, so that its policy is close to uniform over its six tokens."""
    characters = "".join(REWARDS) + PROMPT
    return Pretrained(tiny_gpt2(len(characters) + 1, CONTEXT, seed=0), character_tokenizer(characters), CONTEXT)


def reward(prompts: list[str], completions: list[str]) -> list[float]:
    """The token's reward; the prompt's own character and the end token earn nothing."""
    return [REWARDS.get(text, 0.0) for text in completions]


def token_bandit() -> RewardTask:
    """Best: always "c", reward 1. Floor: the mean over tokens of equal probability."""
    floor = sum(REWARDS.values()) / (len(REWARDS) + 2)
    return RewardTask("token-bandit", make_model, [PROMPT], None, reward, max_new_tokens=1, target=0.95, floor=floor)
