"""Methods over several tasks, and the row of a use case: what may be put together, and what is advised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic import WORLDS, failed, save_all, with_id
from test_first_page import of_scores, rows, section

from polobench.analysis.collection import collect
from polobench.analysis.overall import USE_CASES, Comparable, comparables, overall, standings
from polobench.core.result import RunResult
from polobench.report.findings import Findings
from polobench.report.markdown import render
from polobench.report.page import pages

FEW_SAMPLES, LITTLE_TIME = USE_CASES[:2]


def groups_of(folder: Path, *runs: RunResult) -> list[Comparable]:
    return comparables(collect(save_all(folder, *map(with_id, runs))))


def row_of(folder: Path, case: str, *runs: RunResult) -> list[str]:
    first = render(pages(Findings(collect(save_all(folder, *map(with_id, runs)))))[0])
    return next(row for row in rows(section(first, "Verdict")) if row[0] == case)


def shorter(runs: list[RunResult]) -> list[RunResult]:
    for run in runs:
        run.budget = {"samples": 25_000}
        run.ledger.samples = 25_000
    return runs


def test_two_budgets_of_a_task_are_not_two_tasks(tmp_path: Path) -> None:
    """A seed's shorter run is the beginning of its longer one; fault: five seeds would count as ten."""
    long = of_scores("ppo", [0.8, 0.9, 1.0]) + of_scores("trpo", [0.2, 0.3, 0.4])
    short = shorter(of_scores("ppo", [0.7, 0.8, 0.9]) + of_scores("trpo", [0.1, 0.2, 0.3]))
    other = of_scores("ppo", [0.5] * 3, "Acrobot-v1") + of_scores("trpo", [0.5] * 3, "Acrobot-v1")
    first, second = groups_of(tmp_path, *long, *short, *other)
    assert first.places == (("Acrobot-v1", "50,000 samples"), ("CartPole-v1", "50,000 samples"))
    assert second.places == (("CartPole-v1", "25,000 samples"),)


def test_the_interval_of_a_mean_is_students_on_one_task_and_on_several(tmp_path: Path) -> None:
    scores = [0.2, 0.5, 0.9, 1.0]
    (group,) = groups_of(tmp_path / "one", *of_scores("ppo", scores))
    (found,) = overall(group)
    ends = stats.t.interval(0.95, 3, np.mean(scores), stats.sem(scores))
    assert (found.mean.interval.low, found.mean.interval.high) == pytest.approx(ends)
    (group,) = groups_of(tmp_path / "two", *(run for task in WORLDS for run in of_scores("ppo", scores, task)))
    (found,) = overall(group)
    assert found.mean.interval.high - found.mean.interval.low == pytest.approx(
        2 * stats.t.ppf(0.975, 9) * stats.sem(scores) / np.sqrt(3)
    )


def test_a_cheaper_method_is_one_that_learned_and_is_not_yet_advised(tmp_path: Path) -> None:
    """Fault: the cheapest of all is the random policy, which hides the one that is worth a look."""
    runs = of_scores("ppo", [0.9, 0.91, 0.92, 0.93, 0.94, 0.95]) + of_scores("trpo", [0.8] * 6)
    runs += of_scores("random", [0.0] * 6)
    for run in runs:
        run.ledger.cpu_seconds = {"ppo": 40.0, "trpo": 20.0, "random": 1.0}[run.method]
        run.curve["return_mean"] = run.final_score
    row = row_of(tmp_path, "few samples, control", *runs)
    assert (row[1], row[-1]) == ("**ppo**", "CPU time: trpo scores 0.80 at 50 % of the CPU seconds")


def test_where_no_run_ended_there_is_no_answer(tmp_path: Path) -> None:
    """Fault: after no seconds at all every score is NaN, and the first name of the alphabet would be advised."""
    runs = of_scores("ppo", [0.5] * 5) + of_scores("trpo", [0.6] * 5)
    runs += [failed(run, status="timeout") for name in ("ppo", "trpo") for run in of_scores(name, [0.0] * 5, "slow")]
    groups = groups_of(tmp_path, *runs)
    assert standings(groups, LITTLE_TIME) is None
    assert standings(groups, FEW_SAMPLES) is not None


@pytest.mark.parametrize("scores", [[1.0, 1.01], [0.1] * 3])
def test_few_seeds_say_no_method_is_as_good_as_another(scores: list[float], tmp_path: Path) -> None:
    """Three equal numbers whose mean rounds have no spread either."""
    row = row_of(tmp_path, "worst-case seeds, control", *of_scores("ppo", scores), *of_scores("trpo", scores))
    assert (row[1], row[-1]) == ("too few seeds; highest: ppo or trpo", "more seeds")


def test_what_was_not_tested_is_not_answered_with_more_seeds(tmp_path: Path) -> None:
    runs = of_scores("ppo", [0.6, 0.7, 0.8, 0.9, 1.0]) + of_scores("trpo", [0.1, 0.2, 0.3, 0.4, 0.5])
    for run in runs:
        run.provenance |= {"looks": 1, "seeds": 4}
    row = row_of(tmp_path, "worst-case seeds, control", *runs)
    assert row[-2:] == ["not tested: 5 seeds, 4 were declared", "runs that can be tested"]
