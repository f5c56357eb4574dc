"""Verdicts from planted effects: each rule is seen to decide, and a threshold in the file changes the outcome."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp
from synthetic import failed, make_result, make_throughput, noise_cell, save_all, with_id

from polobench.analysis.claims import Claim, Claims, Column, load_claims
from polobench.analysis.collection import Collection, collect
from polobench.analysis.measures import MEASURES, Observations, Place
from polobench.analysis.statistics.hypothesis import is_at_ceiling, permutation_p
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.statistics.survival import restricted_mean
from polobench.analysis.verdicts import (
    CEILING,
    CONTRADICTED,
    EQUIVALENT,
    MIXED,
    NOT_MEASURED,
    NOT_TESTABLE,
    OPEN,
    SUPPORTED,
    ClaimVerdict,
    WordVerdict,
    claim_verdict,
    column_verdict,
)
from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.report.sections.claims import difference, resolution
from polobench.run.library import BUILT_IN
from polobench.run.study import load_study

RULES = Claims(level=0.05, least_seeds_on_one_task=8, least_seeds=5, columns=(), claims=())
TASKS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")
AT_MARGIN = {"reinforce": 0.9, "ppo": 0.85, "trpo": 0.85}
COLUMN = Column(
    name="efficiency",
    measure="final_score",
    smallest_effect=0.05,
    order=(("poor",), ("good", "fine")),
    words={"reinforce": "poor", "ppo": "good", "trpo": "fine"},
)


def store(
    folder: Path, score: Callable[[str, int], float], seeds: int = 5, tasks: tuple[str, ...] = TASKS
) -> Collection:
    """Three methods whose final score is given by method and seed."""
    results = []
    for task in tasks:
        for method in COLUMN.words:
            for seed in range(seeds):
                result = make_result(method, task, seed)
                result.final_score = score(method, seed)
                result.final_return = result.floor + result.final_score * (result.target - result.floor)
                results.append(result)
    return collect(save_all(folder, *results))


def scored(means: dict[str, float], spread: float = 0.02) -> Callable[[str, int], float]:
    return lambda method, seed: means[method] + spread * float(np.random.default_rng(len(method) * 97 + seed).normal())


def words(collection: Collection, column: Column = COLUMN, rules: Claims = RULES) -> dict[str, str]:
    return {word.method: word.verdict for word in column_verdict(Observations(collection), column, rules).words}


def test_planted_differences_support_every_word(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.5, "ppo": 0.9, "trpo": 0.9}))
    assert words(collection) == dict.fromkeys(COLUMN.words, SUPPORTED)


def test_the_opposite_contradicts(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.9, "ppo": 0.5, "trpo": 0.97}))
    found = words(collection)
    assert found == {"reinforce": MIXED, "ppo": CONTRADICTED, "trpo": SUPPORTED}


def test_a_difference_too_small_to_matter_either_way_is_equivalence(tmp_path: Path) -> None:
    """Where it may as well be the other way by more than that, the claim is contradicted and no more."""
    collection = store(tmp_path / "near", scored({"reinforce": 0.9, "ppo": 0.92, "trpo": 0.92}, spread=0.002))
    assert set(words(collection).values()) == {EQUIVALENT}
    collection = store(tmp_path / "mixed", scored({"reinforce": 0.9, "ppo": 0.92, "trpo": 0.6}, spread=0.002))
    assert words(collection) == {"reinforce": CONTRADICTED, "ppo": EQUIVALENT, "trpo": CONTRADICTED}
    collection = store(tmp_path / "noisy", scored({"reinforce": 0.9, "ppo": 0.8, "trpo": 0.9}, spread=0.1))
    found = {pair.more: pair for pair in column_verdict(Observations(collection), COLUMN, RULES).pairs}
    assert found["ppo"].verdict == CONTRADICTED
    assert found["ppo"].below_p <= 0.05 < found["ppo"].equal_p
    assert found["trpo"].verdict == OPEN
    assert words(collection)["reinforce"] == OPEN, "it fails against one, and may still hold against the other"


def test_methods_that_differ_by_the_margin_are_called_equivalent_in_at_most_5_percent() -> None:
    """Two pairs, both at the margin and so both wrong, of which Holm's procedure finds any."""
    rng, found, places = np.random.default_rng(1), 0, [(task, "", "cpu") for task in TASKS]
    for _ in range(500):
        arms = {name: {place: rng.normal(mean, 0.04, 5) for place in places} for name, mean in AT_MARGIN.items()}
        verdicts = {pair.verdict for pair in column_verdict(Known(arms), COLUMN, RULES).pairs}
        found += EQUIVALENT in verdicts
    assert found <= binom.ppf(0.99, 500, 0.05)


