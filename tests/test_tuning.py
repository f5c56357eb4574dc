"""Tuning: keyed random trials on a split of their own, the best mean, and how good the best of fewer would be."""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from scipy.stats import binom
from synthetic import failed, make_result, report_text, save_all, with_id

from polobench.analysis.claims import load_claims
from polobench.analysis.collection import Arm, Collection, collect
from polobench.analysis.frame import load
from polobench.analysis.measures import Observations
from polobench.analysis.statistics.hypothesis import permutation_p
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.tuning import (
    Search,
    Trial,
    edge_of,
    expected_best,
    gains,
    trial_frame,
    trials_of,
    tuned_toml,
    winner,
)
from polobench.analysis.verdicts import claim_verdict
from polobench.cells.runner import prepare, run_cell
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import build, tuned_values
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.registry import find_task, method_class
from polobench.report.page import write_report
from polobench.run import sweep
from polobench.run.library import BUILT_IN
from polobench.run.study import load_study
from polobench.run.tuning import Range, check_scored, load_tuning, parse_tuning
from polobench.tasks.digits import SORT

Settings = Callable[[np.random.Generator], Array]  # gives the scores of 16 configurations
LENGTHS = {"ppo": 16, "trpo": 6}  # configurations
STUDY = """
looks = 1
[[grid]]
methods = ["ppo", "reinforce", {method = "ppo", label = "ppo, tight", clip_eps = 0.1}]
tasks = ["probe-bandit", "probe-truncation"]
seeds = "100-104"
budget = 401
throughput_rounds = 2
"""
MINI = """
study = "mini-study"
seeds = "1000-1001"
trials = 3
[fixed.probe-bandit]
normalize_observations = true
[[space]]
labels = ["ppo", "ppo, tight", "reinforce"]
tasks = ["probe-bandit", "probe-truncation"]
learning_rate = {low = 1e-3, high = 1e-1, log = true}
[[space]]
labels = ["ppo"]
tasks = ["probe-bandit"]
n_steps = [4, 8]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mini-study.toml").write_text(STUDY)


@pytest.fixture
def tune(command: Command) -> Command:
    return partial(command, "tune", "mini.toml")


def plan(text: str = MINI, **changes: Any) -> Sequence[Cell]:
    return parse_tuning("mini", tomllib.loads(text) | changes).cells


def drawn(cells: Sequence[Cell]) -> dict[tuple[str, str, int], dict[str, Any]]:
    return {(cell.label, cell.task, cell.seed): dict(cell.overrides) for cell in cells}


def test_every_arm_of_the_study_runs_every_trial_on_every_seed_with_half_of_its_budget() -> None:
    cells = plan()
    assert len(cells) == 3 * 2 * 3 * 2
    assert {(cell.seed, str(cell.budget), cell.tuned) for cell in cells} == {
        (seed, "200 samples", False) for seed in (1000, 1001)
    }
    assert {cell.kind for cell in cells} == {"learning"}
    first = cells[0]
    assert (first.label, first.study) == ("ppo trial 00", "mini")
    assert first.facts == {"split": "tuning", "trial": 0, "arm": "ppo"}
    assert set(first.overrides) == {"normalize_observations", "learning_rate", "n_steps"}
    tight = next(cell for cell in cells if cell.label == "ppo, tight trial 00" and cell.task == "probe-truncation")
    assert set(tight.overrides) == {"clip_eps", "learning_rate"}


def test_a_file_may_give_its_trials_another_share_of_the_budget() -> None:
    assert {str(cell.budget) for cell in plan(budget_share=1.0)} == {"401 samples"}


def test_a_draw_depends_on_its_arm_trial_and_name_alone() -> None:
    all_of_them = drawn(plan())
    assert drawn(plan()) == all_of_them
    other = [value["learning_rate"] for value in drawn(plan(draw_seed=1)).values()]
    assert other != [value["learning_rate"] for value in all_of_them.values()]
    assert len({value["learning_rate"] for value in all_of_them.values()}) == 3 * 2 * 3, "no two alike but for the seed"
    more = MINI.replace("n_steps = [4, 8]", "n_steps = [4, 8]\nepochs = [1, 2]")
    without = {key: {n: v for n, v in value.items() if n != "epochs"} for key, value in drawn(plan(more)).items()}
    assert without == all_of_them, "another dimension moves nothing"
    longer = drawn(plan(trials=5, seeds="1000-1002"))
    assert {key: longer[key] for key in all_of_them} == all_of_them, "nor do more trials and seeds"
    Path("mini-study.toml").write_text(STUDY.replace('"reinforce", ', '"trpo", "reinforce", '))
    space = '[[space]]\nlabels = ["trpo"]\ntasks = ["probe-bandit", "probe-truncation"]\nmax_kl = [0.01, 0.02]'
    wider = drawn(plan(MINI + space))
    assert {key: wider[key] for key in all_of_them} == all_of_them, "nor does another method"


def test_draws_fill_their_range() -> None:
    cells = plan(trials=400, seeds=[1000])
    values = [cell.overrides for cell in cells if cell.task == "probe-bandit" and cell.label.startswith("ppo trial")]
    logs = np.log10([value["learning_rate"] for value in values])
    assert -3 <= logs.min() < -2.95
    assert -1.05 < logs.max() <= -1
    assert abs(float(np.mean(logs)) + 2) < 0.1
    assert 150 < sum(value["n_steps"] == 4 for value in values) < 250
    assert (Range(1.0, 3.0).at(0.5), Range(0.01, 1.0, log=True).at(0.5)) == (2.0, 0.1)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"1000-1001"', '"99-100"', "seeds are '99-100' (allowed: tuning seeds, 1000 to 1099; others are for evalu"),
        ('seeds = "1000-1001"', "", "seeds: None"),
        ('study = "', 'budget_share = 1.5\nstudy = "', "budget_share is 1.5 (allowed: a number above 0, at most 1)"),
        ("seeds =", "seed =", "unknown key 'seed'; did you mean 'seeds'?"),
        ("trials = 3", "trials = 0", "trials: 0 (allowed: an integer from 1)"),
        ('"mini-study"', '"mini-studie"', "did you mean 'mini-study'"),
        ('study = "mini-study"', "", "study: None"),
        ("[fixed.probe-bandit]", "[fixed.probe-bandits]", "did you mean 'probe-bandit'"),
        ("normalize_observations = true", "gae_lambda = 0.9", "unknown hyper-parameter of reinforce 'gae_lambda'"),
        ("normalize_observations = true", "learning_rate = 0.1", "'learning_rate' has a space and a fixed value"),
        ("n_steps = [4, 8]", "learning_rate = [0.1, 0.2]", "'ppo' on 'probe-bandit' has two spaces of 'learning_rate'"),
        ('"ppo, tight", "reinforce"', '"ppo, tight"', "'reinforce' on 'probe-bandit' has no [[space]]"),
        ('["ppo"]\ntasks', '["ppoo"]\ntasks', "did you mean 'ppo on probe-bandit'"),
        ('labels = ["ppo"]', "", "labels: None"),
        ("n_steps = [4, 8]", "steps = [4, 8]", "unknown hyper-parameter of ppo 'steps'; did you mean 'n_steps'?"),
        ("[4, 8]", "[4, 0]", "ppo: n_steps is 0 (allowed: 1 <= n_steps, finite)"),
        ("[4, 8]", "[4]", "allowed: {low = ..., high = ...} or a list of two or more"),
        ("[4, 8]", "[4, [8]]", "allowed: a list of numbers, texts or truth values"),
        ("[4, 8]", "{low = 4, high = 8}", "ppo: n_steps is from 4 to 8 (allowed: fractions"),
        ("low = 1e-3, high = 1e-1", "low = 1e-3", "ppo: learning_rate is {'low': 0.001, 'log': True} (allowed: {low"),
        ("low = 1e-3", "low = 1", "learning_rate is from 1.0 to 0.1 (allowed: fractions, low below high"),
        ("low = 1e-3", "low = 0.0", "learning_rate is from 0.0 on a log scale (allowed: a positive low)"),
        ("log = true", 'log = "yes"', "log: 'yes' (allowed: true or false)"),
        ("log = true", "step = 2", "unknown key of ppo: learning_rate 'step'"),
    ],
)
def test_mistakes_in_a_tuning_file_end_in_one_clear_line(old: str, new: str, named: str, tune: Command) -> None:
    assert old in MINI
    Path("mini.toml").write_text(MINI.replace(old, new, 1))
    code, _, said = tune("--store", "store")
    (line,) = said.splitlines()
    assert code == 2
    assert named in line
    assert not Path("store").exists()


def test_a_task_without_a_target_or_a_tuning_split_is_refused() -> None:
    Path("mini-study.toml").write_text(STUDY.replace("probe-truncation", "CliffWalking-v1"))
    cells = plan(MINI.replace("probe-truncation", "CliffWalking-v1"))
    with pytest.raises(UsageError, match="no target"):
        check_scored(map(prepare, cells))
    Path("pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3)
    with pytest.raises(UsageError, match="no tuning split"):
        prepare(replace(cells[0], method="dpo", task="article-pairs", overrides={}))


def test_a_trial_is_evaluated_on_the_tuning_split_and_its_id_says_so() -> None:
    cell = next(cell for cell in plan() if cell.label == "ppo trial 00")
    trial, other = prepare(cell), prepare(replace(cell, split="heldout"))
    assert trial.cell_id != other.cell_id
    assert (trial.defined_by["split"], "split" in other.defined_by) == ("tuning", False)
    first, second = run_cell(trial), run_cell(other)
    assert (first.provenance["split"], first.provenance["trial"], first.provenance["arm"]) == ("tuning", 0, "ppo")
    assert first.updates.equals(second.updates), "training does not know the split"
    assert list(first.curve["progress"]) == [0, 1], "what lies between chooses nothing"
    assert len(second.curve) > 2
    assert "heldout_sampled_return" in second.curve.columns.difference(first.curve.columns)
    asked = prepare(replace(cell, method="reinforce", task="sort-digits", overrides={}))
    assert asked.method is not None
    questions = asked.method.task._heldout  # type: ignore[attr-defined]
    assert [question.prompt for question in questions] == SORT.prompts()["tuning"]
    assert not {question.prompt for question in questions} & {*SORT.prompts()["train"], *SORT.prompts()["heldout"]}


def trial_run(number: int, seed: int, score: float, label: str = "ppo", **changes: Any) -> RunResult:
    facts = {"split": "tuning", "trial": number, "arm": label, "overrides": {"n_steps": number}}
    result = make_result("ppo", seed=seed, label=f"{label} trial {number:02}", **changes)
    result.final_return = result.floor + score * (result.target - result.floor)
    result.final_score, result.provenance = score, result.provenance | facts
    return with_id(result)


def test_the_best_mean_over_the_seeds_wins_and_a_failed_run_counts() -> None:
    scores = {0: (0.9, 0.1), 1: (0.6, 0.6), 2: (0.6, 0.6), 3: (1.0, 1.0)}
    runs = [trial_run(number, seed, score) for number, both in scores.items() for seed, score in enumerate(both)]
    failed(runs[6])
    runs[6].curve.loc[runs[6].curve.index[-1], "return_mean"] = runs[6].floor - 452.7
    runs[6].score_as_failed()
    failed(runs[7], status="crashed")
    runs[7].final_score = math.nan  # nothing was evaluated, nor a floor known
    (trials,) = trials_of(runs).values()
    assert [round(trial.score, 6) for trial in trials] == [0.5, 0.6, 0.6, -0.5]
    assert winner(trials).number == 1
    assert list(trial_frame(trials_of(runs))["failed"]) == [0, 0, 0, 2]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("tried", "scores", "edge"),
    [((1, 2, 3), (9, 1, 1), "lowest"), ((3, 1, 2), (9, 1, 1), "highest"),
     ((1, 2, 3), (1, 9, 1), ""), ((1, 2, 2), (9, 1, 1), "")],
    ids=["lowest", "highest", "between", "two values have nothing between"],
)  # fmt: skip
def test_a_winner_at_the_edge_of_the_step_sizes_is_told(
    tried: tuple[float, ...], scores: tuple[float, ...], edge: str, tmp_path: Path
) -> None:
    runs = [trial_run(number, 1000, score / 10) for number, score in enumerate(scores)]
    for run, value in zip(runs, tried, strict=True):
        run.provenance["overrides"] = {"learning_rate": value}
    (trials,) = trials_of(runs).values()
    assert edge_of(trials) == edge
    learned = [make_result("ppo", seed=seed) for seed in range(5)]
    page = write_report(collect(save_all(tmp_path / "store", *runs, *learned)), tmp_path / "report").read_text()
    assert (f"ppo on CartPole-v1 ({edge})" in page) is bool(edge)


def test_a_method_needs_more_tuning_where_a_search_gains_more() -> None:
    spread = {"ppo": 0.8, "trpo": 0.1, "reinforce": 0.1}  # from the best to the worst of 16 settings
    runs = [
        trial_run(number, seed, 0.9 - width * number / 15, label)
        for label, width in spread.items()
        for number in range(16)
        for seed in (1000, 1001, 1002)
    ]
    rules = load_claims()
    (claim,) = (claim for claim in rules.claims if claim.measure == "gain_of_search")
    assert claim_verdict(Observations(Collection([], trials=runs)), claim, rules).verdict == "supported"
    for run in runs:
        run.final_score = 0.9  # nothing to be gained from any setting of any method
    assert claim_verdict(Observations(Collection([], trials=runs)), claim, rules).verdict == "equivalent"


def test_the_numbers_of_configurations_have_the_gain_of_their_search_as_their_mean() -> None:
    scores = np.random.default_rng(0).random(16)
    assert gains(scores).mean() == pytest.approx(search(*scores).gain.value)
    assert gains(scores).mean() == pytest.approx(expected_best(scores, 8)[-1] - scores.mean())
    assert gains(scores + 3.0) == pytest.approx(gains(scores)), "a method that scores more needs no more tuning"
    assert not len(gains(scores[:15])), "the best of eight is known from sixteen on"


def found_apart(one: Settings, other: Settings) -> int:
    """In how many of 500 studies, each of 16 configurations on 4 tasks, two methods' gains differ at 5 %."""
    rng, count = np.random.default_rng(5), 0
    for _ in range(500):
        strata = [(gains(one(rng)), gains(other(rng))) for _ in range(4)]
        count += permutation_p(strata, draws=399) <= 0.05
    return count


