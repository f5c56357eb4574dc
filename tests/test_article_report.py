"""The article's tasks, its published figures as data, and the section that sets them beside our runs."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import make_language, make_result, report_text, save_all, with_id

from polobench.analysis.article import beside_sound, episode_arms, loss_shapes, published
from polobench.analysis.collection import collect
from polobench.core.result import RunResult
from polobench.registry import find_task
from polobench.report.markdown import escape
from polobench.report.page import write_report
from polobench.report.sections.article_runs import TITLE
from polobench.report.words import note
from polobench.tasks.article import MODEL, article_groups, article_pairs, builtin_split
from polobench.tasks.preference_data import builtin_preferences
from polobench.tasks.pretraining import COURSES
from polobench.tasks.tiny import byte_tokenizer

SMOKE = str(note("smoke")[0])
EPISODES = list(range(50, 501, 50))


def test_published_figures_are_complete() -> None:
    found = published()
    assert list(found) == ["article-pg", "article-trpo", "article-ppo", "article-dpo", "article-grpo"]
    assert [item.sound for item in found.values()] == ["reinforce", "trpo", "ppo", "dpo", "ranking"]
    assert [item.epochs for item in found.values()] == [None, None, None, 10, 15]
    assert [item.task for item in found.values()] == [*["CartPole-v1"] * 3, None, None]
    values = {at: item.low for at, item in found["article-pg"].returns.items()}
    assert values == {50: 20, 100: 134, 150: 229, 200: 500, 250: 26, 350: 500, 450: 500, 500: 9}
    assert all(item.low == item.high for item in found["article-pg"].returns.values())
    ranges = {at: (item.low, item.high) for at, item in found["article-trpo"].returns.items()}
    assert ranges == dict.fromkeys(EPISODES, (9, 20))
    ppo = found["article-ppo"].returns
    assert {at: item.words for at, item in ppo.items() if item.words} == {
        50: "low", 100: "low", 300: "dropping", 350: "dropping", 400: "dropping",
    }  # fmt: skip
    assert (ppo[200].low, ppo[200].high) == (200, math.inf)
    assert (ppo[500].low, ppo[500].high) == (500, 500)
    assert list(found["article-dpo"].claims) == [
        "loss",
        "log-probabilities after training",
        "answers",
    ]
    assert list(found["article-grpo"].claims) == ["loss", "log-probabilities after training"]


def test_pairs_are_the_best_and_the_worst_of_the_first_five_training_prompts() -> None:
    train, heldout = builtin_split()
    task = article_pairs()
    assert task._heldout_groups == heldout
    assert [group.prompt for group in task._train_groups] == [group.prompt for group in train[:5]]
    for pair, whole in zip(task._train_groups, train):
        assert pair.scores == (max(whole.scores), min(whole.scores))
        assert [dict(zip(whole.responses, whole.scores))[text] for text in pair.responses] == list(pair.scores)


def test_groups_are_the_first_two_of_four() -> None:
    train, heldout = builtin_split()
    task = article_groups()
    assert (task._train_groups, task._heldout_groups) == (train[:2], heldout)
    assert [len(group.responses) for group in task._train_groups] == [4, 4]
    assert task.identity() != article_pairs().identity() or task.name != article_pairs().name


@pytest.mark.parametrize("name", ["article-pairs", "article-groups"])
def test_another_model_may_be_named(name: str) -> None:
    folder = resources.files("polobench.tasks").joinpath("checkpoints", MODEL)
    assert find_task(f"{name}@{folder}").name == f"{name}@{folder}"
    assert find_task(name).name == name


def test_the_model_has_seen_no_prompt_that_is_held_out() -> None:
    train, heldout = builtin_split()
    texts = "\n".join(text for _, text in COURSES[MODEL].texts())
    assert len(train) + len(heldout) == len(builtin_preferences().groups)
    assert all(f"{group.prompt}{text}" in texts for group in train for text in group.responses)
    assert not any(group.prompt in texts for group in heldout)


def test_the_model_reads_any_text_by_bytes() -> None:
    tokenizer = byte_tokenizer()
    text = "A byte é, 日本, \U0001f600\n\t\x00 <end" + "".join(map(chr, range(32, 300)))
    tokens = tokenizer(text)["input_ids"]
    assert len(tokenizer) == 257
    assert len(tokens) == len(text.encode())
    assert tokenizer.decode(tokens) == text
    assert tokenizer.eos_token_id == 0 not in tokens
    weights = resources.files("polobench.tasks").joinpath("checkpoints", MODEL, "model.safetensors")
    assert len(weights.read_bytes()) < 1_000_000


def control_run(method: str, seed: int, returns: Any, label: str = "", unfinished: int = 0) -> RunResult:
    """A run whose updates are these episodes, and an episode that the budget of samples cut."""
    steps = np.asarray(returns, dtype=float)
    run = make_result(method, seed=seed, label=label or method)
    run.budget = {"updates": 500, "samples": 250_000}
    run.updates = pd.DataFrame({"samples": steps.cumsum(), "loss": 0.1 * steps, "episode_return": steps})
    run.ledger.updates, run.ledger.samples = len(steps), int(steps.sum()) + unfinished
    return with_id(run)


def language_run(method: str, seed: int, losses: Any, task: str = "article-pairs") -> RunResult:
    run = make_language(method, task, seed=seed, prompts=2, pairs=4)
    run.updates = pd.DataFrame({"samples": np.arange(1.0, len(losses) + 1), "loss": np.asarray(losses, dtype=float)})
    for moment, chosen in (("before", -9.0), ("after", -7.0 - seed)):
        pairs = run.snapshots[moment]["pairs"]["train"]
        pairs |= {"chosen_log_prob": [chosen] * 4, "rejected_log_prob": [-8.0] * 2 + [-7.5] * 2}
    return with_id(run)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PG of 4 seeds that stay at 10, 20, 30 and 40, one of which never ends; TRPO at 15, 25; DPO and ranking."""
    pg = [control_run("article-pg", seed, [10.0 * (seed + 1)] * 500) for seed in range(3)]
    pg.append(control_run("article-pg", 3, [40.0] * 120, unfinished=245_200))
    trpo = [control_run("article-trpo", seed, [15.0 + 10 * seed] * 500) for seed in range(2)]
    sound = [make_result("reinforce", seed=seed) for seed in range(2)]
    falling = [language_run("article-dpo", 0, np.repeat([9, 3, 2, 1, 0.8, 0.6, 0.4, 0.2, 0.1, 0], 5))]
    falling.append(language_run("article-dpo", 1, np.repeat(np.arange(10.0, 0, -1), 5)))
    rising = [language_run("article-grpo", seed, np.arange(30.0), "article-groups") for seed in range(2)]
    rising[0].provenance["smoke"] = True
    return save_all(tmp_path_factory.mktemp("article") / "store", *pg, *trpo, *sound, *falling, *rising)


