"""What a report of many cells must not do twice, and that each shortcut says what the long way says.

Nothing here measures time: calls are counted, and shortcuts are compared with what they stand for.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from synthetic import SKILLS, WORLDS, make_result, save_all

from polobench.analysis import collection as collection_module
from polobench.analysis import measures, summary
from polobench.analysis.collection import Arm, Collection, collect
from polobench.analysis.columns import column
from polobench.analysis.statistics import survival
from polobench.analysis.statistics.hypothesis import DRAWS, difference, permutation_p
from polobench.analysis.statistics.intervals import resample_counts
from polobench.report.draw.panels import panels
from polobench.report.draw.style import DPI, grid_of_axes, looks, save, styled
from polobench.report.page import write_report
from polobench.report.sections import diagnostics as update_figures
from polobench.report.sections.diagnostics import draw_updates
from polobench.store.folder import Store

LONG = "a label that is much longer than its panel would like"


class Counter:
    """Counts the calls of a function that it passes on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return self.function(*arguments, **named)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    runs = [make_result(method, task, seed) for method in SKILLS for task in WORLDS for seed in range(3)]
    return collect(save_all(tmp_path_factory.mktemp("work") / "store", *runs))


@pytest.fixture
def collecting() -> Iterator[None]:
    """Whatever a test does, cycles are collected again after it."""
    yield
    gc.enable()


def test_numbers_of_a_run_are_made_once_a_report(
    monkeypatch: pytest.MonkeyPatch, found: Collection, tmp_path: Path
) -> None:
    scores = Counter(measures.scores)
    interval = Counter(survival.restricted_mean)
    summarized = Counter(summary.summarize)
    monkeypatch.setattr(measures, "scores", scores)
    monkeypatch.setattr(survival, "restricted_mean", interval)
    monkeypatch.setattr(summary, "summarize", summarized)
    write_report(found, tmp_path)
    judged = [run for run in found.cells if run.label != "random"]  # no claim is about it
    assert scores.calls == len(judged)
    assert interval.calls == summarized.calls == len(found.arms)


def test_a_figure_is_drawn_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted = Counter(Figure.draw)
    monkeypatch.setattr(Figure, "draw", lambda *arguments: counted(*arguments))
    with styled():
        figure, _ = grid_of_axes(2, 2, (3.0, 2.0))
        save(figure, tmp_path / "figure.png")
    assert counted.calls == 1


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"samples": [1.0, 2.0], "loss": [0.5, np.nan]}),
        pd.DataFrame({"samples": [1, 2], "loss": [0.5, np.inf]}),
        pd.DataFrame({"samples": [1, 2], "loss": [3, 4]}),
        pd.DataFrame({"samples": ["a", "b"], "loss": [0.5, None]}),
    ],
    ids=["floats", "infinite", "integers", "texts and objects"],
)
def test_a_column_is_that_of_pandas(table: pd.DataFrame) -> None:
    np.testing.assert_array_equal(column(table, "loss"), table["loss"].to_numpy(np.float64))
    with pytest.raises(KeyError):
        column(table, "kl")


@pytest.mark.usefixtures("collecting")
def test_cycles_are_looked_for_again_after_reading(found: Collection, tmp_path: Path) -> None:
    seen = []
    store = Store(save_all(tmp_path, *found.cells[:2]))
    collect(store, lambda *_: seen.append(gc.isenabled()))
    assert seen == [False, False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        collect(store, lambda *_: 1 / 0)
    assert gc.isenabled()
    gc.disable()
    collect(store)
    assert not gc.isenabled(), "whoever had it off finds it off"


def test_trimming_leaves_the_table_that_is_reported(found: Collection) -> None:
    run = make_result()
    plain = run.to_dict()
    collection_module._trim(plain)
    assert plain["curve"] == run.to_dict()["curve"]
    assert list(plain["updates"]) == ["samples", "loss", "kl"]


def test_shared_arrangements_are_those_drawn_alone() -> None:
    rng = np.random.default_rng(5)
    strata = [(rng.normal(0.4, 1, 12), rng.normal(0, 1, 15)), (rng.normal(0.4, 1, 14), rng.normal(0, 1, 12))]
    others = [(y, x) for x, y in strata]
    first = permutation_p(strata)
    permutation_p(others)
    permutation_p(strata[:1])
    assert permutation_p(strata) == first
    alone, total = np.random.default_rng(0), np.zeros(DRAWS)
    for x, y in strata:
        pooled = np.concatenate((x, y))
        chosen = alone.random((DRAWS, len(pooled))).argsort(axis=1)[:, : len(x)]
        sums = pooled[chosen].sum(axis=1)
        total += (sums / len(x) - (pooled.sum() - sums) / len(y)) / len(strata)
    count = int((np.abs(total) >= abs(difference(strata)) - 1e-12).sum())
    assert first == (1 + count) / (1 + DRAWS)


def test_order_of_cells_is_that_of_their_arms(tmp_path: Path) -> None:
    """With an older run of the same arm and seed, whose cell id comes later."""
    runs = [make_result(method, task, seed) for seed in (10, 9) for task in WORLDS for method in ("trpo", "ppo")]
    older = make_result("ppo", seed=9, hyperparameters={"gamma": 0.5}, started_at="2024-01-01T00:00:00+00:00")
    older.cell_id = "f" * 20
    found = collect(save_all(tmp_path, *runs, older))
    keys = [(Arm.of(run), run.seed, run.cell_id) for run in found.cells]
    assert keys == sorted(keys)
    assert (len(found.cells), found.older_settings) == (13, 1)
    kept = [run for runs in found.arms.values() for run in runs]
    assert [run.cell_id for run in kept] == [run.cell_id for run in found.cells if run.cell_id != older.cell_id]
    assert list(found.arms) == sorted(found.arms)


def test_shared_resamples_cannot_be_written_to() -> None:
    counts = resample_counts(7, 50, 0)
    assert (counts.sum(axis=1) == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        counts[0, 0] = 1


def test_quantiles_are_of_the_runs_still_going() -> None:
    nan = np.nan
    curves = np.array([[1.0, nan, 3.0, nan], [2.0, 5.0, nan, nan], [9.0, nan, 4.0, 7.0], [4.0, 6.0, 8.0, nan]])
    grid, found = update_figures._quantiles(np.arange(4.0), curves)
    assert grid.tolist() == [0.0, 1.0, 2.0], "one of four is no half"
    assert found == pytest.approx(np.array([[1.15, 5.05, 3.1], [3, 5.5, 4], [8.25, 5.95, 7.6]]))


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(1, ["one run"]), (4, ["median", "middle 90 % of runs"]), (41, ["median", "middle 90 % of runs"])],
    ids=["one run", "some runs", "many runs"],
)
@pytest.mark.parametrize("metric", ["loss", "kl"])
def test_runs_are_a_median_and_a_band_however_many_they_are(
    metric: str, seeds: int, said: list[str], tmp_path: Path
) -> None:
    runs = [make_result(seed=seed) for seed in range(seeds)]
    (panel,) = panels(collect(save_all(tmp_path, *runs)))
    figure = draw_updates(panel, looks(["ppo"]), metric)
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == said
    assert (len(figure.axes[0].lines), len(figure.axes[0].collections)) == (1, 1)
    bottom, top = figure.axes[0].get_ylim()
    middle = np.median([run.updates[metric].median() for run in runs])
    assert bottom < middle < top


