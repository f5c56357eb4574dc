"""The gate over two stores: each layer with a planted change, the same bits, bad input, what cannot be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import failed, make_result, make_throughput, with_id

from polobench.analysis.measures import MEASURES
from polobench.core.result import RunResult
from polobench.gate.compare import compare_results
from polobench.gate.exact import differences, growths
from polobench.gate.learning import LEVEL, WATCHED, columns_of, judge
from polobench.gate.matching import Incomparable, matched_arms
from polobench.report.gate import gate_markdown

SEEDS = range(10)
Change = Callable[[RunResult], None]


def learner(method: str = "ppo", seed: int = 0, shift: float = 0.0, **changes: Any) -> RunResult:
    """A run whose measures are normal around known means, of one digest per seed."""
    rng = np.random.default_rng([seed, len(method), int(1e6 * abs(shift))])
    result = make_result(method, seed=seed, **changes)
    result.final_score = float(0.8 + shift + 0.02 * rng.normal())
    score = result.curve["progress"] * (result.final_score + 0.01 * rng.normal())
    result.curve["return_mean"] = result.floor + score * ((result.target or 1.0) - result.floor)
    result.updates = pd.DataFrame(
        {"samples": np.arange(40.0), "loss": 1 + 0.05 * rng.normal(size=40), "kl": 0.01 + 0.001 * rng.normal(size=40)}
    )
    result.digest, result.trail = f"{method}{seed}", ["aa", "bb", "cc"]
    result.provenance |= {"study": "ci", "platform_fingerprint": "p", "threads": 1, "cpu_model": "c"}
    return with_id(result)


def fixed(method: str = "ppo", **changes: Any) -> RunResult:
    """A fixed-batch cell."""
    result = learner(method)
    result.kind, result.digest, result.budget = "fixed_batch", None, {"updates": 1}
    result.fixed_batch = {
        "batch_sha256": "b",
        "metrics": {"loss": 0.5, "kl": 0.0},
        "changes": {"actor.weight": [0.1, 0.05, -0.07, 0.02, 0.1]},
        "batch_counts": {"forward_rows": 1000, "gradient_steps": 10},
        "rollout_counts": {"samples_generated": 100, "samples_read": 0, "reward_calls": 100, "forward_rows": 100},
    } | changes
    return with_id(result)


def probe(seed: int, answer: float = 10.0) -> RunResult:
    result = learner(seed=seed, task="probe-truncation")
    result.floor, result.target, result.final_return = 9.0, 10.0, answer
    result.provenance["probe"] = True
    return with_id(result)


def side(shift: float = 0.0, digests: str = "", change: Change = lambda result: None) -> list[RunResult]:
    """Two arms of ten seeds, a probe, a fixed batch, a throughput cell."""
    results = [learner(method, seed, shift) for method in ("ppo", "trpo") for seed in SEEDS]
    results += [probe(seed) for seed in range(3)] + [fixed(), _timed()]
    for result in results:
        result.digest = result.digest and result.digest + digests
        change(result)
    return results


def _timed() -> RunResult:
    result = make_throughput("ppo")
    result.provenance |= {"study": "ci", "threads": 1, "cpu_model": "c"}
    return with_id(result)


def only(kind: str, change: Change) -> Change:
    """The change, of cells of one kind that are no probes."""
    return lambda result: change(result) if result.kind == kind and not result.provenance.get("probe") else None


def test_a_store_against_itself_is_the_same_bits_and_no_test_is_made() -> None:
    found = compare_results(side(), side())
    assert (found.exit_code, list(found.findings), found.rows) == (0, [], [])
    assert "the same bits" in gate_markdown(found)
    assert "1 updates on stored batches were compared, number by number and count by count: all agree" in gate_markdown(
        found
    )


def test_other_bits_of_the_same_runs_are_tested_and_pass() -> None:
    found = compare_results(side(), side(digests="x"))
    assert found.exit_code == 0
    assert {row.measure for row in found.rows} == {"final_score", "area", "loss", "kl"}
    assert all(not row.refused for row in found.rows)


def test_the_trail_names_the_first_update_that_differs() -> None:
    def other(result: RunResult) -> None:
        result.trail, result.digest = ["aa", "xx", "cc"], "other"

    found = compare_results(side(), side(change=only("learning", other)))
    bits = next(bits for pair, bits in found.bits if pair.arm.label == "ppo" and not pair.is_probe)
    assert bits.first_differences == dict.fromkeys(SEEDS, 2)
    assert "0: 2, 1: 2, 2: 2 and 7 more" in gate_markdown(found)


def test_a_fall_of_the_score_is_a_regression_and_a_rise_is_none() -> None:
    fallen = compare_results(side(), side(shift=-0.2, digests="x"))
    assert fallen.exit_code == 1
    assert {finding.layer for finding in fallen.regressions} == {"learning"}
    assert "final score" in fallen.regressions[0].what
    risen = compare_results(side(), side(shift=0.2, digests="x"))
    assert risen.exit_code == 0
    assert any("final score" in finding.what for finding in risen.findings)


@pytest.mark.parametrize(
    ("name", "measure", "n"),
    [
        ("final_score", "final_score", 3), ("area", "area_under_curve", 3), ("heldout_kl", "kl_to_reference", 2),
        ("loss", "loss_at_the_end", 2), ("kl", "update_kl_at_the_end", 2),
    ],
)  # fmt: skip
def test_the_gate_and_the_report_read_the_same_numbers(name: str, measure: str, n: int) -> None:
    """Of three runs one failed: it scores 0 and has no KL."""
    runs = [learner(seed=seed) for seed in range(2)] + [failed(learner(seed=2))]
    for run in runs:
        run.curve["heldout_kl"] = np.linspace(0, 1 + run.seed, len(run.curve))
    (arm,) = matched_arms(runs, runs)
    numbers = columns_of([arm])[arm.arm, name][0]
    assert len(numbers) == n
    np.testing.assert_array_equal(numbers, MEASURES[measure].values(runs[:n]))
    assert WATCHED[name].measure is MEASURES[measure]


def test_a_sure_change_that_is_too_small_to_matter_is_no_regression() -> None:
    def scored(mean: float) -> Change:
        return only("learning", lambda result: setattr(result, "final_score", mean + 0.001 * result.seed))

    small, large = (compare_results(side(change=scored(0.8)), side(0.0, "x", scored(mean))) for mean in (0.755, 0.745))
    for found in (small, large):
        tests = [row for row in found.rows if row.measure == "final_score"]
        assert len(tests) == 2
        assert all(row.adjusted_p <= LEVEL for row in tests)
    assert (small.exit_code, large.exit_code) == (0, 1)


@pytest.mark.parametrize(("column", "factor"), [("loss", 2.0), ("loss", 0.3), ("kl", 3.0), ("kl", 0.1)])
def test_loss_and_kl_are_harmful_either_way(column: str, factor: float) -> None:
    def scaled(result: RunResult) -> None:
        result.updates[column] *= factor

    found = compare_results(side(), side(digests="x", change=only("learning", scaled)))
    assert {finding.layer for finding in found.regressions} == {"learning"}
    assert len(found.regressions) == 2


def test_a_probe_that_loses_its_answer() -> None:
    def lost(result: RunResult) -> None:
        if result.provenance.get("probe") and result.seed == 1:
            result.final_return, result.digest = 8.0, "other"

    found = compare_results(side(), side(change=lost))
    assert [(finding.layer, finding.is_regression) for finding in found.findings] == [("probe", True)]
    assert "seed 1: 8" in found.findings[0].what
    gained = compare_results(side(change=lost), side())
    assert gained.exit_code == 0


def test_a_number_of_the_stored_batch() -> None:
    def moved(by: float) -> Change:
        def change(result: RunResult) -> None:
            result.fixed_batch["changes"]["actor.weight"][2] *= 1 + by

        return only("fixed_batch", change)

    assert compare_results(side(), side(change=moved(1e-9))).exit_code == 0
    found = compare_results(side(), side(change=moved(1e-4)))
    assert [finding.layer for finding in found.regressions] == ["fixed batch"]
    assert "count by count: 1 differ" in gate_markdown(found)
    assert "projection 2" in found.regressions[0].what


def test_numbers_of_the_stored_batch_that_only_one_side_has_or_that_are_not_finite() -> None:
    base, head = fixed(), fixed(metrics={"loss": float("nan")})
    assert {item.what for item in differences(base, head)} == {"loss", "kl"}
    assert differences(head, head) == []


def test_a_restored_tensor_that_moves() -> None:
    base = fixed(changes={"actor.weight": [0.0] * 5})
    assert differences(base, fixed(changes={"actor.weight": [1e-3, 1e-3, 0, 0, 0]}))


@pytest.mark.parametrize(("rows", "code"), [(1010, 0), (1011, 1), (900, 0)])
def test_counts_may_grow_by_one_in_a_hundred(rows: int, code: int) -> None:
    def counted(result: RunResult) -> None:
        result.fixed_batch["batch_counts"]["forward_rows"] = rows

    found = compare_results(side(), side(change=only("fixed_batch", counted)))
    assert found.exit_code == code
    assert len(found.findings) == (rows != 1010)


def test_counts_of_the_rollout_are_a_sample() -> None:
    base, head = fixed(), fixed()
    head.fixed_batch["rollout_counts"] = {name: 2 * count for name, count in base.fixed_batch["rollout_counts"].items()}
    assert growths(base, head) == []
    head.fixed_batch["rollout_counts"]["reward_calls"] += 10
    assert [(item.what, item.is_regression) for item in growths(base, head)] == [
        ("reward_calls per sample, rollout", True)
    ]


def test_whole_runs_cost_and_speed_are_advice() -> None:
    def dearer(result: RunResult) -> None:
        result.ledger = dataclasses.replace(result.ledger, forward_rows=2 * result.ledger.forward_rows + 9)
        if result.throughput:
            result.throughput["iteration_seconds"] = [2 * s for s in result.throughput["iteration_seconds"]]

    found = compare_results(side(), side(digests="x", change=dearer))
    assert found.exit_code == 0
    assert {finding.layer for finding in found.findings} == {"cost", "speed"}


def test_other_hardware_makes_speed_incomparable_and_nothing_else() -> None:
    def elsewhere(result: RunResult) -> None:
        result.provenance["cpu_model"] = "another"
        if result.throughput:
            result.throughput["iteration_seconds"] = [2 * s for s in result.throughput["iteration_seconds"]]

    found = compare_results(side(), side(change=elsewhere))
    assert (found.exit_code, list(found.findings)) == (0, [])
    assert "speed is not compared" in found.notes[0]


def test_vanished_new_and_failing_cells() -> None:
    base, head = side(), side(digests="x")
    head = [result for result in head if (result.label, result.seed) != ("trpo", 3)]
    failed(next(result for result in head if (result.label, result.seed, result.kind) == ("ppo", 4, "learning")))
    head.append(learner("grpo"))
    found = compare_results(base, head)
    cells = {
        finding.what.split(" (")[0]: finding.is_regression for finding in found.findings if finding.layer == "cells"
    }
    assert cells == {"1 cells vanished": True, "1 cells newly failing": True, "1 cells new": False}
    assert "the loss is nan" in str([finding.what for finding in found.findings])


def test_cells_are_matched_by_what_was_asked_and_the_newest_counts() -> None:
    def renamed(result: RunResult) -> None:
        result.cell_id = "x" + result.cell_id
        result.hyperparameters = {"learning_rate": 7.0}
        result.provenance["code_hash"] = "other"

    assert compare_results(side(), side(change=renamed)).exit_code == 0
    older = learner("ppo", 0, shift=-0.7)
    older.started_at, older.digest = "2001-01-01", "older"
    assert compare_results(side(), [older, *side()]).exit_code == 0


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("threads", lambda result: result.provenance.update(threads=2)),
        ("hyper-parameters set by the study", lambda result: result.provenance.update(overrides={"gamma": 0.5})),
        ("budget", lambda result: result.budget.update(samples=60_000)),
        ("target", lambda result: setattr(result, "target", 999.0)),
        ("data, model and arguments of the task", lambda result: result.provenance.update(task_hash="other")),
    ],
)
def test_another_question_is_incomparable_and_named(field: str, change: Change) -> None:
    def changed(result: RunResult) -> None:
        asked(result)
        only("learning", change)(result)

    def asked(result: RunResult) -> None:
        result.provenance |= {"overrides": {}, "task_hash": "one"}

    with pytest.raises(Incomparable, match=field):
        compare_results(side(change=asked), side(change=changed))


def test_a_cell_that_was_skipped_before_it_ran_asks_nothing_else() -> None:
    skipped = learner("ppo", 0)
    skipped.status, skipped.started_at = "skipped", "2001-01-01"
    del skipped.provenance["threads"]
    assert compare_results([with_id(skipped), *side()], side()).exit_code == 0
    absent = [result for result in side() if (result.label, result.seed) != ("ppo", 0)]
    assert compare_results(side(), [skipped, *absent]).exit_code == 1, "skipped in the head alone"


def test_a_measure_that_one_side_lacks_is_told() -> None:
    def without_kl(result: RunResult) -> None:
        if result.kind == "learning":
            result.updates = result.updates.drop(columns="kl")

    whole, without = {}, {"change": without_kl}
    for base, head, lacking in ((whole, without, "head"), (without, whole, "base")):
        found = compare_results(side(**base), side(digests="x", **head))
        refused = {row.refused for row in found.rows if row.measure == "kl"}
        assert (found.exit_code, refused) == (0, {f"no run of the {lacking} has a value"})
        assert f"no run of the {lacking} has a value" in gate_markdown(found)


def test_few_runs_are_refused_with_the_number_that_is_needed() -> None:
    few = [result for result in side() if result.seed < 4]
    found = compare_results(few, [result for result in side(shift=-0.5, digests="x") if result.seed < 4])
    assert found.exit_code == 0
    assert all("4 runs per side cannot reach" in row.refused for row in found.rows)
    assert "needed: 8" in gate_markdown(found)


def test_holm_counts_every_test() -> None:
    arm = compare_results(side(), side(digests="x")).rows[0].arm
    rng = np.random.default_rng(0)
    columns = {
        (dataclasses.replace(arm, label=str(k)), "final_score"): (rng.normal(size=10), rng.normal(size=10))
        for k in range(30)
    }
    rows = judge(columns)
    assert all(row.adjusted_p >= min(1.0, row.shift.p) for row in rows if row.shift)
    smallest = min((row for row in rows if row.shift), key=lambda row: row.shift.p)
    assert smallest.adjusted_p == pytest.approx(min(1.0, 30 * smallest.shift.p))


def test_every_row_of_a_table_has_its_columns() -> None:
    """A bar in a measure's name would begin a cell of its own."""
    text = gate_markdown(compare_results(side(), side(shift=-0.2, digests="x")))
    assert "KL(old" in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.replace(r"\|", "").count("|") for row in rows}) <= 1, block


def test_hostile_names_break_no_report() -> None:
    base = [learner("<script>|`x`\n# y", seed) for seed in SEEDS]
    text = gate_markdown(compare_results(base, [dataclasses.replace(result, digest="x") for result in base]))
    assert "<script>" not in text
    assert "\n# y" not in text