def test_the_articles_run_has_a_place_among_ours(store: Path) -> None:
    pg, trpo = episode_arms(collect(store))
    assert [item.episode for item in pg.placements] == EPISODES
    at = {item.episode: item for item in pg.placements}
    assert (len(at[50].values), at[50].n_below, at[50].n_above) == (4, 1, 2)  # 20 published; 10, 20, 30, 40 ours
    assert (len(at[150].values), at[150].n_below, at[150].n_above) == (3, 3, 0)
    assert (len(at[500].values), at[500].n_below, at[500].n_above) == (3, 0, 3)
    assert at[300].article is None
    assert pg.cut == {3: 245_200}
    assert (trpo.placements[0].n_below, trpo.placements[0].n_above) == (0, 1)
    assert trpo.cut == {}


def test_the_articles_figures_are_of_its_own_task_alone(tmp_path: Path) -> None:
    store = save_all(tmp_path, make_result("article-pg", "Acrobot-v1"), control_run("article-ppo", 0, [9.0] * 50))
    assert [item.arm.task for item in episode_arms(collect(store))] == ["CartPole-v1"]
    assert [item.arm.task for item, _ in beside_sound(collect(store))] == ["Acrobot-v1", "CartPole-v1"]


def test_more_updates_than_a_store_keeps(tmp_path: Path) -> None:
    run = control_run("article-ppo", 0, np.arange(500.0))
    run.ledger.updates = 1000  # each row stands for two episodes
    (found,) = episode_arms(collect(save_all(tmp_path, run)))
    assert found.returns[0][[0, 1, 2, 998, 999]].tolist() == [0, 0, 1, 499, 499]


