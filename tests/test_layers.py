"""Imports run one way, and nothing that reads results loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import polobench

PACKAGE = Path(polobench.__file__).parent
MAY_IMPORT = {
    "core": {"core"},
    "objectives": {"core", "objectives"},
    "policies": {"core", "objectives", "policies"},
    "tasks": {"core", "objectives", "policies", "tasks"},
    "methods": {"core", "objectives"},
    "article": {"core", "objectives"},
    "registry": {"core", "kinds"},
    "kinds": {"core", "kinds"},
    "store": {"core", "kinds", "store"},
    "cells": {"core", "kinds", "tasks", "registry", "store", "cells"},
    "run": {"core", "kinds", "registry", "store", "cells", "run"},
    "ab": {"core", "kinds", "run", "ab"},
    "analysis": {"core", "kinds", "store", "analysis"},
    "report": {"core", "store", "analysis", "gate", "report"},
    "gate": {"core", "kinds", "store", "analysis", "gate"},
    "testing": {"core", "registry", "store", "testing"},
    "cli": {"core", "policies", "tasks", "store", "cells", "run", "analysis", "gate", "ab", "report", "cli"},
}
# a gymnasium id or a data file is a task without an entry point; the registry loads what serves it, when asked
EXCEPTIONS = {
    *(("registry.py", f"polobench.tasks.{name}") for name in ("control", "envpool", "preference")),
    # what the article's three methods for control share
    *((f"article/{name}.py", "polobench.article.episode") for name in ("pg", "ppo", "trpo")),
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            names.add(node.module or "")
    return {name for name in names if name.startswith("polobench")}


def violations(layer: str, path: Path) -> list[str]:
    wrong = []
    for name in imports(path):
        target = name.split(".")[1] if "." in name else ""
        where = str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else path.name
        if target not in MAY_IMPORT[layer] and (where, name) not in EXCEPTIONS:
            wrong.append(f"{where} imports {name}")
    return wrong


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_imports_run_one_way(layer: str) -> None:
    paths = [*(PACKAGE / layer).rglob("*.py"), *PACKAGE.glob(f"{layer}.py")]
    assert paths
    assert [line for path in paths for line in violations(layer, path)] == []


@pytest.mark.parametrize(
    ("layer", "line"),
    [("methods", "from polobench.methods.ppo import PPO"), ("methods", "import polobench.tasks.control"),
     ("core", "from polobench.store.folder import Store"), ("kinds", "import polobench.cells.learning"),
     ("store", "import polobench.cells.learning"), ("cells", "from polobench.run.study import load_study"),
     ("report", "import polobench.cells.runner"),
     ("report", "from polobench.methods.ppo import PPO"), ("methods", "from polobench.article.pg import ArticlePG"),
     ("article", "from polobench.article.dpo import ArticleDPO"), ("article", "import polobench.tasks.article"),
     ("article", "from polobench.methods.ppo import PPO")],
)  # fmt: skip
def test_a_planted_import_is_seen(layer: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(line)
    assert violations(layer, tmp_path / "planted.py")


READERS = (
    "polobench",
    "polobench.cli",
    "polobench.analysis.frame",
    "polobench.report.page",
    "polobench.run.study",
    "polobench.kinds.table",
    "polobench.store.identity",
)


def test_readers_do_not_load_torch() -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    assert 'torch' not in sys.modules, name"
    assert subprocess.run([sys.executable, "-c", code, *READERS], check=False).returncode == 0


def test_help_loads_neither_torch_nor_pandas() -> None:
    code = (
        "import sys\nsys.argv = ['polobench', '--help']\nfrom polobench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'pandas', 'gymnasium', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
