"""The report's first page: the verdict first, then what could flip it, each from numbers alone, on few lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from synthetic import (
    LANGUAGE_METHODS,
    WORLDS,
    failed,
    make_language,
    make_result,
    make_throughput,
    noise_cell,
    report_pages,
    report_text,
    save_all,
    with_id,
)
from typer.testing import CliRunner

from polobench.analysis.collection import Collection, collect
from polobench.analysis.overall import USE_CASES, comparables, horizons, overall, standings
from polobench.analysis.statistics.aggregates import mean_score, tail_score
from polobench.analysis.statistics.hypothesis import (
    CEILING,
    EQUIVALENT,
    OPEN,
    SEPARATED,
    against_best,
    permutation_p,
    permutation_p_of,
)
from polobench.cli import app
from polobench.core.budget import LedgerTotals
from polobench.core.result import RunResult
from polobench.report import page as page_module
from polobench.report.blocks import Figure, Paragraph, Section, Table
from polobench.report.draw.dots import draw_passes
from polobench.report.findings import Findings
from polobench.report.formatting import p_text
from polobench.report.markdown import render
from polobench.report.page import pages, verdict_text
from polobench.report.sections import leaderboard, task_cards, verdict
from polobench.report.sections.claims import summary, tables_of
from polobench.report.words import budget_words, glossary

METHODS = ("reinforce", "trpo", "ppo")
FIVE = ("dpo", "grpo", "ppo", "reinforce", "trpo")
ORDER = [
    "Verdict", "What could flip it", "Leaderboard", "Curves and cost", "Robustness", "The article's ratings", "Details",
]  # fmt: skip


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def of_scores(method: str, scores: list[float], task: str = "CartPole-v1") -> list[RunResult]:
    """Runs with these final scores; floor 0 and target 1."""
    return [
        with_id(make_result(method, task, seed, floor=0.0, target=1.0, final_return=score, final_score=score))
        for seed, score in enumerate(scores)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = [make_result(method, task, seed) for method in METHODS for task in WORLDS for seed in range(5)]
    failed(results[0])
    noises = [noise_cell(method, signal) for method, signal in (("reinforce", 0.5), ("trpo", 6.0), ("ppo", 3.0))]
    return save_all(tmp_path_factory.mktemp("first") / "matrix", *results, *noises)


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return collect(folder)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Every kind of cell: five methods on three control tasks and two language tasks, variants, failures, speeds."""
    runs = [make_result(method, task, seed) for method in FIVE for task in WORLDS for seed in range(5)]
    runs += [make_language(method, "summaries", seed, pairs=12) for method in LANGUAGE_METHODS for seed in range(5)]
    for size in (2, 4, 8, 16):
        for method in ("grpo", "ranking", "dpo"):
            label = f"{method}, {size} responses"
            variants = [make_language(method, "digits", seed, pairs=12, label=label) for seed in range(5)]
            runs += [with_id(run) for run in variants]
    runs += [make_throughput(method, task) for method in FIVE for task in WORLDS]
    runs += [noise_cell(method, 2.0, stage=stage) for method in FIVE for stage in (0.0, 1.0)]
    for run in runs[:30:2]:
        failed(run)
    return collect(save_all(tmp_path_factory.mktemp("full") / "matrix", *runs))


@pytest.fixture(scope="module")
def text(collection: Collection) -> str:
    return report_pages(collection)["report"]


def test_the_page_is_read_from_the_top(full: Collection) -> None:
    first = report_pages(full)["report"]
    assert re.findall(r"^## (.+)$", first, flags=re.MULTILINE) == ORDER
    contents = first.partition("\n## ")[0].splitlines()[-1]
    assert re.findall(r"\[([^]]+)\]\(#", contents) == ORDER


def test_the_first_page_is_short(full: Collection) -> None:
    page = pages(Findings(full))[0]
    assert len(render(page).splitlines()) <= 200
    figures = [block for part in page.sections for block in part.blocks if isinstance(block, Figure)]
    assert 3 <= len(figures) <= 8
    figures = [block for item in pages(Findings(full)) for part in item.sections for block in part.blocks
               if isinstance(block, Figure)]  # fmt: skip
    assert all(len("".join(str(piece) for piece in figure.caption)) <= 340 for figure in figures), "two lines"