class Known(Observations):
    """Numbers without runs."""

    def __init__(self, numbers: dict[str, dict[Place, Array]]) -> None:
        super().__init__(Collection([]))
        self.numbers = numbers

    def of(self, method: str, name: str) -> dict[Place, Array]:
        return self.numbers[method]


def test_noise_leaves_it_undecided_and_says_what_could_have_been_seen(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.6, "ppo": 0.66, "trpo": 0.66}, spread=0.3))
    found = column_verdict(Observations(collection), COLUMN, RULES)
    assert {pair.verdict for pair in found.pairs} == {OPEN}
    assert all(pair.compared is not None and pair.compared.detectable > 0.2 for pair in found.pairs)


def test_a_difference_that_is_shown_and_below_the_smallest_effect_is_open_and_called_small() -> None:
    numbers = {"reinforce": (0.5, 0.06), "ppo": (0.54, 0.06), "trpo": (0.54, 0.6)}
    arms = {
        name: {(task, "", "cpu"): mean + spread * np.linspace(-1, 1, 10) for task in TASKS}
        for name, (mean, spread) in numbers.items()
    }
    small, none = column_verdict(Known(arms), COLUMN, RULES).pairs
    assert small.p < 0.05 < none.p
    assert [(pair.verdict, pair.is_small) for pair in (small, none)] == [(OPEN, True), (OPEN, False)]
    said = [difference(pair, MEASURES["final_score"]) for pair in (small, none)]
    assert ["below the smallest effect" in text for text in said] == [True, False]


def test_words_of_equal_rank_are_not_compared() -> None:
    assert COLUMN.pairs == [("reinforce", "ppo"), ("reinforce", "trpo")]


def test_a_threshold_changes_a_verdict(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.7, "ppo": 0.8, "trpo": 0.8}))
    assert words(collection)["ppo"] == SUPPORTED
    assert words(collection, dataclasses.replace(COLUMN, smallest_effect=0.3))["ppo"] == EQUIVALENT
    strict = dataclasses.replace(RULES, level=1e-6)
    assert words(collection, rules=strict)["ppo"] == OPEN


def test_one_task_needs_eight_seeds(tmp_path: Path) -> None:
    means = {"reinforce": 0.2, "ppo": 0.9, "trpo": 0.9}
    few = column_verdict(Observations(store(tmp_path / "few", scored(means), 7, TASKS[:1])), COLUMN, RULES)
    assert {pair.verdict for pair in few.pairs} == {OPEN}
    assert few.pairs[0].reason == "7 seeds on one task; the test needs 8"
    enough = words(store(tmp_path / "enough", scored(means), 8, TASKS[:1]))
    assert set(enough.values()) == {SUPPORTED}


def test_a_test_that_cannot_reach_its_level_is_refused(tmp_path: Path) -> None:
    rules = dataclasses.replace(RULES, least_seeds=2, least_seeds_on_one_task=2)
    collection = store(tmp_path, scored({"reinforce": 0.2, "ppo": 0.9, "trpo": 0.9}), 3, TASKS[:1])
    found = column_verdict(Observations(collection), COLUMN, rules)
    assert found.pairs[0].verdict == OPEN
    assert math.isnan(found.pairs[0].p)
    assert found.pairs[0].reason == "too few seeds to reach p = 0.025; the test needs 5"


def test_failed_runs_count_at_the_floor(tmp_path: Path) -> None:
    """Fault: dropping them would leave ppo's 0.9 and support the word."""
    results = []
    for task in TASKS:
        for seed in range(6):
            good, poor = make_result("ppo", task, seed), make_result("reinforce", task, seed)
            good.curve["return_mean"] = good.curve["return_mean"].clip(lower=good.floor)
            good.final_score, poor.final_score = 0.9 + 0.001 * seed, 0.6 + 0.001 * seed
            results += [failed(good) if seed < 3 else good, poor]
    column = dataclasses.replace(COLUMN, words={"reinforce": "poor", "ppo": "good"})
    found = column_verdict(Observations(collect(save_all(tmp_path, *results))), column, RULES)
    assert found.pairs[0].compared is not None
    assert found.pairs[0].compared.difference == pytest.approx(0.45 - 0.6, abs=0.01)
    assert found.words[0].verdict != SUPPORTED


def test_what_is_absent_is_not_measured(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.5, "ppo": 0.9, "trpo": 0.9}))
    column = dataclasses.replace(COLUMN, words={**COLUMN.words, "grpo": "good"})
    found = column_verdict(Observations(collection), column, RULES)
    assert words(collection, column)["grpo"] == NOT_MEASURED
    assert "no matching grpo runs" in [pair.reason for pair in found.pairs]
    assert (found.words[0].verdict, found.words[0].reason) == (SUPPORTED, "not measured against grpo")
    assert found.words[1].level is not None, "the others are still shown"
    claim = Claim("text", "best", "final_score", less=("reinforce",), more=("ppo", "grpo"), smallest_effect=0.05)
    assert claim_verdict(Observations(collection), claim, RULES).verdict == SUPPORTED
    levels = Claim("text", "good", "final_score", of=("ppo", "grpo"), at_least=0.8)
    judged = claim_verdict(Observations(collection), levels, RULES)
    assert (judged.verdict, judged.reason) == (SUPPORTED, "no matching grpo runs")


