"""The ratio of two commits' seconds: known ratios, simulated error rates, and data that decide nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from polobench.ab import speed


def blocks_of(
    ratio: float, rng: np.random.Generator, pairs: int = 8, blocks: int = 3, noise: float = 0.03, spread: float = 0.01
) -> list[list[list[float]]]:
    """Seconds around 0.5: each side's log has the deviation `noise`, each block's log ratio `spread`."""
    shift = np.log(ratio) + spread * rng.normal(size=(blocks, 1))
    logs = np.log(0.5) + noise * rng.normal(size=(2, blocks, pairs))
    return np.stack([np.exp(logs[0]), np.exp(logs[1] + shift)], axis=-1).tolist()


@pytest.mark.parametrize(
    ("planted", "verdict"), [(1.25, speed.SLOWER), (1.0, speed.ALIKE), (1.03, speed.ALIKE), (0.7, speed.FASTER)]
)
def test_a_planted_ratio_is_found(planted: float, verdict: str) -> None:
    found = speed.ratio(blocks_of(planted, np.random.default_rng(0), pairs=25))
    assert found.value == pytest.approx(planted, rel=0.02)
    assert found.low < planted < found.high
    assert found.verdict == verdict
    assert (found.pairs, found.blocks) == (75, 3)


def test_bursts_on_single_iterations_move_nothing() -> None:
    blocks = blocks_of(1.0, np.random.default_rng(1), pairs=20)
    for block in blocks:
        block[3][1] *= 10
    assert speed.ratio(blocks).value == pytest.approx(1.0, rel=0.02)
    logs = [np.log(head / base) for block in blocks for base, head in block]
    assert np.mean(logs) > 0.1  # what an untrimmed mean says


def rate(planted: float, verdicts: Callable[[speed.Ratio], bool], simulations: int = 2000, **how: float) -> float:
    rng = np.random.default_rng(2026)
    return float(np.mean([verdicts(speed.ratio(blocks_of(planted, rng, **how))) for _ in range(simulations)]))  # type: ignore[arg-type]


def is_slower(found: speed.Ratio) -> bool:
    return found.verdict == speed.SLOWER


def test_no_false_alarm_where_processes_differ_twice_as_much_as_assumed() -> None:
    assert rate(1.0, is_slower, noise=0.05, spread=2 * speed.PROCESS_SPREAD) <= 0.001


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    assert rate(1.2, lambda found: not found.low <= 1.2 <= found.high, spread=speed.PROCESS_SPREAD) <= 0.004


def test_processes_that_differ_much_more_than_assumed_widen_the_interval() -> None:
    wide, narrow = (
        speed.ratio(blocks_of(1.0, np.random.default_rng(3), spread=spread)) for spread in (0.3, speed.PROCESS_SPREAD)
    )
    assert wide.detectable > 2 * narrow.detectable


def test_fifteen_percent_are_found() -> None:
    assert rate(1.15, is_slower, simulations=500) >= 0.9


def test_what_could_have_been_found_is_found_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    named = float(np.median([speed.ratio(blocks_of(1.0, rng)).detectable for _ in range(200)]))
    assert 0.8 <= rate(named, is_slower) <= 0.95


@pytest.mark.parametrize("blocks", [[[[1.0, 2.0]]], [[[1.0, 2.0]] * 9], [[[1.0, 2.0]] * 9, []]])
def test_one_block_decides_nothing(blocks: list[list[list[float]]]) -> None:
    found = speed.ratio(blocks)
    assert (found.low, found.high, found.verdict) == (0.0, float("inf"), speed.ALIKE)
    assert found.value == pytest.approx(2.0)
    assert found.detectable == float("inf")


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        speed.ratio([[]])


def test_a_part_too_short_to_time_is_not_judged_and_one_that_has_grown_out_of_it_is() -> None:
    assert speed.ratio([[[1e-6, 5e-5]] * 5] * 4).verdict == speed.SHORT
    assert speed.ratio([[[0.0, 0.0]] * 5] * 4).verdict == speed.SHORT
    assert speed.ratio([[[0.0, 0.1]] * 5] * 4).verdict == speed.SLOWER


@pytest.mark.parametrize(
    ("problems", "verdict", "regression"),
    [(("why", ""), speed.NEW, False), (("", "why"), speed.VANISHED, True), (("why", "why"), speed.ABSENT, False)],
)
def test_a_side_that_cannot_run_a_cell(problems: tuple[str, str], verdict: str, regression: bool) -> None:
    found = speed.cell_speed("cell", "CPU", {}, *problems)
    assert (found.verdict, found.regression, found.reason) == (verdict, regression, "why")


def test_one_slow_part_makes_the_cell_slow() -> None:
    rng = np.random.default_rng(5)
    parts = {"iteration": blocks_of(1.0, rng), "update": blocks_of(1.3, rng)}
    assert speed.cell_speed("cell", "CPU", parts, "", "").verdict == speed.SLOWER
    assert speed.cell_speed("cell", "CPU", {"iteration": blocks_of(0.7, rng)}, "", "").verdict == speed.FASTER