def test_every_link_leads_somewhere(full: Collection) -> None:
    found = report_pages(full)
    for file, content in found.items():
        for target in re.findall(r"(?<!!)\[[^]]*\]\(([^)]+)\)", content):
            name, _, anchor = target.partition("#")
            if name.endswith(".csv"):
                continue
            other = (Path("/") / Path(file).parent / name).resolve().relative_to("/") if name else Path(file)
            titles = re.findall(r"^#+ (.+)$", found[str(other).removesuffix(".md")], flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert not anchor or anchor in anchors, (file, target)


def test_what_several_sections_read_is_computed_once(
    full: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, int] = {}

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return function(*arguments, **named)

        return call

    once = ("comparisons", "comparables", "throughputs", "gradient_noises", "troubled", "preferences",
            "measures", "conversations", "panels", "arrivals_of", "trials_of")  # fmt: skip
    for name in (*once, "against_best", "overall", "column_verdict"):
        modules = [item for key, item in sys.modules.items() if key.startswith("polobench.")]
        for module in [module for module in modules if isinstance(getattr(module, name, None), FunctionType)]:
            monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    found = Findings(full)
    page_module._write_tables(found, pages(found), tmp_path)
    verdict_text(found)
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)
    assert calls["column_verdict"] == len(found.rules.columns)
    assert calls["overall"] == len(found.groups)
    places = sum(place in found.contrasts for place in found.comparisons)
    cases = sum(item is not None for _, item in found.use_cases)
    assert calls["against_best"] == places + len(found.leaders) + cases