def test_nothing_is_concluded_from_smoke_runs(tmp_path: Path) -> None:
    runs = [make_result("ppo", seed=seed) for seed in range(6)]
    runs[0].provenance["smoke"] = True
    claim = Claim("text", "ppo scores", "final_score", of=("ppo",), at_least=0.1)
    assert claim_verdict(Observations(collect(save_all(tmp_path, *runs))), claim, RULES).verdict == NOT_MEASURED


def test_claims_of_every_form(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.5, "ppo": 0.9, "trpo": 0.9}))

    def verdict(**form: object) -> str:
        return claim_verdict(Observations(collection), Claim("text", "something", "final_score", **form), RULES).verdict

    assert verdict(less=("reinforce",), more=("ppo", "trpo"), smallest_effect=0.05) == SUPPORTED
    assert verdict(less=("ppo",), more=("reinforce",), smallest_effect=0.05) == CONTRADICTED
    assert verdict(of=("ppo",), at_least=0.8) == SUPPORTED
    assert verdict(of=("ppo", "reinforce"), at_least=0.8) == MIXED
    assert verdict(of=("reinforce",), at_most=0.6) == SUPPORTED
    assert verdict(of=("reinforce",), at_most=0.5, tasks=("MountainCar-v0",)) == NOT_MEASURED
    assert verdict(less=("dpo",), more=("grpo",), smallest_effect=0.05) == NOT_MEASURED
    assert verdict(not_testable="it has no measure") == NOT_TESTABLE


def test_a_share_has_wilsons_interval(tmp_path: Path) -> None:
    collection = collect(save_all(tmp_path, *(make_result("ppo", seed=seed) for seed in range(8))))
    claim = Claim("text", "needs no reward", "works_without_reward_model", of=("ppo",), at_least=0.5)
    found = claim_verdict(Observations(collection), claim, RULES)
    assert found.levels is not None
    assert found.levels["ppo"].interval.method == "Wilson"
    assert found.verdict == SUPPORTED, "8 of 8 has a lower end of 0.68"


def at_two_budgets(label: str, scores: list[float]) -> list[RunResult]:
    """A run of each score, at half of its budget, too."""
    runs = []
    for seed, score in enumerate(scores):
        for budget in (20_000, 40_000):
            run = make_result("ppo", "CartPole-v1", seed, label=label, budget=budget)
            run.final_score = score
            run.final_return = run.floor + run.final_score * (run.target - run.floor)
            run.ledger.samples = budget
            runs.append(with_id(run))
    return runs


def test_a_seed_at_two_budgets_is_one_run(tmp_path: Path) -> None:
    scores = [0.9 + 0.01 * seed for seed in range(8)]
    runs = [*at_two_budgets("one", scores), *at_two_budgets("two", [score - 0.3 for score in scores])]
    observations = Observations(collect(save_all(tmp_path, *runs)))
    level = Claim("text", "good", "final_score", of=("one",), at_least=0.5)
    found = claim_verdict(observations, level, RULES).levels
    assert found is not None
    assert (found["one"].n, found["one"].places) == (8, 1)
    (pair,) = claim_verdict(observations, dataclasses.replace(BETTER, less=("two",), more=("one",)), RULES).pairs
    assert [place[1] for place in pair.places] == ["40,000 samples"]


BETTER = Claim("text", "better", "final_score", less=("trpo",), more=("ppo",), smallest_effect=0.05)


def declared(collection: Collection, tasks: Iterable[str] = TASKS, **facts: int) -> Observations:
    """The same runs, of which the study declares something else."""
    for runs in collection.arms.values():
        for run in runs:
            run.provenance |= facts if run.task in tasks else {}
    return Observations(collection)


def test_a_level_pays_for_looks_labels_and_seeds_that_were_not_declared(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.9, "ppo": 0.9, "trpo": 0.9}, 0.1), seeds=8)
    claim = Claim("text", "good", "final_score", of=("ppo",), at_least=0.1)

    def widths(labels: tuple[str, ...], **facts: int) -> float:
        found = claim_verdict(declared(collection, **facts), dataclasses.replace(claim, of=labels), RULES).levels
        assert found is not None
        return found["ppo"].interval.high - found["ppo"].interval.low

    once = widths(("ppo",), looks=1)
    assert widths(("ppo",), looks=6) == widths(("ppo", "trpo"), looks=3) > widths(("ppo",), looks=3) > once
    found = claim_verdict(declared(collection, seeds=6), claim, RULES)
    assert (found.verdict, found.reason) == (OPEN, "ppo has 8 seeds, 6 were declared")


