"""One update on a stored batch: repeatable, blind to what platforms round differently, and sharp where a fault is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from synthetic import save_all

from benchmarks.gate_faults import FAULTS
from polobench.cells.fixed_batch import sketch
from polobench.cells.runner import prepare, run_cell
from polobench.cells.stored_batches import find_batch, make_batch
from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.gate.exact import TOLERANCE, differences, growths
from polobench.kinds.cell import Cell
from polobench.run.study import load_study, parse_study
from polobench.store.folder import Store
from polobench.tasks import reward

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "polobench" / "studies" / "ci.toml"
ON_BATCHES = [name for name, fault in FAULTS.items() if fault.layer != "learning"]


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored batch needs no floor and no check of what is sampled."""
    monkeypatch.setattr(reward.RewardTask, "final_episodes", 20)
    monkeypatch.setattr(reward, "PROBE_PROMPTS", 8)


def cell_of(label: str, task: str) -> Cell:
    cells = load_study(STUDY).cells
    return next(cell for cell in cells if (cell.label, cell.task, cell.kind) == (label, task, "fixed_batch"))


@cache
def sound(label: str, task: str) -> RunResult:
    return run_cell(prepare(cell_of(label, task)))


def every_cell() -> list[tuple[str, str]]:
    return [(cell.label, cell.task) for cell in load_study(STUDY).cells if cell.kind == "fixed_batch"]


def test_the_study_has_every_method_in_both_worlds() -> None:
    methods = {(cell.method, cell.task) for cell in load_study(STUDY).cells if cell.kind == "fixed_batch"}
    for method in ("reinforce", "trpo", "ppo", "dpo", "grpo"):
        assert {(method, "CartPole-v1"), (method, "sort-digits")} <= methods


def test_the_batch_of_control_holds_both_ends() -> None:
    for rollout in find_batch(ROOT / "polobench" / "studies" / "batches", "CartPole-v1").rollouts.values():
        assert bool(rollout.terminated.any())
        assert bool(rollout.truncated.any())


@pytest.mark.parametrize(("label", "task"), [("ppo", "CartPole-v1"), ("grpo, KL term", "sort-digits")])
def test_an_update_repeats_itself_and_counts(label: str, task: str) -> None:
    again = run_cell(prepare(cell_of(label, task)))
    assert again.status == "ok", again.reason
    assert again.fixed_batch == sound(label, task).fixed_batch
    assert again.fixed_batch["batch_counts"]["gradient_steps"] > 0
    assert again.fixed_batch["rollout_counts"]["reward_calls"] > 0
    assert again.fixed_batch["rollout_counts"]["gradient_steps"] == 0
    assert max(change[0] for change in again.fixed_batch["changes"].values()) > 0


def test_the_step_that_fails_leaves_the_actor_where_it_was() -> None:
    found = sound("trpo, step that fails", "CartPole-v1").fixed_batch
    assert found["metrics"]["step_accepted"] == 0
    assert all(change == [0.0] * 5 for name, change in found["changes"].items() if name.startswith("actor"))
    assert any(change[0] > 0 for name, change in found["changes"].items() if name.startswith("critic"))


@pytest.mark.parametrize("name", ON_BATCHES)
def test_each_planted_fault_is_seen(name: str) -> None:
    fault = FAULTS[name]
    with fault.plant():
        faulty = run_cell(prepare(cell_of(fault.label, fault.task)))
    base = sound(fault.label, fault.task)
    if fault.layer == "cost":
        assert any(growth.is_regression for growth in growths(base, faulty))
        assert differences(base, faulty) == []
    else:
        assert differences(base, faulty)
        assert not any(growth.is_regression for growth in growths(base, faulty))


def test_faults_that_learning_shows_leave_no_trace_when_their_context_is_closed() -> None:
    cells = ("ppo", "CartPole-v1"), ("trpo, step that fails", "CartPole-v1"), ("grpo, KL term", "sort-digits")
    before = [sound(*cell).fixed_batch for cell in cells]
    for fault in FAULTS.values():
        with fault.plant():
            pass
    assert [run_cell(prepare(cell_of(*cell))).fixed_batch for cell in cells] == before


