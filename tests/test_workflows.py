"""The workflows and the one that docs/ci.md shows: they parse, ask for little, and call commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from polobench.cli import app
from polobench.run.study import load_study, parse_study

yaml = pytest.importorskip("yaml", reason="no YAML parser is installed with this environment")
ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DOCS = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
ENDS_A_COMMAND = {"||", "&&", ";", "|", ">", ">>", "#", "&"}
GATES = ["gate.yml", "docs/ci.md"]


def block(language: str) -> str:
    """The only block of docs/ci.md in this language."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


TEXTS = {path.name: path.read_text(encoding="utf-8") for path in FILES} | {"docs/ci.md": block("yaml")}
EVERY = pytest.mark.parametrize("name", sorted(TEXTS))


def steps(name: str) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(TEXTS[name])["jobs"].values():
        yield from job["steps"]


def polobench_commands(text: str) -> list[list[str]]:
    """The arguments of every call of polobench in lines of shell; variables stay as they are."""
    found = []
    for line in text.replace(";", " ; ").splitlines():
        tokens = shlex.split(line)
        for start in [place for place, token in enumerate(tokens) if Path(token).name == "polobench"]:
            rest = tokens[start + 1 :]
            found.append(rest[: next((place for place, item in enumerate(rest) if item in ENDS_A_COMMAND), len(rest))])
    return found


def docs_commands() -> list[list[str]]:
    """The calls in the indented blocks of docs/ci.md."""
    return polobench_commands("\n".join(line for line in DOCS.splitlines() if line.startswith("    polobench")))


def wrong_with(arguments: list[str]) -> str:
    """What is wrong with a call, found without making it: no such command, option or value; empty if nothing is."""
    command, names, rest = typer.main.get_command(app), [], list(arguments)
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return f"no command {' '.join([*names, *rest[:1]])!r}"
        names.append(rest.pop(0))
        command = command.commands[names[-1]]
    shown = CliRunner().invoke(app, [*names, "--help"])
    if shown.exit_code:
        return f"{' '.join(names)} --help: {shown.output}"
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", shown.output))
    unknown = [item for item in rest if item.startswith("-") and item not in known]
    if unknown:
        return f"{' '.join(names)} has no {', '.join(unknown)}"
    try:
        command.make_context(names[-1], rest)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@EVERY
def test_commands_exist(name: str) -> None:
    calls = [call for step in steps(name) for call in polobench_commands(step.get("run", ""))]
    assert [(call, wrong_with(call)) for call in calls if wrong_with(call)] == []
    assert bool(calls) == (name != "tests.yml")


def test_commands_of_the_page_exist() -> None:
    calls = docs_commands()
    assert len(calls) == 6
    assert [(call, wrong_with(call)) for call in calls if wrong_with(call)] == []


@pytest.mark.parametrize(("call", "said"), [
    ("polobench run studies/ci.toml --job 2", "run has no --job"), ("polobench gone x", "no command 'gone'"),
    ("polobench baseline gone", "no command 'baseline gone'"), ("polobench compare stores/base", "Missing"),
    ("polobench compare a b c", "extra"), ("polobench run x --jobs two", "integer"), ("polobench", "no command ''"),
    ("x && .venv/bin/polobench compare a b -q || true", "compare has no -q"),
])  # fmt: skip
def test_a_planted_mistake_in_a_call_is_seen(call: str, said: str) -> None:
    (arguments,) = polobench_commands(call)
    assert said in wrong_with(arguments)


def studies_named(text: str) -> list[str]:
    return [call[1] for call in polobench_commands(text) if call[0] == "run"]


def test_the_studies_that_the_workflows_name_exist() -> None:
    named = [item for path in FILES for step in steps(path.name) for item in studies_named(step.get("run", ""))]
    assert named == ["ci", "ci"]
    for item in [*named, *(call[1] for call in docs_commands() if call[0] == "run")]:
        assert load_study(item, ["cpu"]).cells


def test_the_study_of_the_page_is_one() -> None:
    named = [item for step in steps("docs/ci.md") for item in studies_named(step.get("run", ""))]
    assert named == ["$side/gate.toml"]
    study = parse_study("gate", tomllib.loads(block("toml")))
    assert {(cell.method, cell.task) for cell in study.cells} == {("a2c", "catch"), ("random", "catch")}
    plug_in = tomllib.loads((ROOT / "examples/third_party_method/pyproject.toml").read_text())["project"][
        "entry-points"
    ]
    assert "a2c" in plug_in["polobench.methods"]
    assert "catch" in plug_in["polobench.tasks"]