def test_looks_are_those_of_the_runs_that_are_compared(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.7, "ppo": 0.75, "trpo": 0.72}, 0.05), seeds=8)
    claim = dataclasses.replace(BETTER, tasks=("CartPole-v1",))

    def p(tasks: tuple[str, ...], looks: int) -> float:
        return claim_verdict(declared(collection, tasks, looks=looks), claim, RULES).pairs[0].below_p

    once = p(TASKS, 1)
    assert p(("Acrobot-v1",), 3) == once > 0
    assert p(("CartPole-v1",), 3) == pytest.approx(min(1.0, 3 * once))


def test_a_trend_with_a_run_missing_on_one_task_is_open(tmp_path: Path) -> None:
    means = (0.5, 0.6, 0.7, 0.8)
    whole, part = (sized(tmp_path / task, means, task=task) for task in TASKS[:2])
    runs = [run for found in (whole, part) for arm in found._collection.arms.values() for run in arm]
    runs = [run for run in runs if (run.task, run.label, run.seed) != (TASKS[1], "16", 7)]
    claim = Claim("text", "more is better", "final_score", trend=("2", "4", "8", "16"), smallest_effect=0.05)
    (pair,) = claim_verdict(Observations(collect(save_all(tmp_path / "both", *runs))), claim, RULES).pairs
    assert (pair.verdict, pair.reason) == (OPEN, "the arms have different seeds")


def test_what_a_run_that_never_started_says_is_no_support(tmp_path: Path) -> None:
    runs = [failed(make_result("grpo", seed=seed), at=0.0, status="failed") for seed in range(10)]
    for run in runs:
        run.ledger.updates = 0
    claim = Claim("text", "needs no reward", "works_without_reward_model", of=("grpo",), at_least=0.5)
    assert claim_verdict(Observations(collect(save_all(tmp_path, *runs))), claim, RULES).verdict == CONTRADICTED


def test_seconds_of_two_processors_are_not_compared(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.9, "ppo": 0.9, "trpo": 0.9}), seeds=8)
    for arm, runs in collection.arms.items():
        for run in runs:
            run.provenance["cpu_model"] = "quick" if arm.label == "ppo" else "slow"
    dear = Claim("text", "dear", "cpu_seconds", less=("ppo",), more=("trpo",), smallest_effect=1.25)
    (pair,) = claim_verdict(Observations(collection), dear, RULES).pairs
    assert (pair.verdict, "different processors" in pair.reason) == (OPEN, True)
    (pair,) = claim_verdict(Observations(collection), dataclasses.replace(dear, measure="backward_rows"), RULES).pairs
    assert "processors" not in pair.reason


NOISIER = Claim("text", "noisier", "gradient_variance", less=("trpo",), more=("ppo",), smallest_effect=1.1)


def noise_cells(method: str, signal: float, policies: int = 10, common: float = 0.0) -> list[RunResult]:
    """At two stages of some runs, of two trainers; `common` is what the signal of a policy is off, for all methods."""
    found = []
    for number, stage in itertools.product(range(policies), (0.0, 1.0)):
        drawn = np.random.default_rng([number, int(stage), len(method)]).normal(1, 0.05)
        of_policy = math.exp(common * np.random.default_rng(number).normal())
        trainer, seed = ("grpo", "reinforce")[number % 2], number // 2
        found.append(with_id(noise_cell(method, signal * drawn * of_policy, seed, stage, trainer, noise=number)))
    return found


@pytest.mark.parametrize("other", [math.sqrt(20.0), math.sqrt(80.0)])
def test_equal_estimators_have_a_ratio_of_one_and_unequal_ones_theirs(other: float, tmp_path: Path) -> None:
    """The trainer's run is the unit, over its stages; a noise share of 1/2 beside one of 1/2 or 1/5."""
    cells = noise_cells("ppo", math.sqrt(20.0)) + noise_cells("trpo", other)
    observations = Observations(collect(save_all(tmp_path, *cells)))
    (values,) = observations.of("ppo", "gradient_variance").values()
    assert len(values) == 10
    assert np.exp(values).mean() == pytest.approx(0.5, abs=0.03)
    (pair,) = claim_verdict(observations, NOISIER, RULES).pairs
    assert pair.compared is not None
    low, high = math.exp(pair.compared.interval.low), math.exp(pair.compared.interval.high)
    ratio = 0.5 * (1 + other**2 / 20)
    assert low < ratio < high
    assert pair.verdict == (EQUIVALENT if ratio == pytest.approx(1.0) else SUPPORTED)