def cliff(good: float, top: float = 0.95) -> Settings:
    """Most settings learn nothing, and a share of them works."""
    return lambda rng: np.where(rng.random(16) < good, rng.uniform(top - 0.1, top, 16), rng.uniform(-0.1, 0.1, 16))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(lambda rng: rng.normal(0.5, 0.2, 16), lambda rng: rng.normal(0.5, 0.2, 16), id="normal"),
        pytest.param(lambda rng: rng.lognormal(-1, 0.7, 16), lambda rng: rng.lognormal(-1, 0.7, 16), id="skewed"),
        pytest.param(cliff(0.3), cliff(0.3), id="cliff"),
        pytest.param(lambda rng: rng.normal(0.2, 0.2, 16), lambda rng: rng.normal(0.8, 0.2, 16), id="another mean"),
    ],
)
def test_equal_searches_are_called_different_in_at_most_5_percent(one: Settings, other: Settings) -> None:
    """Fault: distances from the best of the same sample, which move together with it, as independent data."""
    assert found_apart(one, other) <= binom.ppf(0.99, 500, 0.05)


def test_a_search_that_gains_more_is_found() -> None:
    """Of one method nearly any setting works, of the other one in four."""
    assert found_apart(cliff(0.25), cliff(0.9)) >= 0.95 * 500


