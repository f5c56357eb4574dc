"""A preference problem solved in several ways, in the analysis and the report: made-up runs whose answers are known."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import make_result, report_pages, report_text, save_all, with_id

from polobench.analysis import frontier
from polobench.analysis.claims import Claim, Claims
from polobench.analysis.collection import Collection, collect
from polobench.analysis.measures import MEASURES, Observations
from polobench.analysis.overall import USE_CASES, comparables, standings
from polobench.analysis.statistics.hypothesis import SEPARATED
from polobench.analysis.verdicts import CONTRADICTED, OPEN, SUPPORTED, claim_verdict
from polobench.core.result import RunResult
from polobench.report.page import write_report
from polobench.report.sections.preferences import draw_frontier
from polobench.store.validation import problem
from polobench.tasks.judged import digit_preferences_learned

PAIRS, LEARNED, GOLD = "some-preferences", "some-preferences-learned", "some-preferences-gold"
RISING = (0.4, 0.5, 0.6, 0.7, 0.8)
FALLING = (0.4, 0.7, 0.9, 0.7, 0.5)
UP = (0.0, 0.5, 1.0, 1.5, 2.0)
MODEL = {
    "cpu_seconds": 3.0, "gradient_steps": 10, "samples_read": 500, "pairs": 100, "accuracy": 0.75, "gold_accuracy": 0.9,
    "calibration_error": 0.04, "predicted": [0.15, 0.82], "observed": [0.1, 0.9], "counts": [40, 60],
}  # fmt: skip


def run(
    task: str, label: str, seed: int, *, gold: Sequence[float] = RISING, learned: Sequence[float] = UP, kl: float = 2.0,
    **hyperparameters: Any,
) -> RunResult:  # fmt: skip
    steps = np.linspace(0, 1, len(gold))
    curve = {
        "samples": steps * 1000, "wall_seconds": steps, "cpu_seconds": steps, "return_mean": np.array(gold),
        "score": steps, "heldout_sampled_return": np.array(gold) + 0.01 * seed, "heldout_response_kl": kl * steps,
        "heldout_accuracy": steps, "heldout_accuracy_implicit": steps,
    }  # fmt: skip
    snapshots: dict[str, Any] = {}
    if task == LEARNED:
        curve |= {"heldout_learned_return": np.array(learned), "heldout_best_of_4": 0.6 + steps}
        snapshots = {"before": {"reward_model": MODEL}}
    result = make_result(label.partition(",")[0], task, seed, 1000)
    result.label, result.hyperparameters, result.unit = label, dict(hyperparameters), frontier.UNIT
    result.curve, result.snapshots = pd.DataFrame(curve), snapshots
    result.ledger.gradient_steps = 50
    if task == PAIRS:
        result.ledger.samples_read, result.ledger.samples_generated = result.ledger.samples, 0
    return with_id(result)


def store(folder: Path, *results: RunResult) -> Collection:
    return collect(save_all(folder, *results))


def test_the_unit_is_that_of_the_tasks() -> None:
    assert digit_preferences_learned().unit == frontier.UNIT


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (PAIRS, (PAIRS, "pairs")),
        (LEARNED, (PAIRS, "reward model")),
        (GOLD + ", 500 pairs", (PAIRS + ", 500 pairs", "gold reward")),
    ],
)
def test_tasks_are_ways_to_a_problem(task: str, wanted: tuple[str, str]) -> None:
    assert frontier.problem_of(task) == wanted


def test_a_line_holds_the_arms_that_differ_by_their_pull(tmp_path: Path) -> None:
    runs = [run(PAIRS, f"dpo, beta {beta:g}", seed, beta=beta, kl=1 / beta) for beta in (0.1, 1.0) for seed in range(3)]
    failed = run(PAIRS, "dpo, beta 1", 3, beta=1.0)
    failed.status = "diverged"
    ranking = run(PAIRS, "ranking, kl_coef 0.3", 0, beta=1.0, kl_coef=0.3)
    found = frontier.places(store(tmp_path, *runs, with_id(failed), ranking, make_result("ppo")))
    assert [(item.line, item.strength, item.n, item.failed) for item in found] == [
        ("dpo", 0.1, 3, 0), ("dpo", 1.0, 3, 1), ("ranking", 0.3, 1, 0),
    ]  # fmt: skip
    assert [item.kl.value for item in found] == pytest.approx([10, 1, 2])
    assert found[0].gold.value == pytest.approx(0.8 + 0.01)
    assert found[0].gold.interval.low < found[0].gold.value < found[0].gold.interval.high
    assert math.isnan(found[2].gold.interval.low), "one run has no interval"


@pytest.mark.parametrize(
    ("gold", "learned", "wanted"),
    [(FALLING, UP, True), (RISING, UP, False), (FALLING, UP[::-1], False)],
    ids=["gold falls", "gold rises", "the learned reward falls, too"],
)
def test_overoptimisation_is_gold_that_falls_while_the_learned_reward_rises(
    tmp_path: Path, gold: Sequence[float], learned: Sequence[float], wanted: bool
) -> None:
    runs = [run(LEARNED, "grpo, beta 1", seed, gold=gold, learned=learned, beta=1.0) for seed in range(5)]
    (found,) = frontier.pursuits(store(tmp_path, *runs))
    assert found.is_overoptimised is wanted
    assert found.fall.value == pytest.approx(max(gold) - gold[-1])


def test_noise_is_no_overoptimisation(tmp_path: Path) -> None:
    """Where gold stays the same but for noise, the fall from each run's own peak would always be positive."""
    false_alarms = 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        runs = [
            run(LEARNED, "grpo, beta 1", seed, gold=0.6 + 0.03 * rng.normal(size=8), learned=np.arange(8.0), beta=1.0)
            for seed in range(5)
        ]
        (found,) = frontier.pursuits(store(tmp_path / str(trial), *runs))
        false_alarms += found.is_overoptimised
    assert false_alarms <= 5  # 2.5 % of 40 is 1; six or more have a chance below 0.001


