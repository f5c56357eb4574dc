"""The example of a stranger's package, installed in a fresh environment: it takes part with no edit to polobench."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "third_party_method"
MOST_LINES = {"a2c.py": 40, "catch.py": 30}
Command = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stranger")


@pytest.fixture(scope="module")
def python(folder: Path) -> Command:
    """Runs a fresh environment's python in `folder`; the example is installed there, from a copy.

    What else this interpreter can import, the fresh one sees through a .pth file: polobench, torch, and the pip and
    setuptools that install the example without a network.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    fresh = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [fresh, *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    inner = run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    outer = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    lines = [f"import site; site.addsitedir({path!r})\n" for path in outer]  # their own .pth files count, too
    (Path(inner) / "outer.pth").write_text("".join(lines))
    shutil.copytree(EXAMPLE, folder / "example", ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    run("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", folder / "example")
    return run


@pytest.mark.parametrize("name", MOST_LINES)
def test_it_is_short(name: str) -> None:
    lines = (EXAMPLE / "src" / "polobench_example" / name).read_text().splitlines()
    assert len(lines) <= MOST_LINES[name]


def test_it_is_listed_with_its_source(python: Command) -> None:
    rows = {row["name"]: row for row in json.loads(python("-m", "polobench", "list", "methods", "--json"))}
    assert (rows["a2c"]["source"], rows["a2c"]["reason"]) == ("polobench-example", "")
    assert (rows["ppo"]["source"], rows["ppo"]["reason"]) == ("polobench", "")
    assert {"n_steps", "learning_rate"} <= {row["name"] for row in rows["a2c"]["hyperparameters"]}


def test_it_takes_part_in_benchmarks_and_report(python: Command, folder: Path) -> None:
    options = ["--methods", "a2c,random", "--tasks", "catch", "--seeds", "1", "--devices", "cpu", "--budget", "500"]
    python("-m", "pytest", ROOT / "benchmarks", *options, "--throughput-rounds", "0", "-q", "-p", "no:cacheprovider")
    stored = [json.loads(path.read_text()) for path in (folder / "results" / "benchmarks").glob("*.json")]
    assert sorted((cell["method"], cell["task"], cell["status"]) for cell in stored) == [
        ("a2c", "catch", "ok"),
        ("random", "catch", "ok"),
    ]
    python("-m", "polobench", "report", "results/benchmarks", "-o", "report")
    assert "catch (500 samples)" in (folder / "report" / "report.md").read_text()
    card = (folder / "report" / "tasks" / "catch.md").read_text()
    assert any("a2c" in line for line in card.splitlines() if line.startswith("|"))


def test_its_own_conformance_tests_pass(python: Command, folder: Path) -> None:
    printed = python("-m", "pytest", folder / "example" / "tests", "-q", "-p", "no:cacheprovider")
    assert "passed" in printed
    assert "skipped" not in printed