def test_gradients_are_paired_by_policies(tmp_path: Path) -> None:
    """Policies differ by far more than estimators: unpaired runs cannot tell these apart, pairs do."""
    ppo, trpo = (noise_cells(name, signal, common=1.0) for name, signal in (("ppo", 4.0), ("trpo", 4.8)))
    observations = Observations(collect(save_all(tmp_path / "all", *ppo, *trpo)))
    ((x, y),) = observations.pairs("trpo", "ppo", "gradient_variance").values()
    (pair,) = claim_verdict(observations, NOISIER, RULES).pairs
    assert permutation_p([(x, y)]) > 0.2
    assert pair.verdict == SUPPORTED
    assert pair.p == pytest.approx(2 / 2**10), (
        "only the data and their mirror image, of all exchanges within 10 pairs, are as far out"
    )
    assert pair.compared is not None
    assert pair.compared.difference == pytest.approx(np.mean(x - y))
    ends = ttest_1samp(x - y, 0).confidence_interval(0.95)
    assert (pair.compared.interval.low, pair.compared.interval.high) == pytest.approx(tuple(ends))
    fewer = Observations(collect(save_all(tmp_path / "fewer", *ppo[:-1], *trpo[1:])))  # each lacks one, of another run
    ((x, y),) = fewer.pairs("trpo", "ppo", "gradient_variance").values()
    assert len(x) == len(y) == 10
    assert claim_verdict(fewer, NOISIER, RULES).verdict == SUPPORTED
    apart = Observations(collect(save_all(tmp_path / "apart", *ppo[::2], *trpo[1::2])))  # never at the same policy
    assert claim_verdict(apart, NOISIER, RULES).verdict == NOT_MEASURED


def test_one_run_is_no_sample_and_unequal_critics_are_not_compared(tmp_path: Path) -> None:
    alone = collect(save_all(tmp_path / "one", noise_cell("ppo", 3.0), noise_cell("trpo", 6.0)))
    (pair,) = claim_verdict(Observations(alone), NOISIER, RULES).pairs
    assert (pair.verdict, pair.reason) == (OPEN, "1 run on one task; the test needs 8")
    cells = noise_cells("ppo", 3.0) + noise_cells("trpo", 3.0)
    ppo = {"gamma": 0.99, "learning_rate": 1e-3, "epochs": 10, "value_coef": 0.5}  # an optimizer for both
    for cell in cells:
        trpo = {"gamma": 0.99, "critic_learning_rate": 1e-3, "critic_epochs": 80}
        cell.hyperparameters = trpo if cell.method == "trpo" else ppo
    fitted = Observations(collect(save_all(tmp_path / "critics", *cells)))
    (pair,) = claim_verdict(fitted, NOISIER, RULES).pairs
    assert (pair.verdict, pair.reason) == (OPEN, "measured with unequal critic_epochs")


def test_ceiling_where_all_runs_end_at_the_maximum(tmp_path: Path) -> None:
    claim = Claim("text", "ppo is best", "final_score", less=("reinforce", "trpo"), more=("ppo",), smallest_effect=0.05)
    full = store(tmp_path / "full", scored({"reinforce": 0.5, "ppo": 1.05, "trpo": 1.05}, spread=0.001))
    found = claim_verdict(Observations(full), claim, RULES)
    assert [pair.verdict for pair in found.pairs] == [SUPPORTED, CEILING]
    assert found.verdict == CEILING
    one_below = [(np.array([1.01] * 7 + [0.998]), np.full(8, 1.02))]
    assert is_at_ceiling(one_below), "a single run does not make room"
    assert not is_at_ceiling([(np.full(8, 0.99), np.full(8, 1.02))])
    below = store(tmp_path / "below", scored({"reinforce": 0.5, "ppo": 0.9, "trpo": 0.9}, spread=0.001))
    assert claim_verdict(Observations(below), claim, RULES).verdict == MIXED


def test_methods_that_are_alike_by_construction_are_not_compared() -> None:
    (column,) = (column for column in load_claims().columns if column.alike)
    assert {"ppo", "trpo"} not in [set(pair) for pair in column.pairs]
    assert {"ppo", "reinforce"} in [set(pair) for pair in column.pairs]


def test_a_kl_is_compared_by_its_ratio(tmp_path: Path) -> None:
    """A term that holds a drift of 0.03 nats at a third of it prevents drift, though nothing drifts by 0.05."""
    runs = []
    for seed in range(8):
        for label, drift in (("free", 0.03), ("held", 0.01)):
            run = make_result("ranking", seed=seed, label=label)
            run.curve["heldout_kl"] = drift * (1 + 0.02 * seed)
            runs.append(with_id(run))
    observations = Observations(collect(save_all(tmp_path, *runs)))
    claim = Claim("text", "drift", "kl_ratio", less=("held",), more=("free",), smallest_effect=1.25)
    (pair,) = claim_verdict(observations, claim, RULES).pairs
    assert pair.compared is not None
    assert math.exp(pair.compared.difference) == pytest.approx(3.0, rel=0.01)
    assert pair.verdict == SUPPORTED


