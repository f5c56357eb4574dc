"""What every figure keeps: one colour per method, at most seven lines per panel, names that cover nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import make_language, make_result, make_throughput, noise_cell, save_all, with_id

from polobench.analysis.collection import Collection, collect
from polobench.analysis.summary import gradient_noises, moves, throughputs
from polobench.core.result import RunResult
from polobench.report import page
from polobench.report.draw import style
from polobench.report.draw.dots import _draw_moments, draw_noise
from polobench.report.draw.lines import _apart
from polobench.report.draw.panels import LEADING, MOST_LINES, SEVERAL, by_task, merged, panels, parts_of, with_curves
from polobench.report.draw.style import looks, natural, styled
from polobench.report.page import write_report
from polobench.report.sections.diagnostics import draw_losses, draw_updates
from polobench.report.sections.throughput import draw_throughput

BUILT_IN = ("dpo", "grpo", "ppo", "reinforce", "trpo", "ranking", "random")
VARIANTS = (
    *((f"grpo, {count} responses", "grpo") for count in (2, 4, 8, 16)),
    *((f"ranking, {count} responses", "ranking") for count in (2, 4, 8, 16)),
    ("ranking, 8 responses, no KL to the reference", "ranking"),
    ("dpo, 2 responses", "dpo"),
)


def variant(label: str, method: str, seed: int, **changes: Any) -> RunResult:
    return with_id(make_language(method, seed=seed, label=label, **changes))


class Laid:
    """The figures of a store's report after they were laid out, by file."""

    def __init__(self, store: Collection, folder: Path) -> None:
        self.figures: dict[str, Figure] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(page, "save", self._save)
            write_report(store, folder)

    def _save(self, figure: Figure, path: Path, save: Callable[[Figure, Path], None] = style.save) -> None:
        self.figures.setdefault(path.name, figure)  # of a name that stands in several cards, the first page's
        save(figure, path)

    def axes(self, *kinds: str) -> Iterator[tuple[str, Axes]]:
        for name, figure in self.figures.items():
            if not kinds or name.startswith(kinds):
                yield from ((name, ax) for ax in figure.axes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Ten variants of three methods on one task, five methods and a plug-in on another, a lone arm of each budget."""
    runs = [variant(label, method, seed) for label, method in VARIANTS for seed in range(2)]
    runs += [make_result(method, seed=seed) for method in (*BUILT_IN[:5], "mine") for seed in range(2)]
    runs += [make_result("ppo", "Pendulum-v1", seed, budget) for budget in (20_000, 48_123) for seed in range(2)]
    runs += [make_throughput(method) for method in ("ppo", "trpo")]
    return collect(save_all(tmp_path_factory.mktemp("figures"), *runs))


@pytest.fixture(scope="module")
def laid(store: Collection, tmp_path_factory: pytest.TempPathFactory) -> Laid:
    return Laid(store, tmp_path_factory.mktemp("drawn"))


def thick(ax: Axes) -> list[Any]:
    """The lines of methods."""
    return [line for line in ax.lines if line.get_linewidth() == 2]


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_method_has_its_colour_in_every_subset(size: int) -> None:
    every = looks(BUILT_IN)
    assert len({look.colour for look in every.values()}) == len(BUILT_IN)
    for some in combinations(("article-ppo", *BUILT_IN, "a plug-in"), size):
        found = looks(some)
        assert all(found[label] == every[label] for label in some if label in every)


def test_variants_share_the_colour_and_differ_in_dashes() -> None:
    found = looks(["mine", "article-grpo", "grpo", *(label for label, _ in VARIANTS), "tuned"], {"tuned": "grpo"})
    family = [look for look in found.values() if look.family == "grpo"]
    assert len(family) == 7
    assert {look.colour for look in family} == {looks(["grpo"])["grpo"].colour}
    assert len({str(look.dashes) for look in family}) == 7


def test_who_comes_later_changes_no_look() -> None:
    names = [f"plug-in {index}" for index in range(20)]
    assert all(looks(names)[name] == looks(names[:7])[name] for name in names[:7])
    assert len({(look.colour, str(look.dashes)) for look in looks(names).values()}) == 20


def test_every_figure_shows_a_label_in_its_colour(store: Collection, laid: Laid) -> None:
    colours = {look.colour for look in looks(store.labels).values()}
    kinds = ("returns", "profiles", "policy", "time", "loss_", "kl_")
    shown = [line.get_color() for _, ax in laid.axes(*kinds) for line in thick(ax)]
    assert shown
    assert {to_rgb(colour) for colour in shown} <= colours
    names = {
        (text.get_text().replace("\n", " "), text.get_color())
        for _, ax in laid.axes("returns", "policy", "accuracy")
        for text in ax.texts if text.get_text().replace("\n", " ") in {*BUILT_IN, "online dpo"}
    }  # fmt: skip
    assert len(names) == len({name for name, _ in names}) == 5


def test_no_panel_has_more_than_seven_lines(laid: Laid) -> None:
    counts = {name: len(thick(ax)) for name, ax in laid.axes("returns", "profiles", "policy", "accuracy")}
    assert max(counts.values()) <= MOST_LINES
    parts = [ax.get_title() for _, ax in laid.axes("returns_over_samples") if "summaries" in ax.get_title()]
    assert [part.partition(":")[0] for part in parts] == ["dpo, grpo", "ranking"]


@pytest.mark.parametrize("count", [1, 7, 8, 15, 40])
def test_parts_hold_everything_once(count: int) -> None:
    items = [f"method {index}" for index in range(count)]
    parts = parts_of(items, lambda item: (item, item))
    assert [item for _, part in parts for item in part] == items
    assert max(len(part) for _, part in parts) <= MOST_LINES
    assert len(parts) == -(-count // MOST_LINES)


def test_the_arms_of_a_leaderboard_are_the_first_part_where_they_fit_into_one(tmp_path: Path) -> None:
    labels = [f"ppo {index}" for index in range(9)]
    store = collect(save_all(tmp_path, *(make_result("ppo", label=label) for label in labels)))
    found = {
        len(leading): [(panel.part, [arm.label for arm, _ in panel.arms]) for panel in with_curves(
            panels(store), looks(store.labels), leading
        )]
        for leading in ([], labels[3:5], labels[:8])
    }  # fmt: skip
    assert found[2] == [(LEADING, labels[3:5]), ("others", labels[:3] + labels[5:])]
    assert found[0] == found[8]
    assert [len(arms) for _, arms in found[0]] == [5, 4]


def test_parts_of_one_task_share_their_scale(laid: Laid) -> None:
    limits = {ax.get_ylim() for _, ax in laid.axes("returns_over_samples") if "summaries" in ax.get_title()}
    assert len(limits) == 1


def test_titles_lie_inside_the_figure_and_beside_each_other(laid: Laid) -> None:
    assert len(laid.figures) > 12
    for name, figure in laid.figures.items():
        texts = [*(ax.title for ax in figure.axes), *figure.texts]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= 0, (name, text.get_text())
            assert box.x1 <= figure.bbox.width, (name, text.get_text())
            assert "…" not in text.get_text(), (name, text.get_text())
        boxes = [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
        assert not any(one.overlaps(two) for one, two in combinations(boxes, 2)), name


def test_names_at_the_ends_of_lines_cover_nothing(laid: Laid) -> None:
    named = 0
    for name, ax in laid.axes("returns", "policy", "accuracy"):
        boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the point
        named += len(boxes)
        for one, two in combinations(boxes, 2):
            height = min(one.y1, two.y1) - max(one.y0, two.y0)
            assert height < 3 or min(one.x1, two.x1) < max(one.x0, two.x0), name  # pixels: letters have no such edges
        assert all(box.x1 <= ax.figure.bbox.width for box in boxes), name
    assert named > 20


@pytest.mark.parametrize(
    ("wanted", "sizes", "places"),
    [
        ([0.2, 0.6], [0.1, 0.1], [0.2, 0.6]),
        ([0.5, 0.5], [0.1, 0.1], [0.45, 0.55]),
        ([0.0, 0.0], [0.1, 0.1], [0.05, 0.15]),
        ([1.0, 1.0, 1.0], [0.1, 0.2, 0.1], [0.65, 0.8, 0.95]),
        ([], [], []),
    ],
    ids=["apart", "pushed both ways", "at the bottom", "at the top", "none"],
)
def test_names_are_as_near_to_their_lines_as_they_fit(
    wanted: list[float], sizes: list[float], places: list[float]
) -> None:
    assert _apart(np.array(wanted), np.array(sizes)) == pytest.approx(places)


def test_losses_of_rounding_errors_have_no_panel(tmp_path: Path) -> None:
    runs = [make_result("grpo", seed=seed) for seed in range(2)]
    for run in runs:
        run.updates["loss"] = 1e-8 * np.random.default_rng(run.seed).normal(size=len(run.updates))
        run.loss_convergence = {"start": 1e-8, "end": -2e-8, "samples": 10.0}
    found = collect(save_all(tmp_path / "noise", *runs))
    (panel,) = panels(found)
    look = looks(found.labels)
    assert draw_losses(panel, look) is None
    assert draw_updates(panel, look, "loss") is None
    assert draw_updates(panel, look, "kl") is not None
    runs[0].updates.loc[0, "loss"] = 1e-3
    (panel,) = panels(collect(save_all(tmp_path / "moves", *runs)))
    assert draw_losses(panel, look) is not None
    assert draw_updates(panel, look, "loss") is not None


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.0], False), ([0.6931472, 0.6931473], False), ([1e5, 1e5 + 0.01], False), ([0.0, 1e-5], True),
     ([3.0, np.inf], True), ([np.inf, np.inf], False), ([1e5, 1e5 + 1], True)],
)  # fmt: skip
def test_a_loss_moves_by_more_than_single_precision(values: list[float], expected: bool) -> None:
    assert moves(np.array(values)) is expected


@pytest.mark.parametrize(("cells", "bars"), [(1, 0), (3, 3)], ids=["one cell", "three cells"])
def test_one_cell_has_no_interval(cells: int, bars: int, tmp_path: Path) -> None:
    runs = [make_throughput(method, seed=seed) for method in ("dpo", "ppo", "trpo") for seed in range(cells)]
    found = collect(save_all(tmp_path, *runs))
    speed = draw_throughput(throughputs(found), looks(found.labels)).axes[0]
    assert len([item for item in speed.containers if "Errorbar" in type(item).__name__]) == bars
    assert ("interval" in speed.get_xlabel()) is bool(bars)


def test_gradient_noise_has_one_scale_and_a_dot_for_each_stage(tmp_path: Path) -> None:
    runs = [noise_cell("ppo", 3.0, seed, stage) for seed in range(3) for stage in (0.0, 0.5, 1.0)]
    runs += [noise_cell("trpo", 0.01, seed) for seed in range(3)]
    for run in runs[9:]:
        run.task = "Pendulum-v1"
        run.gradient_noise["snr"] = 0.1 * (run.seed - 1)
    found = collect(save_all(tmp_path, *map(with_id, runs)))
    items = gradient_noises(found)
    assert [(item.n, item.stage) for item in items] == [(3, 0.0), (3, 0.5), (3, 1.0), (3, 0.0)]
    with styled():
        figure = draw_noise(by_task(items), looks(found.labels))
    clear, hidden = figure.axes
    assert clear.get_ylim() == hidden.get_ylim()
    assert clear.get_ylim()[0] > 0
    assert [label.get_text() for label in clear.get_xticklabels()] == ["0", "0.5", "1"]
    (line,) = [line for line in clear.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert np.diff(line.get_xdata()) == pytest.approx([0.5, 0.5])
    assert line.get_ydata() == pytest.approx([item.snr for item in items[:3]])
    arrows = [len(ax.collections[-1].get_offsets()) for ax in (clear, hidden)]
    assert arrows == [0, 1], "where the interval goes on to 0 or below"
    named = [{text.get_text() for text in ax.texts} for ax in (clear, hidden)]
    assert named == [{"ppo", "signal = noise"}, {"trpo", "signal = noise"}]
    assert not figure.legends


def test_equal_accuracies_are_one_panel_on_their_own_scale(tmp_path: Path) -> None:
    runs = [make_language("grpo", seed=seed) for seed in range(2)]
    for run in runs:
        run.curve["heldout_accuracy"] = np.linspace(0.98, 1, len(run.curve))
        run.curve["heldout_accuracy_normalised"] = run.curve["heldout_accuracy"]
    laid = Laid(collect(save_all(tmp_path / "same", *runs)), tmp_path)
    ((_, ax),) = laid.axes("accuracy")
    assert ax.get_ylim()[0] > 0.97
    for run in runs:
        run.curve["heldout_accuracy_normalised"] -= 0.4
    laid = Laid(collect(save_all(tmp_path / "two", *runs)), tmp_path)
    assert [ax.get_title() for _, ax in laid.axes("accuracy")] == ["held-out pairs", "held-out pairs, per token"]
    assert any(text.get_text() == "chance" for _, ax in laid.axes("accuracy") for text in ax.texts)


def test_lone_panels_of_a_task_are_one(store: Collection, laid: Laid) -> None:
    look = looks(store.labels)
    (panel,) = (panel for panel in merged(panels(store), 8) if panel.task == "Pendulum-v1")
    assert panel.budget == SEVERAL
    assert [panel.name(arm) for arm, _ in panel.arms] == ["ppo, 20k", "ppo, 48.1k"]
    assert len(with_curves([panel], look, ())) == 1
    assert [len(panel.arms) for panel in merged(panels(store), 1)] == [len(panel.arms) for panel in panels(store)]
    assert sum("Pendulum" in name for name in laid.figures) == 2, "loss and KL, both budgets"


def test_margins_are_quantiles_before_and_after() -> None:
    ascending = np.linspace(0, 100, 101)
    _, (ax,) = style.grid_of_axes(1, 1, (4.0, 2.0))
    ends = _draw_moments(ax, 2, np.column_stack([ascending, ascending - 7]), (0, 0, 0))
    assert ends == [5, 95, -2, 88]
    spans = [line.get_segments()[0] for line in ax.collections]
    assert [span[:, 0].tolist() for span in spans] == [[5, 95], [25, 75], [-2, 88], [18, 68]]
    before, after = ax.lines
    assert (before.get_xdata()[0], before.get_markerfacecolor()) == (50, "white")
    assert (after.get_xdata()[0], after.get_markerfacecolor()) == (43, (0, 0, 0))
    assert before.get_ydata()[0] < 2 < after.get_ydata()[0]


def test_numbers_in_labels_sort_as_numbers() -> None:
    labels = ["grpo, 16", "grpo", "grpo, 2", "x10y2", "x9"]
    assert sorted(labels, key=natural) == ["grpo", "grpo, 2", "grpo, 16", "x9", "x10y2"]
