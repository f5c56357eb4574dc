"""The built wheel, installed outside of the clone: what ships with it is found there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = """
[[grid]]
methods = ["ppo"]
tasks = ["probe-bandit"]
seeds = 1
budget = 2000
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel; built from a copy, so that nothing of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    source, wheels, target = folder / "source", folder / "wheels", folder / "target"
    shutil.copytree(ROOT / "polobench", source / "polobench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    quiet = ("-q", "--disable-pip-version-check", "--no-deps", "--no-index")
    pip(folder, "wheel", *quiet, "--no-build-isolation", "-w", str(wheels), str(source))
    pip(folder, "install", *quiet, "--target", str(target), *map(str, wheels.glob("*.whl")))
    return target


def pip(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def polobench(installed: Path, folder: Path, *arguments: str) -> str:
    """What the installed command prints; the clone is not on its path."""
    code = f"import polobench; assert polobench.__file__.startswith({str(installed)!r}), polobench.__file__"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom polobench.cli import main; main()", *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_data_file_ships(installed: Path) -> None:
    def files(folder: Path) -> set[str]:
        found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(folder).as_posix() for path in found}

    assert files(installed / "polobench") == files(ROOT / "polobench")


def test_the_built_in_studies_are_listed(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN)
    rows = {row["name"]: row for row in json.loads(polobench(installed, tmp_path, "list", "studies", "--json"))}
    assert (rows["quick"]["source"], rows["mine"]["source"]) == ("built in", "mine.toml")
    assert rows["quick"]["path"].startswith(str(installed))
    assert not any(row["reason"] for row in rows.values())


def test_a_study_runs_by_name_below_the_current_folder(installed: Path, tmp_path: Path) -> None:
    """Fixed-batch cells need the policies and the batches that ship."""
    assert "CartPole-v1" in polobench(installed, tmp_path, "run", "quick", "--dry-run")
    polobench(installed, tmp_path, "run", "ci", "--only", "fixed_batch", "--dry-run")
    (tmp_path / "quick.toml").write_text(OWN)
    polobench(installed, tmp_path, "run", "quick")
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "results" / "quick"]
