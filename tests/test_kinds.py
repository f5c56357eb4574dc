"""The table of kinds: a new kind goes through both doors, the store and the report; outcomes are the same for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from children import plug_in, started, write_study
from conftest import Command
from synthetic import make_result, make_throughput, noise_cell, save_all

import polobench
from polobench.analysis.collection import collect
from polobench.cells.runner import prepare, run_cell
from polobench.core.budget import Budget, RunTimeout, budget_text
from polobench.core.errors import Unavailable, UsageError
from polobench.core.recorder import Diverged
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.kinds.fixed_batch import FixedBatch
from polobench.kinds.gradient_noise import GradientNoise
from polobench.kinds.kind import Kind
from polobench.kinds.learning import Learning
from polobench.kinds.table import BUILT_IN, kinds
from polobench.kinds.throughput import Throughput
from polobench.methods.ppo import PPO
from polobench.run import library
from polobench.run.study import load_study, parse_study
from polobench.run.sweep import pending, statuses
from polobench.store.folder import Damaged, Store
from polobench.store.identity import definition, newest

ROOT = Path(__file__).parents[1]
STUDIES = library.BUILT_IN
PLANS = [
    Learning(),
    Throughput(2),
    GradientNoise("ppo", 0.0, 5, 64),
    FixedBatch(str(STUDIES)),
]
ENDS = {
    "memory": (MemoryError(), "out_of_memory", True),
    "device memory": (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", True),
    "time": (RunTimeout("too late"), "timeout", True),
    "divergence": (Diverged("the loss is nan"), "diverged", False),
    "unavailable": (Unavailable("no licence"), "skipped", True),
    "exit": (SystemExit(3), "failed", False),
    "failure": (ValueError("wrong"), "failed", False),
}
TOY = """
    from dataclasses import dataclass

    from polobench.core.budget import Budget
    from polobench.kinds.checks import COUNT, wrong
    from polobench.kinds.kind import Kind
    from polobench.kinds.parsing import parse_count

    @dataclass(frozen=True)
    class Width(Kind):
        times: int

        name = "width"
        grid_key = "width_times"
        running = "toy_running:WidthJob"
        defining = {"times": "times"}

        @classmethod
        def asked(cls, grid, folder):
            return [cls(parse_count("width_times", grid["width_times"]))] if "width_times" in grid else []

        def budget(self, asked):
            return Budget(updates=1)

        def title(self, seed):
            return f"width times {self.times}"

        def describe(self, result, hashes):
            result.measured = {"times": self.times}

        @classmethod
        def problems(cls, result):
            yield from wrong(result.measured, ("times",), COUNT, "measured.")

        @classmethod
        def outcome(cls, result):
            return f"{result.measured['width']} units"
"""
TOY_RUNNING = """
    from polobench.cells.job import Job

    class WidthJob(Job):
        def measure(self, method, cell, result, watch):
            result.measured["width"] = self.plan.times * sum(method.hp.hidden_sizes)
            result.reason = "it was counted"
            return result
