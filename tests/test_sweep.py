"""`polobench run`: workers, resuming, interruption, death and a full disk; nothing finished is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from children import ENDLESS, MINI, hear_interrupts, plug_in, started, write_study
from conftest import Command

import polobench
from polobench.cells.runner import blank_result, prepare, run_cell
from polobench.core.device import present_devices
from polobench.core.errors import UsageError
from polobench.core.result import STATUSES, RunResult
from polobench.run.executor import SweepStopped
from polobench.run.processes import Processes, preloaded
from polobench.run.progress import Display
from polobench.run.study import load_study, parse_study
from polobench.run.sweep import pending, run_sweep, statuses
from polobench.store.folder import Store

# a method that is reinforce, and a file that appears once it has made an update
MARKED = """
from pathlib import Path
from polobench.methods.reinforce import Reinforce

class Marked(Reinforce):
    name = "marked"

    def learn(self, task, rng):
        for update in super().learn(task, rng):
            yield update
            Path({path!r}).touch()
"""


def test_a_sweep_fills_the_store_and_goes_on_where_it_stopped(command: Command, tmp_path: Path) -> None:
    study, store = write_study(tmp_path), tmp_path / "store"
    first = command("run", study, "--jobs", 2, "--store", store)
    assert first.code == 0, first.err
    written = {path.name: path.stat().st_mtime_ns for path in store.glob("*.json")}
    assert len(written) == 6
    next(store.glob("*.json")).unlink()
    second = command("run", study, "--jobs", 2, "--store", store)
    assert f"already in {store}: 5" in second.err
    again = {path.name: path.stat().st_mtime_ns for path in store.glob("*.json")}
    assert set(again) == set(written)
    assert sum(again[name] != written[name] for name in written) == 1


def test_cells_that_ran_beside_others_are_marked_and_throughput_runs_alone(command: Command, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    command("run", study, "--jobs", 2, "--store", tmp_path / "beside")
    command("run", study, "--jobs", 1, "--store", tmp_path / "alone")
    beside, alone = polobench.load(tmp_path / "beside"), polobench.load(tmp_path / "alone")
    assert dict(zip(beside.kind, beside.ran_beside_others)) == {"learning": True, "throughput": False}
    assert not alone.ran_beside_others.any()
    assert set(beside.cell_id) == set(alone.cell_id)
    digests = beside.set_index("cell_id").digest.dropna()
    assert digests.equals(alone.set_index("cell_id").digest.dropna().reindex(digests.index))


def test_both_doors_give_the_same_cells(command: Command, tmp_path: Path) -> None:
    study = str(write_study(tmp_path))
    benchmarks = Path(__file__).parent.parent / "benchmarks"
    whole = [sys.executable, "-m", "pytest", str(benchmarks), "--study", study, "--store", "by-pytest", "-q"]
    done = subprocess.run(whole, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    command("run", study, "--store", tmp_path / "by-run")
    by_pytest, by_run = (polobench.load(tmp_path / name).set_index("cell_id") for name in ("by-pytest", "by-run"))
    assert set(by_pytest.index) == set(by_run.index)
    assert by_pytest.digest.dropna().sort_index().equals(by_run.digest.dropna().sort_index())
    assert list((tmp_path / "by-pytest" / "pytest-benchmark").rglob("0001_mini.json"))


def test_a_dry_run_prints_cells_and_minutes_and_runs_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = command("run", write_study(tmp_path), "--dry-run")
    assert code == 0
    assert printed.count("[to run]") == 6
    assert "minutes" in printed
    assert not (tmp_path / "results").exists()


def interrupt_twice(process: subprocess.Popen[str]) -> str:
    """What it says on stderr after Ctrl-C, which lets running cells finish, and a second, which stops them."""
    os.killpg(process.pid, signal.SIGINT)
    heard = until_heard(process)
    if "finishing" in heard:
        os.killpg(process.pid, signal.SIGINT)
    return heard + process.communicate(timeout=60)[1]


def until_heard(process: subprocess.Popen[str]) -> str:
    """What it says until it says that it finishes what runs, or until it ends."""
    assert process.stderr is not None
    said = ""
    while "finishing" not in said and (line := process.stderr.readline()):
        said += line
    return said


def test_one_interrupt_lets_the_running_cell_finish(tmp_path: Path) -> None:
    marker = tmp_path / "running"
    heard = tmp_path / "heard"  # the cell goes on when the interrupt has been heard
    waits = f"            while not Path({str(heard)!r}).exists(): pass\n"
    plug_in(tmp_path, "marks", MARKED.format(path=str(marker)) + waits, "methods:marked=marks:Marked")
    study = write_study(tmp_path, ENDLESS.replace("2_000_000_000", "20_000").replace('"random"', '"marked"'))
    whole = [sys.executable, "-m", "polobench", "run", str(study)]
    process = subprocess.Popen(
        whole, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_interrupts,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    while not marker.exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    errors = until_heard(process)
    heard.touch()
    errors += process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "finishing what runs (1); Ctrl-C again stops it" in errors
    store = tmp_path / "results" / "mini"
    assert f"{len(list(store.glob('*.json')))} of 3 cells are kept" in errors.splitlines()[-1]
    assert (polobench.load(store).status == "ok").all()
    assert not list(store.glob(".*"))


def test_interrupting_keeps_what_is_finished(tmp_path: Path) -> None:
    whole = [sys.executable, "-m", "polobench", "run", str(write_study(tmp_path, ENDLESS))]
    process = subprocess.Popen(
        whole, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_interrupts
    )
    store = tmp_path / "results" / "mini"
    while len(list(store.glob("*.json"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    errors = interrupt_twice(process)
    assert process.returncode == 130
    assert "2 of 3 cells are kept" in errors.splitlines()[-1]
    assert len(polobench.load(store)) == 2


def _has_worker(process: subprocess.Popen[str]) -> bool:
    """Whether it has a server of workers (and a tracker of resources), and that a worker."""
    return len(psutil.Process(process.pid).children(recursive=True)) > 2


PHASES: dict[str, Callable[[subprocess.Popen[str], Path], bool]] = {
    "the server imports": lambda process, marker: True,
    "a worker starts": lambda process, marker: _has_worker(process),
    "a run holds a library's locks": lambda process, marker: marker.exists(),
}


@pytest.mark.parametrize("phase", PHASES)
def test_interrupting_says_one_line_whenever_it_comes(phase: str, tmp_path: Path) -> None:
    marker = tmp_path / "running"
    plug_in(tmp_path, "marks", MARKED.format(path=str(marker)), "methods:marked=marks:Marked")
    study = write_study(tmp_path, ENDLESS.replace("random", "marked").replace("probe-bandit", "sort-digits"))
    whole = [sys.executable, "-m", "polobench", "run", str(study)]
    process = subprocess.Popen(
        whole, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_interrupts,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("cells:")
    while process.poll() is None and not PHASES[phase](process, marker):
        time.sleep(0.05)
    errors = interrupt_twice(process)
    assert process.returncode == 130
    said = [line for line in errors.splitlines() if not line.startswith(("[", "finishing"))]  # less ended cells
    assert len(said) == 1, errors
    assert said[0].startswith("polobench: interrupted")


ENDING = """
import atexit, os, signal, sys
import polobench.cli
def ends_as_typer_does_after_an_interrupt(): sys.exit(130)
polobench.cli.app = ends_as_typer_does_after_an_interrupt
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
polobench.cli.main()
"""


def test_an_interrupt_while_the_interpreter_ends_changes_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False,
                          preexec_fn=hear_interrupts)  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "polobench: interrupted\n")


def test_a_worker_that_is_killed_fails_its_own_cell_alone(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        import os, signal
        from polobench import Method

        class Killer(Method):
            name = "killer"

            def learn(self, task, rng):
                os.kill(os.getpid(), signal.SIGKILL)
                yield
    """
    plug_in(tmp_path, "killer", source, "methods:killer=killer:Killer")
    text = MINI.replace('"ppo"', '"killer"').replace("throughput_rounds = 2", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = command("run", write_study(tmp_path, text), "--store", tmp_path / "store")
    assert done.code == 1
    assert "2 of 4 cells did not end ok" in done.err
    table = polobench.load(tmp_path / "store")
    assert table.groupby("method").status.unique().map(list).to_dict() == {"killer": ["crashed"], "random": ["ok"]}
    assert table[table.method == "killer"].reason.str.contains("SIGKILL").all()
    assert (table[table.method == "killer"].final_score == 0).all()


def test_a_full_disk_stops_the_sweep_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [prepare(cell) for cell in parse_study("s", {"grid": [_grid("cuda"), _grid("cpu")]}).cells]
    store = Store(tmp_path)

    def full(result: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save", full)
    with pytest.raises(SweepStopped, match="No space left on device"), Display(len(cells)) as display:
        run_sweep(cells, store, display, partial(Processes, 1))
    assert len(pending(cells, statuses(store))) == len(cells)


def _grid(device: str) -> dict[str, object]:
    return {"methods": ["random"], "tasks": ["probe-bandit"], "seeds": 1, "budget": 600, "devices": [device]}


def test_an_absent_device_is_skipped_and_tried_again_next_time(tmp_path: Path) -> None:
    (cell,) = parse_study("s", {"grid": [_grid("mps")]}).cells
    prepared = prepare(cell)
    if prepared.method is not None:
        pytest.skip("this machine has an MPS device")
    store = Store(tmp_path)
    result = run_cell(prepared)
    store.save(result)
    assert (result.status, "mps" in result.reason) == ("skipped", True)
    assert pending([prepared], statuses(store)) == [prepared]


def test_a_study_of_which_nothing_can_run_says_so(command: Command, tmp_path: Path) -> None:
    absent = "devices = ['{}']\n[[grid]]\nmethods = ['random']\ntasks = ['CartPole-v1']\nseeds = 2\nbudget = 10\n"
    device = next(name for name in ("cuda", "mps", "xpu") if name not in present_devices())
    study = write_study(tmp_path, absent.format(device))
    found = command("run", study, "--store", tmp_path / "store")
    assert found.code == 1
    assert found.err.splitlines()[-1] == "polobench: nothing ran: all 2 cells were skipped, for the reasons above"
    assert "is absent" in found.err
    write_study(tmp_path, absent.format(f"cpu', '{device}"))
    assert command("run", study, "--store", tmp_path / "store").code == 0
    assert command("run", study, "--store", tmp_path / "store").code == 0, "what is done is done"


def test_what_only_the_machine_ended_is_run_again(tmp_path: Path) -> None:
    (cell,) = parse_study("s", {"grid": [_grid("cpu")]}).cells
    prepared, store = prepare(cell), Store(tmp_path)
    for status in STATUSES:
        again = status in ("timeout", "out_of_memory", "crashed", "skipped")
        for reason in ("", "the worker process was ended by SIGKILL"):  # the reason has no say
            store.save(blank_result(prepared, status, reason))
            assert (pending([prepared], statuses(store)) == [prepared]) is again


def test_what_ended_ok_stays_where_the_machine_ends_it_later(tmp_path: Path) -> None:
    (cell,) = parse_study("s", {"grid": [_grid("cpu")]}).cells
    prepared, store = prepare(cell), Store(tmp_path)
    for status, stands in (("crashed",) * 2, ("ok",) * 2, ("timeout", "ok"), ("failed",) * 2, ("crashed",) * 2):
        store.keep(blank_result(prepared, status, ""))
        assert statuses(store) == {prepared.cell_id: stands}


def test_a_stored_failure_is_told_each_time(command: Command, tmp_path: Path) -> None:
    study = write_study(tmp_path, MINI.replace("throughput_rounds = 2", ""))
    cells = [prepare(cell) for cell in load_study(study).cells]
    store = Store(tmp_path / "store")
    store.prepare()
    for item in cells:
        store.save(blank_result(item, "failed" if item is cells[0] else "ok", "the loss is nan"))
    code, _, said = command("run", study, "--store", store.folder)
    assert (code, f"1 of {len(cells)} cells did not end ok" in said) == (1, True)


def test_a_worker_whose_sources_differ_from_the_parents_stops_the_sweep(tmp_path: Path) -> None:
    (cell,) = parse_study("s", {"grid": [_grid("cpu")]}).cells
    prepared, store = replace(prepare(cell), code="of other sources"), Store(tmp_path)
    with pytest.raises(SweepStopped, match="sources changed"), Display(1) as display:
        run_sweep([prepared], store, display, partial(Processes, 1))
    assert not list(tmp_path.glob("*.json"))


def test_a_task_that_describes_itself_otherwise_in_a_worker_fails_its_own_cell(tmp_path: Path) -> None:
    (cell,) = parse_study("s", {"grid": [_grid("cpu")]}).cells
    prepared, store = replace(prepare(cell), cell_id="of another task"), Store(tmp_path)
    results = list[RunResult]()
    with Display(1) as display:
        run_sweep([prepared], store, display, partial(Processes, 1), results.append)
    (result,) = results
    assert (result.status, result.cell_id) == ("failed", "of another task")
    assert "describes itself otherwise" in result.reason
    assert store.load("of another task") is not None


ENVIRONMENTS = """
    import multiprocessing, os, sys, tempfile, threading, time
    import gymnasium as gym, numpy as np
    from polobench.tasks.control import ControlTask

    class Toy(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.t += 1
            return np.zeros(2, np.float32), float(action), False, self.t >= 20, {}

    class Child(Toy):
        def __init__(self):
            process = multiprocessing.Process(target=int)
            process.start()
            process.join()

    class Thread(Toy):
        def __init__(self):
            threading.Thread(target=time.sleep, args=(10**6,)).start()

    class Elsewhere(Toy):
        def __init__(self):
            os.chdir(tempfile.mkdtemp())

    class Exits(Toy):
        def step(self, action):
            sys.exit(3)

    class ExitsAtOnce(Toy):
        def __init__(self):
            if multiprocessing.parent_process():
                sys.exit(3)

    class Closes(Toy):
        def close(self):
            if hasattr(self, "t"):  # it has run
                raise ValueError("no more")

    def maker(name, make):
        return lambda: ControlTask(name, make)

    child, thread, elsewhere = maker("child", Child), maker("thread", Thread), maker("elsewhere", Elsewhere)
    exits, closes, at_once = maker("exits", Exits), maker("closes", Closes), maker("at_once", ExitsAtOnce)
"""
ENDINGS = {
    "child": ("ok", "the budget of samples is spent"),
    "thread": ("ok", "the budget of samples is spent"),
    "elsewhere": ("ok", "the budget of samples is spent"),
    "exits": ("failed", "SystemExit: 3"),
    "at_once": ("failed", "SystemExit: 3"),
    "closes": ("failed", "ValueError: no more"),
}


def test_what_an_environment_does_to_its_worker_is_its_own_cells_outcome(tmp_path: Path) -> None:
    plug_in(tmp_path, "simulators", ENVIRONMENTS, *(f"tasks:{name}=simulators:{name}" for name in ENDINGS))
    text = '[[grid]]\nmethods = ["random"]\nseeds = 1\nbudget = 300\ndevices = ["cpu"]\n'
    study = write_study(tmp_path, text + f"tasks = {json.dumps(list(ENDINGS))}\n")
    done = started("run", str(study), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    table = polobench.load(tmp_path / "results" / "mini").set_index("task")
    found = {name: (table.status[name], table.reason[name]) for name in table.index}
    assert found == ENDINGS
    assert table.final_return[["exits", "closes"]].equals(table.floor[["exits", "closes"]])


def test_workers_have_loaded_what_their_cells_need_and_no_more() -> None:
    def found(*tasks: str) -> set[str]:
        grid = _grid("cpu") | {"methods": ["reinforce"], "tasks": list(tasks)}
        return set(preloaded([prepare(cell) for cell in parse_study("s", {"grid": [grid]}).cells]))

    control, both = found("probe-bandit"), found("probe-bandit", "sort-digits")
    assert both - control == {"transformers.models.gpt2.modeling_gpt2", "torch._dynamo"}
    loaded = "; ".join(f"import {name}" for name in sorted(control))
    run = "import polobench; polobench.make('ppo', task='probe-bandit').run(0, 64)"
    slow = {"transformers", "torch._dynamo", "sympy", "scipy", "matplotlib", "seaborn"}
    seen = f"{loaded}; {run}; import sys; print(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True).stdout == "False\n"


def test_a_worker_looks_for_garbage_though_its_server_does_not() -> None:
    run = """
import gc, types
import polobench.run.server
from polobench.run import processes
from polobench.run.study import load_study

print(gc.isenabled())
processes._run = lambda *arguments: str(gc.isenabled())
processes._work(load_study("quick").cells[0], "", "", types.SimpleNamespace(send=print))
"""
    assert subprocess.run([sys.executable, "-c", run], capture_output=True, text=True).stdout.split() == [
        "False",
        "True",
    ]


def test_the_id_covers_what_defines_a_cell_and_nothing_else() -> None:
    def identify(budget: int = 600, **item: object) -> str:
        grid = _grid("cpu") | {"methods": [{"method": "ppo", **item}], "budget": budget}
        return prepare(parse_study("s", {"grid": [grid]}).cells[0]).cell_id

    assert identify() == identify()
    assert identify(clip_eps=0.2) == identify()  # the default, said aloud
    assert len({identify(), identify(clip_eps=0.1), identify(label="other"), identify(700)}) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["run", "absent.toml"], 2, "absent.toml"),
        (["run", "mini.toml", "--store", "mini.toml"], 2, "not a folder"),
        (["run", "mini.toml", "--jobs", "0"], 2, "jobs"),
        (["report", "absent"], 2, "absent"),
        (["report", "mini.toml"], 2, "not a folder"),
        (["list", "nothing"], 2, "methods"),
        (["fly"], 2, "fly"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_mistakes_end_in_one_clear_line(
    arguments: list[str], code: int, named: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    done = command(*arguments)
    assert done.code == code
    assert named in done.err
    assert "Traceback" not in done.err
    assert done.err == done.err.strip() + "\n", "no empty line around it"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"ppo"', '"ppoo"', "did you mean 'ppo'"),
        ("probe-bandit", "CartPole-v9", "did you mean 'CartPole-v1'"),
        ('"cpu"', '"tpu"', "allowed: cpu, cuda, mps"),
        ('"ppo"', '{method = "ppo", clip = 0.1}', "clip_eps"),
        ('"ppo"', '{method = "ppo", clip_eps = "wide"}', "clip_eps is 'wide' (allowed: float)"),
        ("budget = 600", "budget = 0", "budget of samples is 0 (allowed: a positive integer)"),
        ("budget = 600", "budget = nan", "budget of samples is nan"),
        ("seeds = 2", "seed = 2", "unknown grid key 'seed'; did you mean 'seeds'?"),
        ('"random"', '"ppo"', "named twice"),
    ],
    ids=str,
)
def test_mistakes_in_a_study_end_in_one_clear_line(
    old: str, new: str, named: str, command: Command, tmp_path: Path
) -> None:
    assert old in MINI
    path = write_study(tmp_path, MINI.replace(old, new))
    code, _, said = command("run", path, "--store", tmp_path / "store")
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith("polobench: ")
    assert named in line
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(UsageError, match="cannot be written to: Permission denied"):
        Store(tmp_path).prepare()