def test_the_winners_are_what_the_file_of_tuned_values_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tuned_toml(trials_of([trial_run(4, 1000, 0.2), trial_run(8, 1000, 0.5)]), "polobench tune mini.toml")
    assert tomllib.loads(alone) == {"ppo": {"CartPole-v1": {"n_steps": 8}}}
    assert "# trial 8 of 2, score 0.500, 50,000 samples, seeds [1000]" in alone
    runs = [trial_run(size, 1000, 0.5, label) for size, label in ((2, "ppo, 2"), (4, "ppo, 4"))]
    variants = tomllib.loads(tuned_toml(trials_of(runs), "polobench tune mini.toml"))
    assert variants == {f"ppo, {size}": {"CartPole-v1": {"n_steps": size}} for size in (2, 4)}
    merged = variants | tomllib.loads(alone)
    monkeypatch.setattr("polobench.core.hyperparameters._tuned_file", lambda: merged)
    sizes = {label: tuned_values("ppo", "CartPole-v1", label)["n_steps"] for label in ("ppo, 2", "ppo, 4", "ppo, 9")}
    assert sizes == {"ppo, 2": 2, "ppo, 4": 4, "ppo, 9": 8}
    assert tuned_values("ppo", "CartPole-v1")["n_steps"] == 8


def test_the_expected_best_is_the_mean_over_all_subsets() -> None:
    scores = np.array([0.3, -1.0, 0.3, 0.9, 0.5, 0.0])
    every = [np.mean([max(part) for part in itertools.combinations(scores, k)]) for k in range(1, 7)]
    assert expected_best(scores, 6) == pytest.approx(every)
    assert expected_best(np.stack([scores, scores + 1]), 2) == pytest.approx(
        np.array([every[:2], np.add(every[:2], 1)])
    )