def sized(folder: Path, means: tuple[float, ...], spread: float = 0.02, task: str = "CartPole-v1") -> Observations:
    """Arms "2", "4" ... whose mean final scores are given, 8 seeds each."""
    runs = []
    for size, mean in zip((2, 4, 8, 16), means, strict=True):
        for seed in range(8):
            run = make_result("grpo", task, seed, label=str(size))
            run.final_score = mean + spread * float(np.random.default_rng([size, seed]).normal())
            run.final_return = run.floor + run.final_score * (run.target - run.floor)
            runs.append(with_id(run))
    return Observations(collect(save_all(folder, *runs)))


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ((0.5, 0.6, 0.7, 0.8), SUPPORTED),
        ((0.5, 0.9, 0.6, 0.7), OPEN),  # Page's test is sure of an order, which is not that of each step
        ((0.5, 0.5, 0.5, 0.5), CONTRADICTED),
        ((0.8, 0.7, 0.6, 0.5), CONTRADICTED),
    ],
)
def test_a_trend_is_tested_over_all_sizes(means: tuple[float, ...], verdict: str, tmp_path: Path) -> None:
    claim = Claim("text", "more is better", "final_score", trend=("2", "4", "8", "16"), smallest_effect=0.05)
    assert claim_verdict(sized(tmp_path, means), claim, RULES).verdict == verdict


def test_methods_for_language_are_judged_there_alone(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.5, "ppo": 0.9, "trpo": 0.9}))
    rules = dataclasses.replace(RULES, on_language=("ppo",))
    assert words(collection, rules=rules)["ppo"] == NOT_MEASURED
    assert words(collection, rules=rules)["trpo"] == SUPPORTED


def test_dpo_on_sampled_pairs_says_nothing_about_published_dpo(tmp_path: Path) -> None:
    """A store from before the label: the label follows from what the run generated and read."""
    runs = []
    for seed in range(5):
        for task in ("digits", "sums"):
            run = make_result("dpo", task, seed)
            run.ledger.samples_generated, run.ledger.samples_read = 50_000, 0
            runs += [run, make_result("grpo", task, seed)]
    collection = collect(save_all(tmp_path, *runs))
    assert set(collection.labels) == {"grpo", "online dpo"}
    claim = Claim("text", "grpo beats dpo", "final_score", less=("dpo",), more=("grpo",), smallest_effect=0.05)
    assert claim_verdict(Observations(collection), claim, RULES).verdict == NOT_MEASURED


def test_every_p_is_multiplied_by_the_declared_looks(tmp_path: Path) -> None:
    def pair(looks: int) -> tuple[float, float]:
        collection = store(tmp_path / str(looks), scored({"reinforce": 0.7, "ppo": 0.75, "trpo": 0.75}, 0.05))
        for runs in collection.arms.values():
            for run in runs:
                run.provenance["looks"] = looks
        found = column_verdict(Observations(collection), COLUMN, RULES).pairs[0]
        return found.p, found.below_p

    once, twice = pair(1), pair(2)
    assert twice == pytest.approx([min(1.0, 2 * p) for p in once])


def test_more_seeds_than_declared_give_estimates_without_verdicts(tmp_path: Path) -> None:
    """Seeds that were added because a verdict was open would make 5 % about 8 %."""
    collection = store(tmp_path, scored({"reinforce": 0.5, "ppo": 0.9, "trpo": 0.9}), seeds=6)
    for runs in collection.arms.values():
        for run in runs:
            run.provenance["seeds"] = 5
    found = column_verdict(Observations(collection), COLUMN, RULES)
    assert {(pair.verdict, pair.reason) for pair in found.pairs} == {(OPEN, "6 seeds, 5 were declared")}
    assert all(word.level is not None for word in found.words)


def test_studies_that_judge_differently_are_named(tmp_path: Path) -> None:
    def judged(*studies: tuple[str, dict[str, float]]) -> tuple[ClaimVerdict, WordVerdict]:
        observations = Observations(collect(save_all(tmp_path / studies[1][0], *of_studies(studies))))
        column = dataclasses.replace(COLUMN, words={"trpo": "poor", "ppo": "good"})
        claim = Claim("text", "ppo is better", "final_score", less=("trpo",), more=("ppo",), smallest_effect=0.05)
        return claim_verdict(observations, claim, RULES), column_verdict(observations, column, RULES).words[1]

    for found in judged(("one", {"ppo": 0.9, "trpo": 0.5}), ("two", {"ppo": 0.5, "trpo": 0.9})):
        assert (found.verdict, found.reason) == (MIXED, "studies differ: one supported, two contradicted")
    for found in judged(("one", {"ppo": 0.5, "trpo": 0.5}), ("three", {"ppo": 0.5, "trpo": 0.9})):
        assert (found.verdict, found.reason) == (CONTRADICTED, ""), "equivalent in one: it fails in both"