def test_a_failed_run_is_marked_where_its_last_kl_above_0_was(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(3)]
    runs[0].status = "failed"
    runs[0].updates.loc[runs[0].updates.index[-1], "kl"] = 0.0
    (panel,) = panels(collect(save_all(tmp_path, *runs)))
    figure = draw_updates(panel, looks(["ppo"]), "kl")
    assert figure is not None
    (cross,) = (line for line in figure.axes[0].lines if line.get_marker() == "X")
    assert cross.get_ydata() == [runs[0].updates["kl"].iloc[-2]]


@pytest.mark.parametrize("metric", ["loss", "kl"])
def test_the_first_panel_of_each_row_names_the_axis(metric: str, tmp_path: Path) -> None:
    """Five panels stand three and two, though four would fit beside each other."""
    methods = ["dpo", "grpo", "ppo", "reinforce", "trpo"]
    found = collect(save_all(tmp_path, *map(make_result, methods)))
    (panel,) = panels(found)
    figure = draw_updates(panel, looks(found.labels), metric)
    assert figure is not None
    named = [bool(ax.get_ylabel()) for ax in figure.axes]
    assert named == [True, False, False, True, False]
    if metric == "kl":
        assert [ax.yaxis.get_tick_params()["labelleft"] for ax in figure.axes] == named


def labelled(panels: int, columns: int) -> tuple[Figure, Any]:
    """A figure with much to write beside, above and below its panels."""
    figure, axes = grid_of_axes(panels, columns, (4.0, 2.6))
    for index, ax in enumerate(axes):
        ax.plot([0, 1e6], [1e-7 * index, 3e8 if index == 1 else 2e-7])
        ax.set_title(f"panel {index}")
        ax.set_xlabel("samples")
        ax.set_ylabel("held-out return")
        ax.annotate("beside", (1.01, 0.5), xycoords="axes fraction", annotation_clip=False)
    axes[0].set_yticks([0.0, 1e-7], ["a long name of a method", "another"])
    figure.suptitle("a task\nand a second line")
    figure.set_figheight(figure.get_figheight() + 0.23)  # of the second row
    figure.legend([Line2D([], []), Line2D([], [])], [LONG[:32], "ppo"], loc="outside lower center")
    return figure, FigureCanvasAgg(figure)


def covered(figure: Figure, renderer: Any) -> bool:
    """Whether something is cut off, or lies on something else."""
    boxes = [ax.get_tightbbox(renderer, for_layout_only=True) for ax in figure.axes]
    boxes += [item.get_window_extent(renderer) for item in (*figure.legends, *figure.texts)]
    width, height = figure.bbox.width, figure.bbox.height
    inside = all(box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1 for box in boxes)
    pairs = [(one, two) for index, one in enumerate(boxes) for two in boxes[index + 1 :]]
    return not inside or any(min(one.x1, two.x1) - max(one.x0, two.x0) > 1
                             and min(one.y1, two.y1) - max(one.y0, two.y0) > 1 for one, two in pairs)  # fmt: skip


@pytest.mark.parametrize(("panels", "columns"), [(1, 1), (2, 2), (5, 3), (7, 4)])
def test_panels_stand_clear_of_each_other_and_are_alike(panels: int, columns: int) -> None:
    with styled():
        figure, canvas = labelled(max(2, panels), columns)
        assert covered(figure, canvas.get_renderer()), "the fault: where matplotlib puts them without a layout"
        canvas.draw()
        assert not covered(figure, canvas.get_renderer())
    sizes = np.array([ax.get_position().size for ax in figure.axes])
    assert np.ptp(sizes, axis=0) == pytest.approx([0, 0], abs=1e-3)
    assert (sizes * figure.bbox.size > 0.5 * DPI).all()
