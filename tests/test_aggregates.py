"""Statistics over tasks against closed forms, enumerations and scipy; rliable is asked in tests/test_rliable.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import trim_mean

from polobench.analysis.statistics.aggregates import (
    Scores,
    aggregate,
    iqm,
    mean_score,
    performance_profile,
)

UNEVEN = [np.array([0.0, 1.0, 2.0]), np.array([4.0]), np.array([0.2, 0.4])]
STATISTICS = [iqm, mean_score]


def some_scores(seed: int, *sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(level, 0.3, n) for level, n in enumerate(sizes)]


def test_closed_forms_with_different_numbers_of_runs() -> None:
    assert iqm(UNEVEN) == pytest.approx((0.2 + 0.4 + 1.0 + 2.0) / 4)
    assert mean_score(UNEVEN) == pytest.approx((1.0 + 4.0 + 0.3) / 3)


@pytest.mark.parametrize("n", [1, 3, 5, 8, 21])
def test_interquartile_mean_is_scipys_trimmed_mean(n: int) -> None:
    scores = some_scores(n, n, n, n)
    assert iqm(scores) == pytest.approx(trim_mean(np.concatenate(scores), 0.25), abs=1e-12)
    many = np.random.default_rng(0).normal(size=(4, 3, n))
    assert iqm([many]) == pytest.approx(trim_mean(many, 0.25, axis=-1), abs=1e-12)


def test_interquartile_mean_pools_the_runs_and_not_the_tasks() -> None:
    scores = [np.zeros(4), np.array([0.0, 1.0, 1.0, 1.0])]
    assert iqm(scores) == 0.25
    assert mean_score([np.atleast_1d(iqm([task])) for task in scores]) == 0.5


def test_a_failed_quarter_moves_the_mean_and_not_the_interquartile_mean() -> None:
    sound = [np.ones(8)]
    collapsed = [np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])]
    assert iqm(sound) == iqm(collapsed) == 1.0
    assert mean_score(collapsed) == 0.75


@pytest.mark.parametrize("statistic", STATISTICS)
def test_an_unknown_score_is_not_cut_off(statistic: Callable[[Scores], float]) -> None:
    scores = [np.array([1.0, 2.0, math.nan, 3.0]), np.arange(4.0)]
    found = aggregate(scores, statistic)
    assert math.isnan(found.value)
    assert math.isnan(found.interval.low)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_interval_is_that_of_every_stratified_resample(statistic: Callable[[Scores], float]) -> None:
    scores = [np.array([0.1, 0.5, 0.9]), np.array([0.3, 0.35, 1.4])]
    runs = [[np.array(drawn) for drawn in itertools.product(task, repeat=3)] for task in scores]
    every = np.array([statistic(resample) for resample in itertools.product(*runs)])
    assert len(every) == 27 * 27
    found = aggregate(scores, statistic, resamples=5_000)
    # each end has its share of the resamples beyond it, as far as a quantile of few distinct values can
    for end, tail in ((found.interval.low, 0.025), (found.interval.high, 0.975)):
        assert np.mean(every < end - 1e-9) - 0.01 <= tail <= np.mean(every <= end + 1e-9) + 0.01
    assert found.value == statistic(scores)
    assert (found.interval.n, found.interval.method) == (3, "stratified bootstrap")


def test_runs_are_resampled_within_their_task() -> None:
    # drawn from both tasks together, the mean would move
    found = aggregate([np.zeros(5), np.ones(5)], mean_score)
    assert (found.interval.low, found.interval.high) == (0.5, 0.5)


def test_intervals_are_the_same_each_time_and_touch_no_global_state() -> None:
    scores, before = some_scores(1, 6, 9), np.random.get_state()[1].copy()
    assert aggregate(scores, iqm) == aggregate(scores, iqm)
    assert (np.random.get_state()[1] == before).all()


def test_n_is_the_smallest_and_one_run_has_no_interval() -> None:
    assert aggregate(some_scores(0, 7, 4), mean_score).interval.n == 4
    found = aggregate(UNEVEN, mean_score)
    assert found.interval.n == 1
    assert math.isnan(found.interval.low)
    share, low, high = performance_profile(UNEVEN, np.array([0.5]))
    assert share == pytest.approx([(2 / 3 + 1 + 0) / 3])
    assert np.isnan([low, high]).all()


def test_profile_is_the_share_strictly_above_each_threshold() -> None:
    scores = [np.array([0.0, 0.5, 1.0, 1.0]), np.array([0.5, 2.0])]
    share, low, high = performance_profile(scores, np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    assert share == pytest.approx([1, (3 / 4 + 1) / 2, (2 / 4 + 1 / 2) / 2, (0 + 1 / 2) / 2, 0])
    assert (low <= share).all()
    assert (share <= high).all()
    assert (low[0], high[0], low[-1], high[-1]) == pytest.approx((1, 1, 0, 0))


def test_profile_band_is_the_bootstrap_interval_of_the_share() -> None:
    scores = some_scores(2, 10, 10)
    _, low, high = performance_profile(scores, np.array([0.6]), resamples=5_000)
    found = aggregate(scores, lambda tasks: mean_score([1.0 * (task > 0.6) for task in tasks]), resamples=5_000)
    assert (low[0], high[0]) == pytest.approx((found.interval.low, found.interval.high), abs=0.051)
