"""Tuning: the same trials again, nothing finished run twice, failures that count, and what the report says of it."""

from __future__ import annotations

import copy
import math
import signal
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from synthetic import failed, make_result, report_text, save_all

from polobench.analysis import tuning as tuning_report
from polobench.analysis.collection import collect
from polobench.cells.runner import PreparedCell, blank_result, run_cell
from polobench.cli import main
from polobench.core.errors import Unavailable, UsageError
from polobench.core.hyperparameters import build
from polobench.core.result import RunResult
from polobench.core.seeding import SeedAxes
from polobench.registry import find_task, method_class
from polobench.report.page import write_report
from polobench.run import tuning
from polobench.run.library import BUILT_IN
from polobench.run.progress import Display
from polobench.run.tuning import Trial, objective, table, tune, tuned_toml, winner
from polobench.run.tuning_plan import Pair, Range, TuningPlan, load_plan, parse_plan
from polobench.store.folder import Store

MATRIX = BUILT_IN / "tuning" / "matrix.toml"
MINI = """
seed = 1000
trials = 3
[budgets]
probe-bandit = 200
[[space]]
method = "ppo"
tasks = ["probe-bandit"]
learning_rate = {low = 1e-3, high = 1e-1, log = true}
n_steps = [4, 8]
epochs = {low = 1, high = 9}
[[start]]
method = "ppo"
tasks = ["probe-bandit"]
learning_rate = 0.01
n_steps = 4
epochs = 3
gamma = 0.9
"""
START = {"learning_rate": 0.01, "n_steps": 4, "epochs": 3, "gamma": 0.9}


def plan(trials: int = 7, seed: int = 1000) -> TuningPlan:
    return replace(parse_plan("mini", tomllib.loads(MINI)), trials=trials, seed=seed)