def test_what_stays_at_the_checkpoint_follows_no_reward(tmp_path: Path) -> None:
    found = store(tmp_path, *(run(LEARNED, label, 0, kl=kl) for label, kl in (("random", 0.0), ("ppo", 1.0))))
    assert [item.arm.label for item in frontier.pursuits(found)] == ["ppo"]


def test_reward_models_are_pooled_over_seeds_and_costs_are_means(tmp_path: Path) -> None:
    runs = [run(LEARNED, label, seed, beta=1.0) for label in ("grpo, beta 1", "ppo, kl_coef 1") for seed in range(2)]
    found = store(tmp_path, *runs, run(PAIRS, "dpo, beta 1", 0, beta=1.0))
    (models,) = frontier.reward_models(found)
    assert (models.n, models.accuracy.value) == (2, 0.75)
    assert models.predicted == pytest.approx([0.15, 0.82])
    assert models.counts == pytest.approx([80, 120])
    assert [(cost.arm.method, cost.reward_model_seconds) for cost in frontier.costs(found)] == [
        ("dpo", 0), ("grpo", 3), ("ppo", 3),
    ]  # fmt: skip
    runs[0].provenance, runs[1].provenance, runs[2].snapshots = {"cpu_model": "B"}, {"cpu_model": "A"}, {}
    other = frontier.costs(store(tmp_path / "other", *runs))
    assert [cost.processor for cost in other] == ["A, B", "A Processor"]
    assert math.isnan(other[1].reward_model_seconds), "nothing is known of what the training took"
    (best,) = frontier.best_of(found)
    assert (best.problem, best.feedback, best.n) == (PAIRS, "reward model", 4)
    assert best.kl == pytest.approx(math.log(4) - 0.75)
    assert best.gold.value == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["accuracy", "predicted", "counts"])
