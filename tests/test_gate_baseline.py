"""The repository's own baseline: it compares with itself, and a fault planted in a method makes the comparison fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.gate_faults import FAULTS
from polobench.cells.runner import prepare, prepare_all, run_cell
from polobench.cli import app
from polobench.gate.compare import compare_stores
from polobench.gate.reading import read_whole
from polobench.run.study import load_study
from polobench.store.folder import Store

ROOT = Path(__file__).parents[1]
BASELINE = ROOT / "results" / "baseline"
PARTS = ("probe", "fixed_batch")


def head_with(tmp_path: Path, name: str) -> Path:
    """The baseline's cells, the one that the fault touches made again with it, as `.ci/run` would find them."""
    fault, head = FAULTS[name], tmp_path / "head"
    shutil.copytree(BASELINE, head)
    cells = load_study("ci").cells
    cell = next(c for c in cells if (c.label, c.task, c.kind) == (fault.label, fault.task, "fixed_batch"))
    for path in head.glob("*.json"):
        result = Store(head).load(path.stem)
        if (result.label, result.task, result.kind) == (fault.label, fault.task, "fixed_batch"):
            path.unlink()
    with fault.plant():
        Store(head).save(run_cell(prepare(cell)))
    return head


def test_the_baseline_holds_the_cells_that_the_study_asks_for() -> None:
    cells = [item.cell for item in prepare_all([c for c in load_study("ci").cells if c.part in PARTS])]
    asked = {(c.label, c.task, c.kind, c.seed) for c in cells}
    held = {(r.label, r.task, r.kind, r.seed) for r in read_whole(BASELINE)}
    assert held == asked
    assert all(result.status == "ok" for result in read_whole(BASELINE))


def test_the_baseline_is_small_and_of_one_clean_commit() -> None:
    assert sum(path.stat().st_size for path in BASELINE.iterdir()) < 2_000_000
    commits = {result.provenance["commit"] for result in read_whole(BASELINE)}
    assert len(commits) == 1
    assert not any(result.provenance["dirty"] for result in read_whole(BASELINE))


def test_the_baseline_against_itself() -> None:
    assert compare_stores(BASELINE, BASELINE).exit_code == 0


@pytest.mark.parametrize(
    "name", ["truncation as termination, ppo", "line search without restore", "one extra forward pass, grpo"]
)
def test_a_planted_fault_fails_the_gate(name: str, tmp_path: Path) -> None:
    head = head_with(tmp_path, name)
    ended = CliRunner().invoke(app, ["compare", str(BASELINE), str(head)])
    assert ended.exit_code == 1
    assert "REGRESSION" in ended.output
    layer = compare_stores(BASELINE, head).regressions[0].layer
    assert layer == FAULTS[name].layer
