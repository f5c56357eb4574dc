"""Measures of how steadily a run learns, on curves whose answers are plain."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from synthetic import failed, make_result

from polobench.analysis import reliability
from polobench.analysis.curves import return_curve
from polobench.analysis.reliability import scores as scores_of
from polobench.analysis.statistics.aggregates import tail_score
from polobench.core.result import RunResult


def run_of(*scores: float, status: str = "ok", **changes: object) -> RunResult:
    """A run on CartPole-v1 with these scores at equal distances over its whole budget of 1,000 samples."""
    result = make_result(budget=1000, status=status, **changes)
    samples = np.linspace(0, 1000, len(scores))
    returns = result.floor + np.array(scores) * (result.target - result.floor)
    result.curve = pd.DataFrame({"samples": samples, "updates": samples, "return_mean": returns})
    return result


def test_area_is_the_mean_height_of_the_line() -> None:
    assert reliability.area_under_curve(scores_of(run_of(0, 1, 1))) == pytest.approx(0.75)
    assert reliability.area_under_curve(scores_of(run_of(0.3, 0.3))) == pytest.approx(0.3)


def test_area_of_a_run_that_failed_is_zero_from_its_end() -> None:
    result = run_of(1, 1, 1, status="diverged")
    result.ledger.samples = 500
    result.curve = result.curve[result.curve["samples"] <= 500]
    result.score_as_failed()
    assert reliability.area_under_curve(scores_of(result)) == pytest.approx(0.5)


def test_a_run_without_an_evaluation_is_at_the_floor() -> None:
    result = run_of(0, 1, status="failed")
    result.curve = pd.DataFrame()
    assert reliability.area_under_curve(scores_of(result)) == 0
    assert reliability.largest_drawdown(scores_of(result)) == 0


def test_drawdown_is_the_deepest_fall_below_the_best_so_far() -> None:
    assert reliability.largest_drawdown(scores_of(run_of(0, 0.8, 0.5, 1.0, 0.9))) == pytest.approx(0.3)
    assert reliability.largest_drawdown(scores_of(run_of(0, 0.2, 0.2, 1.0))) == 0
    late = run_of(0, 1.0, 0.9)
    assert reliability.largest_drawdown(scores_of(failed(late, at=0.6))) == pytest.approx(1.0), "at the floor"


def test_what_a_failed_run_scores_is_decided_in_its_result_alone() -> None:
    run = failed(run_of(0, 1.0, 0.9), at=0.6)
    run.final_return = run.floor - 3 * (run.target - run.floor)
    assert scores_of(run).found[-1] == pytest.approx(-3)
    assert return_curve(run, "samples", np.array([0.0, 1000.0]))[-1] == run.final_return


@pytest.mark.parametrize(
    ("scores", "collapsed"),
    [
        ((0, 1, 1, 1), 0),
        ((0, 1, 1, 0.6), 0),
        ((0, 1, 0.4, 1), 1),
        ((0, 0.4, 1, 1), 0),
        ((0, 0.4, 0.9, 1), 0),
    ],
)
def test_what_becomes_of_a_solved_task(scores: tuple[float, ...], collapsed: int) -> None:
    result = run_of(*scores)
    assert reliability.collapsed(scores_of(result)) == collapsed


def test_who_never_solved_cannot_collapse() -> None:
    assert math.isnan(reliability.collapsed(scores_of(run_of(0, 0.9, 0.1))))


def test_without_a_target_nothing_is_known() -> None:
    result = run_of(0, 1)
    result.target = None
    measures = (
        reliability.area_under_curve,
        reliability.largest_drawdown,
        reliability.collapsed,
    )
    assert all(math.isnan(measure(scores_of(result))) for measure in measures)


def test_the_tail_is_the_mean_of_the_worst_quarter() -> None:
    assert tail_score([np.array([5.0, 1.0, 3.0, 2.0, 4.0])]) == pytest.approx(1.5)  # two of five
    assert tail_score([np.array([7.0])]) == 7.0