def search(*scores: float) -> Search:
    trials = [Trial(number, {}, [trial_run(number, 1000, score)]) for number, score in enumerate(scores)]
    return Search.of(Arm.of(trials[0].runs[0]), trials)


def test_where_all_configurations_are_equal_tuning_gains_nothing() -> None:
    flat = search(*[0.4] * 16)
    assert len(flat.best) == 8
    for item in flat.best:
        assert (item.value, item.interval.low, item.interval.high) == pytest.approx((0.4, 0.4, 0.4))
    assert (flat.gain.value, flat.gain.interval.low, flat.gain.interval.high) == pytest.approx((0, 0, 0))


def test_the_gain_of_tuning_has_an_interval_over_configurations() -> None:
    found = search(*[0.0] * 12, *[1.0] * 4)
    some_of_16 = 1 - math.comb(12, 8) / math.comb(16, 8)
    assert found.gain.value == pytest.approx(some_of_16 - 0.25)
    assert 0 < found.gain.interval.low < found.gain.value <= found.gain.interval.high < 1
    assert (found.gain.interval.n, found.gain.interval.method) == (16, "percentile bootstrap")
    assert len(search(0.1, 0.2, 0.3).best) == 1, "three trials say little of the best of two"
    assert math.isnan(search(0.1, 0.2, 0.3).gain.value), "and nothing of what a search gains"