def test_the_shape_of_a_loss(store: Path) -> None:
    shapes = loss_shapes(collect(store))
    assert list(shapes) == ["article-dpo", "article-grpo"]
    (dpo,) = shapes["article-dpo"]
    assert dpo.losses.shape == (2, 10)
    assert dpo.early_shares.tolist() == pytest.approx([8 / 9, 1 / 3])
    assert dpo.moments.tolist() == pytest.approx([9.5, 4.0, 0.5])
    assert dpo.pairs == 4
    assert dpo.in_order.tolist() == [[0, 4], [0, 0]]
    (grpo,) = shapes["article-grpo"]
    assert len(grpo.early_shares) == 0
    assert grpo.smoke
    assert not dpo.smoke


def test_sound_versions_stand_beside_the_articles(store: Path) -> None:
    labels = [item.arm.label for item, _ in beside_sound(collect(store))]
    assert labels == ["article-pg", "reinforce", "article-trpo", "article-dpo", "article-grpo"]


def section(text: str) -> str:
    return text.partition(f"## {TITLE}\n")[2].partition("\n## ")[0]


def test_the_report_says_it(store: Path, tmp_path: Path) -> None:
    text = section(write_report(store, tmp_path).with_name("article.md").read_text())
    assert "| 50 | 20 | 25 [18, 32] | 10 to 40 | 4 | above 1, level with 1, below 2 of 4 |" in " ".join(text.split())
    words = " ".join(text.split())
    assert "| 4 | 12,500 | 500 |" in words, "medians over the runs of what they spent"
    assert "1 of 4 runs ended in an episode that was still going, after 245,200 steps of it" in words
    assert "9 to 20" in words
    assert "1 of 2 where it says, 0 below, 1 above" in words
    assert "- loss: a sharp drop in the first epochs, then a plateau" in text
    assert "0.61 [0.33, 0.89] | 2/2 | 4 | 0 [0, 0] | 2 [0, 4]" in words
    assert text.count(SMOKE) == 1
    assert "figures/article.png" in text
    assert (tmp_path / "figures" / "article.png").stat().st_size > 10_000


def test_no_section_without_the_articles_methods(tmp_path: Path) -> None:
    assert TITLE not in report_text(collect(save_all(tmp_path, make_result())))


def test_runs_without_a_single_episode(tmp_path: Path) -> None:
    """The first episode never ended: there is nothing to place, and no curve to draw."""
    run = control_run("article-pg", 0, [], unfinished=250_000)
    run.updates = pd.DataFrame()
    path = write_report(save_all(tmp_path / "store", run), tmp_path / "report")
    text = section(path.with_name("article.md").read_text())
    words = " ".join(text.split())
    assert "1 of 1 runs ended in an episode that was still going, after 250,000 steps of it" in words
    assert "| 500 | 9 | – | – | 0 | – |" in words
    assert "article.png" not in text


def test_a_label_cannot_break_the_section(tmp_path: Path) -> None:
    evil = "a|b <script> *x*"
    text = section(report_text(collect(save_all(tmp_path, control_run("article-pg", 0, [9.0] * 60, evil)))))
    assert escape(evil) in text
    assert evil not in text
