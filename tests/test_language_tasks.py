"""Language tasks: the probe that every method reaches, preference data as a task, names with a model, bad input."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import checks
import pytest
import torch
from transformers import GPT2Model

import polobench
from polobench.core.budget import Budget
from polobench.core.errors import Unavailable, UsageError
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.policy import unmetered
from polobench.kinds.environment import parse_task
from polobench.policies.causal_lm import CausalLM
from polobench.policies.pretrained import Pretrained
from polobench.policies.reading import self_test
from polobench.registry import find_task, make
from polobench.tasks.pairs import Columns, PairSet, accuracies
from polobench.tasks.preference import PreferenceTask
from polobench.tasks.preference_data import read_preferences
from polobench.tasks.reward import RewardTask
from polobench.tasks.reward_function import RewardFunction
from polobench.tasks.tiny import character_tokenizer, tiny_gpt2
from polobench.testing.use import bound

CHECKPOINTS = Path(polobench.__file__).parent / "tasks" / "checkpoints"
LETTERS = "abcdefgh ?:usr"
REACHED = {
    "reinforce": {"n_episodes": 64, "baseline": "batch_mean", "learning_rate": 3e-3},
    "trpo": {"n_envs": 8, "n_steps": 16, "max_kl": 0.05, "critic_epochs": 2},  # 32 steps are too few updates for 0.95
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
    right = task._reward.function
    task._reward = RewardFunction(lambda prompts, completions: [-value for value in right(prompts, completions)], ())
    result = make("grpo", task, **REACHED["grpo"]).run(seed=0, budget=5_000)
    assert result.final_return < 0.2


def small_model() -> Pretrained:
    return Pretrained(tiny_gpt2(len(LETTERS) + 1, 32, seed=0), character_tokenizer(LETTERS), 32)


@pytest.mark.parametrize("method", ["reinforce", "trpo", "ppo"])
def test_the_value_pass_over_a_whole_rollout_follows_the_generation_batch(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = GPT2Model.forward

    def counted(self: Any, input_ids: Any, **of: Any) -> Any:
        rows.extend([] if torch.is_grad_enabled() else [len(input_ids)])
        return forward(self, input_ids, **of)

    settings = REACHED[method] | ({"baseline": "value"} if method == "reinforce" else {})
    learner = make(method, "token-bandit", generation_batch=3, **settings)
    monkeypatch.setattr(GPT2Model, "forward", counted)
    result = learner.run(seed=0, budget=Budget(updates=2))
    assert result.status == "ok", result.reason
    assert max(rows) == 3


def cut(folder: Path, max_length: int, responses: list[str]) -> PreferenceTask:
    path = folder / "letters.jsonl"
    rows = [{"prompt": f"{letter}b?", "responses": responses, "ranks": [2, 1, 3]} for letter in "bcdefg"]
    path.write_text("\n".join(map(json.dumps, rows)))
    return PreferenceTask("letters", read_preferences(path), small_model, max_new_tokens=4, max_length=max_length)


def test_responses_are_cut_at_the_most_tokens_of_a_pair_and_counted(tmp_path: Path) -> None:
    task = cut(tmp_path, 5, ["b", "aaa", "cb"])
    with bound(task, 100) as run:
        assert run.notes == {"responses cut at max_length": 2 * 6}
        run.make_policy(Hyperparameters(), critic=False)
        rollout = run.preferences(1)
        assert rollout.mask.sum(1).tolist() == [2, 2, 2]
        words = [run.codec.text(row.tolist()) for row in rollout.actions]
    assert words == ["b", "aa", "cb"]
    assert task.identity()["max_length"] == "5"
    assert task.memory_advice(Hyperparameters()) == "lower generation_batch or the task's max_length"
    result = make("dpo", task, n_groups=2).run(0, Budget(updates=2))
    assert result.snapshots["after"]["notes"]["responses cut at max_length"] == 2 * 6


def test_pairs_that_no_cut_leaves_apart_are_left_out_and_counted(tmp_path: Path) -> None:
    path = data(tmp_path)
    same = {"prompt": "b??", "chosen": "ab", "rejected": "ac"}
    long = {"prompt": "bbbbb?", "chosen": "a", "rejected": "c"}
    path.write_text(path.read_text() + "".join(f"\n{json.dumps(row)}" for row in (same, long)))
    task = PreferenceTask("letters", read_preferences(path), small_model, max_new_tokens=4, max_length=4)
    with bound(task, 100) as run:
        assert run.notes == {
            "ranked apart, but the same up to max_length": 1, "prompt as long as max_length": 1,
            "responses cut at max_length": 24 * 3,
        }  # fmt: skip
    task = PreferenceTask("letters", read_preferences(path), small_model, max_new_tokens=4, max_length=3)
    with pytest.raises(UsageError, match="no prompt with its responses fits"), bound(task, 100):
        pass


def test_a_study_sets_the_most_tokens_of_a_pair(tmp_path: Path) -> None:
    name = f"{data(tmp_path)}@{CHECKPOINTS / 'preferences-bytes'}"
    label, described = parse_task({"id": name, "max_length": 8})
    task = find_task(label, described)
    assert (task.name, task.identity()["max_length"]) == (f"{name} (max_length=8)", "8")
    for table, said in (
        ({"id": name, "label": "x", "kwargs": {}}, "kwargs of .* does not apply to preference data"),
        ({"id": "CartPole-v1", "max_length": 8}, "max_length of 'CartPole-v1' does not apply to an environment"),
        ({"id": name, "max_length": 0}, "max_length: 0 "),
    ):
        with pytest.raises(UsageError, match=said):
            find_task(*parse_task(table))


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


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_stored_pairs_are_those_of_the_first_and_the_last_evaluation_and_are_read_once(
    compute_dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = PreferenceTask("letters", read_preferences(data(tmp_path)), small_model, max_new_tokens=4)
    read: list[PairSet] = []
    columns = PairSet.columns

    def counted(self: PairSet, *of: Any) -> Columns:
        read.append(self)
        return columns(self, *of)

    monkeypatch.setattr(PairSet, "columns", counted)
    result = make("dpo", task, learning_rate=1e-3, compute_dtype=compute_dtype).run(0, Budget(updates=20))
    for row, when in ((0, "before"), (-1, "after")):
        for name in ("heldout", "train"):
            stored = accuracies(result.snapshots[when]["pairs"][name])
            measured = [result.curve[f"{name}_accuracy{kind}"].iloc[row] for kind in ("", "_normalised")]
            assert list(stored) == measured
    assert len(read) == 2 * len(result.curve) + 1, "two sets at each evaluation, and one of them for the floor"


def test_margins_of_a_policy_that_has_moved_are_against_the_checkpoint(tmp_path: Path) -> None:
    task = PreferenceTask("letters", read_preferences(data(tmp_path)), small_model, max_new_tokens=4)
    margins = []
    for start_is_evaluated in (True, False):
        with bound(task, 100) as run:
            policy = run.make_policy(Hyperparameters(), critic=False)
            with torch.no_grad(), unmetered(policy):
                if start_is_evaluated:
                    assert run.evaluate(policy, 0, range(1)).measures["heldout_margin"] == 0
                checks.perturb(policy.actor_parameters, torch.Generator().manual_seed(0))
                margins.append(run.evaluate(policy, 0, range(1)).measures["heldout_margin"])
    assert margins[0] == margins[1] != 0


def test_data_are_charged_each_time_and_never_overspent(tmp_path: Path) -> None:
    task = PreferenceTask("letters", read_preferences(data(tmp_path)), small_model, max_new_tokens=4)
    result = make("dpo", task, n_groups=2).run(0, 100)
    tokens_of_two_groups = 2 * (3 + 4 + 3)
    assert result.ledger.updates == 100 // tokens_of_two_groups
    assert result.ledger.samples_read <= 100


def test_the_reference_of_fixed_data_is_computed_once(tmp_path: Path) -> None:
    """A first pass reads each group with the policy and its reference, a later one with the policy alone."""
    task = PreferenceTask("letters", read_preferences(data(tmp_path, 6)), small_model, max_new_tokens=4)
    rows = {n: make("dpo", task, n_groups=1).run(0, Budget(updates=n)).ledger.forward_rows for n in (1, 2, 9, 10)}
    assert rows[2] - rows[1] == 2 * (rows[10] - rows[9])


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


def test_sampling_stops_where_the_chat_template_ends_an_answer() -> None:
    def templated() -> Pretrained:
        made = small_model()
        made.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}a{% endfor %}"
        made.tokenizer.add_special_tokens({"additional_special_tokens": ["a"]})
        return made

    def nothing(prompts: list[str], completions: list[str]) -> list[float]:
        return [0.0] * len(completions)

    task = RewardTask("turns", templated, ["b"], None, nothing, max_new_tokens=12)
    with bound(task, 10_000) as asked:
        end = templated().tokenizer.convert_tokens_to_ids("a")
        rollout = asked.episodes(asked.make_policy(Hyperparameters(), critic=False), 64, 1)
    found = [row[mask].tolist() for row, mask in zip(rollout.actions, rollout.mask)]
    assert any(row[-1] == end and len(row) < 12 for row in found)
    assert not any(end in row[:-1] for row in found)


def test_one_prompt_cannot_be_trained_on_and_held_out() -> None:
    with pytest.raises(UsageError, match="both trained on and held out"):
        RewardTask("leak", small_model, ["b?", "c?"], ["c?"], lambda p, c: [0.0] * len(c), max_new_tokens=4)


def test_one_prompt_cannot_be_tuned_on_and_trained_on_or_held_out() -> None:
    more: Any = {"reward": lambda p, c: [0.0] * len(c), "max_new_tokens": 4}
    for heldout, tuning, said in ((["d?"], ["b?"], "trained"), (None, ["b?"], "trained"), (["d?"], ["d?"], "held out")):
        with pytest.raises(UsageError, match=f"both {said} .*tuned on"):
            RewardTask("leak", small_model, ["b?", "c?"], heldout, tuning_prompts=tuning, **more)


def test_the_unit_says_that_prompts_are_trained_on() -> None:
    for heldout, unit in ((None, "greedy reward on training prompts"), (["d?"], "held-out greedy reward")):
        task = RewardTask("t", small_model, ["b?"], heldout, lambda p, c: [0.0] * len(c), max_new_tokens=4)
        assert task.unit == unit


def length(completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def test_whatever_decides_a_reward_task_is_in_its_identity() -> None:
    def identity(answer: str = "b", prompt: str = "c?", reward: Any = length, **more: Any) -> dict[str, str]:
        rows = [{"prompt": "b?", "answer": answer}], [{"prompt": prompt, "answer": "c"}]
        return RewardTask("t", small_model, *rows, reward, **{"max_new_tokens": 4, **more}).identity()

    assert identity() == identity()
    others = [
        identity(answer="c"), identity(prompt="d?"), identity(reward=partial(length)), identity(right_from=1.0),
        identity(max_new_tokens=5), identity(tuning_prompts=[{"prompt": "e?", "answer": "e"}]),
    ]  # fmt: skip
    found = [identity(), *others]
    assert all(one != two for one, two in itertools.combinations(found, 2))


def test_what_a_study_gives_a_registered_task_is_in_the_identity_of_its_label() -> None:
    def identity(**kwargs: Any) -> dict[str, str]:
        return find_task("digits", {"id": "sort-digits", "kwargs": kwargs}).identity()

    assert identity(with_partial_credit=True) != identity(with_partial_credit=False)
    assert identity(with_partial_credit=True) == identity(with_partial_credit=True)


SEEN = ["b?", [{"role": "user", "content": "c?"}]]


@pytest.mark.parametrize("heldout", ["c? ", " c?", [{"role": "user", "content": "c?\n"}], {"prompt": "c?"}])
def test_a_prompt_is_known_again_whatever_its_blanks(heldout: Any) -> None:
    with pytest.raises(UsageError, match="both trained on and held out"):
        RewardTask("leak", small_model, SEEN, [heldout], lambda p, c: [0.0] * len(c), max_new_tokens=4)


def test_a_prompt_that_stands_twice_is_asked_as_often_as_others() -> None:
    task = RewardTask("t", small_model, ["b?", "b? ", "c?"], None, lambda p, c: [0.0] * len(c), max_new_tokens=4)
    assert [question.prompt for question in task._train] == ["b?", "c?"]


def test_a_reward_reads_messages_and_columns_by_name() -> None:
    seen = []

    def right(completions: Any, answer: list[str], prompts: Any) -> torch.Tensor:
        seen.extend(zip(prompts, completions, answer))
        return torch.tensor([float(said[0]["content"].startswith(a)) for said, a in zip(completions, answer)])

    rows = [{"prompt": [{"role": "user", "content": f"{letter}?"}], "answer": letter} for letter in "abc"]
    task = RewardTask("echo", small_model, rows[:2], rows[2:], right, max_new_tokens=2)
    result = make("grpo", task, n_groups=2, group_size=2).run(0, Budget(updates=1))
    assert result.status == "ok", result.reason
    assert {(prompt[0]["content"], answer) for prompt, _, answer in seen} == {("a?", "a"), ("b?", "b"), ("c?", "c")}
    assert all(prompt[0]["role"] == "user" and [said["role"] for said in c] == ["assistant"] for prompt, c, _ in seen)


def test_completions_to_which_a_reward_does_not_apply_are_left_out_of_their_group() -> None:
    """Of four samples the first has no reward, so that its tokens are charged and teach nothing."""

    def from_second_on(prompts: list[str], completions: list[str]) -> list[float | None]:
        return [None if index % 4 == 0 else float(index % 4) for index in range(len(completions))]

    task = RewardTask(
        "t", small_model, ["b?", "c?"], ["d?", "e?", "f?", "g?"], from_second_on, max_new_tokens=3, floor=0.0
    )
    with bound(task, 1_000) as run:
        policy = run.make_policy(Hyperparameters(), critic=False)
        rollout = run.episodes(policy, 2, 4)
        assert rollout.returns.tolist() == [1, 2, 3, 1, 2, 3]
        assert rollout.groups.tolist() == [0, 0, 0, 1, 1, 1]
        assert run.drain_episode_returns() == [1, 2, 3, 1, 2, 3]
        assert run.notes == {"the reward does not apply": 2}
        assert run.ledger.samples > rollout.n_samples
        assert (run.evaluate(policy, 0, range(4)).mean, run.evaluate(policy, 0, range(4)).episodes) == (2, 3)


def test_a_completion_alone_in_its_group_is_left_out() -> None:
    def first_group(prompts: list[str], completions: list[str]) -> list[float | None]:
        return [float(index) if index < 3 else None for index in range(len(completions))]

    task = RewardTask("t", small_model, ["b?", "c?"], ["d?"], first_group, max_new_tokens=3, floor=0.0)
    with bound(task, 1_000) as run:
        policy = run.make_policy(Hyperparameters(), critic=False)
        assert run.episodes(policy, 2, 2).groups.tolist() == [0, 0]
        assert sorted(run.notes.items()) == [
            ("alone in its group, others left out", 1),
            ("the reward does not apply", 1),
        ]


def test_a_reward_that_applies_to_nothing_fails_the_run_in_one_line() -> None:
    task = RewardTask("t", small_model, ["b?"], ["d?"], lambda p, c: [None] * len(c), max_new_tokens=3, floor=0.0)
    result = make("grpo", task).run(0, 1_000)
    assert (result.status, "\n" in result.reason) == ("failed", False)
    assert "the reward of task 't' applies to none of" in result.reason


def test_a_task_with_another_model() -> None:
    folder = CHECKPOINTS / "sort-digits"
    task = find_task(f"sort-digits@{folder}")
    assert task.name == f"sort-digits@{folder}"
    assert task.identity() == find_task("sort-digits").identity()
    with pytest.raises(UsageError, match="takes no model"):
        find_task("CartPole-v1@smollm2")


def test_a_file_is_a_task(tmp_path: Path) -> None:
    odd = tmp_path / "my data@home.jsonl@old"
    odd.mkdir()
    path = data(odd)
    folder = odd / "a model@last"
    shutil.copytree(CHECKPOINTS / "sort-digits", folder)
    task = find_task(f"{path}@{folder}")
    assert task.name == f"{path}@{folder}"
    assert set(task.identity()) == {"data", "model"}
    before = task.identity()["data"]
    path.write_text(path.read_text().replace("aaa", "aab"))
    assert find_task(f"{path}@{folder}").identity()["data"] != before


def test_the_shipped_checkpoints_are_small_and_reach_their_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in (("pass_prompts", 8), ("final_episodes", 500), ("evaluation_episodes", 100)):
        monkeypatch.setattr(RewardTask, name, few)
    size = sum(path.stat().st_size for path in CHECKPOINTS.rglob("*") if path.is_file())
    assert 0 < size < 2 * 2**20
    for name, most in (("sort-digits", 0.25), ("order-digits", 0.25), ("sharpen-digits", 0.3)):
        result = make("random", name).run(0, Budget(updates=1))
        assert result.final_return == result.floor <= most
        assert (result.final_score, result.curve["heldout_kl"].tolist()) == (0, [0, 0])


def test_the_margin_is_against_the_runs_own_reference() -> None:
    """Also where the floor was measured before, of a policy with another temperature."""
    task: Any = find_task("token-bandit")
    task.floor = float("nan")
    result = make("random", task).run(0, Budget(updates=1))
    assert result.floor == result.final_return == 0  # the likeliest of its tokens earns nothing
    result = make("grpo", task, temperature=0.2).run(0, Budget(updates=1))
    assert result.curve["heldout_margin"].iloc[0] == 0


def test_rewards_that_never_differ_end_a_preference_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polobench.core.task.UNRANKED_BATCHES", 3)
    task = RewardTask("flat", small_model, ["b?"], None, lambda p, c: [0.5] * len(c), max_new_tokens=2)
    result = make("dpo", task).run(0, Budget(updates=2))
    assert result.status == "failed"
    assert "3 batches in a row had equal returns" in result.reason


def test_a_model_that_cannot_be_loaded_here_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object) -> None:
        raise Unavailable("model 'sort' needs more packages")

    monkeypatch.setattr("polobench.tasks.language.load", refuse)
    result = make("grpo", "sort-digits").run(0, 100)
    assert (result.status, result.reason) == ("skipped", "model 'sort' needs more packages")


@pytest.mark.parametrize(
    ("name", "said"),
    [("sort-digits@", "names no model after the @"), ("token-bandit@smollm2", "takes no model"),
     ("nowhere/missing.jsonl", "no preferences at"), ("sort-digits@/nowhere/at/all", "unknown model")],
)  # fmt: skip
def test_bad_names_are_one_line(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        find_task(name)
    assert "\n" not in str(caught.value)


def test_prompts_without_room_for_an_answer_are_only_measured(tmp_path: Path) -> None:
    task = PreferenceTask("letters", read_preferences(data(tmp_path)), small_model, max_new_tokens=30)
    result = make("dpo", task).run(0, Budget(updates=1))
    assert result.status == "ok", result.reason
    assert "completions" not in result.snapshots["after"]


def test_bfloat16_rounds_weights_alone() -> None:
    """Rotary frequencies are no weights: rounded, they would turn later positions by a visible angle."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    policy = CausalLM(LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)), compute_dtype="bfloat16")
    assert {weight.dtype for weight in policy.model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in policy.model.buffers() if buffer.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    ("method", "named"),
    [
        *((method, "micro_batch, generation_batch") for method in ("reinforce", "grpo", "dpo", "ranking")),
        *((method, "micro_batch, n_envs, generation_batch") for method in ("trpo", "ppo")),
    ],
)
@pytest.mark.parametrize(
    "error", [MemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte")]
)
def test_memory_that_runs_out_names_what_to_lower(
    method: str, named: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*of: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(CausalLM, "read", full)
    result = make(method, "sort-digits").run(0, Budget(updates=1))
    assert result.status == "out_of_memory"
    assert str(error) in result.reason
    assert result.reason.endswith(f"(lower {named} or the task's max_new_tokens)")


def test_memory_that_runs_out_in_control_has_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*of: object, **more: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("polobench.methods.ppo.PPO.learn", full)
    result = make("ppo", "CartPole-v1").run(0, Budget(updates=1))
    assert (result.status, result.reason) == ("out_of_memory", "MemoryError: no room")


@pytest.mark.parametrize("method", ["reinforce", "trpo", "ppo", "grpo", "dpo", "ranking", "dpo on data"])
def test_no_pass_has_more_rows_than_the_batches_allow(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first one on, which measures the floor, to the snapshot after the last update."""
    rows: list[int] = []

    def counted(model: Any, inputs: Any, keywords: dict[str, Any]) -> None:
        rows.append(len(inputs[0] if inputs else keywords["input_ids"]))

    def watched() -> Pretrained:
        ready = small_model()
        ready.model.base_model.register_forward_pre_hook(counted, with_kwargs=True)
        # a pass that is written out does not call the model, so that the hook would see nothing
        ready.reading = replace(self_test(ready.model, "watched"), cache="preallocated")
        rows.clear()
        return ready

    sizes: dict[str, Any] = {"micro_batch": 3, "generation_batch": 2}
    sizes |= {
        "reinforce": {"n_episodes": 4, "kl_coef": 0.1},
        "trpo": {"n_envs": 1, "n_steps": 16, "cg_steps": 1},
        "ppo": {"n_envs": 1, "n_steps": 16, "epochs": 1, "kl_coef": 0.1},
        "grpo": {"n_groups": 2, "group_size": 2, "epochs": 2, "beta": 0.1},
    }.get(method, {"n_groups": 2, "group_size": 3})  # passes over pairs hold whole groups
    if method != "dpo on data":
        score = lambda prompts, completions: [text.count("a") / 4 for text in completions]  # noqa: E731
        task: Any = RewardTask("as", watched, ["b?", "c?"], ["d?"], score, max_new_tokens=4, floor=float("nan"))
        result = make(method, task, **sizes).run(0, Budget(updates=2))
    else:
        task = PreferenceTask("letters", read_preferences(data(tmp_path)), watched, max_new_tokens=4)
        result = make("dpo", task, **sizes).run(0, Budget(updates=2))
    assert result.status == "ok", result.reason
    assert max(rows) == 3
