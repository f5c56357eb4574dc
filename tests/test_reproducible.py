"""The same cell gives the same digest wherever it runs, and leaves the caller's random state and threads alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import types
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import polobench
from polobench import ForeignMethod, Method, RunResult, Update
from polobench.core import provenance
from polobench.registry import find_task

METHODS = pytest.mark.parametrize("method", ["random", "reinforce", "trpo", "ppo"])


def run_cell(method: str, seed: int = 0) -> RunResult:
    return polobench.make(method, task="CartPole-v1", normalize_observations=True).run(seed=seed, budget=2_500)


def digest_of(method: str) -> str | None:
    return run_cell(method).digest


@cache
def first_digest(method: str) -> str | None:
    return digest_of(method)


@METHODS
def test_same_cell_twice_in_one_process_with_others_between(method):
    before = first_digest(method)
    polobench.make("ppo", task="probe-continuous-target").run(seed=3, budget=300)
    assert len(before) == 64
    assert digest_of(method) == before


@METHODS
def test_another_seed_has_another_digest(method):
    assert run_cell(method, seed=1).digest != first_digest(method)


def test_same_cell_in_a_worker_process():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(digest_of, ["ppo", "reinforce"])) == [first_digest("ppo"), first_digest("reinforce")]


def python(code: str, *arguments: str, path: list[Path], **environment: str) -> str:
    """What a fresh interpreter prints that imports from `path` first."""
    command = [sys.executable, "-c", code, *arguments]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))} | environment
    done = subprocess.run(command, cwd=path[0], env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def test_same_cell_in_a_fresh_interpreter_with_other_hashes():
    code = "import torch; torch.set_num_threads(2); import test_reproducible as t; print(t.digest_of('trpo'))"
    path = [Path(__file__).parent, Path(polobench.__file__).parents[1]]
    assert python(code, path=path, PYTHONHASHSEED="7") == first_digest("trpo")


class Careless(ForeignMethod):
    """Draws from every global generator and changes the threads, as a library may."""

    name = "careless"

    def train(self, task, rng, record):
        policy = task.make_policy(self.hp, critic=False)
        drawn = random.random() + np.random.rand() + float(torch.rand(()))
        torch.set_num_threads(3)
        record(Update(loss=drawn, policy=policy))
        raise ValueError("and fails")


def test_random_state_and_threads_are_as_before_even_after_a_failure():
    torch.set_num_threads(2)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    careless = Careless(find_task("probe-bandit"))
    first = careless.run(seed=0, budget=10)
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert torch.get_num_threads() == 2
    assert after[0] == before[0]
    assert str(after[1]) == str(before[1])
    assert np.array_equal(after[1][1], before[1][1])
    assert torch.equal(after[2], before[2])
    random.random()
    torch.rand(1)
    assert careless.run(seed=0, budget=10).digest == first.digest  # the run's own globals come from its seed
    assert careless.run(seed=1, budget=10).digest != first.digest


class Changing(Method):
    name = "changing"
    different_at = 0

    def learn(self, task, rng):
        policy = task.make_policy(self.hp, critic=False)
        for number in range(1, 6):
            yield Update(loss=0.5, policy=policy, metrics={"kl": float(number == self.different_at)})


def test_first_difference_names_the_update():
    def planted(at: int) -> RunResult:
        method = Changing(find_task("probe-bandit"))
        method.different_at = at
        return method.run(seed=0, budget=100)

    sound = planted(0)
    assert sound.first_difference(planted(0)) is None
    assert sound.first_difference(planted(3)) == 3
    assert planted(5).first_difference(sound) == 5
    shorter = planted(0)
    del shorter.trail[2:]
    assert sound.first_difference(shorter) == shorter.first_difference(sound) == 3


PPO = "polobench.methods.ppo:PPO"
CELLS = [f"{PPO} CartPole-v1", f"{PPO} probe-bandit", "stranger:Stranger CartPole-v1"]
EDITS = {
    "methods/trpo.py": set(),
    "methods/ppo.py": {CELLS[0], CELLS[1]},
    "objectives/returns.py": {CELLS[0], CELLS[1]},
    "tasks/probes.py": {CELLS[1]},
    "tasks/vector.py": set(CELLS),
    "core/recorder.py": set(CELLS),
}
STRANGER = """
import polobench

class Stranger(polobench.Method):
    name = "stranger"
"""
HASHES = """
import importlib, json, sys
from pathlib import Path
import polobench
from polobench import registry
from polobench.core import provenance
cells, edits = map(json.loads, sys.argv[1:])

def code_hash(cell):
    method, task = cell.split()
    module, name = method.split(":")
    made = getattr(importlib.import_module(module), name)(registry.find_task(task))
    return made.run(seed=0, budget=1).provenance["code_hash"]

hashes = []
for edit in [None, *edits]:
    if edit:
        with open(Path(polobench.__file__).parent / edit, "a") as file:
            file.write("# edited\\n")
    provenance.code_hash.cache_clear()
    hashes.append({cell: code_hash(cell) for cell in cells})
print(json.dumps(hashes))
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> dict[str, set[str]]:
    """The cells whose code hash another edit of a source changes, in a copy of the package, by source."""
    folder = tmp_path_factory.mktemp("copy")
    source = Path(polobench.__file__).parent
    shutil.copytree(source, folder / "polobench", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "stranger.py").write_text(STRANGER)
    hashes = json.loads(python(HASHES, json.dumps(CELLS), json.dumps(list(EDITS)), path=[folder]))
    steps = zip(EDITS, hashes, hashes[1:], strict=False)
    return {edit: {cell for cell in CELLS if old[cell] != new[cell]} for edit, old, new in steps}


@pytest.mark.parametrize("source", EDITS)
def test_code_hash_changes_with_the_code_that_a_run_reaches_and_with_no_other(source, changed):
    assert changed[source] == EDITS[source]


def test_simulators_and_what_a_plug_in_imports_are_in_the_code_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("gymnasium.envs.jumper")
    module.simulator, module.json, module.numpy = types.ModuleType("simulator.core"), json, np
    monkeypatch.setitem(sys.modules, module.__name__, module)
    jumper = type("Jumper", (), {"__module__": module.__name__})
    assert provenance.simulators_of(jumper) == {"simulator"}
    assert provenance.simulators_of(type(gymnasium.make("CartPole-v1").unwrapped)) == set()

    (tmp_path / "plug_in.py").write_text("import typer, json, numpy, polobench\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    hashes = []
    for version in "112":
        provenance.code_hash.cache_clear()
        monkeypatch.setattr(provenance, "_distribution_of", lambda top, now=version: f"{top} {now}" * (top == "typer"))
        hashes.append(provenance.code_hash("plug_in"))
    assert hashes[0] == hashes[1] != hashes[2]


def test_imports_are_the_same_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOBENCH_CACHE", str(tmp_path))
    parsed, kept = (provenance._imports("polobench.methods.ppo") for _ in range(2))
    (file,) = tmp_path.rglob("*.json")
    assert parsed == kept
    assert "polobench.core.rollout" in kept
    file.write_text('["polobench.core.ro')
    assert provenance._imports("polobench.methods.ppo") == parsed, "a damaged file is measured again"
