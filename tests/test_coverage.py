"""The simulated coverage of intervals: what is kept agrees with a fresh simulation, with theory, and with the text."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polobench.analysis.statistics.aggregates import STRATIFIED, iqm, mean_score
from polobench.analysis.statistics.coverage import MEAN, coverage_note, coverages
from polobench.analysis.statistics.coverage import worst_coverage as worst
from polobench.analysis.statistics.intervals import BOOTSTRAP, STUDENT, WILSON, mean_interval, wilson_interval

ROOT = Path(__file__).parents[1]
IQM, MEDIAN_OF_TASKS, MEAN_OF_TASKS = "interquartile mean over tasks", "median of task means", "mean of task means"
SOLVED = "share of runs"
SIZES = (3, 5, 10, 20)
SIMULATIONS = 400
KEPT_SIMULATIONS = 4_000


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.interval_coverage")


def kept(statistic: str, method: str, returns: str) -> dict[int, float]:
    (row,) = [row for row in coverages() if (row.statistic, row.method, row.returns) == (statistic, method, returns)]
    return row.share


def error(share: float, simulations: int) -> float:
    """Four standard errors of a simulated share beside the kept one."""
    return 4 * math.sqrt(share * (1 - share) * (1 / simulations + 1 / KEPT_SIMULATIONS))


def test_every_size_is_there_and_its_error_below_one_in_a_hundred() -> None:
    assert {(row.statistic, row.method) for row in coverages()} == {
        (MEAN, STUDENT), (MEAN, BOOTSTRAP), (MEAN, "BCa bootstrap"), (IQM, STRATIFIED), (MEDIAN_OF_TASKS, STRATIFIED),
        (MEAN_OF_TASKS, STRATIFIED), (SOLVED, WILSON),
    }  # fmt: skip
    for row in coverages():
        assert tuple(row.share) == SIZES
        assert all(math.sqrt(share * (1 - share) / KEPT_SIMULATIONS) < 0.01 for share in row.share.values())


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("n", [3, 10])
def test_intervals_of_a_mean_simulated_again(simulation: Any, index: int, n: int) -> None:
    returns = simulation.RETURNS[index]
    found = simulation.mean_coverage(returns, n, SIMULATIONS)
    for (statistic, method), share in found.items():
        expected = kept(statistic, method, returns.name)[n]
        assert share == pytest.approx(expected, abs=error(expected, SIMULATIONS))


@pytest.mark.parametrize("index", range(3))
def test_intervals_over_tasks_simulated_again(simulation: Any, index: int) -> None:
    returns = simulation.RETURNS[index]
    for (statistic, method), share in simulation.aggregate_coverage(returns, 5, SIMULATIONS // 2).items():
        expected = kept(statistic, method, returns.name)[5]
        assert share == pytest.approx(expected, abs=error(expected, SIMULATIONS // 2))


def test_the_comparison_sees_an_interval_that_is_too_narrow(simulation: Any) -> None:
    found = simulation.mean_coverage(simulation.RETURNS[0], 3, SIMULATIONS)[MEAN, BOOTSTRAP]
    expected = kept(MEAN, STUDENT, "normal")[3]
    assert abs(found - expected) > error(expected, SIMULATIONS)


@pytest.mark.parametrize("n", SIZES)
def test_theory(n: int) -> None:
    assert kept(MEAN, STUDENT, "normal")[n] == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / KEPT_SIMULATIONS))
    # where no run collapsed, no resample's mean comes down to the true one
    reachable = 1 - 0.8**n
    allowed = 4 * math.sqrt(reachable * (1 - reachable) / KEPT_SIMULATIONS)
    assert kept(MEAN, BOOTSTRAP, "collapse-prone")[n] <= reachable + allowed


def test_wilson_is_exact(simulation: Any) -> None:
    rng = np.random.default_rng(0)
    for probability in simulation.SOLVING:
        shares = kept(SOLVED, WILSON, f"solved with probability {probability}")
        for n in (3, 10):
            intervals = [wilson_interval(solved, n) for solved in range(n + 1)]
            drawn = [intervals[solved] for solved in rng.binomial(n, probability, 2_000)]
            simulated = np.mean([item.low <= probability <= item.high for item in drawn])
            assert shares[n] == pytest.approx(simulated, abs=error(shares[n], 2_000))
            assert shares[n] == pytest.approx(simulation.wilson_coverage(probability, n), abs=5e-6)


def test_distributions_are_as_described(simulation: Any) -> None:
    points = (np.arange(100_000) + 0.5) / 100_000
    for returns in simulation.RETURNS:
        assert returns.quantile(points).mean() == pytest.approx(returns.mean, rel=1e-3)
    collapse_prone = simulation.RETURNS[2].quantile(points)
    assert np.mean(collapse_prone < 0.1) == pytest.approx(0.2)
    assert (collapse_prone.min(), collapse_prone.max()) == pytest.approx((0, 1), abs=1e-4)
    assert not ((collapse_prone > 0.1) & (collapse_prone < 0.9)).any()


def test_simulated_statistics_are_the_projects(simulation: Any) -> None:
    scores = np.random.default_rng(0).normal(size=(5, 7))
    for name, statistic in ((IQM, iqm), (MEAN_OF_TASKS, mean_score)):
        assert simulation.AGGREGATES[name](scores) == pytest.approx(statistic(list(scores)), abs=1e-12)
    assert simulation.AGGREGATES[MEDIAN_OF_TASKS](scores) == np.median(scores.mean(axis=1))
    found = simulation._percentile_ends(scores)
    assert (found[0] < scores.mean(axis=1)).all()


@pytest.mark.parametrize("n", SIZES)
def test_the_interval_of_a_mean_is_the_one_with_the_best_worst_coverage(n: int) -> None:
    methods = {row.method for row in coverages() if row.statistic == MEAN}
    best = max(worst(MEAN, method, n) for method in methods)
    noise = math.sqrt(2) * 0.01
    assert worst(MEAN, mean_interval([1.0, 2.0]).method, n) >= best - noise


def test_the_note_has_the_kept_figures() -> None:
    shares = [f"{100 * kept(MEAN, STUDENT, name)[5]:.0f}" for name in ("normal", "skewed", "collapse-prone")]
    expected = (
        f"in simulation, {shares[0]} %, {shares[1]} % and {shares[2]} % of such intervals (n = 5) contained the true "
        "mean of normal, skewed and collapse-prone returns; use 10 seeds or more"
    )
    assert coverage_note(5) == coverage_note(9) == expected


def test_the_note_advises_more_seeds_below_ten_alone() -> None:
    assert "is not known; use 10 seeds or more" in coverage_note(2)
    assert "(n = 10)" in coverage_note(10)
    assert "seeds or more" not in coverage_note(10)
    assert coverage_note(1_000) == coverage_note(20)


def test_there_is_no_note_where_a_method_is_sufficient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polobench.analysis.statistics.coverage.worst_coverage", lambda *_: 0.93)
    assert coverage_note(5) == ""
    monkeypatch.setattr("polobench.analysis.statistics.coverage.worst_coverage", lambda *_: 0.9299)
    assert coverage_note(5)


def test_the_documentation_shows_the_kept_figures(simulation: Any) -> None:
    assert simulation.table(list(coverages())) in (ROOT / "docs" / "statistics.md").read_text("utf-8")


def test_kept_figures_survive_their_file(simulation: Any) -> None:
    text = (ROOT / "polobench" / "analysis" / "statistics" / "coverage.toml").read_text("utf-8")
    assert simulation.as_toml(list(coverages()), KEPT_SIMULATIONS) == text