"""
TOY_STUDY = """
devices = ["cpu"]
[[grid]]
methods = ["ppo"]
tasks = ["probe-bandit"]
seeds = 3
learning = false
width_times = 2
"""


def cell_of(plan: Kind) -> Cell:
    return Cell("ppo", "ppo", "CartPole-v1", 0, "cpu", plan.budget(Budget(samples=600)), plan=plan)


def test_each_built_in_kind_has_a_plan_here() -> None:
    assert [type(plan) for plan in PLANS] == list(BUILT_IN)
    assert list(kinds()) == [kind.name for kind in BUILT_IN]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_an_outcome_is_decided_once_for_all_kinds(
    plan: Kind, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, status, again = ENDS[end]

    def learn(self: PPO, task: Any, rng: Any) -> Iterator[Any]:
        raise error
        yield

    monkeypatch.setattr(PPO, "learn", learn)
    prepared, store = prepare(cell_of(plan)), Store(tmp_path)
    result = run_cell(prepared)
    store.save(result)
    assert (result.status, result.kind) == (status, plan.name)
    assert result.final_score == 0
    assert isinstance(store.load(prepared.cell_id), RunResult)
    assert (pending([prepared], statuses(store)) == [prepared]) is again


def test_the_users_interrupt_is_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(self: PPO, task: Any, rng: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(PPO, "learn", learn)
    for plan in PLANS:
        with pytest.raises(KeyboardInterrupt):
            run_cell(prepare(cell_of(plan)))


def collected(study: Path, tmp_path: Path, **env: str) -> Counter[str]:
    """How many tests of each kind the pytest door collects."""
    whole = [sys.executable, "-m", "pytest", str(ROOT / "benchmarks"), "--study", str(study), "--collect-only", "-q"]
    whole += ["--store", str(tmp_path / "store"), "-p", "no:cacheprovider"]
    done = subprocess.run(whole, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)
    names = [line.partition("::test_")[2] for line in done.stdout.splitlines() if "::test_" in line]
    return Counter(name.partition("[")[0] for name in names)


def test_the_pytest_door_has_a_test_for_every_cell_of_a_study(tmp_path: Path) -> None:
    """Of fewer seeds than the study has: each cell is prepared anew."""
    (tmp_path / "batches").symlink_to(STUDIES / "batches")
    study = tmp_path / "ci.toml"
    study.write_text((STUDIES / "ci.toml").read_text().replace("seeds = 10", "seeds = 2"))
    cells = Counter(cell.kind for cell in load_study(study).cells)
    assert cells["fixed_batch"] == 13
    assert collected(study, tmp_path) == cells


def test_a_new_kind_is_two_files_and_a_line(tmp_path: Path) -> None:
    plug_in(tmp_path, "toy", TOY, "kinds:width=toy:Width")
    (tmp_path / "toy_running.py").write_text(TOY_RUNNING.replace("\n    ", "\n"))
    study = write_study(tmp_path, TOY_STUDY)
    by_run = started("run", str(study), "--only", "width", "--store", "s", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert by_run.returncode == 0, by_run.stderr
    assert "ppo · probe-bandit · width times 2 · cpu: 256 units" in by_run.stderr
    whole = [sys.executable, "-m", "pytest", str(ROOT / "benchmarks"), "--study", str(study), "--store", "p"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    by_pytest = subprocess.run(whole, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in by_pytest.stdout, by_pytest.stdout
    ids = [[path.name for path in (tmp_path / name).glob("*.json")] for name in "sp"]
    assert ids[0] == ids[1]
    report = started("report", "s", "p", "-o", "r", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert report.returncode == 0, report.stderr
    assert "1 width" in (tmp_path / "r" / "report.md").read_text()
    read = "import sys; from polobench.analysis.collection import collect; assert collect('s').of_kind('width'); "
    read += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", read], cwd=tmp_path, env=environment, check=False).returncode == 0
    (found,) = Store(tmp_path / "s").read()[1]  # whoever lacks the plug-in is told so
    assert found.reason.startswith("kind is not learning or")


def test_a_kind_that_does_not_load_is_left_out_with_a_warning(tmp_path: Path) -> None:
    plug_in(tmp_path, "toy", "raise ImportError('broken')", "kinds:width=toy:Width")
    done = started("list", "studies", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    seen = subprocess.run(
        [sys.executable, "-c", "from polobench.kinds.table import kinds; print(*kinds())"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert seen.stdout.split() == [kind.name for kind in BUILT_IN]
    assert "kind of cells 'width' is left out: ImportError: broken" in seen.stderr


def test_a_part_of_a_study_is_chosen_by_kind_and_task_and_an_unknown_one_is_refused_by_name(
    command: Command, tmp_path: Path
) -> None:
    study = load_study("ci")
    found = study.narrowed(["throughput", "learning"], ["CartPole-v1"]).cells
    assert {(cell.part, cell.task) for cell in found} == {("throughput", "CartPole-v1"), ("learning", "CartPole-v1")}
    assert study.narrowed().cells == study.cells
    with pytest.raises(UsageError, match="no probe cells on CartPole-v1"):
        study.narrowed(["probe"], ["CartPole-v1"])
    for option, name, nearest in (("--only", "learnin", "learning"), ("--task", "probe-bandi", "probe-bandit")):
        code, _, said = command("run", write_study(tmp_path), option, name)
        assert (code, said.count("\n")) == (2, 1), said
        assert f"{name!r}; did you mean {nearest!r}?" in said


FIXED = {"batch_counts": {}, "rollout_counts": {}, "metrics": {}, "changes": {}}


def fixed(batch: str, policy: str, **changes: Any) -> RunResult:
    result = make_result(kind="fixed_batch", **changes)
    result.fixed_batch = FIXED | {"batch_sha256": batch, "policy_sha256": policy}
    result.cell_id = f"{batch}{policy}{result.started_at}"
    return result


def test_cells_that_read_different_files_do_not_differ_by_code_alone(tmp_path: Path) -> None:
    cells = [fixed("a", "p"), fixed("b", "p"), fixed("a", "q")]
    assert len({definition(cell) for cell in cells}) == 3
    assert collect(save_all(tmp_path, *cells)).older_code == 0
    noises = [noise_cell("ppo", 1.0) for _ in range(3)]
    noises[1].gradient_noise |= {"training": "other"}
    noises[2].gradient_noise |= {"samples": 7}
    assert len({definition(cell) for cell in noises}) == 3
    assert len({definition(make_throughput(provenance={"code_hash": str(code)})) for code in range(3)}) == 1


def test_the_newer_of_two_equal_cells_stays_and_what_ran_before_what_was_skipped() -> None:
    old, new = fixed("a", "p", started_at="2025-01-01"), fixed("a", "p", started_at="2025-01-02")
    skipped = replace(new, status="skipped", started_at="2025-01-03")
    assert newest([old, new]) == newest([new, old]) == [new]
    assert newest([old, skipped]) == [old]


def test_a_stored_hash_is_known_however_the_cell_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(self: PPO, task: Any, rng: Any) -> Iterator[Any]:
        raise ValueError("wrong")
        yield

    sound = [run_cell(prepare(cell_of(plan))) for plan in PLANS[2:]]
    monkeypatch.setattr(PPO, "learn", learn)
    broken = [run_cell(prepare(cell_of(plan))) for plan in PLANS[2:]]
    assert [definition(result) for result in sound] == [definition(result) for result in broken]


def test_a_section_of_another_kind_is_damage(tmp_path: Path) -> None:
    result = make_throughput(kind="learning")
    store = Store(save_all(tmp_path, result))
    found = store.load(result.cell_id)
    assert isinstance(found, Damaged)
    assert found.reason == "throughput is not empty, although the kind is learning"


def test_a_budget_is_written_in_one_way() -> None:
    budget = Budget(samples=40_000, seconds=60)
    assert str(budget) == budget_text(budget.as_dict()) == "40,000 samples, 60 seconds"
    assert budget_text({"samples": None}) == "no budget"


def test_a_grid_that_asks_for_nothing_known_is_one_line() -> None:
    grid = {"methods": ["ppo"], "tasks": ["CartPole-v1"], "seeds": 1, "budget": 5}
    with pytest.raises(UsageError, match=r"unknown grid key 'widths'.*fixed_batch.*gradient_noise.*throughput_rounds"):
        parse_study("s", {"grid": [grid | {"widths": 3}]})


def test_the_frame_has_a_row_for_every_kind(tmp_path: Path) -> None:
    cells = [make_result(), make_throughput(), noise_cell("ppo", 1.0), fixed("a", "p")]
    for number, cell in enumerate(cells):
        cell.cell_id = str(number)
    table = polobench.load(save_all(tmp_path, *cells))
    assert sorted(table.kind) == sorted(kinds())
    assert json.loads((tmp_path / "0.json").read_text()).get("measured") is None