def of_studies(studies: Iterable[tuple[str, dict[str, float]]]) -> list[RunResult]:
    runs = []
    for name, means in studies:
        for method, mean in means.items():
            for seed in range(8):
                run = make_result(method, "CartPole-v1", seed, budget=50_000 if name == "one" else 60_000)
                run.final_score = mean + 0.001 * seed
                run.final_return = run.floor + run.final_score * (run.target - run.floor)
                run.provenance["study"] = name
                runs.append(with_id(run))
    return runs


def test_samples_to_target_are_the_restricted_mean() -> None:
    runs = [make_result("ppo", seed=seed) for seed in range(4)]
    failed(runs[3])
    runs[2].time_to_target = {"samples": None}
    values = MEASURES["samples_to_target"].values(runs)
    reached = [run.status == "ok" and run.time_to_target["samples"] is not None for run in runs]
    times = [run.time_to_target["samples"] if there else 50_000 for run, there in zip(runs, reached, strict=True)]
    assert reached == [True, True, False, False]
    assert values.mean() == pytest.approx(restricted_mean(times, reached, 50_000).value / 50_000)


def test_a_target_that_neither_reaches_says_nothing_of_their_speed(tmp_path: Path) -> None:
    """Fault: two methods that never get there within the budget take equally long."""
    runs = [make_result(name, task, seed) for name in ("ppo", "trpo") for task in TASKS for seed in range(5)]
    for run in runs:
        there = run.task == TASKS[0] and run.method == "ppo"
        run.time_to_target = {"samples": 10_000 if there else None}
    claim = Claim("text", "faster", "samples_to_target", less=("ppo",), more=("trpo",), smallest_effect=0.05)
    (pair,) = claim_verdict(Observations(collect(save_all(tmp_path / "one", *runs))), claim, RULES).pairs
    assert [place[0] for place in pair.places] == [TASKS[0]]
    runs = [run for run in runs if run.task != TASKS[0]]
    (pair,) = claim_verdict(Observations(collect(save_all(tmp_path / "never", *runs))), claim, RULES).pairs
    assert (pair.verdict, pair.reason) == (NOT_MEASURED, "no run of either got there")


def test_costs_are_ratios(tmp_path: Path) -> None:
    results = []
    for seed in range(5):
        for task in TASKS:
            cheap, dear = make_result("ppo", task, seed), make_result("trpo", task, seed)
            cheap.ledger.cpu_seconds = cheap.ledger.samples * 1e-3 * (1 + 0.01 * seed)
            dear.ledger.cpu_seconds = dear.ledger.samples * 2e-3 * (1 + 0.01 * seed)
            results += [cheap, dear]
    collection = collect(save_all(tmp_path, *results))
    claim = Claim("text", "dear", "cpu_seconds", less=("ppo",), more=("trpo",), smallest_effect=1.25)
    (pair,) = claim_verdict(Observations(collection), claim, RULES).pairs
    assert pair.compared is not None
    assert math.exp(pair.compared.difference) == pytest.approx(2.0)
    assert pair.verdict == SUPPORTED
    cheaper = dataclasses.replace(claim, less=("ppo", "trpo"), more=("trpo",))
    assert claim_verdict(Observations(collection), cheaper, RULES).verdict == MIXED, "it is judged against each"
    dearer = dataclasses.replace(claim, smallest_effect=2.5)
    assert claim_verdict(Observations(collection), dearer, RULES).verdict == EQUIVALENT, "surely less, either way"


def test_update_seconds_are_a_thousand_samples_of_a_round(tmp_path: Path) -> None:
    cell = make_throughput("ppo")
    beside = make_throughput("trpo", ran_beside_others=True)
    collection = collect(save_all(tmp_path, cell, beside))
    (values,) = Observations(collection).of("ppo", "update_seconds").values()
    expected = np.log([np.mean(cell.throughput["update_seconds"]) * 1000 / 1024])
    assert values == pytest.approx(expected)
    assert Observations(collection).of("trpo", "update_seconds") == {}


def test_every_measure_reads_a_run_that_failed_at_once() -> None:
    result = failed(make_result(), at=0.0, status="failed")
    result.curve, result.updates = result.curve.iloc[:0], result.updates.iloc[:0]
    for name, measure in MEASURES.items():
        values = measure.values([result])
        assert np.isfinite(values).all(), name