def test_a_damaged_reward_model_is_no_result(name: str) -> None:
    result = run(LEARNED, "grpo, beta 1", 0, beta=1.0)
    assert problem(result) == ""
    for wrong in ("x", None, [2.0, 0.5, 0.1]):
        result.snapshots = {"before": {"reward_model": MODEL | {name: wrong}}}
        assert "reward_model" in problem(result)


def test_the_section_shows_all_of_it_and_says_what_does_not_appear(tmp_path: Path) -> None:
    arms = [run(LEARNED, "grpo, beta 1", seed, beta=1.0) for seed in range(3)]
    arms += [run(PAIRS, "dpo, beta 1", seed, beta=1.0) for seed in range(3)]
    pages = report_pages(store(tmp_path / "none", *arms))
    assert "## One preference problem, several ways" in pages["report"]
    assert "No over-optimisation appears" in pages["report"]
    assert "agreement with gold" in pages["preferences"]
    row = next(line for line in pages["preferences"].splitlines() if line.startswith(f"| {PAIRS} | reward model"))
    assert [cell.strip() for cell in row.split("|")[3:5]] == ["4", f"{math.log(4) - 0.75:.2f}"]
    falling = [run(LEARNED, "grpo, beta 1", seed, gold=FALLING, beta=1.0) for seed in range(3)]
    dpo = [run(PAIRS, "dpo, beta 1", seed, beta=1.0) for seed in range(3)]
    report = write_report(store(tmp_path / "some", *falling, *dpo), tmp_path / "report")
    assert "In 1 of 1 arms gold reward fell after its peak" in report.read_text()
    for figure in ("frontier_1", "pursuit_1", "calibration"):
        assert (report.parent / "figures" / f"{figure}.png").stat().st_size > 5000
    assert len(pd.read_csv(report.parent / "tables" / "frontier.csv")) == 2
    assert "One preference problem" not in report_text(store(tmp_path / "other", make_result("ppo")))


def test_the_frontier_has_a_panel_for_what_is_seen_with_seven_lines_at_most_on_equal_axes(tmp_path: Path) -> None:
    runs = [run(PAIRS, f"method{number}, beta 1", 0, kl=30.0, beta=1.0) for number in range(8)]
    runs += [run(task, "grpo, beta 1", 0, beta=1.0) for task in (LEARNED, GOLD)]
    found = store(tmp_path, *runs)
    figure = draw_frontier(frontier.places(found), frontier.best_of(found))
    titles = [f"sees {feedback}" for feedback in ("pairs", "pairs", "reward model", "gold reward")]
    assert [ax.get_title() for ax in figure.axes] == titles
    named = [[text.get_text() for text in ax.texts if not text.get_text().startswith("best of")] for ax in figure.axes]
    assert [*map(len, named)] == [7, 1, 1, 1]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    assert not figure.legends


def test_lines_are_read_at_an_equal_kl_between_the_settings_of_each_seed(tmp_path: Path) -> None:
    """From the checkpoint's 0.4 at KL 0 over 0.8 at 1 down to 0.5 at 3, one hundredth more per seed."""
    arms = [("dpo, beta 9", 0.5, RISING[:3]), ("dpo, beta 1", 1.0, RISING), ("dpo, beta 0.1", 3.0, FALLING)]
    runs = [run(PAIRS, label, seed, kl=kl, gold=gold) for label, kl, gold in arms for seed in range(3)]
    alone = [run(PAIRS, "ipo", seed) for seed in range(9)]
    found = frontier.at_equal_kl(store(tmp_path, *runs, *alone))
    assert {(item.line, item.n) for item in found} == {("dpo", 3)}, "one setting makes no line"
    gold = {item.kl: item.gold.value for item in found}
    shares = [(math.sqrt(kl) - 1) / (math.sqrt(3) - 1) for kl in (1.5, 2.0)]  # of the way from 1 to 3
    expected = [0.61, 0.81, *(0.81 - 0.3 * share for share in shares)]
    assert [gold[kl] for kl in (0.5, 1.0, 1.5, 2.0)] == pytest.approx(expected)
    assert math.isnan(gold[5.0]), "nothing is known beyond the line's end"
    text = report_pages(store(tmp_path, *runs))["report"]
    assert re.search(r"\| dpo +\| +0\.61 \[", text)