def test_a_section_is_one_function_and_one_entry(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    def toy(findings: Findings) -> list[Section]:
        count = len(findings.collection.cells)
        return [Section("A toy", [Paragraph(f"{count} | *cells*"), Table(["a", "b"], [["1", "<b>"]], "lr")])]

    monkeypatch.setattr(page_module, "FIRST_PAGE", (*page_module.FIRST_PAGE, toy))
    first = report_pages(collection)["report"]
    assert "[A toy](#a-toy)" in first
    assert section(first, "A toy").split("\n\n")[0].strip() == "48 &#124; &#42;cells&#42;"
    assert rows(section(first, "A toy"))[2] == ["1", "&lt;b&gt;"]


def blocks_of(collection: Collection) -> Iterator[Any]:
    for page in pages(Findings(collection)):
        for part in (page.intro, *(item.blocks for item in page.sections)):
            yield from part


def test_nothing_of_markdown_is_in_a_section(full: Collection) -> None:
    """Whatever a section says is shown as it is: a mark of Markdown in it would be seen as such."""
    for block in blocks_of(full):
        if isinstance(block, Paragraph) and isinstance(block.text, str):
            assert not re.search(r"\*\*|\]\(|^\||`", block.text), block.text
        if isinstance(block, Table):
            cells = [cell for row in block.rows for cell in row if isinstance(cell, str)]
            assert not [cell for cell in cells if re.search(r"\*\*|\]\(|&\w+;", cell)]


def test_the_verdict_names_score_cost_certainty_and_what_would_change(text: str) -> None:
    found = {row[0]: row for row in rows(section(text, "Verdict"))[2:]}
    assert list(found) == [case.name for case in USE_CASES]
    samples = found["few samples, control"]
    assert re.fullmatch(r"\*\*(ppo|trpo|ppo or trpo|trpo or ppo)\*\*( \(.* not told apart\))?", samples[1])
    assert re.fullmatch(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", samples[2])
    assert re.fullmatch(r"[\d.]+( to [\d.]+)?", samples[3])
    assert samples[4] == "600"
    assert re.search(r"(ahead of|equivalent to|open against) .*; n = 5$", samples[5])
    assert all(found["few samples, control"])
    assert found["language, checkable answers"][1] == "not measured yet"
    assert found["greedy answers, preferences"][-1] == "a study with preference data with a target"


def test_the_answers_words_come_from_the_tests_not_from_intervals(tmp_path: Path) -> None:
    """Intervals overlap, but every run of the one is above every run of the other on each task."""
    runs = [run for task in WORLDS for run in of_scores("ppo", [0.61, 0.7, 0.8, 0.9, 1.0], task)]
    runs += [run for task in WORLDS for run in of_scores("trpo", [0.2, 0.3, 0.4, 0.5, 0.6], task)]
    runs += [run for task in WORLDS for run in of_scores("grpo", [0.5, 0.6, 0.8, 0.9, 1.0], task)]
    found = Findings(collect(save_all(tmp_path, *runs)))
    (leaders,) = found.leaders
    assert [item.label for item in leaders.undecided] == ["grpo"]
    worst = {case.name: item for case, item in found.use_cases}["worst-case seeds, control"]
    assert worst is not None
    assert (worst.best.label, worst.best.value.value) == ("ppo", pytest.approx((0.61 + 0.7) / 2))
    contrasts = {item.label: item.contrast for item in leaders.items if item.contrast}
    said = verdict.how_sure(leaders)
    assert said == f"ahead of trpo ({p_text(contrasts['trpo'].p, '≤')}); open against grpo; n = 5"
    marks = {row[0]: row[2] for row in rows(section(render(pages(found)[0]), "Leaderboard"))[2:]}
    assert marks["trpo"].endswith(f"behind ({p_text(contrasts['trpo'].p)})".replace("<", "&lt;"))
    assert marks["grpo"] == f"open ({p_text(contrasts['grpo'].p)})"


def test_a_row_of_the_verdict_says_what_is_not_told_apart_and_costs_what_its_score_took(tmp_path: Path) -> None:
    runs = of_scores("ppo", [0.61, 0.7, 0.8, 0.9, 1.0]) + of_scores("grpo", [0.5, 0.6, 0.8, 0.9, 1.0])
    runs += of_scores("trpo", [-0.4, -0.3, -0.2, -0.1, 0.0])
    for run in runs:
        run.ledger.cpu_seconds = {"ppo": 40.0, "grpo": 20.0, "trpo": 60.0}[run.method]
    first = render(pages(Findings(collect(save_all(tmp_path, *runs))))[0])
    found = {row[0]: row for row in rows(section(first, "Verdict"))[2:]}
    assert found["worst-case seeds, control"][1] == "**ppo** (grpo not told apart)"
    assert found["worst-case seeds, control"][-1] == "more seeds than 5"
    assert found["worst-case seeds, control"][3] == "40"
    assert found["little CPU time, control"][3:5] == ["20", "–"]


def test_a_bound_of_several_p_values_is_rounded_up() -> None:
    assert [p_text(p, "≤") for p in (0.0192, 0.019, 0.0009, 0.00147)] == [
        "p ≤ 0.020",
        "p ≤ 0.019",
        "p < 0.001",
        "p ≤ 0.002",
    ]
    assert p_text(0.0192) == "p = 0.019"


def test_equal_is_said_only_where_equivalence_was_tested(tmp_path: Path) -> None:
    """Means that look alike are open where runs are spread, equivalent where they are not, and full at a maximum."""

    def word(folder: str, low: float, spread: float) -> str:
        spreads = np.linspace(-spread, spread, 8)
        runs = [run for method in ("ppo", "trpo") for run in of_scores(method, list(low + spreads))]
        (leaders,) = Findings(collect(save_all(tmp_path / folder, *runs))).leaders
        assert leaders.items[1].contrast is not None
        return leaders.items[1].contrast.word

    assert word("spread", 0.8, 0.3) == OPEN
    assert word("narrow", 0.8, 0.02) == EQUIVALENT
    assert word("full", 1.1, 0.02) == CEILING


def test_all_equivalent_are_called_so(tmp_path: Path) -> None:
    runs = [run for method in FIVE for run in of_scores(method, [0.9] * 5)]
    found = Findings(collect(save_all(tmp_path, *runs)))
    first = render(pages(found)[0])
    marks = [row[1] for row in rows(section(first, "Leaderboard"))[2:]]
    assert marks == ["best", *["equivalent (p < 0.001)".replace("<", "&lt;")] * 4]
    said = "**grpo** has the highest mean final return, 0.900: equivalent to online dpo, ppo, reinforce and trpo"
    assert said in report_text(found.collection)


def test_declared_looks_and_seeds_rule_the_first_page(tmp_path: Path) -> None:
    runs = of_scores("ppo", [0.6, 0.7, 0.8, 0.9, 1.0]) + of_scores("trpo", [0.1, 0.2, 0.3, 0.4, 0.5])
    once = Findings(collect(save_all(tmp_path / "once", *runs))).leaders[0].items[1].contrast
    for run in runs:
        run.provenance["looks"] = 10
    often = Findings(collect(save_all(tmp_path / "often", *runs))).leaders[0].items[1].contrast
    assert once is not None
    assert often is not None
    assert often.reason == "5 seeds cannot reach p = 0.005; the test needs 6"
    for run in runs:
        run.provenance |= {"looks": 1, "seeds": 4}
    more = Findings(collect(save_all(tmp_path / "more", *runs)))
    assert verdict.how_sure(more.leaders[0]) == "not tested: 5 seeds, 4 were declared"
    assert more.leaders[0].items[1].value.value == pytest.approx(0.3)


def test_compute_flags_and_errors_stand_beside_the_score(tmp_path: Path) -> None:
    runs = of_scores("ppo", [0.8] * 5) + of_scores("trpo", [0.5] * 5)
    for run in runs:
        run.ledger.backward_rows, run.final_return_std = 1_000 if run.method == "ppo" else 100_000, 1.0
        run.provenance["final_episodes"] = 500
    for run in runs[:5]:
        run.hyperparameters, run.ran_beside_others = {"learning_rate_schedule": "linear"}, True
        run.curve["return_mean"] = np.linspace(0.9, 0.8, len(run.curve))
        run.curve["change_error"] = 0.001
    board = section(report_pages(collect(save_all(tmp_path, *runs)))["report"], "Leaderboard")
    head, (best, other) = rows(board)[0], rows(board)[2:]
    shown = {name: (one, two) for name, one, two in zip(head, best, other, strict=True)}
    assert shown["rows backward"] == ("1,000", "100,000")
    assert shown["below start"] == ("5/5", "0/5")
    assert shown["CPU s"][0].endswith("‡")
    assert shown["score at equal CPU s"][0].endswith("†")
    assert "standard error of a final score: at most 0.045; above 0.02, so noisy: ppo, trpo" in board


@pytest.mark.parametrize(
    ("after", "word"), [((0.2, 0.6), "no rise shown"), ((0.5, 0.6), "sharpening"), ((0.5, 0.9), "skill")]
)
def test_sharpening_is_told_from_skill(after: tuple[float, float], word: str, tmp_path: Path) -> None:
    """A policy that does not learn is neither."""
    runs = [make_language(method, "summaries", seed) for method in ("dpo", "grpo") for seed in range(6)]
    for run in runs:
        drawn = np.random.default_rng([run.seed, len(run.method)]).normal(0, 0.005, 2)
        for name, before, last in zip(("heldout_pass_1", "heldout_pass_8"), (0.2, 0.6), after + drawn, strict=True):
            run.curve[name] = np.linspace(before, last, len(run.curve))
    found = Findings(collect(save_all(tmp_path, *runs)))
    assert {item.word for item in found.sharpenings} == {word}
    ways = [ax.lines[0].get_xdata() for ax in draw_passes([found.sharpenings], found.looks).axes]
    np.testing.assert_allclose(ways, [[0.2, after[0]], [0.6, after[1]]], atol=0.01)


@pytest.mark.parametrize("seeds", [1, 4])
def test_few_seeds_conclude_nothing(seeds: int, tmp_path: Path) -> None:
    runs = of_scores("ppo", [1.0] * seeds) + of_scores("trpo", [0.1] * seeds)
    first = report_pages(collect(save_all(tmp_path, *runs)))["report"]
    row = rows(section(first, "Verdict"))[2]
    assert row[1] == "too few seeds; highest: ppo"
    assert row[5] == f"nothing concluded: {seeds} seed{'s' if seeds > 1 else ''}, 5 are needed"
    assert "**ppo**" not in first


def test_equal_cpu_seconds_are_those_of_the_quickest_run_that_learned(tmp_path: Path) -> None:
    slow, quick, floor = (with_id(make_result(method)) for method in ("ppo", "trpo", "random"))
    slow.ledger = LedgerTotals(samples=50_000, cpu_seconds=100.0, gradient_steps=9)
    quick.ledger = LedgerTotals(samples=50_000, cpu_seconds=2.0, gradient_steps=9)
    floor.ledger = LedgerTotals(samples=50_000, cpu_seconds=0.5)
    collection = collect(save_all(tmp_path, slow, quick, floor))
    (group,) = comparables(collection)
    assert horizons(group) == [2.0]


def test_a_permutation_of_another_statistic_is_a_test() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.4, 1, 9), rng.normal(0, 1, 9)
    assert permutation_p_of([(x, y)], mean_score) == pytest.approx(permutation_p([(x, y)]), abs=0.01)
    assert permutation_p_of([(x, x)], tail_score) == 1.0
    assert permutation_p_of([(x + 9, y)], tail_score) < 0.01


def test_budgets_that_differ_are_not_compared(tmp_path: Path) -> None:
    """An equal score at another budget stands alone, and nobody is above every other method."""
    runs = of_scores("article-pg", [1.06] * 5) + of_scores("article-ppo", [0.2] * 5)
    others = of_scores("reinforce", [1.06] * 5)
    for run in others:
        run.budget = {"samples": 153_160}
    first = report_pages(collect(save_all(tmp_path, *runs, *map(with_id, others))))["report"]
    board = section(first, "Leaderboard")
    assert "above" not in board
    assert "Alone at their budget, so compared with nothing:" in board
    assert "- reinforce on CartPole-v1 (153,160 samples): score 1.06" in board


def test_a_cap_is_no_budget() -> None:
    runs = [make_result(seed=seed) for seed in range(2)]
    for run in runs:
        run.budget = {"updates": 30, "samples": 737_280}
        run.ledger.updates = 30
    assert budget_words(runs) == "30 updates (capped at 737,280 samples)"
    runs[0].ledger.updates = 12
    assert budget_words(runs) == "737,280 samples, 30 updates, whichever comes first"
    assert budget_words([make_result()]) == "50,000 samples"


def test_solved_without_having_reached_is_explained(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(5)]
    for run in runs[:2]:
        run.time_to_target = dict.fromkeys(run.time_to_target)
    card = report_pages(collect(save_all(tmp_path, *runs)))["tasks/CartPole-v1"]
    assert "More runs of ppo solved the task than reached the target" in card


def test_the_policy_is_measured_on_all_heldout_prompts(tmp_path: Path) -> None:
    """The stored answers are those of eight prompts; the curve, which the figure shows, knows all of them."""
    run = make_language("ppo")
    run.curve["heldout_entropy"] = np.linspace(2.0, 1.25, len(run.curve))
    diagnostics = report_pages(collect(save_all(tmp_path, run)))["diagnostics"]
    row = next(row for row in rows(section(diagnostics, "The policy before and after")) if row[0] == "entropy")
    assert row[-3:] == ["2.00", "1.25", "-0.750"]


def test_a_label_with_a_comma_is_one_label(full: Collection) -> None:
    about = section(report_pages(full)["provenance"], "About this store")
    assert '"grpo, 16 responses", "grpo, 2 responses"' in about


def test_a_first_look_says_that_it_works_and_what_comes_next(tmp_path: Path) -> None:
    runs = [make_result(method, seed=seed) for method in ("random", *METHODS) for seed in range(5)]
    smoke = [make_language(method, "sort-digits", seed, pairs=6) for method in ("dpo", "grpo") for seed in range(3)]
    for run in smoke:
        run.provenance["smoke"] = True
    store = save_all(tmp_path, *runs, *map(with_id, smoke))
    first = report_pages(collect(store))["report"]
    titles = re.findall(r"^## (.+)$", first, flags=re.MULTILINE)
    assert titles == ["It works", "Verdict", "Leaderboard", "Curves and cost", "Details"]
    works = section(first, "It works")
    assert "**26 of 26 cells ended ok**" in works
    assert "polobench run matrix\n" in works
    assert len(first.splitlines()) < 65
    assert "not measured yet" not in first
    assert "Smoke runs, from which nothing is concluded: sort-digits." in first
    failed(smoke[0])
    again = report_pages(collect(save_all(tmp_path, smoke[0])))["report"]
    assert "## It ran, with failures" in again


def test_columns_that_say_the_same_in_every_row_go(text: str) -> None:
    board = section(text, "Leaderboard")
    assert "n" not in rows(board)[0]
    assert "In every row: " in board
    assert "n = 5" in board


def test_no_committed_figure_is_left_from_an_earlier_drawing() -> None:
    """Drawing into a folder does not remove what an older drawing has left there."""
    root = Path(__file__).parents[1]
    listed = subprocess.run(["git", "ls-files", "reports"], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git repository")
    files = [root / line for line in listed.stdout.splitlines()]
    reports = {path.parent for path in files if path.name == "report.md"}
    assert len(reports) > 1
    for report in reports:
        mine = [path for path in files if report in path.parents]
        pages = "".join(path.read_text("utf-8") for path in mine if path.suffix == ".md")
        figures = [path.relative_to(report).as_posix() for path in mine if path.suffix == ".png"]
        assert [name for name in figures if name not in pages] == []


def test_the_glossary_of_the_docs_is_the_reports() -> None:
    docs = Path(__file__).parents[1] / "docs" / "glossary.md"
    assert docs.read_text("utf-8") == render(glossary())


def test_every_rating_has_its_reason(collection: Collection) -> None:
    found = Findings(collection)
    tables = tables_of(found)
    ratings, claims = tables["verdicts"], tables["claims"]
    said = "".join(piece if isinstance(piece, str) else piece.text for piece in summary(found))
    assert "Analytics Vidhya, 20 March 2025" in said
    counts = ratings["verdict"].value_counts()
    assert all(f"{count} {name}" in said for name, count in counts.items())
    assert len(ratings) == 20
    assert f"Of its {len(claims)} further claims" in said
    wanted = {"p", "compared_difference", "compared_interval_low", "compared_detectable", "compared_margin"}
    assert wanted <= set(tables["pairs"])
    table = rows(section(report_pages(collection)["report"], "The article's ratings"))[2:]
    assert len(table) == 20 - counts["not measured"]
    assert all(row[3] for row in table)


def test_every_rating_has_a_number_an_interval_and_n(collection: Collection) -> None:
    evidence = report_pages(collection)["article"]
    for title in ("Variance of the gradient", "Variance between runs", "Stability", "Sample efficiency"):
        found = {row[0]: row for row in reversed(rows(section(evidence, title)))}
        for method in METHODS:
            assert re.fullmatch(r"-?\d\.\d{3}( \[-?\d\.\d{3}, -?\d\.\d{3}\])?", found[method][3])
            assert re.fullmatch(r"5 seeds x 3 settings|1 run", found[method][4])
        assert found["grpo"][2] == "not measured"


def test_scores_over_tasks(collection: Collection) -> None:
    (group,) = comparables(collection)
    assert [task for task, _ in group.places] == sorted(WORLDS)
    items = {item.label: item for item in overall(group)}
    assert items["reinforce"].tail.value < items["reinforce"].mean.value, "its failed run is in the worst quarter"
    assert items["reinforce"].worst.final_score <= 0.0
    assert items["ppo"].runs == 15
    assert items["ppo"].mean.value == pytest.approx(sum(map(sum, group.scores("ppo"))) / 15)
    assert items["ppo"].gradient_steps == 600


def test_greedy_stands_beside_sampled(tmp_path: Path) -> None:
    runs = [make_language(method, "summaries", seed) for method in ("dpo", "grpo") for seed in range(5)]
    for run in runs:
        run.curve["heldout_sampled_return"] = 0.75
        run.curve.loc[0, "return_mean"] = 0.2  # the checkpoint's, on the curve's prompts
        if run.method == "grpo":
            run.curve["heldout_own_return"] = 0.35
    text = section(report_pages(collect(save_all(tmp_path, *runs)))["report"], "Leaderboard")
    assert runs[0].floor != 0.2, "as that of all prompts"
    share = (0.75 - 0.2) / (runs[0].target - 0.2)
    assert f"sampled = {share:.2f}; " in text
    assert f"drawn at its own temperature, grpo scores {(0.35 - 0.2) / (runs[0].target - 0.2):.2f}; " in text
    assert "untrained = 0.00; " in text


def test_worlds_and_smoke_runs_are_kept_apart(tmp_path: Path) -> None:
    speaking = [make_language(method, "summaries", seed) for method in ("dpo", "grpo") for seed in range(2)]
    reading = [make_language(method, "pairs", seed) for method in ("dpo", "grpo") for seed in range(2)]
    for run in speaking:
        run.ledger.samples_generated, run.ledger.samples_read = 20_000, 0
    for run in reading:
        run.ledger.samples_read = 100
    acting = [make_result(method, seed=seed) for method in ("dpo", "grpo") for seed in range(2)]
    smoke = make_result("dpo", "Acrobot-v1")
    smoke.provenance["smoke"] = True
    groups = comparables(collect(save_all(tmp_path, *speaking, *reading, *acting, smoke)))
    assert [(group.world, group.places[0][0]) for group in groups] == [
        ("control", "CartPole-v1"),
        ("language", "summaries"),
        ("preferences", "pairs"),
    ]
    assert standings(groups, USE_CASES[-1]) is not None


def test_against_the_best(collection: Collection) -> None:
    arms = sorted(collection.learning, key=lambda arm: arm.label)
    returns = [(arm.label, [collection.final_returns(arm)]) for arm in arms if arm.task == "Pendulum-v1"]
    found = against_best(returns[:2])
    assert [item.other for item in found] == ["reinforce"]
    assert found[0].p == pytest.approx(2 / 252), "all of ppo's runs are better"
    few = against_best([(label, [values[:3] for values in tasks]) for label, tasks in returns])
    assert few[0].reason == "3 seeds cannot reach p = 0.017; the test needs 5"
    assert "compared_margin" in task_cards.tables(Findings(collection))["against_best"]


def test_what_dropping_failed_runs_would_change_is_said(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(5)]
    kept = sum(run.final_return for run in runs[1:]) / 4
    failed(runs[0])
    card = report_pages(collect(save_all(tmp_path, *runs)))["tasks/CartPole-v1"]
    assert f"Without the runs that failed the means would be: ppo {kept:.1f} instead of " in card
    assert "(n = 4)." in card


def test_the_gallery_has_what_went_wrong(tmp_path: Path) -> None:
    runs = [make_result(seed=seed) for seed in range(5)]
    failed(runs[0], reason="the loss is nan")
    runs[1].final_score, runs[1].curve["return_mean"] = 0.0, [475.0] * 10 + [22.3] * (len(runs[1].curve) - 10)
    runs[2].final_score, runs[2].curve["return_mean"] = 0.01, 25.0
    found = rows(section(report_pages(collect(save_all(tmp_path, *runs)))["report"], "Robustness"))[-3:]
    assert [row[2] for row in found] == ["diverged", "fell below its start", "did not learn"]
    assert found[0][-1] == "the loss is nan"
    assert re.fullmatch("█{10}▁+", found[1][3])


def test_a_store_about_something_else_has_no_claims(tmp_path: Path) -> None:
    text = report_text(collect(save_all(tmp_path, *(make_result("mine", seed=seed) for seed in range(5)))))
    assert "## The article" not in text
    assert "## Leaderboard" in text


def test_several_stores_and_claims_of_ones_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = save_all(tmp_path / "more", *(make_result("grpo", seed=seed) for seed in range(2)))
    rules = tmp_path / "claims.toml"
    rules.write_text(
        "level = 0.05\nleast_seeds_on_one_task = 8\nleast_seeds = 5\n[[claim]]\nsource = 'ours'\nsays = 'ppo scores'\n"
        "measure = 'final_score'\nof = ['ppo']\nat_least = 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    done = runner.invoke(app, ["report", str(folder), str(more), "--claims", str(rules)])
    assert done.exit_code == 0, done.output
    assert done.output.lstrip().startswith("if you care about")
    text = (tmp_path / "reports" / "matrix" / "report.md").read_text()
    assert text.startswith("# Report on matrix and more\n")
    assert "Of its 1 further claim: 1 supported" in text
    assert "grpo" in (tmp_path / "reports" / "matrix" / "tasks" / "CartPole-v1.md").read_text()
    wrong = runner.invoke(app, ["report", str(folder), "--claims", "absent.toml"])
    assert "absent.toml" in str(wrong.exception)


def test_the_leaderboard_marks_instead_of_ranking(full: Collection) -> None:
    found = Findings(full)
    for standing in found.leaders:
        for item in standing.items[1:]:
            said = leaderboard._against(standing, item)
            assert item.contrast is not None
            assert (item.contrast.word == SEPARATED) == ("behind" in said)
