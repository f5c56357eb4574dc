"""Verdicts from planted effects: each rule is seen to decide, and a threshold in the file changes the outcome."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import failed, make_result, make_throughput, noise_cell, save_all

from polobench.analysis.claims import Claim, Claims, Column, load_claims
from polobench.analysis.collection import Collection, collect
from polobench.analysis.measures import MEASURES, Observations
from polobench.analysis.statistics.survival import restricted_mean
from polobench.analysis.verdicts import (
    CONTRADICTED,
    NOT_MEASURED,
    NOT_TESTABLE,
    SUPPORTED,
    UNDECIDED,
    claim_verdict,
    column_verdict,
)
from polobench.core.errors import UsageError
from polobench.core.gradient_noise import Batches

RULES = Claims(level=0.05, least_seeds_on_one_task=8, least_seeds=5, columns=(), claims=())
TASKS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")
COLUMN = Column(
    name="efficiency",
    measure="final_score",
    smallest_effect=0.05,
    order=(("poor",), ("good", "fine")),
    words={"reinforce": "poor", "ppo": "good", "trpo": "fine"},
    also=("largest_drawdown",),
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
    assert found == {"reinforce": CONTRADICTED, "ppo": CONTRADICTED, "trpo": SUPPORTED}


def test_a_difference_too_small_to_matter_contradicts(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.9, "ppo": 0.92, "trpo": 0.92}, spread=0.002))
    assert set(words(collection).values()) == {CONTRADICTED}


def test_noise_leaves_it_undecided_and_says_what_could_have_been_seen(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.6, "ppo": 0.66, "trpo": 0.66}, spread=0.3))
    found = column_verdict(Observations(collection), COLUMN, RULES)
    assert {pair.verdict for pair in found.pairs} == {UNDECIDED}
    assert all(pair.compared is not None and pair.compared.detectable > 0.2 for pair in found.pairs)


def test_words_of_equal_rank_are_not_compared() -> None:
    assert COLUMN.pairs == [("reinforce", "ppo"), ("reinforce", "trpo")]


def test_a_threshold_changes_a_verdict(tmp_path: Path) -> None:
    collection = store(tmp_path, scored({"reinforce": 0.7, "ppo": 0.8, "trpo": 0.8}))
    assert words(collection)["ppo"] == SUPPORTED
    assert words(collection, dataclasses.replace(COLUMN, smallest_effect=0.3))["ppo"] == CONTRADICTED
    strict = dataclasses.replace(RULES, level=1e-6)
    assert words(collection, rules=strict)["ppo"] == UNDECIDED


def test_one_task_needs_eight_seeds(tmp_path: Path) -> None:
    means = {"reinforce": 0.2, "ppo": 0.9, "trpo": 0.9}
    few = column_verdict(Observations(store(tmp_path / "few", scored(means), 7, TASKS[:1])), COLUMN, RULES)
    assert {pair.verdict for pair in few.pairs} == {UNDECIDED}
    assert few.pairs[0].reason == "7 seeds on one task; the test needs 8"
    enough = words(store(tmp_path / "enough", scored(means), 8, TASKS[:1]))
    assert set(enough.values()) == {SUPPORTED}


def test_a_test_that_cannot_reach_its_level_is_refused(tmp_path: Path) -> None:
    rules = dataclasses.replace(RULES, least_seeds=2, least_seeds_on_one_task=2)
    collection = store(tmp_path, scored({"reinforce": 0.2, "ppo": 0.9, "trpo": 0.9}), 3, TASKS[:1])
    found = column_verdict(Observations(collection), COLUMN, rules)
    assert found.pairs[0].verdict == UNDECIDED
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
    assert words(collection, column)["reinforce"] == UNDECIDED, "one of its pairs is not known"
    assert found.words[1].level is not None, "the others are still shown"


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
    assert verdict(of=("ppo", "reinforce"), at_least=0.8) == CONTRADICTED
    assert verdict(of=("reinforce",), at_most=0.6) == SUPPORTED
    assert verdict(of=("reinforce",), at_most=0.5, tasks=("MountainCar-v0",)) == NOT_MEASURED
    assert verdict(less=("dpo",), more=("grpo",), smallest_effect=0.05) == NOT_MEASURED
    assert verdict(not_testable="it has no measure") == NOT_TESTABLE


def test_a_share_has_wilsons_interval(tmp_path: Path) -> None:
    collection = collect(save_all(tmp_path, *(make_result("ppo", seed=seed) for seed in range(6))))
    claim = Claim("text", "needs no reward", "works_without_rewards", of=("ppo",), at_least=0.5)
    found = claim_verdict(Observations(collection), claim, RULES)
    assert found.levels is not None
    assert found.levels["ppo"].interval.method == "Wilson"
    assert found.verdict == SUPPORTED, "6 of 6 has a lower end of 0.61"


def test_the_noise_share_is_what_was_planted(tmp_path: Path) -> None:
    collection = collect(save_all(tmp_path, noise_cell("ppo", signal=math.sqrt(20.0))))
    (values,) = Observations(collection).of("ppo", "gradient_noise_share").values()
    assert len(values) == 32
    assert values.mean() == pytest.approx(0.5, abs=0.07)
    (values,) = Observations(collection).of("ppo", "signal_to_noise").values()
    assert values.mean() == pytest.approx(1.0, abs=0.25)


def test_pseudo_values_average_to_the_estimate_less_its_bias() -> None:
    cell = noise_cell("ppo", signal=3.0)
    noise = cell.gradient_noise
    batches = Batches(
        *(np.array(noise[key]) for key in ("squared_norms", "products", "batch_samples")), noise["samples"]
    )
    values = MEASURES["signal_to_noise"].values([cell])
    n = 32
    assert values.mean() == pytest.approx(n * batches.snr - (n - 1) * batches.snr_without_each.mean())


def test_samples_to_target_are_the_restricted_mean() -> None:
    runs = [make_result("ppo", seed=seed) for seed in range(4)]
    failed(runs[3])
    runs[2].time_to_target = {"samples": None}
    values = MEASURES["samples_to_target"].values(runs)
    reached = [run.status == "ok" and run.time_to_target["samples"] is not None for run in runs]
    times = [run.time_to_target["samples"] if there else 50_000 for run, there in zip(runs, reached, strict=True)]
    assert reached == [True, True, False, False]
    assert values.mean() == pytest.approx(restricted_mean(times, reached, 50_000) / 50_000)


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
    dearer = dataclasses.replace(claim, smallest_effect=2.5)
    assert claim_verdict(Observations(collection), dearer, RULES).verdict == CONTRADICTED


def test_update_seconds_are_a_thousand_samples_of_a_round(tmp_path: Path) -> None:
    cell = make_throughput("ppo")
    beside = make_throughput("trpo", ran_beside_others=True)
    collection = collect(save_all(tmp_path, cell, beside))
    (values,) = Observations(collection).of("ppo", "update_seconds").values()
    expected = np.log(np.array(cell.throughput["update_seconds"]) * 1000 / 1024)
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
    assert [column.name for column in claims.columns] == ["variance", "stability", "sample efficiency"]
    assert all(set(column.words) == {"reinforce", "trpo", "ppo", "dpo", "grpo"} for column in claims.columns)
    sources = {claim.source.split(",")[0] + claim.source.split(",")[1] for claim in claims.claims}
    assert {f"text {number}" for number in range(1, 8)} <= sources, "each numbered claim of the text is there"
    assert sum(bool(claim.not_testable) for claim in claims.claims) == 9


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