def test_the_command_runs_trials_once_and_the_report_reads_them(tune: Command) -> None:
    Path("mini-study.toml").write_text(STUDY.replace(', "reinforce"', "").replace(', "probe-truncation"', ""))
    Path("mini.toml").write_text(MINI.replace(', "reinforce"', "").replace(', "probe-truncation"', ""))
    code, printed, _ = tune("--dry-run")
    assert code == 0
    assert "cells: 12, to run: 12" in printed
    store = Path("results/tuning-mini")
    assert not store.exists()
    assert tune("--trials", 1).code == 0
    code, printed, said = tune("--trials", 2, "--json", "--jobs", 2)
    assert code == 0
    assert "cells: 8, already in results/tuning-mini: 4" in said
    assert len(list(store.glob("*.json"))) == 8
    rows = json.loads(printed[printed.index("[\n") :])
    assert [(row["label"], row["trial"], row["seeds"]) for row in rows] == [
        (label, number, "1000 1001") for label in ("ppo", "ppo, tight") for number in (0, 1)
    ]
    assert all(row["samples"] <= 400 for row in rows)
    tuned = tomllib.loads((store / "tuned.toml").read_text())
    assert set(tuned) == {"ppo", "ppo, tight"}
    build(method_class("ppo").Hyperparameters, "ppo", tuned["ppo, tight"]["probe-bandit"])
    assert set(load(store)["split"]) == {"tuning"}
    assert "Random search chose the settings: 2 configurations" in report_text(collect(store))


