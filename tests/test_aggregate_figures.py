"""Figures over tasks and of costs: the numbers behind them are known, and none is drawn without data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from synthetic import failed, make_result, save_all

from polobench.analysis.collection import Collection, collect
from polobench.analysis.overall import Comparable, comparables
from polobench.core.budget import LedgerTotals
from polobench.core.result import RunResult
from polobench.report.blocks import Table
from polobench.report.draw.arrivals import arrivals, draw_arrivals, has_reached
from polobench.report.draw.lines import Spot, place_labels
from polobench.report.draw.panels import MOST_COMPARED, Panel, compared, panels
from polobench.report.draw.style import looks
from polobench.report.findings import Findings
from polobench.report.sections.curves import costs, draw_costs, has_costs
from polobench.report.sections.diagnostics import arrival_sections
from polobench.report.sections.robustness import draw_profiles


def run(method: str, score: float, seed: int, samples: float | None = None, **changes: object) -> RunResult:
    """A run on CartPole-v1 with that final score, which reached the target after so many samples."""
    result = make_result(method, seed=seed, **changes)
    assert result.target is not None
    result.final_score = score
    result.final_return = result.floor + score * (result.target - result.floor)
    result.time_to_target = {"samples": samples, "wall_seconds": samples, "cpu_seconds": samples}
    return result


def store(folder: Path, scores: dict[str, Sequence[float]], **changes: object) -> Collection:
    runs = [run(method, score, seed, **changes) for method, found in scores.items() for seed, score in enumerate(found)]
    return collect(save_all(folder, *runs))


def only_group(collection: Collection) -> Comparable:
    (group,) = compared(comparables(collection))
    return group


def only_panel(collection: Collection) -> Panel:
    (panel,) = panels(collection)
    return panel


def test_profile_is_the_share_of_runs_above(tmp_path: Path) -> None:
    found = store(tmp_path, {"ppo": [0.2, 0.4, 0.6, 1.0], "trpo": [0.0, 0.0, 0.5, 0.5]})
    (ax,) = draw_profiles([only_group(found)], looks(found.labels)).axes
    ppo, trpo = ax.lines[:2]
    x, y = (np.asarray(values, float) for values in ppo.get_data())
    assert [y[np.searchsorted(x, at)] for at in (0.0, 0.3, 0.5, 0.7, 1.01)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert np.asarray(trpo.get_ydata(), float)[0] == 0.5  # runs at the floor are not above it
    assert "n = 4" in ax.get_title()


def test_share_at_the_target_over_samples(tmp_path: Path) -> None:
    runs = [run("ppo", 1.0, 0, 10_000.0), run("ppo", 1.0, 1, 20_000.0), run("ppo", 0.5, 2), run("ppo", 1.0, 3, 5_000.0)]
    failed(runs[3])  # it had been there, but ended badly: never, and at risk until the budget's end
    found = collect(save_all(tmp_path, *runs))
    panel = only_panel(found)
    curve = arrivals(panel)["ppo"]
    shares = dict(zip(curve.times.tolist(), curve.reached_share.tolist(), strict=True))
    assert shares == pytest.approx({0.0: 0.0, 10_000.0: 0.25, 20_000.0: 0.5, 50_000.0: 0.5})
    line = draw_arrivals([panel], looks(found.labels)).axes[0].lines[-1]
    assert (np.asarray(line.get_xdata())[-1], np.asarray(line.get_ydata())[-1]) == (50_000, pytest.approx(0.5))


def test_cost_is_of_a_thousand_samples(tmp_path: Path) -> None:
    runs = [run("ppo", score, seed) for seed, score in enumerate((0.6, 1.0, 0.2))]
    for seconds, result in zip((10.0, 30.0, 0.0), runs, strict=True):
        samples = 0 if seconds == 0 else 50_000
        result.ledger = LedgerTotals(samples=samples, wall_seconds=99.0, cpu_seconds=seconds)
    failed_early = runs[2]
    failed_early.status = "failed"
    failed_early.score_as_failed()
    lowest = failed_early.final_score
    assert lowest is not None
    assert lowest < 0  # its lowest evaluation lies below the floor
    found = collect(save_all(tmp_path, *runs))
    panel = only_panel(found)
    cost, score = costs(panel, panel.arms[0][1])
    np.testing.assert_allclose(cost, [0.2, 0.6, np.nan])
    np.testing.assert_allclose(score, [0.6, 1.0, lowest])
    middle = draw_costs([panel], looks(found.labels)).axes[0].lines[-1]
    assert np.asarray(middle.get_xdata())[0] == pytest.approx(0.4)
    assert np.asarray(middle.get_ydata())[0] == pytest.approx((1.6 + lowest) / 3)  # the failed run counts


@pytest.mark.parametrize("ratio", [1.0, 20.0, 43.0, 45.0, 300.0])
@pytest.mark.parametrize("seconds", [1.0, 3.3, 4.9, 7.0, 9.9])
def test_the_axis_of_costs_has_two_round_ticks_at_least(tmp_path: Path, seconds: float, ratio: float) -> None:
    runs = [run("ppo", 1.0, 0), run("trpo", 1.0, 0)]
    for cost, result in zip((seconds, ratio * seconds), runs, strict=True):
        result.ledger = LedgerTotals(samples=1000, wall_seconds=99.0, cpu_seconds=cost)
    found = collect(save_all(tmp_path, *runs))
    (ax,) = draw_costs([only_panel(found)], looks(found.labels)).axes
    axis = ax.xaxis
    low, high = ax.get_xlim()
    shown = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
    assert 2 <= len(shown) <= 7
    assert {float(f"{tick:e}"[0]) for tick in shown} <= {1.0, 2.0, 5.0}


def test_an_accelerators_cost_is_no_cpu_time(tmp_path: Path) -> None:
    result = run("ppo", 1.0, 0, device="cuda")
    result.ledger = LedgerTotals(samples=1000, wall_seconds=2.0, cpu_seconds=0.1)
    panel = only_panel(collect(save_all(tmp_path, result)))
    assert costs(panel, panel.arms[0][1])[0].tolist() == [2.0]


def test_a_label_has_one_colour_in_all_figures(tmp_path: Path) -> None:
    found = store(tmp_path, {"dpo": [0.5, 0.6], "ppo": [0.9, 1.0], "trpo": [0.1, 0.2]}, samples=9_000.0)
    look, panel, group = looks(found.labels), only_panel(found), only_group(found)
    assert _colours(draw_profiles([group], look), 3) == [look[label].colour for label in ("online dpo", "ppo", "trpo")]
    arrived = draw_arrivals([panel], look).axes
    assert [ax.lines[-1].get_color() for ax in arrived] == [
        look[label].colour for label in ("online dpo", "ppo", "trpo")
    ]
    twice = ("online dpo", "online dpo", "ppo", "ppo", "trpo", "trpo")
    assert _colours(draw_costs([panel], look), 6) == [look[label].colour for label in twice]


def _colours(figure: Figure, count: int) -> list[object]:
    return [line.get_color() for line in figure.axes[0].lines[:count]]


def test_nothing_is_compared_without_data(tmp_path: Path) -> None:
    alone = store(tmp_path / "alone", {"ppo": [0.5, 0.6]})
    single = store(tmp_path / "single", {"ppo": [0.5], "trpo": [0.6]})
    many = store(tmp_path / "many", {f"method {index}": [0.5, 0.6] for index in range(MOST_COMPARED + 1)}, samples=9.0)
    for found in (alone, single, many):
        assert compared(comparables(found)) == []
    assert not has_reached(only_panel(alone))  # nobody did
    assert not has_reached(only_panel(many))
    assert not has_costs(only_panel(many))
    nothing = failed(make_result())
    nothing.ledger = LedgerTotals()
    assert not has_costs(only_panel(collect(save_all(tmp_path / "nothing", nothing))))


def test_names_of_near_points_do_not_overlap() -> None:
    figure = Figure(figsize=(4.6, 3.5))
    ax = figure.add_subplot()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    spots = [Spot(0.5, 0.5 + 0.01 * index, f"method {index}", (0.0, 0.0, 0.0), np.empty((0, 2))) for index in range(4)]
    place_labels(ax, spots, (4.6, 3.5))
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in ax.texts]
    assert not any(one.overlaps(two) for index, one in enumerate(boxes) for two in boxes[:index])


def test_who_never_got_there_counts_as_the_whole_budget(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(4)]
    for run, samples in zip(runs, (10_000.0, 20_000.0, None, 30_000.0), strict=True):
        run.time_to_target = {"samples": samples}
    runs[3].status = "failed"  # it had been there before
    (section,) = arrival_sections(Findings(collect(save_all(tmp_path, *runs))))
    (row,) = section.tables["time_to_target"].to_dict("records")
    assert (row["n"], row["reached"]) == (4, 2)
    assert row["mean"] == pytest.approx((10_000 + 20_000 + 50_000 + 50_000) / 4)
    assert row["interval_low"] < row["mean"] < row["interval_high"] <= 50_000
    (shown,) = next(block for block in section.blocks if isinstance(block, Table)).rows
    assert shown[-2] == "2/4"
    assert str(shown[-1]).startswith("32,500 [")


def test_a_built_in_method_looks_the_same_whoever_else_is_there() -> None:
    alone, among = looks(["ppo"])["ppo"], looks(["another", "dpo", "grpo", "mine", "ppo"])
    assert among["ppo"] == alone
    assert len({(look.colour, str(look.dashes)) for look in among.values()}) == 5
