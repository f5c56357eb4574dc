"""What language tasks hand to the methods: the tokens of the responses alone, however long their prompts are."""

from __future__ import annotations

import math
from itertools import product

import checks
import pytest
import torch

pytest.importorskip("transformers")

import polobench
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.recorder import Update
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.policies.pretrained import Pretrained
from polobench.tasks.preference import PreferenceTask
from polobench.tasks.preference_data import PreferenceData, RankedGroup
from polobench.tasks.reward import RewardTask
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2

LETTERS = "abcd?"
PROMPTS = [f"{first}{second}"[:length] + "?" for first, second in product("abcd", repeat=2) for length in (1, 2)]
GROUPS = tuple(RankedGroup(prompt, ("aaa", "b", "cb"), (3.0, 1.0, 2.0), prompt) for prompt in dict.fromkeys(PROMPTS))


def small_model() -> Pretrained:
    """Far from the nearly uniform start, where every response of a length has the same probability."""
    model = tiny_gpt2(len(LETTERS) + 1, 16, seed=0)
    checks.perturb(list(model.parameters()), torch.Generator().manual_seed(1))
    return Pretrained(model, character_tokenizer(LETTERS), 16)


def share_of_a(prompts: list[str], completions: list[str]) -> list[float]:
    return [text.count("a") / 4 for text in completions]


def rewarded() -> RewardTask:
    return RewardTask("letters", small_model, ["b?", "cdb?", "?"], ["d?"], share_of_a, max_new_tokens=4, floor=0.0)


def preferred() -> PreferenceTask:
    return PreferenceTask("letters", PreferenceData("letters", GROUPS, (), ""), small_model, max_new_tokens=4)


def first_update(method: str, task: Task, **hyperparameters: object) -> Update:
    return next(polobench.make(method, task, **hyperparameters).learn(task, SeedAxes(0)))


def test_sampled_rollouts_hold_the_completions_alone():
    with checks.bound(rewarded()) as task:
        policy = task.make_policy(Hyperparameters(), critic=False)
        rollout = task.episodes(policy, 6, 3)
        texts = [task.codec.text(row[mask].tolist()) for row, mask in zip(rollout.actions, rollout.mask)]
    assert rollout.n_samples == task.ledger.samples < rollout.mask.numel()
    assert share_of_a([], texts) == rollout.returns.tolist()
    assert {tuple(row[mask].tolist()) for row, mask in zip(rollout.prompts, rollout.prompt_mask)} == {
        tuple(LETTERS.index(letter) + 1 for letter in prompt) for prompt in ("b?", "cdb?", "?")
    }


def mean_log_prob(prompts: list[str], response: str) -> float:
    """Of the response and the end token after each prompt, read alone and without padding."""
    model, total = small_model().model, 0.0
    for prompt in prompts:
        numbers = [LETTERS.index(letter) + 1 for letter in prompt + response] + [0]
        with torch.no_grad():
            log_probs = model(torch.tensor([numbers])).logits[0].log_softmax(-1)
        total += sum(float(log_probs[place - 1, numbers[place]]) for place in range(len(prompt), len(numbers)))
    return total / len(prompts)


@pytest.mark.parametrize("method", ["dpo", "ranking"])
def test_first_update_on_data_has_the_log_probs_of_the_responses_alone(method):
    with checks.bound(preferred()) as task:
        prompts = [group.prompt for group, *_ in task._train]
        update = first_update(method, task, n_groups=len(prompts))
    assert len({len(prompt) for prompt in prompts}) > 1
    best, worst, middle = (mean_log_prob(prompts, response) for response in GROUPS[0].responses)
    assert update.metrics["chosen_log_prob"] == pytest.approx((2 * best + middle) / 3, abs=1e-4)
    assert update.metrics["rejected_log_prob"] == pytest.approx((2 * worst + middle) / 3, abs=1e-4)


@pytest.mark.parametrize("reference", ["checkpoint", "sampler"])
@pytest.mark.parametrize("make_task", [rewarded, preferred])
def test_first_update_of_dpo_is_at_its_reference(make_task, reference):
    """Where policy and reference are one, every margin is 0 and the loss ln 2."""
    with checks.bound(make_task()) as task:
        update = first_update("dpo", task, reference=reference, minibatch_groups=1, n_groups=2, learning_rate=0.0)
    assert update.loss == pytest.approx(math.log(2), abs=1e-5)


def test_dpo_refuses_a_reference_that_is_the_policy_itself():
    """With one gradient step per batch no margin would ever leave 0."""
    with pytest.raises(UsageError, match=r"every margin is 0 \(allowed: epochs from 2, .*'checkpoint'\)"):
        polobench.make("dpo", rewarded(), reference="sampler", n_groups=8, minibatch_groups=6)  # 2 are too few for one
    polobench.make("dpo", rewarded(), reference="sampler", epochs=2)
    polobench.make("dpo", rewarded(), reference="sampler", n_groups=8, minibatch_groups=4)
    polobench.make("dpo", preferred(), reference="sampler")  # the data's reference is the checkpoint


def test_first_update_of_grpo_has_the_advantages_of_its_groups():
    """At ratio 1 the loss is minus the sum of the tokens' advantages, here over the longest that they could be."""
    with checks.bound(rewarded()) as task:
        rollouts, sample = [], task.episodes
        task.episodes = lambda *arguments: rollouts.append(sample(*arguments)) or rollouts[-1]
        update = first_update("grpo", task, n_groups=3, group_size=4, normalization="dr_grpo")
    expected = 0.0
    for group in range(3):
        rows = rollouts[0].select(rollouts[0].groups == group)
        advantages = (rows.returns - rows.returns.mean()) / (rows.returns.std(correction=0) + 1e-4)
        expected -= float((advantages * rows.mask.sum(1)).sum()) / (12 * 4)
    assert abs(expected) > 0.01
    assert update.loss == pytest.approx(expected, abs=1e-6)