def test_a_gap_that_is_wide_is_not_read_across_nor_one_that_failed_runs_leave(tmp_path: Path) -> None:
    runs = [run(PAIRS, f"dpo, beta {kl:g}", seed, kl=kl, gold=RISING) for kl in (1.8, 3, 4) for seed in range(3)]
    gold = {item.kl: item.gold.value for item in frontier.at_equal_kl(store(tmp_path / "wide", *runs))}
    assert [math.isnan(gold[kl]) for kl in (0.5, 1.0, 2.0)] == [True, True, False]
    for item in runs[:3]:
        item.status = "diverged"
    assert frontier.at_equal_kl(store(tmp_path / "failed", *runs)) == []


def test_a_policy_that_does_not_change_gains_nothing_at_any_kl(tmp_path: Path) -> None:
    """Its gold is the checkpoint's at whatever KL noise gives it."""
    runs = [run(PAIRS, f"dpo, beta {kl:g}", seed, kl=kl, gold=(0.4,) * 5) for kl in (1, 2, 5.5) for seed in range(3)]
    for item in frontier.at_equal_kl(store(tmp_path, *runs)):
        assert item.gold.value == pytest.approx(0.41)


def test_ways_to_one_problem_are_compared_but_for_sweeps_and_those_that_see_the_gold_reward(tmp_path: Path) -> None:
    told = {"before": {"completions": []}}
    arms = [
        (PAIRS, "dpo", 8),
        (PAIRS, "dpo, beta 1", 8),
        (PAIRS, "ipo, beta 1", 8),
        (PAIRS, "dpo, beta 9", 5),
        (LEARNED, "ppo", 8),
        (GOLD, "ppo", 8),
        (LEARNED, "rloo", 7),
    ]
    runs = [run(task, label, seed) for task, label, seeds in arms for seed in range(seeds)]
    for result in runs:
        result.snapshots |= told
    (group,) = comparables(store(tmp_path, *runs))
    assert group.world == "preferences"
    assert [place for place, _ in group.places] == [PAIRS]
    assert {label: len(found) for label, (found,) in group.runs.items()} == {
        "dpo": 8, "ipo, beta 1": 8, "ppo": 8, "rloo": 7,
    }  # fmt: skip
    assert {result.task for result in group.runs["ppo"][0]} == {LEARNED}


BETTER = Claim("text", "better", "final_score", less=("ppo",), more=("dpo",), smallest_effect=0.05)
RULES = Claims(0.05, 8, 5, (), (BETTER,), on_language=("dpo",))


def ways(**scores: float) -> list[RunResult]:
    """Runs of 8 seeds, by label, each with the score of its end."""
    tasks = {"dpo": PAIRS, "ppo": LEARNED}
    runs = []
    for label, score in scores.items():
        for seed in range(8):
            found = run(tasks[label.partition(",")[0]], label, seed)
            found.snapshots = {"before": {"completions": []}} | found.snapshots
            found.final_score = score + 0.001 * seed
            runs.append(found)
    return runs


def test_a_claim_compares_the_ways_to_one_problem(tmp_path: Path) -> None:
    """Fault: dpo on pairs and ppo on the reward model that was fitted to them never met."""
    runs = ways(**{"dpo": 0.8, "dpo, beta 9": 0.1, "ppo": 0.5})
    oracles = [replace(found, task=GOLD, final_score=1.0) for found in runs[-8:]]
    observations = Observations(store(tmp_path / "swept", *runs, *map(with_id, oracles)))
    (pair,) = claim_verdict(observations, BETTER, RULES).pairs
    assert (pair.verdict, [place[0] for place in pair.places]) == (SUPPORTED, [PAIRS])
    assert pair.compared is not None
    assert pair.compared.difference == pytest.approx(0.3)
    assert (
        claim_verdict(Observations(store(tmp_path / "worse", *ways(dpo=0.2, ppo=0.5))), BETTER, RULES).verdict
        == CONTRADICTED
    )


