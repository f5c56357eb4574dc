"""`load`: a row per cell, failed ones at the floor, older code left out and said."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import failed, make_result, make_throughput, save_all, with_id

import polobench
from polobench.analysis.collection import collect
from polobench.analysis.curves import mean_curve, return_curve
from polobench.analysis.frame import COLUMNS, load
from polobench.core.errors import UsageError
from polobench.core.result import RunResult


def _older(result: RunResult, started_at: str = "2024-01-01T00:00:00+00:00", **provenance: object) -> RunResult:
    other = copy.deepcopy(result)
    other.started_at = started_at
    other.provenance |= {"code_hash": "01d"} | provenance
    return with_id(other)


def test_row_of_a_run(tmp_path: Path) -> None:
    result = make_result("ppo", seed=3)
    table = load(save_all(tmp_path, result))
    row = table.iloc[0]
    assert len(table) == 1
    assert (row["method"], row["task"], row["seed"], row["status"]) == ("ppo", "CartPole-v1", 3, "ok")
    assert (row["budget"], row["budget_samples"]) == ("50,000 samples", 50_000)
    assert row["final_return"] == result.final_return
    assert row["samples_to_target"] == result.time_to_target["samples"]
    assert row["samples_per_second"] == pytest.approx(50_000 / result.ledger.wall_seconds)
    assert row["rollout_samples_per_second"] == pytest.approx(50_000 / (0.35 * result.ledger.wall_seconds))
    assert row["update_samples_per_second"] == pytest.approx(50_000 / (0.65 * result.ledger.wall_seconds))
    assert (row["hp_hidden_sizes"], row["hp_learning_rate"]) == ((64, 64), 3e-4)
    assert (row["code_hash"], row["commit"]) == ("c0de", "0123456789abcdef0123")
    assert bool(row["solved"])
    assert bool(row["reached"])


def test_every_promised_column_even_of_nothing(tmp_path: Path) -> None:
    table = load(tmp_path)
    assert table.empty
    assert list(table.columns) == list(COLUMNS)
    promised = {"loss_converged_samples", "peak_memory_mib", "digest", "ran_beside_others", "gradient_steps", "unit"}
    assert promised <= set(table.columns)


def test_top_level_load_is_this_one() -> None:
    assert polobench.load is load


@pytest.mark.parametrize(("lowest", "final"), [(22.3, 22.3), (30.0, 22.3), (10.0, 10.0)])
def test_failed_run_is_at_the_floor_or_at_its_lowest_evaluation_and_unsolved(
    lowest: float, final: float, tmp_path: Path
) -> None:
    run = make_result()
    run.curve["return_mean"] = run.curve["return_mean"].clip(lower=lowest)
    run.curve.loc[2, "return_mean"] = lowest
    run.status, run.reason = "timeout", "took too long"  # whatever was stored: it did not end ok
    row = load(save_all(tmp_path, run)).iloc[0]
    assert (row["final_return"], row["final_score"]) == (final, (final - 22.3) / (475.0 - 22.3))
    assert not row["solved"]
    assert not row["reached"]


def test_failure_before_the_task_is_known_takes_its_floor_from_the_others(tmp_path: Path) -> None:
    broken = make_result(seed=1, status="failed", floor=math.nan, target=None, final_return=math.nan, final_score=None)
    broken.curve = pd.DataFrame()
    table = load(save_all(tmp_path, make_result(), broken)).set_index("seed")
    assert (table.loc[1, "final_return"], table.loc[1, "final_score"], table.loc[1, "target"]) == (22.3, 0.0, 475.0)


def test_reached_and_lost_again_is_not_solved(tmp_path: Path) -> None:
    run = make_result(final_return=100.0)
    row = load(save_all(tmp_path, run)).iloc[0]
    assert not row["solved"]
    assert bool(row["reached"])


def test_no_target_is_neither_solved_nor_unsolved(tmp_path: Path) -> None:
    row = load(save_all(tmp_path, make_result(target=None, final_score=None, time_to_target={}))).iloc[0]
    assert row["solved"] is pd.NA
    assert np.isnan(row["samples_to_target"])


def test_throughput_cell(tmp_path: Path) -> None:
    result = make_throughput(final_return=22.3, final_score=0.0)
    row = load(save_all(tmp_path, result)).iloc[0]
    assert np.isnan(row["final_return"])  # it evaluates nothing, whatever its blank result says
    assert np.isnan(row["final_score"])
    assert row["samples_per_second"] == result.throughput["samples_per_second"]
    assert row["solved"] is pd.NA


def test_speeds_beside_others_are_not_given(tmp_path: Path) -> None:
    beside = [make_result(ran_beside_others=True), make_throughput(ran_beside_others=True)]
    table = load(save_all(tmp_path, *beside))
    for name in ("samples_per_second", "rollout_samples_per_second", "update_samples_per_second"):
        assert table[name].isna().all()
    assert table["ran_beside_others"].all()


def test_older_code_is_left_out_and_said(tmp_path: Path) -> None:
    newest = make_result()
    store = save_all(tmp_path, newest, _older(newest), _older(newest, code_hash="01de5t"), make_result(seed=1))
    with pytest.warns(UserWarning, match="2 cells left out"):
        table = load(store)
    assert table["code_hash"].tolist() == ["c0de", "c0de"]
    assert table.attrs["left_out"] == 2


def test_other_settings_are_kept_by_load_and_left_out_by_the_report(tmp_path: Path) -> None:
    other = make_result(hyperparameters={"learning_rate": 1.0}, started_at="2024-01-01T00:00:00+00:00")
    store = save_all(tmp_path, make_result(), other)
    assert len(load(store)) == 2
    found = collect(store)
    assert (found.older_code, found.older_settings) == (0, 1)
    assert [run.hyperparameters["learning_rate"] for runs in found.arms.values() for run in runs] == [3e-4]


def test_a_run_counts_as_newer_than_a_skip(tmp_path: Path) -> None:
    run = make_result()
    skip = _older(run, "2026-01-01T00:00:00+00:00")
    skip.status, skip.reason = "skipped", "no such device"
    found = collect(save_all(tmp_path, run, skip))
    assert found.skipped == []
    assert len(found.arms) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "one"), ("label", None), ("final_return", "high"), ("curve", {"samples": [1.0]}), ("budget", [1])],
)
def test_damaged_values_are_named_and_the_rest_read(tmp_path: Path, name: str, value: object) -> None:
    bad = make_result(seed=1)
    plain = bad.to_dict() | {name: value}
    bad.to_dict = lambda: plain  # type: ignore[method-assign]
    store = save_all(tmp_path, make_result(), bad)
    with pytest.warns(UserWarning, match=f"damaged file {bad.cell_id}.json"):
        table = load(store)
    assert table["seed"].tolist() == [0]
    assert table.attrs["damaged"][0][0] == f"{bad.cell_id}.json"


def test_rows_are_ordered_whatever_the_files_are_called(tmp_path: Path) -> None:
    names = [("trpo", 1), ("ppo", 10), ("ppo", 2), ("ppo", 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load(save_all(tmp_path, *(make_result(method, seed=seed) for method, seed in names)))
    assert list(zip(table["label"], table["seed"])) == [("ppo", 1), ("ppo", 2), ("ppo", 10), ("trpo", 1)]


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load(tmp_path / "absent")


def test_curve_of_a_failed_run_is_at_its_failed_score_from_its_end() -> None:
    run = failed(make_result(), at=0.5)
    grid = np.array([0.0, 10_000.0, 24_000.0, 25_000.0, 50_000.0])
    whole, cut = return_curve(make_result(), "samples", grid), return_curve(run, "samples", grid)
    assert cut[:2] == pytest.approx(whole[:2])
    assert cut[2] > run.floor
    assert cut[3:].tolist() == [min(run.floor, run.curve["return_mean"].min())] * 2


def test_mean_curve_interpolates_runs_evaluated_at_other_places() -> None:
    runs = [make_result(seed=seed) for seed in range(2)]
    runs[0].curve = pd.DataFrame({"samples": [0.0, 50_000.0], "return_mean": [0.0, 100.0]})
    runs[1].curve = pd.DataFrame({"samples": [0.0, 20_000.0, 50_000.0], "return_mean": [0.0, 100.0, 100.0]})
    found = mean_curve(runs, "samples")
    assert found.x[-1] == 50_000
    assert np.interp([10_000, 25_000, 50_000], found.x, found.mean) == pytest.approx([35.0, 75.0, 100.0])


def test_mean_curve_over_seconds_ends_at_the_median_end() -> None:
    runs = [make_result(seed=seed) for seed in range(3)]
    ends = sorted(run.ledger.wall_seconds for run in runs)
    assert mean_curve(runs, "wall_seconds").x[-1] == ends[1]
