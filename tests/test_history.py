"""`polobench history`: one line per commit, never half a line; and the trend that the report draws from it."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from matplotlib.figure import Figure
from scipy import stats
from synthetic import failed, make_result, make_throughput, report_pages, report_text, save_all, with_id
from typer.testing import CliRunner

from polobench.analysis.collection import collect
from polobench.cli import app
from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.gate.history import entry_of, history_table, read_history, record
from polobench.gate.journal import append_entry
from polobench.report.findings import Findings
from polobench.report.page import write_report
from polobench.report.sections import trend as trend_figures
from polobench.report.sections.trend import draw_trend, trend_pages
from polobench.store import folder

METHODS = ("reinforce", "trpo", "ppo", "dpo", "grpo", "random")
ARM = {"label": "ppo", "method": "ppo", "task": "CartPole-v1", "budget": "50,000 samples", "device": "cpu"}


def of_commit(result: RunResult, commit: str = "a" * 40, study: str = "ci", **provenance: Any) -> RunResult:
    result.provenance |= {"commit": commit, "study": study} | provenance
    return with_id(result)


def store_of(folder: Path, *scores: float, commit: str = "a" * 40, study: str = "ci") -> Path:
    """A store of one learning arm with these final scores, and a throughput cell."""
    runs = [make_result(seed=seed, final_score=score) for seed, score in enumerate(scores)]
    return save_all(folder, *(of_commit(item, commit, study) for item in (*runs, make_throughput())))


def synthetic_history(path: Path, commits: int = 12, methods: tuple[str, ...] = METHODS) -> Path:
    """Six methods on two tasks over commits; ppo gets worse at the ninth."""
    rng = np.random.default_rng(0)
    for number in range(commits):
        scores = []
        for task, methods_there in (("CartPole-v1", methods), ("sort-digits", ("dpo", "grpo", "grpo, KL term"))):
            for index, label in enumerate(methods_there):
                fallen = 0.35 if label == "ppo" and number >= 8 else 0.0
                values = 1.02 - 0.16 * index - fallen + rng.normal(0, 0.06, 10)
                low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
                arm = ARM | {"label": label, "method": label.partition(",")[0], "task": task}
                scores.append(arm | {"score": values.mean(), "low": low, "high": high, "n": 10})
        speeds = [ARM | {"samples_per_second": 9_000 + 100 * number, "n": 2}]
        commit, date = f"{number * 2654435761 % 2**32:08x}" * 5, f"2025-02-{number % 28 + 1:02d}T10:00:00+00:00"
        append_entry(path, {"commit": commit, "date": date, "study": "ci", "scores": scores, "speeds": speeds})
    return path


def test_a_line_holds_the_scores_and_speeds_of_the_store(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "history.jsonl"
    entry, is_new = record(store_of(tmp_path / "store", 0.5, 0.75, 1.0), file)
    assert is_new
    low, high = stats.t.interval(0.95, 2, 0.75, stats.sem([0.5, 0.75, 1.0]))
    assert entry["scores"] == [ARM | {"score": 0.75, "low": pytest.approx(low), "high": pytest.approx(high), "n": 3}]
    speed = make_throughput().throughput["samples_per_second"]
    assert entry["speeds"] == [ARM | {"samples_per_second": pytest.approx(speed), "n": 1}]
    assert (entry["commit"], entry["study"], entry["date"]) == ("a" * 40, "ci", "2025-01-02T03:02:00+00:00")
    assert read_history(file) == [{"schema_version": 1} | entry]
    assert file.read_text().count("\n") == 1


def test_failed_runs_count_at_their_lowest_and_what_is_unknown_is_null(tmp_path: Path) -> None:
    runs = [of_commit(make_result(seed=0, final_score=1.0)), of_commit(failed(make_result(seed=1)))]
    alone = of_commit(make_result("trpo", final_score=0.5))
    aimless = of_commit(make_result("dpo", target=None, final_score=None))
    beside = of_commit(make_throughput(ran_beside_others=True))
    entry = entry_of(save_all(tmp_path, *runs, alone, aimless, beside))
    scores = {item["label"]: item for item in entry["scores"]}
    runs[1].score_as_failed()  # below 0: its lowest evaluation lies below the floor
    assert runs[1].final_score == pytest.approx(-0.0387, abs=1e-4)
    assert (scores["ppo"]["score"], scores["ppo"]["n"]) == (pytest.approx((1 + runs[1].final_score) / 2), 2)
    assert (scores["trpo"]["score"], scores["trpo"]["low"], scores["trpo"]["high"]) == (0.5, None, None)
    assert scores["online dpo"]["score"] is None
    assert entry["speeds"][0]["samples_per_second"] is None


def test_the_commit_is_that_of_the_newest_cell(tmp_path: Path) -> None:
    older = of_commit(make_result(seed=0, started_at="2025-01-01T00:00:00+00:00"), "b" * 40)
    newer = of_commit(make_result(seed=1, started_at="2025-01-09T00:00:00+00:00"), "c" * 40)
    entry = entry_of(save_all(tmp_path, newer, older))
    assert (entry["commit"], entry["date"]) == ("c" * 40, "2025-01-09T00:00:00+00:00")


def test_a_second_call_changes_nothing_and_another_line_of_the_commit_is_refused(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "history.jsonl"
    first, other = store_of(tmp_path / "first", 0.5, 0.75), store_of(tmp_path / "other", 0.5, 0.76)
    arguments = ["history", str(first), "--file", str(file)]
    assert "appended to" in CliRunner().invoke(app, arguments).stdout
    before = file.read_bytes()
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0
    assert "unchanged, since this line is there already" in again.stdout
    ended = command("history", other, "--file", file)
    (line,) = ended.err.splitlines()
    assert ended.code == 2
    assert "line 1 of" in line
    assert "with other scores" in line
    assert file.read_bytes() == before
    record(store_of(tmp_path / "next", 0.5, commit="b" * 40), file)
    record(store_of(tmp_path / "language", 0.5, study="language"), file)
    assert [(line["commit"][0], line["study"]) for line in read_history(file)] == [
        ("a", "ci"), ("b", "ci"), ("a", "language"),
    ]  # fmt: skip
    assert file.read_bytes().startswith(before)


def test_json(tmp_path: Path) -> None:
    store, file = store_of(tmp_path / "store", 0.5, 0.75), tmp_path / "history.jsonl"
    done = CliRunner().invoke(app, ["history", str(store), "--file", str(file), "--json"])
    assert {"schema_version": 1} | json.loads(done.stdout) == read_history(file)[0]


def _set(**provenance: Any) -> list[RunResult]:
    return [of_commit(make_result(seed=0)), of_commit(make_result(seed=1), **provenance)]


@pytest.mark.parametrize(("results", "said"), [
    (_set(dirty=True), "comes from a dirty tree"), (_set(study="control"), "come from the studies ci, control"),
    ([of_commit(make_result(), study="")], "come from the studies none"), ([], "is empty"),
    ([of_commit(make_result(), commit="")], "name no commit"),
])  # fmt: skip
def test_a_store_that_has_no_line(results: list[RunResult], said: str, command: Command, tmp_path: Path) -> None:
    store = save_all(tmp_path / "store", *results)
    ended = command("history", store, "--file", tmp_path / "history.jsonl")
    (line,) = ended.err.splitlines()
    assert ended.code == 2
    assert said in line
    assert not (tmp_path / "history.jsonl").exists()


def test_a_damaged_store_has_no_line(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", 0.5)
    (store / "bad.json").write_text("{")
    with pytest.raises(UsageError, match=r"bad\.json is damaged"):
        record(store, tmp_path / "history.jsonl")


SOUND = {"schema_version": 1, "commit": "c", "date": "d", "study": "s"}
SCORE = ARM | {"score": 0.5, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize(("line", "said"), [
    ('{"schema_version": 1, "commit": "c"', "JSONDecodeError"), ("", "JSONDecodeError"), ("3", "it is no object"),
    ('{"schema_version": 2}', "schema version 2; this polobench reads 1"), ("[" * 100_000, "RecursionError"),
    (json.dumps(SOUND | {"study": 3}), "study is not a text"),
    (json.dumps(SOUND | {"scores": {}, "speeds": []}), "scores is not a list"),
    (json.dumps(SOUND | {"scores": [3], "speeds": []}), "scores: an item is no object"),
    (json.dumps(SOUND | {"scores": [SCORE | {"task": None}], "speeds": []}), "scores: task is not a text"),
    (json.dumps(SOUND | {"scores": [SCORE | {"n": 1.5}], "speeds": []}), "scores: n is not an integer"),
    (json.dumps(SOUND | {"scores": [SCORE | {"score": float("nan")}], "speeds": []}), "score is not a finite number"),
    (json.dumps(SOUND | {"scores": [SCORE | {"low": True}], "speeds": []}), "low is not a finite number or null"),
    (json.dumps(SOUND | {"scores": [SCORE | {"high": 10**400}], "speeds": []}), "high is not a finite number"),
    (json.dumps(SOUND | {"scores": [], "speeds": [ARM | {"n": 1, "samples_per_second": "x"}]}), "samples_per_second"),
])  # fmt: skip
def test_a_damaged_line_is_named_with_its_number(line: str, said: str, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    record(store_of(tmp_path / "store", 0.5), file)
    file.write_text(f"{file.read_text()}{line}\n{file.read_text()}")
    before = file.read_bytes()
    store = store_of(tmp_path / "next", 0.5, commit="b" * 40)
    for arguments in (("history", store, "--file", file), ("report", store, "--history", file, "-o", tmp_path / "r")):
        ended = command(*arguments)
        (complaint,) = ended.err.splitlines()
        assert ended.code == 2
        assert f"line 2 of {str(file)!r} is damaged" in complaint
        assert said in complaint
    assert file.read_bytes() == before


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "history.jsonl"
    record(store_of(tmp_path / "store", 0.5), file)
    before, following = file.read_bytes(), store_of(tmp_path / "next", 0.5, commit="b" * 40)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    with pytest.raises(UsageError, match="cannot be written to: No space left on device"):
        record(following, file)
    assert file.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["history.jsonl", "next", "store"]


def test_a_last_line_without_its_end_is_not_glued_to_the_next(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    record(store_of(tmp_path / "store", 0.5), file)
    file.write_text(file.read_text().rstrip("\n"))
    record(store_of(tmp_path / "next", 0.5, commit="b" * 40), file)
    assert [line["commit"][0] for line in read_history(file)] == ["a", "b"]


def test_text_that_would_break_a_line_does_not(tmp_path: Path) -> None:
    strange = "a\u2028b\nc\x85d"
    store = save_all(tmp_path / "store", of_commit(make_result(label=strange)))
    record(store, tmp_path / "history.jsonl")
    assert read_history(tmp_path / "history.jsonl")[0]["scores"][0]["label"] == strange


def test_the_table_has_a_row_an_arm_and_commit(tmp_path: Path) -> None:
    table = history_table(synthetic_history(tmp_path / "history.jsonl", commits=3))
    assert table.groupby(["number", "kind"]).size().to_dict() == {
        (1, "learning"): 9, (1, "throughput"): 1, (2, "learning"): 9, (2, "throughput"): 1, (3, "learning"): 9,
        (3, "throughput"): 1,
    }  # fmt: skip
    assert table["score"].isna().sum() == 3
    with pytest.raises(UsageError, match="no history at"):
        history_table(tmp_path / "none.jsonl")


def _rows(section: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]


def trend_section(folder: Path, history: pd.DataFrame) -> str:
    """The section as text, of a report on a store of one run."""
    store = save_all(folder / "a store", make_result())
    text = report_pages(collect(store), history=history)["report"]
    return text.partition("## Trend over commits\n")[2].partition("\n## ")[0].strip()


def draw_all(history: pd.DataFrame, labels: list[str]) -> list[Figure]:
    scores = history[(history["kind"] == "learning") & history["score"].notna()]
    return [draw_trend(scores, page, labels) for page in trend_pages(scores)]


def test_the_section_shows_the_newest_score_beside_the_one_before(tmp_path: Path) -> None:
    table = history_table(synthetic_history(tmp_path / "history.jsonl"))
    rows = _rows(trend_section(tmp_path, table))
    ppo = dict(zip(rows[0], next(row for row in rows if row[1:3] == ["CartPole-v1 (50,000 samples, cpu)", "ppo"])))
    of_ppo = table[(table["label"] == "ppo") & (table["kind"] == "learning")]["score"].tolist()
    newest, before = of_ppo[-1], of_ppo[-2]
    ends = [ppo[name] for name in ("lowest", "highest", "before")]
    assert ends == [f"{value:.2f}" for value in (min(of_ppo), max(of_ppo), before)]
    assert ppo["newest, mean [95 %]"].startswith(f"{newest:.2f} [")
    assert ppo["change"] == f"{newest - before:+.2f}"


def test_an_arm_without_a_target_is_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    record(save_all(tmp_path / "store", of_commit(make_result(target=None, final_score=None))), file)
    table = history_table(file)
    assert trend_section(tmp_path, table) == "Arms without a target have no score and are left out: 1."
    assert draw_all(table, []) == []
    assert trend_section(tmp_path, table[:0]) == "The history has no line yet."


def test_no_panel_has_more_than_seven_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(
        "polobench.report.sections.trend._draw_panel", lambda ax, panel, look: drawn.append(panel["label"].nunique())
    )
    names = tuple(f"variant {number:02d}" for number in range(19))
    draw_all(history_table(synthetic_history(tmp_path / "h.jsonl", 2, names)), [])
    assert drawn == [7, 7, 5, 3]


def test_labels_of_the_store_keep_their_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    looks = trend_figures.looks
    monkeypatch.setattr(
        trend_figures, "looks", lambda labels, methods: asked.append(tuple(labels)) or looks(labels, methods)
    )
    names = ("zebra", "aardvark", "ppo")
    draw_all(history_table(synthetic_history(tmp_path / "h.jsonl", 2, names)), ["mine", "ppo", "zebra"])
    assert asked == [("mine", "ppo", "zebra", "aardvark", "dpo", "grpo", "grpo, KL term")]
    assert looks(asked[0])["zebra"] == looks(["mine", "ppo", "zebra"])["zebra"]


def test_the_report_has_the_section_only_with_a_history(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", 0.5, 0.75)
    table = history_table(synthetic_history(tmp_path / "history.jsonl"))
    path = write_report(Findings(collect(store), history=table), tmp_path / "report")
    text = path.read_text()
    section = text.partition("## Trend over commits\n")[2].partition("\n## ")[0]
    assert re.findall(r"\]\(figures/([^)]+)\)", section) == ["trend_1.png"]
    assert (path.parent / "figures" / "trend_1.png").read_bytes().startswith(b"\x89PNG")
    assert len(_rows(section)) == 2 + 9
    assert "Trend over commits" not in report_text(collect(store))


def test_foreign_text_breaks_no_table(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    score = SCORE | {"label": "a|b\n## c", "task": "$x_{", "score": 0.5}
    append_entry(file, {"commit": "|\n#", "date": "*", "study": "<b>", "scores": [score], "speeds": []})
    table = history_table(file)
    section = trend_section(tmp_path, table)
    assert len({len(row) for row in _rows(section)}) == 1
    assert "<b>" not in section
    assert len(draw_all(table, [])) == 1
    assert isinstance(table, pd.DataFrame)