def test_a_sample_that_is_read_has_other_costs_than_one_that_is_taken(tmp_path: Path) -> None:
    observations = Observations(store(tmp_path, *ways(dpo=0.8, ppo=0.5)))
    claim = replace(BETTER, measure="cpu_seconds", less=("dpo",), more=("ppo",), smallest_effect=1.25)
    (pair,) = claim_verdict(observations, claim, RULES).pairs
    assert pair.verdict == OPEN
    assert "one only reads its samples" in pair.reason


def test_a_task_that_gives_a_reward_model_does_not_say_whether_a_method_needs_one() -> None:
    measure = MEASURES["works_without_reward_model"]
    asked, trained = run(PAIRS, "dpo", 0), run(LEARNED, "ppo", 0)
    assert [len(measure.values([found])) for found in (asked, trained)] == [1, 0]


def test_pairs_whose_order_stays_are_not_more_in_order() -> None:
    """Fault: a margin that grew on the pairs that were in order before counted as a rise."""
    found, measure = run(PAIRS, "dpo", 0), MEASURES["more_pairs_in_order"]
    found.curve["train_margin"] = np.linspace(0, 4, len(found.curve))
    for last, expected in ((0.6, 0.0), (0.8, 1.0), (0.4, 0.0)):
        found.curve["train_accuracy"] = np.linspace(0.6, last, len(found.curve))
        assert measure.values([found]).tolist() == [expected]


def test_equal_seconds_count_those_of_the_reward_model(tmp_path: Path) -> None:
    runs = ways(dpo=0.8, ppo=0.8)
    for found in runs:
        end = 6.0 if found.task == PAIRS else 12.0
        found.ledger.cpu_seconds = end
        found.curve["cpu_seconds"] = np.linspace(0 if found.task == PAIRS else 3.0, end, len(found.curve))
        found.floor, found.target = 0.0, 1.0
    (case,) = (case for case in USE_CASES if case.name == "little CPU time, preferences")
    found = standings(comparables(store(tmp_path, *runs)), case)
    assert found is not None
    values = {item.label: item.value.value for item in found.items}
    reached = np.array([RISING[-1], np.interp(6, np.linspace(3, 12, 5), RISING)])
    dpo, ppo = (reached - RISING[0]) / (1 - RISING[0])  # the checkpoint's own return on the curve's prompts scores 0
    assert values == pytest.approx({"dpo": dpo, "ppo": ppo})


def test_answers_that_are_level_greedily_are_told_apart_by_drawing_them(tmp_path: Path) -> None:
    """Temperature 1 shows what greedy answers hide; a run that fails has its failed score, not the last one drawn."""
    runs = []
    for seed in range(8):
        ahead, behind, lost = (run(LEARNED, label, seed) for label in ("reinforce", "ppo", "grpo"))
        for result, drawn in ((ahead, 0.8), (behind, 0.6), (lost, 0.9)):
            result.final_score = result.final_return = 0.8 + 0.001 * seed
            result.curve["heldout_sampled_return"] = [RISING[0], *[drawn + 0.001 * seed] * (len(RISING) - 1)]
        lost.status = "diverged"
        lost.score_as_failed()
        runs += [ahead, behind, lost]
    greedy, sampled = (
        standings(comparables(store(tmp_path, *runs)), case)
        for case in USE_CASES
        if case.name in ("greedy answers, preferences", "sampled answers, preferences")
    )
    assert greedy is not None
    assert sampled is not None
    assert {item.label for item in greedy.equal} == {"reinforce", "ppo"}
    assert [item.label for item in sampled.items] == ["reinforce", "ppo", "grpo"]
    assert [item.label for item in sampled.equal] == ["reinforce"]
    assert sampled.items[1].contrast is not None
    assert sampled.items[1].contrast.word == SEPARATED
    assert sampled.best.value.value == pytest.approx((0.8035 - RISING[0]) / (1 - RISING[0]))
    assert sampled.items[2].value.value <= 0