def test_the_articles_claims_are_read() -> None:
    claims = load_claims()
    assert [column.name for column in claims.columns] == [
        "variance of the gradient", "variance between runs", "stability", "sample efficiency",
    ]  # fmt: skip
    assert all(set(column.words) == {"reinforce", "trpo", "ppo", "dpo", "grpo"} for column in claims.columns)
    sources = {claim.source.split(",")[0] + claim.source.split(",")[1] for claim in claims.claims}
    assert {f"text {number}" for number in range(1, 8)} <= sources, "each numbered claim of the text is there"
    assert sum(bool(claim.not_testable) for claim in claims.claims) == 10


def test_every_arm_that_a_claim_names_is_run_by_a_study() -> None:
    studies = [load_study(path.stem) for path in BUILT_IN.glob("*.toml")]
    arms = {cell.label for study in studies for cell in study.cells}
    for claim in load_claims().claims:
        assert {*claim.less, *claim.more, *claim.of, *claim.trend} <= arms, claim.says


def test_a_sentences_evidence_says_what_tests_of_its_size_can_find(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.9, "ppo": 0.92, "trpo": 0.9}, spread=0.002))
    claim = Claim("text", "x", "final_score", less=("reinforce",), more=("ppo",), smallest_effect=0.05)
    (pair,) = claim_verdict(Observations(collection), claim, RULES).pairs
    measure = MEASURES["final_score"]
    assert pair.compared is not None
    assert resolution(pair, measure) == f", margin {pair.compared.margin:.3f}"
    opened = dataclasses.replace(pair, verdict=OPEN)
    assert resolution(opened, measure) == f", detectable {pair.compared.detectable:.3f}"
    assert resolution(dataclasses.replace(pair, verdict=SUPPORTED), measure) == ""


MISTAKES = {
    "nothing": ("", "'level' is missing"),
    "no TOML": ("level =", "cannot be read"),
    "unknown key": ("colour = 1\n", "unknown key 'colour'"),
    "unknown measure": ('[[claim]]\nsource="s"\nsays="x"\nmeasure="luck"\nof=["a"]\nat_least=1\n', "measure 'luck'"),
    "two forms": ('[[claim]]\nsource="s"\nsays="x"\nof=["ppo"]\nnot_testable="y"\n', "exactly one of"),
    "half a pair": ('[[claim]]\nsource="s"\nsays="x"\nless=["ppo"]\nmeasure="final_score"\n', "exactly one of"),
    "no bound": ('[[claim]]\nsource="s"\nsays="x"\nof=["ppo"]\nmeasure="final_score"\n', "at_least; at_most"),
    "a ratio below one": (
        '[[claim]]\nsource="s"\nsays="x"\nless=["a"]\nmore=["b"]\nmeasure="cpu_seconds"\nsmallest_effect=0.2\n',
        "at least 1",
    ),
    "a word without rank": (
        '[[column]]\nname="c"\nmeasure="final_score"\nsmallest_effect=0.1\norder=[["low"]]\nwords={ppo="mighty"}\n',
        "'mighty'",
    ),
    "a level that is none": ("level = 2\n", "level is 2, it must be a number between 0 and 1"),
    "too few seeds": ("least_seeds = 'many'\n", "least_seeds is 'many', it must be an integer of at least 2"),
    "no table": ("claim = 3\n", "claim is 3, it must be a list of tables"),
    "a name for a list": (
        '[[claim]]\nsource="s"\nsays="x"\nmeasure="final_score"\nof="ppo"\nat_least=1\n', "it must be a list of names"
    ),
    "a word for a number": (
        '[[claim]]\nsource="s"\nsays="x"\nmeasure="final_score"\nof=["a"]\nat_least="much"\n', "must be a number"
    ),
    "words as a list": (
        '[[column]]\nname="c"\nmeasure="final_score"\nsmallest_effect=0.1\norder=[["low"]]\nwords=["ppo"]\n',
        "must be a table of words",
    ),
    "no name": ('[[column]]\nmeasure="final_score"\nsmallest_effect=0.1\norder=[["a"]]\nwords={ppo="a"}\n', "name"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_one_line(name: str, tmp_path: Path) -> None:
    text, said = MISTAKES[name]
    rules = {"level": 0.05, "least_seeds_on_one_task": 8, "least_seeds": 5} if name != "nothing" else {}
    given = text.partition(" ")[0]
    path = tmp_path / "claims.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in rules.items() if key != given) + text)
    with pytest.raises(UsageError, match=said) as raised:
        load_claims(path)
    assert "\n" not in str(raised.value)


def test_an_absent_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_claims(tmp_path / "none.toml")