@pytest.mark.parametrize("task", ["CartPole-v1", "sort-digits"])
def test_another_instruction_set_and_more_threads_stay_within_the_tolerance(task: str, tmp_path: Path) -> None:
    """torch's plainest kernels and two threads stand for another platform."""
    label = "trpo" if task == "CartPole-v1" else "grpo, KL term"
    script = (
        "import sys, json, dataclasses\n"
        "from polobench.run.study import load_study\n"
        "from polobench.cells.runner import prepare, run_cell\n"
        "from polobench.tasks import reward\n"
        "reward.RewardTask.final_episodes, reward.PROBE_PROMPTS = 20, 8\n"
        f"cells = load_study({str(STUDY)!r}).cells\n"
        f"cell = next(c for c in cells if (c.label, c.task, c.kind) == ({label!r}, {task!r}, 'fixed_batch'))\n"
        "print(json.dumps(run_cell(prepare(dataclasses.replace(cell, threads=2))).fixed_batch))\n"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    base, other = sound(label, task), sound(label, task)
    other = RunResult.from_dict(base.to_dict())
    other.fixed_batch = json.loads(ended.stdout.splitlines()[-1])
    assert differences(base, other) == []
    largest = max(
        abs(one - two) / max(abs(one), 1e-3)
        for name, one in base.fixed_batch["metrics"].items()
        for two in [other.fixed_batch["metrics"][name]]
        if one == one
    )
    assert largest < TOLERANCE / 100


def test_a_sketch_tells_changes_apart_and_depends_on_the_name() -> None:
    change = torch.arange(6.0)
    assert sketch("a", change) == sketch("a", change)
    assert sketch("a", change)[0] == pytest.approx(55**0.5)
    assert sketch("a", change)[1:] != sketch("b", change)[1:]
    moved = change.clone()
    moved[2], moved[3] = change[3], change[2]  # the norm stays
    assert sketch("a", moved)[1:] != sketch("a", change)[1:]


def test_a_cell_goes_through_the_store(tmp_path: Path) -> None:
    result = sound("ppo", "CartPole-v1")
    save_all(tmp_path, result)
    (stored,), damaged = Store(tmp_path).read()
    assert damaged == []
    assert stored.fixed_batch == result.fixed_batch
    assert stored.kind == "fixed_batch"


@pytest.mark.parametrize("key", ["metrics", "changes", "batch_counts", "rollout_counts", "batch_sha256"])
def test_a_damaged_cell_names_its_key(key: str, tmp_path: Path) -> None:
    result = RunResult.from_dict(sound("ppo", "CartPole-v1").to_dict())
    result.fixed_batch = result.fixed_batch | {key: [1]}
    save_all(tmp_path, result)
    _, (damaged,) = Store(tmp_path).read()
    assert key in damaged.reason


def test_a_batch_that_is_missing_damaged_or_of_another_task(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="makes it"):
        find_batch(tmp_path, "CartPole-v1")
    (tmp_path / "CartPole-v1.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is no stored batch"):
        find_batch(tmp_path, "CartPole-v1")
    (tmp_path / "Acrobot-v1.safetensors").write_bytes(
        (ROOT / "polobench" / "studies" / "batches" / "CartPole-v1.safetensors").read_bytes()
    )
    with pytest.raises(UsageError, match="is the stored batch of 'CartPole-v1'"):
        find_batch(tmp_path, "Acrobot-v1")


def test_the_stored_batch_is_what_its_command_makes(tmp_path: Path) -> None:
    made = find_batch(make_batch("CartPole-v1", tmp_path)[0].parent, "CartPole-v1").rollouts
    kept = find_batch(ROOT / "polobench" / "studies" / "batches", "CartPole-v1").rollouts
    for verb, rollout in kept.items():
        assert torch.equal(made[verb].actions, rollout.actions)
        torch.testing.assert_close(made[verb].observations, rollout.observations)


def test_a_grid_that_does_not_learn_needs_no_budget() -> None:
    grid = {"methods": ["ppo"], "tasks": ["CartPole-v1"], "seeds": 3, "learning": False, "fixed_batch": True}
    (cell,) = parse_study("s", {"grid": [grid]}, ["cpu"], ROOT / "polobench" / "studies").cells
    assert (cell.kind, cell.seed, str(cell)) == ("fixed_batch", 0, "ppo · CartPole-v1 · fixed batch · cpu")
    with pytest.raises(UsageError, match="budget"):
        parse_study("s", {"grid": [grid | {"learning": True}]}, ["cpu"])
