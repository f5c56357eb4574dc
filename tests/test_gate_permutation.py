"""The gate's test against scipy, its null rate, its power, and its refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from polobench.gate.permutation import runs_needed, shifts, smallest_p


def difference(head: np.ndarray, base: np.ndarray, axis: int = -1) -> np.ndarray:
    return head.mean(axis=axis) - base.mean(axis=axis)


@pytest.mark.parametrize(("harm", "alternative"), [("lower", "less"), ("higher", "greater")])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 6)])
def test_p_is_scipys(harm: str, alternative: str, n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    base, head = rng.normal(size=n), rng.normal(size=m)
    found = shifts({"x": (base, head)}, {"x": harm})["x"]
    expected = permutation_test(
        (head, base), difference, permutation_type="independent", alternative=alternative, n_resamples=math.inf
    )
    assert found.p == pytest.approx(expected.pvalue)
    assert found.difference == pytest.approx(head.mean() - base.mean())


def test_two_sided_p_counts_both_tails_of_the_absolute_difference() -> None:
    found = shifts({"x": (np.zeros(3), np.ones(3))}, {"x": "both"})["x"]
    assert found.p == pytest.approx(2 / 20)
    assert found.smallest_p == pytest.approx(2 / 20)


def test_equal_values_are_no_difference() -> None:
    found = shifts({"x": (np.ones(5), np.ones(5))}, {"x": "lower"})["x"]
    assert (found.p, found.spread) == (1.0, 0.0)
    assert found.detectable(0.001, 0.05) == 0.05


def test_many_measures_share_a_pass_and_stay_apart() -> None:
    rng = np.random.default_rng(1)
    columns = {k: (rng.normal(size=5), rng.normal(size=5 + k % 2)) for k in range(6)}
    together = shifts(columns, dict.fromkeys(columns, "lower"))
    assert list(together) == list(columns)
    for k, values in columns.items():
        assert together[k] == shifts({k: values}, {k: "lower"})[k]


def test_null_rate_is_the_level() -> None:
    rng = np.random.default_rng(0)
    columns = {k: tuple(rng.exponential(size=(2, 6))) for k in range(2_000)}
    found = shifts(columns, dict.fromkeys(columns, "lower"))
    rate = np.mean([shift.p <= 0.05 for shift in found.values()])
    assert 0.05 - 4 * math.sqrt(0.05 * 0.95 / 2_000) < rate <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2_000)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(2)
    level, n = 0.001, 10
    base = rng.normal(size=(400, n))
    shift = shifts({"x": (base[0], rng.normal(size=n))}, {"x": "lower"})["x"]
    true = shift.detectable(level, 0.0) / shift.spread  # at the true spread, 1
    columns = {k: (base[k], rng.normal(size=n) - true) for k in range(400)}
    found = shifts(columns, dict.fromkeys(columns, "lower"))
    assert 0.7 < np.mean([item.p <= level for item in found.values()]) < 0.9


def test_smallest_p_and_the_runs_that_a_level_needs() -> None:
    assert smallest_p(10, 10, "lower") == pytest.approx(1 / 184_756)
    assert smallest_p(10, 10, "both") == pytest.approx(2 / 184_756)
    assert smallest_p(3, 4, "both") == pytest.approx(1 / 35)
    assert runs_needed(0.05, "lower") == 3
    assert smallest_p(runs_needed(1e-4, "both"), runs_needed(1e-4, "both"), "both") <= 1e-4


def test_many_runs_are_drawn_and_never_reach_zero() -> None:
    rng = np.random.default_rng(3)
    found = shifts({"x": (rng.normal(size=30), rng.normal(size=30) - 9)}, {"x": "lower"})["x"]
    assert 0 < found.p < 1e-5
