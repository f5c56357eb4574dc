"""`polobench compare`: exit codes, one line a mistake, its report and JSON, and files of pytest-benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command
from synthetic import save_all
from test_gate import side
from typer.testing import CliRunner

from polobench.cli import app
from polobench.core.result import RunResult


@pytest.mark.parametrize("damage", ["{", '{"schema_version": 1}', '{"schema_version": 99}', ""])
def test_bad_stores_are_one_line_and_exit_2(damage: str, command: Command, tmp_path: Path) -> None:
    good, bad = save_all(tmp_path / "a", *side()), save_all(tmp_path / "b", *side())
    (bad / "broken.json").write_text(damage)
    code, _, said = command("compare", good, bad)
    assert (code, said.count("\n")) == (2, 1)
    assert "broken.json" in said


def test_an_empty_store_and_a_missing_one(command: Command, tmp_path: Path) -> None:
    good = save_all(tmp_path / "a", *side())
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "is empty"), ("nowhere", "does not exist")):
        code, _, said = command("compare", good, tmp_path / name)
        assert (code, said.count("\n")) == (2, 1)
        assert words in said


def test_the_command_writes_its_report_and_json(tmp_path: Path) -> None:
    base = save_all(tmp_path / "a", *side())
    head = save_all(tmp_path / "b", *side(shift=-0.2, digests="x"))
    ended = CliRunner().invoke(
        app, ["compare", str(base), str(head), "-o", str(tmp_path / "deep" / "gate.md"), "--json"]
    )
    assert ended.exit_code == 1
    plain = json.loads(ended.output)
    assert plain["exit_code"] == 1
    assert any(test["is_regression"] for test in plain["tests"])
    text = (tmp_path / "deep" / "gate.md").read_text()
    assert text.startswith("# Gate:")
    assert "What this comparison could not see" in text


def test_timings_of_pytest_benchmark(tmp_path: Path) -> None:
    for name, medians in (("base", {"a": 1.0, "b": 2.0}), ("head", {"a": 1.5, "c": 1.0})):
        benchmarks = [{"fullname": key, "stats": {"median": value}} for key, value in medians.items()]
        (tmp_path / f"{name}.json").write_text(json.dumps({"benchmarks": benchmarks}))
    base, head = str(tmp_path / "base.json"), str(tmp_path / "head.json")
    ended = CliRunner().invoke(app, ["compare", base, head])
    assert ended.exit_code == 1
    assert "a: 1.50 times" in ended.output
    assert "b: vanished" in ended.output
    assert CliRunner().invoke(app, ["compare", base, base]).exit_code == 0
    ended_early = {"fullname": "b", "stats": {"median": 0.0}, "extra_info": {"status": "diverged"}}
    found = json.loads(Path(head).read_text())["benchmarks"]
    Path(head).write_text(json.dumps({"benchmarks": [*found, ended_early]}))
    ended = CliRunner().invoke(app, ["compare", base, head])
    assert (ended.exit_code, "b: vanished" in ended.output) == (1, True)
    (tmp_path / "bad.json").write_text('{"benchmarks": [{"fullname": "a", "stats": {"median": "x"}}]}')
    ended = CliRunner().invoke(app, ["compare", base, str(tmp_path / "bad.json")])
    assert "no JSON of pytest-benchmark" in str(ended.exception)


def test_another_study_is_incomparable(command: Command, tmp_path: Path) -> None:
    def quick(result: RunResult) -> None:
        result.provenance["study"] = "quick"

    base, head = save_all(tmp_path / "a", *side()), save_all(tmp_path / "b", *side(change=quick))
    code, _, said = command("compare", base, head)
    assert (code, said.count("\n")) == (3, 1)
    assert "study 'ci' against 'quick'" in said