@EVERY
def test_a_workflow_may_read_and_nothing_else(name: str) -> None:
    workflow = yaml.safe_load(TEXTS[name])
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets" not in TEXTS[name]
    assert workflow[True] in ("push", "pull_request")  # YAML 1.1 reads `on` as true
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 120
        assert "permissions" not in job
    for step in steps(name):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1"))
        assert "${{" not in step.get("run", "")  # what a pull request says must not become shell


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_newer_push_ends_the_older_run(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["concurrency"] == {"group": f"{path.stem}-${{{{ github.ref }}}}", "cancel-in-progress": True}


def test_tests_run_on_the_oldest_and_the_newest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [item.rpartition(" ")[2] for item in project["classifiers"] if re.search(r":: 3\.\d+$", item)]
    matrix = yaml.safe_load(TEXTS["tests.yml"])["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert matrix == [listed[0], listed[-1]]
    assert project["requires-python"] == f">={matrix[0]}"
    runs = [step["run"] for step in steps("tests.yml") if step.get("run", "").startswith("tox")]
    assert runs == ["tox run -e tests", "tox run -e lint,types", "tox run -e lowest"]


STUB = """#!/bin/sh
echo "{name} $*" >> "$LOG"
case "$*" in
  *"-o gate.md"*) test "$COMPARE" = 3 || echo "compared" > gate.md; exit "$COMPARE";;
  "ab "*) echo "timed" > ../ab.md; exit "$AB";;
  "run "*stores/base*) exit "$RUN_BASE";;
  "run "*stores/head*) exit "$RUN_HEAD";;
esac
"""


def play(name: str, folder: Path, **codes: int) -> tuple[bool, list[str], str]:
    """Play the job with stand-ins for every program that exit with these codes.

    Returns:
        Whether it ended well, the programs that were called, and the job's summary.
    """
    programs, log, summary = folder / "programs", folder / "log", folder / "summary"
    for path in (programs, folder / "head"):
        path.mkdir(parents=True)
    for program in ("git", "pip", "polobench"):
        (programs / program).write_text(STUB.format(name=program))
        (programs / program).chmod(0o755)
    known = {"COMPARE": 0, "AB": 0, "RUN_BASE": 0, "RUN_HEAD": 0} | codes
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(log), "GITHUB_STEP_SUMMARY": str(summary)}
    environment |= {key: str(value) for key, value in known.items()}
    well = True
    for step in steps(name):
        condition = step.get("if", "success()")
        assert condition in ("success()", "always()", "${{ !cancelled() }}")
        if "run" in step and (well or condition != "success()"):
            where = folder / step.get("working-directory", ".")
            done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=where, env=environment, check=False)
            well = well and done.returncode == 0
    return well, log.read_text().splitlines(), summary.read_text() if summary.exists() else ""


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize(("codes", "well"), [
    ({}, True), ({"RUN_BASE": 1, "RUN_HEAD": 1}, True), ({"COMPARE": 1}, False), ({"COMPARE": 2}, False),
    ({"COMPARE": 3}, False),
])  # fmt: skip
def test_the_exit_code_of_the_gate_decides(name: str, codes: dict[str, int], well: bool, tmp_path: Path) -> None:
    ended_well, calls, summary = play(name, tmp_path, **codes)
    assert ended_well == well
    assert ("compared\n" in summary) == (codes.get("COMPARE") != 3)
    made = [call for call in calls if call.startswith("polobench")]
    assert [call.split()[1] for call in made][:3] == ["run", "run", "compare"]
    installed = [call.split()[-1] for call in calls if call.startswith("pip")]
    assert installed == ["./base", "./head"]
    assert calls.index(made[0]) < calls.index(next(call for call in calls if call.endswith("./head")))


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("side", ["RUN_BASE", "RUN_HEAD"])
def test_a_study_that_cannot_run_is_compared_with_nothing(name: str, side: str, tmp_path: Path) -> None:
    ended_well, calls, _ = play(name, tmp_path, **{side: 2})
    assert not ended_well
    assert not any(call.startswith("polobench compare") for call in calls)


def test_a_regression_does_not_hide_the_speeds_and_a_slower_commit_fails(tmp_path: Path) -> None:
    _, calls, summary = play("gate.yml", tmp_path / "one", COMPARE=1)
    assert calls[-1].startswith("polobench ab HEAD^1 HEAD")
    assert summary == "compared\ntimed\n"
    assert play("gate.yml", tmp_path / "two", AB=1)[0] is False


def test_stores_and_reports_are_kept_whatever_the_outcome() -> None:
    (upload,) = [step for step in steps("gate.yml") if step.get("uses", "").startswith("actions/upload-artifact")]
    assert upload["if"] == "always()"
    assert upload["with"]["path"].split() == ["stores", "gate.md", "ab.md"]


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOCS):
        assert (ROOT / "docs" / target).exists(), target