def peak(values: dict[str, Any]) -> float:
    """A made-up score with its best at a learning rate of 0.03, 8 steps and 6 epochs."""
    return (
        1 - abs(math.log10(values["learning_rate"] / 0.03)) - 0.1 * abs(values["epochs"] - 6) - (4 / values["n_steps"])
    )


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sweeps that make up their results; the labels of the cells that ran."""
    labels: list[str] = []

    def sweep(cells: Sequence[PreparedCell], store: Store, display: Display, open_executor: object) -> None:
        for item in cells:
            labels.append(item.cell.label)
            store.save(made_up(item, peak(dict(item.cell.overrides))))

    monkeypatch.setattr(tuning, "run_sweep", sweep)
    return labels


def made_up(item: PreparedCell, score: float) -> RunResult:
    result = blank_result(item, "ok", "made up")
    columns = {name: [0.0, 1.0] for name in ("samples", "wall_seconds", "cpu_seconds", "return_mean")}
    result.curve = pd.DataFrame({"progress": [0.0, 1.0], **columns, "score": [0.0, score]})
    return result


def search(folder: Path, of: TuningPlan, announce: Callable[[int, int, int], None] = lambda *_: None) -> list[Trial]:
    store = Store(folder)
    store.prepare()
    (trials,) = tune(of, store, 1, announce).values()
    return trials


def values(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    return [dict(trial.values) for trial in trials]


def trial(number: int, score: float, status: str = "ok") -> Trial:
    result = make_result(status=status)
    result.curve["score"] = score
    return Trial(Pair("ppo", "CartPole-v1", plan().pairs[0].budget, {}, {}), number, {"n_steps": number}, result)


def test_the_objective_is_the_mean_score_of_the_second_half() -> None:
    curve = pd.DataFrame({"progress": [0.0, 0.25, 0.49, 0.5, 0.75, 1.0], "score": [9.0, 9.0, 9.0, 0.25, 0.5, 0.75]})
    assert objective(make_result(curve=curve)) == 0.5
    assert objective(failed(make_result())) == -1.0


def test_the_earliest_of_equals_wins_and_a_failed_trial_never_over_one_that_ended_ok() -> None:
    assert winner([trial(0, 0.2), trial(1, 0.7), trial(2, 0.7)]).number == 1
    assert winner([trial(0, 0.9, "diverged"), trial(1, -2.0), trial(2, 0.9, "failed")]).number == 1
    assert winner([trial(0, 0.9, "failed"), trial(1, 0.9, "diverged")]).number == 0


def test_the_first_trial_is_the_start_and_the_others_keep_what_the_space_does_not_name(
    tmp_path: Path, ran: list[str]
) -> None:
    found = values(search(tmp_path, plan()))
    assert found[0] == START
    assert {value["gamma"] for value in found} == {0.9}
    assert all(1e-3 <= value["learning_rate"] <= 1e-1 and value["n_steps"] in (4, 8) for value in found)
    assert {type(value["epochs"]) for value in found} == {int}
    assert ran == [f"ppo trial {number}" for number in range(7)]


def test_values_that_were_tuned_before_have_no_say(tmp_path: Path, ran: list[str]) -> None:
    text = tomllib.loads(MINI.replace("probe-bandit", "probe-truncation").replace("gamma = 0.9", ""))
    (first,) = search(tmp_path, replace(parse_plan("mini", text), trials=1))
    assert first.result.hyperparameters["gamma"] == 0.99  # 0.9 stands in tuned.toml


def test_the_same_seed_gives_the_same_trials_and_another_others(tmp_path: Path, ran: list[str]) -> None:
    first, again, other = (
        values(search(tmp_path / name, plan(seed=seed))) for name, seed in (("a", 1000), ("b", 1000), ("c", 1001))
    )
    assert first == again
    assert first[0] == other[0]
    assert first[1:] != other[1:]


def test_the_trials_are_those_that_optunas_own_loop_makes(tmp_path: Path, ran: list[str]) -> None:
    seed = SeedAxes(1000).integer("tuning/ppo/probe-bandit") % 2**32
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4, multivariate=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({name: START[name] for name in ("learning_rate", "n_steps", "epochs")})
    seen: list[dict[str, Any]] = []

    def score(asked: optuna.Trial) -> float:
        rate = float(f"{asked.suggest_float('learning_rate', 1e-3, 1e-1, log=True):.3g}")
        steps, epochs = asked.suggest_categorical("n_steps", (4, 8)), asked.suggest_int("epochs", 1, 9)
        seen.append({"gamma": 0.9, "learning_rate": rate, "n_steps": steps, "epochs": epochs})
        return peak(seen[-1])

    study.optimize(score, n_trials=7)
    trials = search(tmp_path, plan())
    assert values(trials) == seen
    assert winner(trials).values == seen[study.best_trial.number]


def test_an_interrupted_tuning_goes_on_without_running_finished_trials_again(tmp_path: Path, ran: list[str]) -> None:
    def interrupt(number: int, cells: int, to_run: int) -> None:
        if number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "interrupted", plan(), interrupt)
    assert len(ran) == 5
    heard: list[tuple[int, int, int]] = []
    whole = search(tmp_path / "interrupted", plan(), lambda *counts: heard.append(counts))
    assert ran == [f"ppo trial {number}" for number in range(7)]
    assert heard == [(number, 1, int(number >= 5)) for number in range(7)]
    assert values(whole) == values(search(tmp_path / "whole", plan()))


def test_a_failed_trial_counts_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sweep(cells: Sequence[PreparedCell], store: Store, display: Display, open_executor: object) -> None:
        for item in cells:
            store.save(run_cell(item))

    monkeypatch.setattr(tuning, "run_sweep", sweep)
    text = tomllib.loads(MINI.replace("high = 1e-1", "high = 1e38"))
    trials = search(tmp_path, replace(parse_plan("mini", text), trials=3))
    outcomes = {trial.result.status: trial.objective for trial in trials}
    assert outcomes["diverged"] == -1.0
    assert winner(trials).result.status == "ok"
    found = table({trials[0].pair: trials})
    assert found["chosen"].sum() == 1
    assert list(found["trial"]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("seed = 1000", "seed = 0", "seed is 0 (allowed: a tuning seed, 1000 to 1099; others are for evaluation)"),
        ("seed = 1000", "seed = 99", "seed is 99"),
        ("seed = 1000", "seeds = 1000", "unknown key 'seeds'; did you mean 'seed'?"),
        ("seed = 1000", "", "seed is None"),
        ("trials = 3", "trials = 0", "trials is 0 (allowed: an integer from 1)"),
        ("probe-bandit = 200", "", "no [budgets]"),
        ("probe-bandit = 200", "probe-bandit = 0", "budget of samples is 0"),
        ("probe-bandit = 200", "probe-truncation = 200", "unknown task of [budgets]"),
        ('"ppo"', '"ppoo"', "did you mean 'ppo'"),
        ('method = "ppo"', "", 'needs method = "name"'),
        ("n_steps = [4, 8]", "steps = [4, 8]", "unknown hyper-parameter of ppo 'steps'; did you mean 'n_steps'?"),
        ("[4, 8]", "[4, 0]", "ppo: n_steps is 0 (allowed: 1 <= n_steps, finite)"),
        ("[4, 8]", "[4]", "allowed: {low = ..., high = ...} or a list of two or more"),
        ("[4, 8]", "[4, [8]]", "allowed: a list of numbers, texts or truth values"),
        ("[4, 8]", "[8, 16]", "the first trial's n_steps = 4 is not in its space (allowed: 8, 16)"),
        ("low = 1, high = 9", "low = 1", "ppo: epochs is {'low': 1} (allowed: {low = ..., high = ...}"),
        ("low = 1, high = 9", "low = 0, high = 9", "ppo: epochs is 0 (allowed: 1 <= epochs"),
        ("low = 1, high = 9", "low = 1, high = 9.5", "ppo: epochs is 9.5 (allowed: int)"),
        ("low = 1, high = 9", "low = 9, high = 1", "ppo: epochs is from 9 to 1 (allowed: numbers, low below high)"),
        ("low = 1, high = 9", "low = 1, high = 9, step = 2", "unknown key of ppo: epochs 'step'"),
        ("low = 1, high = 9", "low = 4, high = 9", "epochs = 3 is not in its space (allowed: 4 to 9)"),
        ("low = 1e-3", "low = 0.0", "learning_rate is from 0.0 on a log scale (allowed: a positive low)"),
        ("log = true", 'log = "yes"', "log: 'yes' (allowed: true or false)"),
        ("gamma = 0.9", "gamma = 9", "ppo: gamma is 9.0 (allowed: 0 <= gamma <= 1, finite)"),
        ("gamma = 0.9", '[[start]]\nmethod = "ppo"\ntasks = ["probe-bandit"]\ngamma = 0.5', "two [[start]]"),
        ("gamma = 0.9", '[[start]]\nmethod = "dpo"\ntasks = ["probe-bandit"]\nbeta = 0.5', "has no [[space]]"),
    ],
)
def test_mistakes_in_a_tuning_file_end_in_one_clear_line(
    tmp_path: Path,
    old: str,
    new: str,
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert old in MINI
    path = tmp_path / "mini.toml"
    path.write_text(MINI.replace(old, new, 1))
    monkeypatch.setattr(sys, "argv", ["polobench", "tune", str(path), "--store", str(tmp_path / "store")])
    with pytest.raises(SystemExit) as ended:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert named in line
    assert not (tmp_path / "store").exists()


def test_without_optuna_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(Unavailable, match=r'pip install "polobench\[tune\]"'):
        search(tmp_path, plan())


def test_a_task_without_a_target_cannot_be_tuned(tmp_path: Path, ran: list[str]) -> None:
    text = tomllib.loads(MINI.replace("probe-bandit", "CliffWalking-v1"))
    with pytest.raises(Unavailable, match="no target"):
        search(tmp_path, parse_plan("mini", text))
    with pytest.raises(UsageError, match="CartPole-v9"):
        search(tmp_path, parse_plan("mini", tomllib.loads(MINI.replace("probe-bandit", "CartPole-v9"))))


def test_the_command_runs_trials_in_workers_and_writes_table_and_winners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mini.toml").write_text(MINI.replace("trials = 3", "trials = 2"))
    monkeypatch.setattr(sys, "argv", ["polobench", "tune", "mini.toml"])
    said = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        said.append(capsys.readouterr())
    assert said[0].out == said[1].out
    assert said[0].err.count("already in results/tuning-mini: 0") == 2
    assert said[1].err.count("already in results/tuning-mini: 1") == 2
    store = Path("results/tuning-mini")
    found = pd.read_csv(store / "tuning.csv")
    assert len(list(store.glob("*.json"))) == len(found) == 2
    assert (found["samples"] <= 200).all()
    tuned = tomllib.loads((store / "tuned.toml").read_text())
    build(method_class("ppo").Hyperparameters, "ppo", tuned["ppo"]["probe-bandit"])


def test_an_interrupted_command_says_where_the_trials_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "mini.toml").write_text(MINI)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "tune", interrupt)
    monkeypatch.setattr(sys, "argv", ["polobench", "tune", "mini.toml"])
    monkeypatch.setattr(
        signal, "signal", lambda number, handler: handler
    )  # this process goes on, and is to hear Ctrl-C
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "kept in results/tuning-mini, run again to go on" in capsys.readouterr().err


def test_the_winners_are_what_the_file_of_tuned_values_holds() -> None:
    trials = {plan().pairs[0]: [trial(0, 0.25), trial(1, 0.5)]}
    text = tuned_toml(plan(), trials, "polobench tune mini.toml")
    assert tomllib.loads(text) == {"ppo": {"probe-bandit": {"n_steps": 1}}}
    assert "7 trials a method and task" in text
    assert "each on seed 1000" in text


def test_the_matrix_is_tuned_alike_everywhere() -> None:
    matrix = load_plan(MATRIX)
    assert (len(matrix.pairs), matrix.trials) == (25, 8)
    assert {len(pair.space) for pair in matrix.pairs} == {4}
    assert {str(pair.budget) for pair in matrix.pairs} == {"33,333 samples", "50,000 samples", "66,667 samples"}
    assert all(allowed.log for pair in matrix.pairs for allowed in pair.space.values() if isinstance(allowed, Range))
    assert all(find_task(task).target is not None for task in {pair.task for pair in matrix.pairs})


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Three trials of PPO on CartPole-v1, of which the second is chosen and the third failed."""
    values = [{"learning_rate": 1e-3, "gamma": 0.99}, {"learning_rate": 3e-4, "gamma": 0.99}, {"learning_rate": 9.0}]
    results = [make_result(seed=1000, budget=20_000) for _ in values]
    for result, score in zip(results, (0.25, 0.5, 0.75)):
        result.curve["score"] = score
    failed(results[2])
    pair = Pair("ppo", "CartPole-v1", plan().pairs[0].budget, {}, {})
    trials = [Trial(pair, number, *both) for number, both in enumerate(zip(values, results))]
    found = table({pair: trials})
    monkeypatch.setattr(tuning_report, "shipped_trials", lambda: found)
    return found


