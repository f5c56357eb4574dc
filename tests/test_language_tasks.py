"""Language tasks: the probe that every method reaches, preference data as a task, names with a model, bad input."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polobench.core.budget import Budget
from polobench.core.errors import UsageError
from polobench.core.registry import find_task, make
from polobench.policies.pretrained import Pretrained
from polobench.tasks.preference import PreferenceTask
from polobench.tasks.preference_data import read_preferences
from polobench.tasks.reward import RewardTask
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2

LETTERS = "abcdefgh ?:usr"
REACHED = {
    "reinforce": {"n_episodes": 64, "baseline": "batch_mean", "learning_rate": 3e-3},
    "trpo": {"n_envs": 8, "n_steps": 32, "max_kl": 0.05, "critic_epochs": 2},
    "ppo": {"n_envs": 8, "n_steps": 16, "epochs": 4, "minibatch_size": 64, "learning_rate": 1e-3},
    "dpo": {"learning_rate": 1e-3},
    "grpo": {"learning_rate": 1e-3},
    "ranking": {"learning_rate": 1e-3},
}


@pytest.mark.parametrize("method", sorted(REACHED))
def test_every_method_reaches_the_token_bandit(method: str) -> None:
    result = make(method, "token-bandit", **REACHED[method]).run(seed=0, budget=5_000)
    assert result.status == "ok", result.reason
    assert result.curve["return_mean"].iloc[0] < 0.5
    assert result.final_return > 0.95


def test_a_bandit_with_the_reward_turned_round_is_not_reached() -> None:
    task: Any = find_task("token-bandit")
    right = task._reward
    task._reward = lambda prompts, completions: [-value for value in right(prompts, completions)]
    result = make("grpo", task, **REACHED["grpo"]).run(seed=0, budget=5_000)
    assert result.final_return < 0.2


def small_model() -> Pretrained:
    return Pretrained(tiny_gpt2(len(LETTERS) + 1, 32, seed=0), character_tokenizer(LETTERS), 32)


def data(folder: Path, rows: int = 24) -> Path:
    """The better answer is "a..." everywhere, so that a tiny model can learn it from some prompts for the others."""
    path = folder / "letters.jsonl"
    prompts = [f"{first}{second}?" for first in "bcdefg" for second in "bcdefg"][:rows]
    lines = [{"prompt": prompt, "responses": ["bb", "aaa", "cb"], "ranks": [2, 1, 3]} for prompt in prompts]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("method", ["dpo", "ranking"])
def test_preferences_are_learned_and_stored(method: str, tmp_path: Path) -> None:
    task = PreferenceTask("letters", read_preferences(data(tmp_path)), small_model, max_new_tokens=4)
    runs = [make(method, task, learning_rate=1e-3, micro_batch=6).run(0, Budget(updates=30)) for _ in range(2)]
    assert [run.status for run in runs] == ["ok", "ok"], runs[0].reason
    assert runs[0].digest == runs[1].digest
    result = runs[0]
    assert result.final_return == 1.0
    assert result.curve["train_accuracy"].iloc[-1] == 1.0
    assert result.curve["heldout_margin"].iloc[0] == 0
    assert result.ledger.samples == result.ledger.samples_read > 0
    before, after = (result.snapshots[when]["pairs"]["heldout"] for when in ("before", "after"))
    assert before["prompt"] == after["prompt"]
    assert len(before["prompt"]) == 3 * len(set(before["prompt"]))
    assert result.snapshots["before"]["measures"]["kl_to_reference"] == pytest.approx(0, abs=1e-6)
    assert result.snapshots["after"]["measures"]["kl_to_reference"] > 0


def test_data_are_charged_each_time_and_never_overspent(tmp_path: Path) -> None:
    task = PreferenceTask("letters", read_preferences(data(tmp_path)), small_model, max_new_tokens=4)
    result = make("dpo", task, n_groups=2).run(0, 100)
    tokens_of_two_groups = 2 * (3 + 4 + 3)
    assert result.ledger.updates == 100 // tokens_of_two_groups
    assert result.ledger.samples_read <= 100


def test_the_reference_of_fixed_data_is_computed_once(tmp_path: Path) -> None:
    """A second pass over the data costs no further forward rows for the reference."""
    task = PreferenceTask("letters", read_preferences(data(tmp_path, 6)), small_model, max_new_tokens=4)
    rows = {n: make("dpo", task, n_groups=1).run(0, Budget(updates=n)).ledger.forward_rows for n in (1, 2, 3, 9, 10)}
    assert rows[3] - rows[2] == rows[10] - rows[9] == rows[2] - rows[1]


def test_a_method_that_needs_a_reward_says_so(tmp_path: Path) -> None:
    task = PreferenceTask("letters", read_preferences(data(tmp_path)), small_model, max_new_tokens=4)
    result = make("grpo", task).run(0, 100)
    assert result.status == "failed"
    assert "has preference data and no reward" in result.reason
    assert "\n" not in result.reason


def test_control_has_no_preference_data() -> None:
    result = make("dpo", "CartPole-v1", source="data").run(0, 1_000)
    assert result.status == "failed"
    assert "has no preference data" in result.reason


def test_rows_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    path = data(tmp_path)
    long = {"prompt": "h" * 40, "chosen": "a", "rejected": "b"}
    path.write_text(path.read_text() + "\n" + json.dumps(long))
    task = PreferenceTask("letters", read_preferences(path), small_model, max_new_tokens=4)
    result = make("dpo", task).run(0, Budget(updates=1))
    assert result.snapshots["before"]["notes"] == {"longer than the model's context": 1}


def test_a_reward_function_makes_a_task() -> None:
    def many_as(prompts: list[str], completions: list[str]) -> list[float]:
        return [text.count("a") / 4 for text in completions]

    task = RewardTask("many-as", small_model, ["b?", "c?"], ["d?"], many_as, max_new_tokens=4)
    result = make("grpo", task, learning_rate=3e-3).run(0, 10_000)
    assert result.final_return > result.floor + 0.3


def test_one_prompt_cannot_be_trained_on_and_held_out() -> None:
    with pytest.raises(UsageError, match="both trained on and held out"):
        RewardTask("leak", small_model, ["b?", "c?"], ["c?"], lambda p, c: [0.0] * len(c), max_new_tokens=4)


def test_a_task_with_another_model() -> None:
    folder = Path("polobench/tasks/checkpoints/sort-digits").resolve()
    task = find_task(f"sort-digits@{folder}")
    assert task.name == f"sort-digits@{folder}"
    assert task.identity() == find_task("sort-digits").identity()
    with pytest.raises(UsageError, match="takes no model"):
        find_task("CartPole-v1@smollm2")


def test_a_file_is_a_task(tmp_path: Path) -> None:
    path = data(tmp_path)
    folder = Path("polobench/tasks/checkpoints/sort-digits").resolve()
    task = find_task(f"{path}@{folder}")
    assert set(task.identity()) == {"data", "model"}
    before = task.identity()["data"]
    path.write_text(path.read_text().replace("aaa", "aab"))
    assert find_task(f"{path}@{folder}").identity()["data"] != before


def test_the_shipped_checkpoints_are_small_and_reach_their_floor() -> None:
    size = sum(path.stat().st_size for path in Path("polobench/tasks/checkpoints").rglob("*") if path.is_file())
    assert size < 2 * 2**20
    for name in ("sort-digits", "add-digits"):
        result = make("random", name).run(0, Budget(updates=1))
        assert result.final_return == pytest.approx(result.floor, abs=0.08)  # 3.5 standard errors of 500 samples
        assert torch.isfinite(torch.tensor(result.floor))
