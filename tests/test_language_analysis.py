"""Preference accuracy and its clustered interval, against enumerations and closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from synthetic import failed_language, make_language

from polobench.analysis.collection import Arm
from polobench.analysis.curves import metric_curve
from polobench.analysis.language import PreferenceSummary, pooled_pairs, summarize_pairs
from polobench.analysis.statistics.intervals import CLUSTERED, clustered_intervals
from polobench.core.result import RunResult


def _columns(rows: list[tuple[int, float, float]], tokens: tuple[int, int] = (10, 10)) -> dict[str, Any]:
    """Pairs from prompt, chosen and rejected log-probability."""
    prompt, chosen, rejected = (list(column) for column in zip(*rows, strict=True))
    lengths = {"chosen_tokens": [tokens[0]] * len(rows), "rejected_tokens": [tokens[1]] * len(rows)}
    return {"prompt": prompt, "chosen_log_prob": chosen, "rejected_log_prob": rejected} | lengths


def _run(before: dict[str, Any], after: dict[str, Any] | None, seed: int = 0) -> RunResult:
    snapshots = {"before": {"pairs": {"heldout": before}}}
    if after is not None:
        snapshots["after"] = {"pairs": {"heldout": after}}
    return make_language(seed=seed, snapshots=snapshots)


def _summary(*runs: RunResult) -> PreferenceSummary:
    found = summarize_pairs(Arm.of(runs[0]), runs, "heldout")
    assert found is not None
    return found


def _width(values: list[float], clusters: list[int]) -> float:
    found = clustered_intervals(np.array(values)[:, None], np.array(clusters))[0]
    return found.high - found.low


def test_three_unequal_prompts_against_all_27_resamples() -> None:
    groups = ([1.0, 0.0, 1.0], [0.5], [0.0, 0.0])
    found = clustered_intervals(np.concatenate(groups)[:, None], np.repeat([4, 9, 2], [3, 1, 2]))[0]
    means = [np.mean(np.concatenate(drawn)) for drawn in itertools.product(groups, repeat=3)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))))
    assert (found.n, found.method) == (3, CLUSTERED)


def test_width_is_that_of_the_variance_between_prompts() -> None:
    rng = np.random.default_rng(1)
    prompts, size = 200, 5
    values = np.repeat(rng.normal(size=prompts), size) + rng.normal(0, 0.5, prompts * size)
    means = values.reshape(prompts, size).mean(axis=1)
    expected = 2 * 1.959964 * means.std() / math.sqrt(prompts)
    assert _width(values.tolist(), np.repeat(np.arange(prompts), size).tolist()) == pytest.approx(expected, rel=0.04)


def test_planted_fault_pairs_of_a_prompt_taken_as_independent() -> None:
    """Six copies of each pair say no more than one; taken each for itself they would seem to."""
    once = [float(value) for value in np.random.default_rng(2).integers(0, 2, 60)]
    values = np.repeat(once, 6).tolist()
    alone = _width(once, list(range(60)))
    assert _width(values, np.repeat(np.arange(60), 6).tolist()) == pytest.approx(alone, rel=1e-9)
    assert _width(values, list(range(360))) < 0.5 * alone


def test_generator_is_explicit_and_any_number_of_blocks_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = np.random.default_rng(3).normal(size=(40, 2)), np.arange(40) // 4
    first, again = (clustered_intervals(values, clusters, rng=np.random.default_rng(5)) for _ in range(2))
    other = clustered_intervals(values, clusters, rng=np.random.default_rng(6))
    assert first == again != other
    monkeypatch.setattr("polobench.analysis.statistics.intervals._BLOCK", 70)
    assert clustered_intervals(values, clusters, rng=np.random.default_rng(5)) == first


@pytest.mark.parametrize(("values", "clusters"), [([1.0, 0.0], [3, 3]), ([math.inf, 0.0], [0, 1])])
def test_no_interval_of_one_prompt_or_infinite_values(values: list[float], clusters: list[int]) -> None:
    found = clustered_intervals(np.array(values)[:, None], np.array(clusters))[0]
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_accuracy_change_and_margin_by_hand() -> None:
    before = _columns([(0, -5.0, -4.0), (0, -3.0, -3.0), (1, -2.0, -6.0)])
    after = _columns([(0, -4.0, -9.0), (0, -3.0, -5.0), (1, -8.0, -7.0)])
    found = _summary(_run(before, after))
    assert [item.value for item in found.accuracy] == pytest.approx([1.5 / 3, 2 / 3, 0.5 / 3])
    assert found.margin.value == pytest.approx((6 + 2 - 5) / 3)
    assert found.chosen == pytest.approx((-10 / 3, -5.0))
    assert found.rejected == pytest.approx((-13 / 3, -7.0))
    assert (found.prompts, found.pairs, found.n, found.known, found.unchanged) == (2, 3, 1, 1, 0)
    change = found.accuracy[2].interval  # prompts of 2 and 1 pairs; drawn twice each: 0.75, -1, and both: 1/6
    assert (change.low, change.high) == pytest.approx(tuple(np.quantile([0.75, 1 / 6, 1 / 6, -1.0], (0.025, 0.975))))


def test_by_token_a_long_response_is_not_less_likely() -> None:
    columns = _columns([(0, -20.0, -15.0), (1, -20.0, -15.0)], tokens=(20, 10))
    found = _summary(_run(columns, columns))
    assert (found.accuracy[0].value, found.normalised_accuracy[0].value) == (0.0, 1.0)


def test_empty_responses_have_an_accuracy() -> None:
    columns = _columns([(0, 0.0, -1.0), (1, 0.0, 0.0)], tokens=(0, 0))
    assert _summary(_run(columns, columns)).normalised_accuracy[1].value == 0.75


def test_seeds_of_a_pair_are_averaged_first() -> None:
    """The same run under more seeds has the same interval: seeds are no further prompts."""
    rows = [(prompt, float(a), float(b)) for prompt, (a, b) in enumerate(np.random.default_rng(0).normal(size=(30, 2)))]
    one, four = (_summary(*(_run(_columns(rows), _columns(rows), seed) for seed in range(n))) for n in (1, 4))
    assert one.accuracy == four.accuracy
    assert (one.known, four.known, four.pairs, four.prompts) == (1, 4, 30, 30)


def test_failed_run_counts_as_before() -> None:
    before, after = _columns([(0, -5.0, -4.0), (1, -5.0, -4.0)]), _columns([(0, -3.0, -4.0), (1, -3.0, -4.0)])
    well, broken = _run(before, after), failed_language(_run(before, None, 1))
    found = _summary(well, broken)
    assert [item.value for item in found.accuracy] == [0.0, 0.5, 0.5]
    assert (found.n, found.known, found.unchanged) == (2, 2, 1)
    late = _run(before, after, 2)
    late.status = "timeout"  # it was asked, and failed later
    assert _summary(well, late).unchanged == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_numbers_that_are_not_finite(value: float) -> None:
    good, bad = _columns([(0, -3.0, -4.0), (1, -3.0, -4.0)]), _columns([(0, -3.0, -4.0), (1, value, -4.0)])
    found = _summary(_run(good, bad), _run(good, good, 1))
    assert (found.known, found.unchanged, found.accuracy[1].value) == (2, 1, 1.0)
    assert _summary(_run(bad, good), _run(good, good, 1)).known == 1
    assert summarize_pairs(Arm.of(_run(bad, good)), [_run(bad, good)], "heldout") is None


def test_figures_show_runs_with_both_moments_alone() -> None:
    runs = [make_language(seed=0), failed_language(make_language(seed=1))]
    pairs = pooled_pairs(runs, "heldout")
    assert pairs is not None
    assert pairs.chosen.shape == (90, 2)
    assert pooled_pairs(runs[1:], "heldout") is None


def test_metric_of_a_failed_run_is_as_it_began() -> None:
    well, broken = make_language(seed=0), failed_language(make_language(seed=1), at=0.5)
    found = metric_curve([broken], "heldout_kl")
    assert found is not None
    assert found.mean[found.x < 0.45 * 20_000].max() > 0
    assert (found.mean[found.x >= 10_000] == 0).all()
    both = metric_curve([well, broken], "heldout_kl")
    assert both is not None
    assert both.mean[-1] == pytest.approx(well.curve["heldout_kl"].iloc[-1] / 2)
    assert metric_curve([well], "absent") is None
