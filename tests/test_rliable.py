"""Statistics over tasks against rliable, in an environment of its own: `tox run -e rliable`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from polobench.analysis.statistics.aggregates import (
    Scores,
    aggregate,
    iqm,
    mean_score,
    performance_profile,
)
from polobench.analysis.statistics.intervals import Interval

reason = "rliable, which needs pandas below 3, is only in the tox environment `rliable`"
library = pytest.importorskip("rliable.library", reason=reason, exc_type=ImportError)
metrics = pytest.importorskip("rliable.metrics", reason=reason, exc_type=ImportError)

RESAMPLES = 1_000  # of rliable's, which are slow; ours are 10,000
STATISTICS = {
    iqm: "aggregate_iqm",
    mean_score: "aggregate_mean",
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Rliable draws its resamples from numpy's global state, whatever `random_state` it is given."""
    np.random.seed(0)


def matrices() -> dict[str, np.ndarray]:
    """`[runs, tasks]`, as rliable has them."""
    rng = np.random.default_rng(0)
    return {
        "normal": rng.normal(0.8, 0.3, (10, 5)),
        "few": rng.normal(0.8, 0.3, (3, 4)),
        "odd": rng.lognormal(0, 1, (7, 3)),
        "collapse": np.where(rng.random((20, 6)) < 0.2, rng.uniform(0, 0.1, (20, 6)), rng.uniform(0.9, 1.2, (20, 6))),
        "tied": rng.integers(0, 4, (9, 4)) / 2,
    }


def by_task(matrix: np.ndarray) -> list[np.ndarray]:
    return list(matrix.T)


@pytest.mark.parametrize("name", matrices())
@pytest.mark.parametrize("statistic", STATISTICS)
def test_point_estimates_are_equal(name: str, statistic: Callable[[Scores], float]) -> None:
    matrix = matrices()[name]
    assert statistic(by_task(matrix)) == pytest.approx(getattr(metrics, STATISTICS[statistic])(matrix), abs=1e-12)


def agree(low: float, high: float, wide: Interval, narrow: Interval) -> bool:
    """Whether each 95 % end of rliable's cuts off 1 to 4 % of our resamples: 2.5 %, give or take 3 standard errors.

    In the unit of the scores no single tolerance would do: a distribution may be thin where one of its ends is.

    Args:
        wide, narrow: ours at 98 and at 92 %.
    """
    return wide.low <= low <= narrow.low and narrow.high <= high <= wide.high


@pytest.mark.parametrize("name", ["normal", "odd", "collapse"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_intervals_agree(name: str, statistic: Callable[[Scores], float]) -> None:
    matrix = matrices()[name]
    theirs = getattr(metrics, STATISTICS[statistic])
    _, ends = library.get_interval_estimates({"x": matrix}, lambda x: np.array([theirs(x)]), reps=RESAMPLES)
    wide, narrow = (
        aggregate(by_task(matrix), statistic, confidence=level, resamples=10_000).interval for level in (0.98, 0.92)
    )
    low, high = ends["x"][:, 0]
    middle = (low + high) / 2  # the faults: an end that lies elsewhere
    assert agree(low, high, wide, narrow)
    assert not agree(middle, high, wide, narrow)
    assert not agree(low, middle, wide, narrow)


def test_profiles_agree() -> None:
    matrix, thresholds = matrices()["collapse"], np.array([-0.5, 0.05, 0.5, 0.95, 1.1, 2.0])
    shares, ends = library.create_performance_profile({"x": matrix}, thresholds, reps=RESAMPLES)
    share, low, high = performance_profile(by_task(matrix), thresholds, resamples=10_000)
    assert share == pytest.approx(shares["x"], abs=1e-12)
    assert np.array([low, high]) == pytest.approx(ends["x"], abs=1.01 / matrix.size)  # one run of them all