def test_the_winners_of_one_task_stay_when_another_is_tuned(tune: Command) -> None:
    Path("mini-study.toml").write_text(STUDY)
    Path("mini.toml").write_text(MINI)
    for task in ("probe-bandit", "probe-truncation"):
        assert tune("--trials", 1, "--task", task).code == 0
    found = tomllib.loads(Path("results/tuning-mini/tuned.toml").read_text())
    assert {task for tasks in found.values() for task in tasks} == {"probe-bandit", "probe-truncation"}


def test_an_interrupted_command_says_where_the_trials_are_kept(tune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    Path("mini.toml").write_text(MINI)
    monkeypatch.setattr(sweep, "run_sweep", interrupt)
    code, _, said = tune()
    assert code == 130
    assert "run again to go on" in said


def test_trials_are_in_no_comparison_and_the_page_shows_the_best_of_k(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [make_result(seed=seed) for seed in range(3)]
    tries = [trial_run(number, seed, rng.uniform()) for number in range(16) for seed in (1000, 1001, 1002)]
    alone, both = (collect(save_all(tmp_path / name, *found)) for name, found in (("a", runs), ("b", runs + tries)))
    assert (len(both.trials), len(both.cells), both.arms.keys()) == (48, 3, alone.arms.keys())
    text = report_text(both)
    assert "## Tuning" not in report_text(alone)
    assert "16 configurations per method and task, each on seeds 1000-1002" in text
    assert "tuned with 16 random configurations per task" in text
    assert "trial 07" not in text, "no trial is named as a method"
    write_report(both, tmp_path / "report")
    assert (tmp_path / "report" / "figures" / "best_of_1.png").exists()
    found = pd.read_csv(tmp_path / "report" / "tables" / "best_of.csv")
    assert list(found["k"]) == list(range(1, 9))
    assert list(found["value"]) == sorted(found["value"])
    assert pd.read_csv(tmp_path / "report" / "tables" / "tuning.csv")["chosen"].sum() == 1


@pytest.mark.usefixtures("undrawn")
def test_searches_of_different_length_stand_in_one_table(tmp_path: Path) -> None:
    tries = [trial_run(number, 1000, number / 16, label) for label, count in LENGTHS.items() for number in range(count)]
    write_report(collect(save_all(tmp_path / "store", *tries)), tmp_path / "report")
    lines = (tmp_path / "report" / "settings.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| ")]
    assert [row[rows[0].index("k")] for row in rows[1:]] == ["8", "3"]


@pytest.mark.parametrize("name", ["matrix", "group-size", "preferences-tuned"])
def test_every_arm_of_a_study_is_tuned_alike(name: str) -> None:
    cells = load_tuning(BUILT_IN / "tuning" / f"{name}.toml").cells
    study = load_study(name)
    arms = {(cell.facts["arm"], cell.task) for cell in cells}
    assert arms == {(cell.label, cell.task) for cell in study.cells if cell.plan.learns}
    assert len(cells) == len(arms) * len({(cell.facts["trial"], cell.seed) for cell in cells})
    spaces = {(cell.facts["arm"], cell.task): len(cell.overrides) for cell in cells}
    if name == "matrix":
        assert (len(arms), {cell.facts["trial"] for cell in cells}) == (30, set(range(16)))
        assert {cell.seed for cell in cells} == {1000, 1001, 1002}
        assert len({count for (_, task), count in spaces.items() if task == "CartPole-v1"}) == 1
    assert {(cell.facts.get("looks"), cell.facts.get("seeds")) for cell in study.cells} == {(1, 10)}
    assert min(cell.seed for cell in study.cells) >= 100
    assert all(find_task(task).target is not None for _, task in arms if not task.startswith("envpool"))
