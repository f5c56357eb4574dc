"""The gate's test against scipy, its null rate, its power, and its refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from polobench.analysis.statistics.permutation import runs_needed, shift_of, smallest_p


def difference(head: np.ndarray, base: np.ndarray, axis: int = -1) -> np.ndarray:
    return head.mean(axis=axis) - base.mean(axis=axis)


@pytest.mark.parametrize(("harm", "alternative"), [("lower", "less"), ("higher", "greater")])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 6)])
def test_p_is_scipys(harm: str, alternative: str, n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    base, head = rng.normal(size=n), rng.normal(size=m)
    found = shift_of(base, head, harm)
    expected = permutation_test(
        (head, base), difference, permutation_type="independent", alternative=alternative, n_resamples=math.inf
    )
    assert found.p == pytest.approx(expected.pvalue)
    assert found.difference == pytest.approx(head.mean() - base.mean())


def test_two_sided_p_counts_both_tails_of_the_absolute_difference() -> None:
    found = shift_of(np.zeros(3), np.ones(3), "both")
    assert found.p == pytest.approx(2 / 20)
    assert smallest_p(3, 3, "both") == pytest.approx(2 / 20)


def test_equal_values_are_no_difference() -> None:
    found = shift_of(np.ones(5), np.ones(5), "lower")
    assert (found.p, found.spread) == (1.0, 0.0)
    assert found.detectable(0.001, 0.05) == 0.05


@pytest.mark.parametrize("harm", ["lower", "higher", "both"])
def test_counted_ways_are_the_listed_ones(harm: str) -> None:
    """With ties, and of both sizes' parity."""
    rng = np.random.default_rng(1)
    for n, m in ((3, 4), (5, 5), (2, 6)):
        base, head = (rng.integers(0, 4, size).astype(float) for size in (n, m))
        pooled = np.concatenate((base, head))
        listed = []
        for chosen in itertools.combinations(range(n + m), n):
            rest = [index for index in range(n + m) if index not in chosen]
            listed.append(pooled[rest].mean() - pooled[list(chosen)].mean())
        seen, found = head.mean() - base.mean(), np.array(listed)
        extreme = {
            "lower": found <= seen + 1e-9,
            "higher": found >= seen - 1e-9,
            "both": abs(found) >= abs(seen) - 1e-9,
        }
        assert shift_of(base, head, harm).p == pytest.approx(extreme[harm].mean())


def test_null_rate_is_the_level() -> None:
    rng = np.random.default_rng(0)
    rate = np.mean([shift_of(*rng.exponential(size=(2, 6)), "lower").p <= 0.05 for _ in range(2_000)])
    assert 0.05 - 4 * math.sqrt(0.05 * 0.95 / 2_000) < rate <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2_000)


@pytest.mark.parametrize("harm", ["lower", "both"])
def test_what_a_comparison_says_is_detectable_the_next_one_finds_four_times_in_five(harm: str) -> None:
    rng = np.random.default_rng(2)
    level, found = 0.001, []
    for _ in range(1_000):
        said = shift_of(*rng.normal(size=(2, 10)), harm).detectable(level, 0.0)
        base, head = rng.normal(size=(2, 10))
        found.append(shift_of(base, head - said, harm).p <= level)
    assert 0.76 < np.mean(found) < 0.84, "0.8 and three standard errors"


def test_smallest_p_and_the_runs_that_a_level_needs() -> None:
    assert smallest_p(10, 10, "lower") == pytest.approx(1 / 184_756)
    assert smallest_p(10, 10, "both") == pytest.approx(2 / 184_756)
    assert smallest_p(3, 4, "both") == pytest.approx(1 / 35)
    assert runs_needed(0.05, "lower") == 3
    assert smallest_p(runs_needed(1e-4, "both"), runs_needed(1e-4, "both"), "both") <= 1e-4


def test_many_runs_are_drawn_and_never_reach_zero() -> None:
    rng = np.random.default_rng(3)
    found = shift_of(rng.normal(size=30), rng.normal(size=30) - 9, "lower")
    assert 0 < found.p < 1e-5
