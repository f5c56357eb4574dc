"""Intervals against enumeration, closed forms and scipy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from polobench.analysis.statistics.intervals import (
    bootstrap_band,
    mean_interval,
    median_time_to_target,
    student_ends,
    wilson_interval,
)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_of_a_mean_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(10, 2, n)
    found, oracle = mean_interval(values), ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert (found.n, found.method) == (n, "Student's t")


def test_interval_of_a_mean_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.302653
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    low, high = student_ends(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]))
    assert low == pytest.approx([found.low, 2 * found.low])
    assert high == pytest.approx([found.high, 2 * found.high])


def _bootstrap(values: Sequence[float], **settings: int) -> tuple[float, float]:
    """The band of a curve with one point."""
    low, high = bootstrap_band(np.array(values)[:, None], **settings)
    return float(low[0]), float(high[0])


@pytest.mark.parametrize("values", [(1.0, 2.0, 9.0), (-3.0, 0.5, 0.25)])
def test_bootstrap_of_three_is_exact(values: tuple[float, ...]) -> None:
    every = [np.mean(resample) for resample in itertools.product(values, repeat=3)]
    assert len(every) == 27
    assert _bootstrap(values) == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))))


def test_bootstrap_of_many_is_deterministic_and_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).normal(10, 2, 20)
    found = _bootstrap(values, resamples=10_000)
    assert found == _bootstrap(values, resamples=10_000)
    assert _bootstrap(values, resamples=10_000, seed=1) != found
    oracle = bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, random_state=7).confidence_interval
    assert found == pytest.approx((oracle.low, oracle.high), abs=0.05)


def test_bootstrap_coverage_at_twenty_runs() -> None:
    rng = np.random.default_rng(0)
    draws = [_bootstrap(rng.normal(size=20), resamples=1_000) for _ in range(400)]
    covered = np.mean([low <= 0 <= high for low, high in draws])
    assert 0.88 < covered < 0.97


def test_bootstrap_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()
    _bootstrap(range(12))
    assert (np.random.get_state()[1] == before).all()


def test_constant_values_give_a_point() -> None:
    found = mean_interval([500.0] * 5)
    assert _bootstrap([500.0] * 5) == (found.low, found.high) == (500.0, 500.0)


@pytest.mark.parametrize("values", [[], [3.0], [1.0, math.nan, 2.0]])
def test_no_interval_without_two_known_values(values: list[float]) -> None:
    found = mean_interval(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.n == len(values)


@pytest.mark.parametrize("n", [3, 8])
def test_band_is_the_interval_at_every_point(n: int) -> None:
    curves = np.random.default_rng(1).normal(size=(n, 4))
    low, high = bootstrap_band(curves, resamples=2_000)
    for column in range(4):
        assert (low[column], high[column]) == pytest.approx(_bootstrap(curves[:, column], resamples=2_000))
    assert np.isnan(bootstrap_band(curves[:1])[0]).all()


def _wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson 1927 in closed form."""
    z, p = 1.959963984540054, successes / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (4, 5), (5, 5), (1, 1), (17, 50)])
def test_wilson_against_its_closed_form(successes: int, n: int) -> None:
    found = wilson_interval(successes, n)
    assert (found.low, found.high) == pytest.approx(_wilson(successes, n), abs=1e-12)
    assert (found.n, found.method) == (n, "Wilson")


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        found = wilson_interval(successes, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_wilson_of_nothing() -> None:
    assert math.isnan(wilson_interval(0, 0).low)


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([100.0, 200.0, 300.0], 200.0),
        ([100.0, None, 300.0], 300.0),
        ([100.0, None, None], math.inf),
        ([100.0, 200.0, None, None], math.inf),
        ([100.0, 200.0, 300.0, math.nan], 250.0),
        ([None], math.inf),
    ],
)
def test_median_time_counts_the_unsolved(values: list[float | None], median: float) -> None:
    assert median_time_to_target(values) == median


def test_median_time_of_nothing() -> None:
    assert math.isnan(median_time_to_target([]))
