"""Tests of differences: against enumeration, scipy, and simulated error rates; each refusal says what is needed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from polobench.analysis.statistics import hypothesis
from polobench.analysis.statistics.hypothesis import (
    EQUIVALENT,
    SEPARATED,
    against_best,
    below_p,
    compare,
    difference,
    equivalence_p,
    holm,
    permutation_p,
    seeds_needed,
    smallest_p,
    stratified_mean_interval,
    trend_p,
)


def normal(seed: int, n: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, n)


def test_one_task_equals_scipy_exactly() -> None:
    x, y = normal(0, 5, 1.0), normal(1, 6)
    found = permutation_p([(x, y)])
    truth = stats.permutation_test(
        (x, y), lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)), alternative="greater", n_resamples=np.inf
    )
    assert found == pytest.approx(truth.pvalue, abs=1e-12)
    assert difference([(x, y)]) == pytest.approx(x.mean() - y.mean())


def test_two_tasks_equal_an_enumeration_by_hand() -> None:
    strata = [(normal(0, 3, 1.0), normal(1, 3)), (normal(2, 2, 1.0), normal(3, 3))]
    observed, count, total = abs(difference(strata)), 0, 0
    ways = [list(itertools.combinations(range(len(x) + len(y)), len(x))) for x, y in strata]
    for first, second in itertools.product(*ways):
        parts = []
        for (x, y), chosen in zip(strata, (first, second), strict=True):
            pooled = np.concatenate((x, y))
            rest = [place for place in range(len(pooled)) if place not in chosen]
            parts.append(pooled[list(chosen)].mean() - pooled[rest].mean())
        count += abs(np.mean(parts)) >= observed - 1e-12
        total += 1
    assert permutation_p(strata) == pytest.approx(count / total)


def test_drawn_arrangements_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = [(normal(seed, 4, 0.7), normal(seed + 10, 4)) for seed in range(2)]
    exact = permutation_p(strata)
    monkeypatch.setattr(hypothesis, "LARGEST_ENUMERATION", 1)
    drawn = permutation_p(strata)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / hypothesis.DRAWS))
    assert drawn == permutation_p(strata)


def test_p_of_drawn_arrangements_is_never_zero() -> None:
    strata = [(np.full(5, 100.0) + normal(seed, 5), normal(seed + 9, 5)) for seed in range(5)]
    assert permutation_p(strata, draws=999) == smallest_p(strata, draws=999) == 1 / 1000


@pytest.mark.parametrize(("n", "p"), [(3, 0.1), (4, 2 / 70), (5, 2 / 252), (8, 2 / 12870)])
def test_smallest_p_is_what_separated_data_reach(n: int, p: float) -> None:
    strata = [(np.arange(n) + 100.0, np.arange(n) * 1.0)]
    assert smallest_p(strata) == pytest.approx(p)
    assert permutation_p(strata) == pytest.approx(p)


def test_unequal_sides_have_no_mirrored_arrangement() -> None:
    strata = [(np.array([10.0, 11.0]), np.array([1.0, 2.0, 3.0]))]
    assert smallest_p(strata) == pytest.approx(1 / 10)
    assert permutation_p(strata) == pytest.approx(1 / 10)


@pytest.mark.parametrize(("alpha", "tasks", "n"), [(0.05, 1, 4), (0.05 / 7, 1, 6), (0.05 / 7, 5, 2), (0.002, 1, 7)])
def test_seeds_needed_is_the_fewest_that_suffice(alpha: float, tasks: int, n: int) -> None:
    assert seeds_needed(alpha, tasks) == n
    values = np.arange(n) * 1.0
    assert 2 / math.comb(2 * n, n) ** tasks <= alpha
    assert 2 / math.comb(2 * n - 2, n - 1) ** tasks > alpha or n == 2
    assert smallest_p([(values, values)] * tasks, draws=10**9) <= alpha


def test_holm_equals_the_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_one_task_has_welchs_interval() -> None:
    x, y = normal(0, 7, 1.0), 3 * normal(1, 5)
    truth = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    found = compare([(x, y)], alpha=0.05).interval
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high))
    assert found.n == 5


def test_the_mean_of_one_task_has_students_interval() -> None:
    x = normal(3, 6)
    low, high = stats.t.interval(0.95, 5, x.mean(), stats.sem(x))
    found = stratified_mean_interval([x])
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_run_has_no_interval() -> None:
    found = compare([(np.array([1.0]), np.array([2.0, 3.0]))], alpha=0.05)
    assert math.isnan(found.interval.low)
    assert math.isnan(found.detectable)


def test_runs_that_are_all_alike_have_an_interval_of_one_point() -> None:
    found = compare([(np.full(5, 3.0), np.full(5, 1.0))], alpha=0.05).interval
    assert (found.low, found.high) == (2.0, 2.0)


def rate(p_values: list[float], alpha: float) -> float:
    return float(np.mean(np.array(p_values) <= alpha))


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_true_null_is_rejected_no_more_than_alpha(tasks: int) -> None:
    """Bimodal runs, the kind that collapse: 300 studies, so the bound is four standard errors above 0.05."""
    rng = np.random.default_rng(5)
    found = [
        permutation_p([tuple(rng.normal(0, 0.1, (2, 5)) + (rng.random((2, 5)) < 0.8)) for _ in range(tasks)], draws=499)
        for _ in range(300)
    ]
    assert rate(found, 0.05) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_the_detectable_difference_is_detected_about_four_times_in_five() -> None:
    """Fault: were it half as large, fewer than half of the studies would find it."""
    rng = np.random.default_rng(7)
    spread = [rng.normal(0, 1, (2, 6)) for _ in range(400)]
    size = float(np.median([compare([(a, b)], alpha=0.05).detectable for a, b in spread]))

    def power(shift: float) -> float:
        return rate([permutation_p([(a + shift, b)]) for a, b in spread], 0.05)

    assert power(size) == pytest.approx(0.8, abs=0.08)
    assert power(size / 2) < 0.5


def test_the_one_sided_p_is_welchs() -> None:
    x, y = normal(0, 7, 1.0), 3 * normal(1, 5)
    truth = stats.ttest_ind(x - 0.3, y, equal_var=False, alternative="less").pvalue
    assert below_p([(x, y)], 0.3) == pytest.approx(truth)
    assert math.isnan(below_p([(x[:1], y)], 0.3))
    constant = np.full(5, 2.0)
    assert math.isnan(equivalence_p([(constant, constant)], math.nan)), "no margin, no equivalence"
    assert (below_p([(constant, constant)], 0.1), below_p([(constant, constant)], 0.0)) == (0.0, 1.0)
    assert math.isnan(below_p([(constant[:4], constant)], 0.1)), "too few runs to say that none differs"


def test_equivalence_has_its_error_rate_and_power() -> None:
    """Arms that differ by the margin are called equivalent in 5 %; equal ones of the right spread in 4 of 5 cases."""
    rng = np.random.default_rng(3)
    drawn = [rng.normal(0, 0.036, (2, 10)) for _ in range(1_000)]
    wrong = rate([equivalence_p([(a + 0.05, b)]) for a, b in drawn], 0.05)
    assert wrong == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 1_000))
    margin = float(np.median([compare([(a, b)], alpha=0.05).margin for a, b in drawn]))
    assert rate([equivalence_p([(a, b)], margin) for a, b in drawn], 0.05) == pytest.approx(0.8, abs=0.05)


def test_equal_arms_are_called_apart_no_more_often_than_the_level() -> None:
    """Five equal arms: equivalent where the spread is narrow, open where it is wide, "separated" in at most 5 %."""
    rng = np.random.default_rng(4)

    def words(spread: float, studies: int) -> list[set[str]]:
        """Of studies in which the best is chosen by its runs."""
        drawn = [sorted(study, key=np.mean, reverse=True) for study in rng.normal(0.5, spread, (studies, 5, 6))]
        return [{item.word for item in against_best([(arm, [x]) for arm, x in enumerate(study)])} for study in drawn]

    assert words(0.005, 100) == [{EQUIVALENT}] * 100
    wide = words(0.2, 1_000)
    assert sum(SEPARATED in found for found in wide) <= 1_000 * 0.05
    assert not any(EQUIVALENT in found for found in wide)


def test_a_trend_is_pages_and_keeps_its_level() -> None:
    rng = np.random.default_rng(6)
    arms = list(rng.normal(0, 1, (4, 8)))
    assert trend_p([arms]) == stats.page_trend_test(np.column_stack(arms)).pvalue
    assert trend_p([[values + size for size, values in enumerate(arms)]]) < 0.01
    nulls = [trend_p([list(rng.normal(0, 1, (3, 5)))]) for _ in range(300)]
    assert rate(nulls, 0.05) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)
