"""`polobench ab` as a whole, on a made-up polobench whose commits say how long their iterations take."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from children import hear_interrupts
from conftest import Command
from made_up import REGISTRY, STUBS, STUDY, Checkout

import polobench
from polobench.ab import processes as ab_processes
from polobench.ab import sides as ab_sides
from polobench.ab import speed
from polobench.ab import timing as ab
from polobench.ab.processes import Worker, servers
from polobench.ab.sides import Side, can_share, checked_out, write_metadata
from polobench.ab.timing import BLOCKS
from polobench.core.budget import Budget
from polobench.core.errors import UsageError
from polobench.kinds.cell import Cell
from polobench.kinds.throughput import Throughput

CELL = Cell("ppo", "ppo", "CartPole-v1", 0, "cpu", Budget(updates=8), plan=Throughput(5))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """The working folder; what is temporary lies in `tmp_path / "temporary"`, and torch is a stub."""
    for name, text in STUBS.items():
        (tmp_path / "stubs").mkdir(exist_ok=True)
        (tmp_path / "stubs" / name).write_text(text)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stubs"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    made = Checkout(tmp_path / "checkout")
    monkeypatch.chdir(made.folder)
    return made


def left_behind(checkout: Checkout) -> list[str]:
    assert checkout.worktrees == 1
    return os.listdir(checkout.folder.parent / "temporary")


@pytest.fixture
def command(command: Command) -> Command:
    return partial(command, "ab", "--seconds", 3600)  # the pairs end it


def test_a_commit_that_keeps_its_timed_iterations_elsewhere_is_compared(checkout: Checkout, command: Command) -> None:
    shutil.rmtree(checkout.folder / "polobench/cells")
    old = checkout.commit(room="harness")
    shutil.rmtree(checkout.folder / "polobench/harness")
    code, printed, _ = command(old, checkout.commit())
    assert code == 0
    assert "No regression of speed seen in 1 of 1 cells" in printed


def test_a_commit_against_itself(checkout: Checkout, command: Command) -> None:
    code, printed, _ = command("HEAD", "HEAD")
    assert code == 0
    assert "No regression of speed seen in 1 of 1 cells" in printed
    assert printed.count(speed.ALIKE) == 3
    assert left_behind(checkout) == []


def test_a_planted_slowdown_of_the_update_alone(checkout: Checkout, command: Command, tmp_path: Path) -> None:
    base = checkout.git("rev-parse", "HEAD")
    checkout.git("switch", "-q", "-c", "slow")
    checkout.commit("update *= 1.2")
    code, printed, _ = command(base, "slow", "--json", "-o", str(tmp_path / "page.md"))
    assert code == 1
    found = json.loads(printed)
    parts = found["cells"][0]["parts"]
    assert parts["update"]["value"] == pytest.approx(1.2, rel=0.01)
    assert (parts["update"]["verdict"], parts["rollout"]["verdict"]) == (speed.SLOWER, speed.ALIKE)
    assert found["head"] == {"ref": "slow", "commit": checkout.git("rev-parse", "slow")}
    assert np.shape(found["cells"][0]["seconds"]["update"]) == (BLOCKS, ab.MOST_PAIRS, 2)
    page = (tmp_path / "page.md").read_text()
    assert "**Regression: ppo · task · throughput · cpu is slower.**" in page
    assert left_behind(checkout) == []


def test_a_speed_up_is_called_one(checkout: Checkout, command: Command) -> None:
    checkout.commit("rollout /= 1.2")
    code, printed, _ = command("HEAD~", "HEAD")
    assert code == 0
    assert speed.FASTER in printed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to a core here")
def test_both_sides_share_one_core(checkout: Checkout, command: Command, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    line = "f'{os.getpid()} {min(os.sched_getaffinity(0))} {len(os.sched_getaffinity(0))}\\n'"
    checkout.commit(f"with Path({str(mark)!r}).open('a') as seen: seen.write({line})")
    assert command("HEAD", "HEAD")[0] == 0
    seen = list(dict.fromkeys(tuple(map(int, found.split())) for found in mark.read_text().splitlines()))
    assert [count for _, _, count in seen] == [1] * 2 * BLOCKS
    assert all(first[1] == second[1] for first, second in zip(seen[::2], seen[1::2], strict=True))


def test_each_side_has_the_entry_points_of_its_commit(checkout: Checkout, command: Command) -> None:
    checkout.commit(methods=("ppo", "mine"))
    code, printed, _ = command("HEAD~", "HEAD", "--methods", "mine")
    assert code == 0
    assert "new: ValueError: unknown method 'mine' (allowed: ppo)" in printed
    checkout.commit(methods=("ppo",))
    checkout.write("both.toml", STUDY.replace("{methods}", "'mine', 'ppo'"))
    code, printed, _ = command("HEAD~", "HEAD", "--study", "both.toml")
    assert code == 1
    assert "failing: ValueError: unknown method 'mine' (allowed: ppo)" in printed
    code, _, said = command("HEAD", "HEAD", "--study", "both.toml", "--methods", "mine")
    assert code == 2
    assert "no cell runs on either side" in said


@pytest.mark.parametrize("folder", ["polobench/studies", "studies"])
def test_the_study_is_the_one_of_the_head(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, method in (("studies", "mine"), (f"head/{folder}", "theirs")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "speed.toml").write_text(STUDY.replace("{methods}", repr(method)))
    root = tmp_path / "head"
    for given in ("speed", "studies/speed.toml"):
        (cell,) = ab.load_cells(Path(given), Side("HEAD", "0", root, root, Path(sys.executable)))
        assert cell.method == "theirs"


@pytest.mark.parametrize(
    ("step", "reason"),
    [("raise RuntimeError('two\\nlines')", "failing: RuntimeError: two lines"),
     ("print('last words', flush=True); os._exit(3)", "failing: its process died: last words")],
)  # fmt: skip
def test_a_head_that_fails_under_way_is_a_regression(
    checkout: Checkout, command: Command, step: str, reason: str
) -> None:
    checkout.commit(step)
    code, printed, _ = command("HEAD~", "HEAD")
    assert code == 1
    assert reason in printed
    assert left_behind(checkout) == []


def test_what_a_method_prints_disturbs_nothing(checkout: Checkout, command: Command) -> None:
    checkout.commit("print('{}', flush=True)")
    assert command("HEAD", "HEAD")[0] == 0


def test_a_worker_that_is_silent_has_failed(
    checkout: Checkout, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ab_processes, "ANSWER_SECONDS", 1.0)
    checkout.commit("time.sleep(3600)")
    assert "no answer for 1 s" in "".join(map(str, command("HEAD", "HEAD")))


def test_a_worker_whose_polobench_comes_from_elsewhere_is_refused(checkout: Checkout) -> None:
    with checked_out(checkout.folder, ("HEAD", "HEAD"), print) as sides:
        wrong = [Side(**{**vars(side), "home": side.root.parent.parent / "elsewhere"}) for side in sides]
        with servers(*wrong) as between:
            found = ab.time_cells(between(*wrong), [CELL], 1, 0, lambda share: None)
    assert all("ImportError: polobench comes from" in problem for problem in found[0].problems)


def test_an_order_says_what_a_study_says_of_its_task(tmp_path: Path) -> None:
    orders: list[dict[str, Any]] = []
    server: Any = SimpleNamespace(fork=lambda order, channel: orders.append(order))
    side: Any = SimpleNamespace(home=tmp_path, paths=[])
    lake = {"id": "FrozenLake-v1", "kwargs": {"is_slippery": False}}
    for cell in (CELL, replace(CELL, task="lake", environment=lake)):
        Worker(server, side, cell, []).close()
    assert [order["task"] for order in orders] == ["CartPole-v1", {**lake, "label": "lake"}]
    json.dumps(orders)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind_by_a_run_that_is_stopped(checkout: Checkout, tmp_path: Path, ending: int) -> None:
    mark = tmp_path / "mark"
    checkout.commit(f"Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(3600)")
    running = subprocess.Popen(
        [sys.executable, "-P", "-m", "polobench", "ab", "HEAD", "HEAD"],
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")}, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    while not (mark.exists() and mark.read_text()):
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.05)
    running.send_signal(ending)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, "interrupted" in said) == (130, True)
    assert left_behind(checkout) == []
    worker = int(mark.read_text())
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("HEAD", "nowhere"), "no commit 'nowhere'"), (("--", "HEAD", "--all"), "no commit '--all'"),
     (("HEAD", "HEAD", "--study", "absent"), "unknown study 'absent'"),
     (("HEAD", "HEAD", "--methods", "pop"), "(allowed: ppo)"),
     (("HEAD", "HEAD", "--tasks", "x"), "(allowed: task)"), (("HEAD", "HEAD", "-o", "absent/page.md"), "no folder")],
)  # fmt: skip
def test_bad_input_is_one_line(
    checkout: Checkout, command: Command, arguments: tuple[str, ...], complaint: str
) -> None:
    code, printed, said = command(*arguments)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert complaint in said
    assert left_behind(checkout) == []


def test_a_dirty_tree_is_refused_and_a_file_that_git_does_not_know_is_not_dirt(
    checkout: Checkout, command: Command
) -> None:
    checkout.write("notes.txt", "not in git")
    assert command("HEAD", "HEAD")[0] == 0
    checkout.write("polobench/__init__.py", REGISTRY + "# changed")
    code, _, said = command("HEAD", "HEAD")
    assert (code, said.count("\n")) == (2, 1)
    assert "changes that are in no commit" in said
    assert left_behind(checkout) == []


def test_a_folder_without_git_and_another_project_are_refused(
    checkout: Checkout, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.write("pyproject.toml", '[project]\nname = "other"')
    checkout.git("commit", "-q", "-a", "-m", "another project")
    code, _, said = command("HEAD~", "HEAD")
    assert (code, "'HEAD' is no commit of polobench" in said) == (2, True)
    assert left_behind(checkout) == []
    monkeypatch.chdir(checkout.folder.parent)
    assert "is no git checkout" in command("HEAD", "HEAD")[2]


def test_worktrees_are_gone_after_a_failure(checkout: Checkout) -> None:
    seen = []

    def fail() -> None:
        with checked_out(checkout.folder, ("HEAD", "HEAD"), print) as sides:
            seen.extend([checkout.worktrees, *((side.root / "pyproject.toml").exists() for side in sides)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [3, True, True]
    assert left_behind(checkout) == []


# Packages


def test_packages_are_shared_where_both_ask_for_the_same_and_have_it() -> None:
    assert can_share([["numpy>=1", "pytest"], ["pytest", "numpy>=1"]])
    assert can_share([["absent; python_version < '3'"]] * 2)
    assert not can_share([["numpy>=1"], ["numpy>=2"]])
    assert not can_share([["numpy>=1000"]] * 2)
    assert not can_share([["polobench-has-no-such-package"]] * 2)


def test_other_packages_are_installed_for_each_side(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout.commit(dependencies='["numpy>=1000"]')
    ran: list[list[str]] = []
    real = ab_sides._run

    def run(command: list[str]) -> Any:
        if command[0] == "git":
            return real(command)
        ran.append(command)
        return SimpleNamespace(returncode=int("pip" in command and len(ran) > 2), stderr="no such\nversion\n")

    monkeypatch.setattr(ab_sides, "_run", run)
    said: list[str] = []
    with (
        pytest.raises(UsageError, match="'HEAD' cannot be installed: version"),
        checked_out(checkout.folder, ("HEAD~", "HEAD"), said.append),
    ):
        pass
    assert len(said) == 1
    assert [("venv" in command, "install" in command) for command in ran] == 2 * [(True, False), (False, True)]
    assert ran[1][0].startswith(ran[0][-1])
    assert left_behind(checkout) == []


def test_metadata_is_read_back(tmp_path: Path) -> None:
    project = {"name": "polobench", "version": "7", "entry-points": {"polobench.tasks": {"a": "b:c"}}}
    write_metadata(tmp_path, project | {"dependencies": ["x>=1"], "scripts": {"run": "b:main"}})
    found = next(iter(metadata.distributions(path=[str(tmp_path)])))
    assert (found.version, found.requires) == ("7", ["x>=1"])
    entries = {(entry.group, entry.name, entry.value) for entry in found.entry_points}
    assert entries == {("polobench.tasks", "a", "b:c"), ("console_scripts", "run", "b:main")}


# The real package


def test_the_real_package_takes_part(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(polobench.__file__).parent
    shutil.copytree(
        root, checkout.folder / "polobench", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(root.parent / "pyproject.toml", checkout.folder)
    checkout.git("add", "-A")
    checkout.git("commit", "-q", "-m", "the real one")
    monkeypatch.delenv("PYTHONPATH")
    cell = Cell("random", "random", "probe-bandit", 0, "cpu", Budget(updates=8), plan=Throughput(5))
    with checked_out(checkout.folder, ("HEAD", "HEAD"), print) as sides, servers(*sides) as between:
        found = ab.time_cells(between(*sides), [cell], 1, 0, lambda share: None)[0]
    assert found.problems == ["", ""]
    assert all(0 < t.rollout < t.iteration for block in found.blocks for pair in block for t in pair)