def test_the_report_says_what_tuning_cost(tmp_path: Path, shipped: pd.DataFrame) -> None:
    runs = [make_result(method, seed=seed) for method in ("ppo", "trpo") for seed in range(3)]
    folder = save_all(tmp_path / "store", *copy.deepcopy(runs))
    text = report_text(collect(folder))
    section = text.partition("## Tuning\n")[2].partition("\n## ")[0]
    assert "3 trials on seed 1000" in section
    (row,) = [line for line in section.splitlines() if "CartPole" in line]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    cost = f"{shipped['samples'].sum():,}", f"{shipped['cpu_seconds'].sum():.1f}"
    assert cells == ["CartPole-v1", "ppo", "3", *cost, "0.25", "**0.50**", "diverged"]
    write_report(collect(folder), tmp_path / "report")
    written = pd.read_csv(tmp_path / "report" / "tables" / "tuning.csv")
    assert list(written["chosen"]) == [False, True, False]


def test_the_report_says_nothing_of_tuning_where_other_values_ran(tmp_path: Path, shipped: pd.DataFrame) -> None:
    others = {"learning_rate": 1e-3, "gamma": 0.99}
    runs = [make_result(seed=0), make_result(seed=1, hyperparameters=others), make_result(seed=0, label="variant")]
    assert "## Tuning" not in report_text(collect(save_all(tmp_path, *runs)))
