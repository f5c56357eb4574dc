"""`pytest benchmarks`: its options, what it refuses, and where its results go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from children import ENDLESS, hear_interrupts, plug_in

import polobench
from benchmarks import conftest as door

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def bench(*arguments: str, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "pytest", str(BENCHMARKS), *arguments, "-p", "no:cacheprovider"]
    return subprocess.run(whole, cwd=cwd, capture_output=True, text=True, check=False, **more)


def test_options_select_the_cells_and_absent_devices_are_skipped_with_their_reason(tmp_path: Path) -> None:
    options = ["--methods", "random,ppo", "--tasks", "probe-bandit", "--seeds", "3,7", "--devices", "cpu,mps"]
    done = bench(*options, "--budget", "600", "--throughput-rounds", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    store = tmp_path / "results" / "benchmarks"
    table = polobench.load(store)
    learning = table[(table.kind == "learning") & (table.device == "cpu")]
    assert sorted(zip(learning.method, learning.seed)) == [("ppo", 3), ("ppo", 7), ("random", 3), ("random", 7)]
    absent = table[table.device == "mps"]
    if (absent.status == "skipped").any():
        assert (absent.status == "skipped").all()
        assert "6 passed, 6 skipped" in done.stdout
        assert absent.reason.str.contains("mps").all()


def test_the_time_is_the_ledgers_and_the_row_carries_the_outcome(tmp_path: Path) -> None:
    options = ["--methods", "ppo", "--tasks", "probe-bandit", "--seeds", "1", "--devices", "cpu", "--budget", "600"]
    done = bench(*options, "--throughput-rounds", "0", "--store", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    (path,) = (tmp_path / "here" / "pytest-benchmark").rglob("*.json")
    (row,) = json.loads(path.read_text())["benchmarks"]
    (cell,) = polobench.load(tmp_path / "here").to_dict("records")
    assert row["stats"]["rounds"] == 1
    assert row["stats"]["median"] == pytest.approx(cell["wall_seconds"])
    info = row["extra_info"]
    assert info["cell_id"] == cell["cell_id"]
    assert info["samples"] == cell["samples"]
    assert info["final_return"] == cell["final_return"]
    assert set(info["loss_convergence"]) == {"start", "end", "samples"}
    assert set(info["time_to_target"]) == {"samples", "wall_seconds", "cpu_seconds"}
    assert len(json.dumps(info)) < 1000


def test_a_cell_that_fails_fails_its_test_and_is_stored_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        'devices = ["cpu"]\n[[grid]]\ntasks = ["probe-bandit"]\nseeds = 1\nbudget = 2000\n'
        'methods = [{method = "ppo", label = "ppo wild", learning_rate = 1e30}, "random"]\n'
    )
    done = bench("--study", "s.toml", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    status = polobench.load(tmp_path / "results" / "s").set_index("label").status
    assert status.to_dict() == {"ppo wild": "diverged", "random": "ok"}


# a method that interrupts its own process at each of its updates; when that returns, the signal's handler has run
INTERRUPTING = """
import signal
from pathlib import Path
from polobench.methods.reinforce import Reinforce

class Interrupting(Reinforce):
    name = "interrupting"

    def learn(self, task, rng):
        for update in super().learn(task, rng):
            signal.raise_signal(signal.SIGINT)
            yield update
            Path({path!r}).touch()
"""


def test_interrupting_ends_in_one_line_and_keeps_what_is_finished(tmp_path: Path) -> None:
    went_on = tmp_path / "went-on"
    plug_in(tmp_path, "method", INTERRUPTING.format(path=str(went_on)), "methods:interrupting=method:Interrupting")
    finite, endless = ENDLESS.rsplit("[[grid]]", 1)
    (tmp_path / "s.toml").write_text(f"{finite}[[grid]]{endless.replace('random', 'interrupting')}")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = bench("--study", "s.toml", "-q", cwd=tmp_path, env=environment, preexec_fn=hear_interrupts)
    assert done.returncode == 130, done.stdout
    assert went_on.exists(), "the first interrupt lets the running cell finish"
    assert "polobench: interrupted; 2 of 3 cells are kept in results/s" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    store = tmp_path / "results" / "s"
    assert len(polobench.load(store)) == 2
    (path,) = (store / "pytest-benchmark").rglob("*.json")
    assert len(json.loads(path.read_text())["benchmarks"]) == 2


def test_throughput_is_not_measured_where_benchmarks_are_disabled(tmp_path: Path) -> None:
    options = ["--methods", "random", "--tasks", "probe-bandit", "--seeds", "1", "--devices", "cpu", "--budget", "300"]
    done = bench(*options, "--benchmark-disable", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert set(polobench.load(tmp_path / "results" / "benchmarks").kind) == {"learning"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--methods", "ppoo"], "ppoo"),
        (["--study", "absent.toml", "--seeds", "3"], "--study"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_clear_line(tmp_path: Path, options: list[str], named: str) -> None:
    done = bench(*options, cwd=tmp_path)
    assert done.returncode == 4
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "polobench:" in line]
    assert lines
    assert named in lines[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tasks": "CartPole-v9"}, "CartPole-v9"),
        ({"devices": "tpu"}, "tpu"),
        ({"seeds": "few"}, "few"),
        ({"budget": "0"}, "samples"),
        ({"budget": "much"}, "much"),
        ({"budget": "steps=3"}, "steps"),
        ({"throughput-rounds": -1}, "throughput_rounds"),
        ({"study": "absent.toml"}, "absent.toml"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_before_anything_is_collected(
    options: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {f"--{name}": value for name, value in options.items()}
    config: Any = SimpleNamespace(option=SimpleNamespace(help=False), getoption=options.get)
    with pytest.raises(pytest.UsageError, match=f"^polobench: .*{named}"):
        door.pytest_configure(config)
    assert not list(tmp_path.iterdir())
