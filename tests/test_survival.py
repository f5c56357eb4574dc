"""Time to target against hand calculation, Wilson's interval, enumeration and scipy's censored distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf

from polobench.analysis.statistics.intervals import wilson_interval
from polobench.analysis.statistics.survival import restricted_mean, time_to_target

TIMES, REACHED = [3.0, 1.0, 2.0, 5.0, 4.0], [True, True, False, False, True]


def test_kaplan_meier_by_hand() -> None:
    found = time_to_target(TIMES, REACHED)
    assert found.times.tolist() == [0, 1, 2, 3, 4, 5]
    # one of 5 at 1; one of the 3 still at risk at 3; one of 2 at 4
    assert 1 - found.reached_share == pytest.approx([1, 4 / 5, 4 / 5, 8 / 15, 4 / 15, 4 / 15])


def test_band_by_hand_where_runs_were_censored() -> None:
    found, z = time_to_target(TIMES, REACHED), 1.959963984540054
    n, share = 2 / (8 / 15), 11 / 15  # at 4: two at risk, of 8/15 that survive until then
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (found.low[4], found.high[4]) == pytest.approx((middle - half, middle + half), abs=1e-12)


@pytest.mark.parametrize("reached", [5, 3, 0])
def test_band_is_wilsons_where_runs_are_censored_at_the_end(reached: int) -> None:
    times = [float(min(time, reached + 1)) for time in range(1, 6)]
    found = time_to_target(times, [time <= reached for time in range(1, 6)])
    for at, share, low, high in zip(found.times, found.reached_share, found.low, found.high, strict=True):
        expected = wilson_interval(min(int(at), reached), 5)
        assert share == pytest.approx(min(at, reached) / 5)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_reached_at_once() -> None:
    found = time_to_target([0.0, 0.0, 7.0], [True, True, False])
    assert found.times.tolist() == [0, 7]
    assert found.reached_share == pytest.approx([2 / 3, 2 / 3])


def test_no_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        time_to_target([], [])
    assert math.isnan(restricted_mean([], [], 1.0).value)


def test_restricted_mean_without_censoring_is_a_mean() -> None:
    times = [4.0, 10.0, 1.0, 25.0]
    for horizon in (0.5, 5.0, 10.0, 30.0):
        expected = np.mean(np.minimum(times, horizon))
        assert restricted_mean(times, [True] * 4, horizon).value == pytest.approx(expected, abs=1e-12)


def test_restricted_mean_by_hand() -> None:
    assert restricted_mean(TIMES, REACHED, 5.0).value == pytest.approx(1 + 2 * 4 / 5 + 8 / 15 + 4 / 15)
    assert restricted_mean(TIMES, REACHED, 3.5).value == pytest.approx(1 + 2 * 4 / 5 + 0.5 * 8 / 15)
    assert restricted_mean(TIMES, REACHED, 8.0).value == pytest.approx(1 + 2 * 4 / 5 + 8 / 15 + 4 * 4 / 15)  # level
    assert restricted_mean([6.0, 6.0], [False, False], 6.0).value == 6.0


def test_restricted_mean_against_scipys_curve() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        times, reached = rng.integers(1, 9, 12).astype(float), rng.random(12) < 0.6  # with ties
        horizon = float(rng.uniform(0.5, 8))
        survival = ecdf(CensoredData.right_censored(times, ~reached)).sf
        edges = np.unique(np.concatenate([[0, horizon], times[times < horizon]]))
        expected = np.sum(survival.evaluate(edges[:-1]) * np.diff(edges))
        assert restricted_mean(times, reached, horizon).value == pytest.approx(expected, abs=1e-12)


def test_a_run_that_never_got_there_counts_as_more_than_its_end() -> None:
    times, reached = [1.0, 2.0, 4.0, 4.0], [True, True, False, True]
    found = restricted_mean(times, reached, 10.0).value
    assert found > restricted_mean([1.0, 2.0, 4.0], [True] * 3, 10.0).value  # the fault: dropped
    assert found > restricted_mean(times, [True] * 4, 10.0).value  # the fault: taken as having got there


def test_interval_is_that_of_every_resample() -> None:
    runs = [(1.0, True), (3.0, False), (2.0, True)]
    every = []
    for drawn in itertools.product(runs, repeat=3):
        times, reached = zip(*drawn, strict=True)
        every.append(restricted_mean(times, reached, 4.0).value)
    found = restricted_mean(*zip(*runs, strict=True), 4.0).interval
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))))
    assert (found.n, found.method) == (3, "percentile bootstrap")


def test_interval_of_many_runs() -> None:
    times, reached = np.random.default_rng(1).exponential(5, 30), [True] * 30
    found = restricted_mean(times, reached, 8.0).interval
    assert found == restricted_mean(times, reached, 8.0).interval
    spread = np.std(np.minimum(times, 8.0)) / math.sqrt(30)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert math.isnan(restricted_mean([1.0], [True], 8.0).interval.low)
