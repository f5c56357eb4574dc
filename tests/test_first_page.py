"""The report's first page: the answer, the article's table beside ours, scores over tasks, each from numbers alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from synthetic import WORLDS, failed, make_language, make_result, noise_cell, save_all
from typer.testing import CliRunner

from polobench.analysis.claims import load_claims
from polobench.analysis.collection import Collection, collect
from polobench.analysis.contrasts import against_best
from polobench.analysis.overall import comparables, overall
from polobench.analysis.summary import comparisons
from polobench.cli import app
from polobench.report.markdown import markdown
from polobench.report.overall import groups_of, overall_answer
from polobench.report.tasks import contrast_frame, task_sections
from polobench.report.verdicts import Verdicts, article_table, claim_frame, pair_frame, summary_sentence, word_frame

METHODS = ("reinforce", "trpo", "ppo")


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = [make_result(method, task, seed) for method in METHODS for task in WORLDS for seed in range(5)]
    failed(results[0])
    noises = [noise_cell(method, signal) for method, signal in (("reinforce", 0.5), ("trpo", 6.0), ("ppo", 3.0))]
    return save_all(tmp_path_factory.mktemp("first") / "matrix", *results, *noises)


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return collect(folder)


def test_the_page_is_read_from_the_top(collection: Collection) -> None:
    titles = re.findall(r"^## (.+)$", markdown(collection, []), flags=re.MULTILINE)
    wanted = ["The answer", "Method comparison", "Loss and KL", "Task by task", "The article's claims one by one"]
    places = [titles.index(title) for title in wanted]
    assert places == sorted(places)
    assert titles[:2] == wanted[:2]


def test_the_answer_is_one_paragraph_of_numbers(collection: Collection) -> None:
    text = section(markdown(collection, []), "The answer").strip()
    assert "\n" not in text
    assert text.startswith("On control (Acrobot-v1, CartPole-v1, Pendulum-v1), **ppo** has the highest mean score, ")
    assert "n = 5 seeds" in text
    assert "Of the 15 words of the article's table" in text


def test_every_word_has_a_number_an_interval_and_n(collection: Collection) -> None:
    rows = {
        line.split("|")[1].strip(): line for line in article_table(Verdicts(collection, load_claims())).splitlines()
    }
    assert set(METHODS) < set(rows)
    for method in METHODS:
        assert len(re.findall(r"-?\d\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\], n = \d+", rows[method])) == 3
    assert "high: not measured" not in rows["reinforce"]
    assert rows["grpo"].count("not measured") == 3


def test_the_counts_of_verdicts_are_those_of_the_tables(collection: Collection) -> None:
    verdicts = Verdicts(collection, load_claims())
    words, claims = word_frame(verdicts), claim_frame(verdicts)
    primary = words[words["primary"]]
    said = summary_sentence(verdicts)
    for verdict, count in primary["verdict"].value_counts().items():
        assert f"{count} {verdict}" in said
    assert len(primary) == 15
    assert f"of {len(claims)} further claims" in said
    assert {"p_holm", "difference", "low", "high", "n", "detectable", "smallest_effect"} <= set(pair_frame(verdicts))


def test_scores_over_tasks(collection: Collection) -> None:
    (group,) = comparables(collection)
    assert [task for task, _ in group.places] == sorted(WORLDS)
    items = {item.label: item for item in overall(group)}
    assert items["reinforce"].tail.value < items["reinforce"].mean.value, "its failed run is in the worst quarter"
    assert items["ppo"].runs == 15
    assert items["ppo"].mean.value == pytest.approx(sum(map(sum, group.scores("ppo"))) / 15)


def test_worlds_and_smoke_runs_are_kept_apart(tmp_path: Path) -> None:
    speaking = [make_language(method, "summaries", seed) for method in ("dpo", "grpo") for seed in range(2)]
    acting = [make_result(method, seed=seed) for method in ("dpo", "grpo") for seed in range(2)]
    smoke = make_result("dpo", "Acrobot-v1")
    smoke.provenance["smoke"] = True
    groups = comparables(collect(save_all(tmp_path, *speaking, *acting, smoke)))
    assert [(group.world, group.places[0][0]) for group in groups] == [
        ("control", "CartPole-v1"),
        ("language", "summaries"),
    ]
    assert "fewer than 5 seeds nothing can be concluded" in overall_answer(groups_of(collect(tmp_path)))


def test_against_the_best(collection: Collection) -> None:
    arms = sorted(collection.of_kind("learning").items(), key=lambda item: item[0].label)
    arms = [(arm, runs) for arm, runs in arms if arm.task == "Pendulum-v1"]
    found = against_best([arms[0], arms[1]])
    assert [item.other.label for item in found] == ["reinforce"]
    assert found[0].p == pytest.approx(2 / 252), "all of ppo's runs are better"
    few = against_best([(arm, runs[:3]) for arm, runs in arms])
    assert few[0].reason == "3 seeds cannot reach p = 0.025; 5 are needed"
    assert "detectable_difference" in contrast_frame(collection, comparisons(collection))


def test_what_dropping_failed_runs_would_change_is_said(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(5)]
    kept = sum(run.final_return for run in runs[1:]) / 4
    failed(runs[0])
    found = collect(save_all(tmp_path, *runs))
    text = task_sections(found, comparisons(found))
    assert f"Without the runs that failed the means would be: ppo {kept:.1f} instead of " in text
    assert "(n = 4)." in text


def test_a_store_about_something_else_has_no_claims(tmp_path: Path) -> None:
    text = markdown(collect(save_all(tmp_path, *(make_result("mine", seed=seed) for seed in range(5)))), [])
    assert "The article" not in text
    assert "## Method comparison" in text


def test_several_stores_and_claims_of_ones_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = save_all(tmp_path / "more", *(make_result("grpo", seed=seed) for seed in range(2)))
    rules = tmp_path / "claims.toml"
    rules.write_text(
        "level = 0.05\nleast_seeds_on_one_task = 8\nleast_seeds = 5\n[[claim]]\nsource = 'ours'\nsays = 'ppo scores'\n"
        "measure = 'final_score'\nof = ['ppo']\nat_least = 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    done = runner.invoke(app, ["report", str(folder), str(more), "--claims", str(rules)])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "reports" / "matrix" / "report.md").read_text()
    assert text.startswith("# Report on matrix + more\n")
    assert "of 1 further claims 1 supported" in text
    assert "grpo" in section(text, "Task by task")
    wrong = runner.invoke(app, ["report", str(folder), "--claims", "absent.toml"])
    assert "absent.toml" in str(wrong.exception)
