"""What runs cells: limits, what a cell does to its machine, marks of running sweeps, and equal digests everywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from children import MINI, plug_in, started, write_study
from conftest import Command

import polobench
from polobench.cells.runner import PreparedCell, blank_result, prepare, prepare_all
from polobench.core.errors import PoloError
from polobench.core.result import RunResult
from polobench.run import remote
from polobench.run.choice import choose
from polobench.run.executor import OpenExecutor, Serial
from polobench.run.processes import Processes
from polobench.run.progress import Display
from polobench.run.scratch import scratch
from polobench.run.slurm import minutes_of
from polobench.run.status import FRESH_SECONDS, Mark, running, status, tidy
from polobench.run.study import Study, load_study, parse_study
from polobench.run.sweep import pending, run_sweep, statuses
from polobench.store.folder import Store
from polobench.store.pack import open_store, write_pack

GRID = {"methods": ["random"], "tasks": ["probe-bandit"], "budget": 300}
STUDY = MINI.replace("throughput_rounds = 2", "")

# what methods do that they should not
NAP = f"9{os.getpid()}"  # seconds that no other sleep of this machine takes
UNRULY = """
    import os, subprocess, sys, time
    from polobench import Method

    class Unruly(Method):
        def learn(self, task, rng):
            self.misbehave()
            yield

    class Sleeps(Unruly):
        name = "sleeps"
        def misbehave(self):
            time.sleep(10**6)

    class Leaks(Unruly):
        name = "leaks"
        def misbehave(self):
            child = "import time; held = bytearray(300 * 2**20); time.sleep(10**6)"
            subprocess.run([sys.executable, "-c", child])

    class Exits(Unruly):
        name = "exits"
        def misbehave(self):
            os._exit(7)

    class Prints(Unruly):
        name = "prints"
        def misbehave(self):
            for _ in range(200):
                print("x" * 2**20)
            raise ValueError("said enough")

    class Orphans(Unruly):
        name = "orphans"
        def misbehave(self):
            child = "import subprocess, sys; subprocess.Popen(['sleep', '{NAP}'])"
            subprocess.run([sys.executable, "-c", child])
            os._exit(8)

    class Returns(Unruly):
        name = "returns"
        def learn(self, task, rng):
            return 17

    class Yields(Unruly):
        name = "yields"
        def learn(self, task, rng):
            yield "an update"

    class Swallows(Unruly):
        name = "swallows"
        def learn(self, task, rng):
            while True:
                try:
                    task.fragments(task.make_policy(self.hp), batch=1, n_steps=8)
                except Exception:
                    pass
""".replace("{NAP}", NAP)
METHODS = ("sleeps", "leaks", "exits", "prints", "orphans", "returns", "yields", "swallows")


def study_file(folder: Path) -> Study:
    return load_study(write_study(folder, STUDY, "few"))


def sweep(cells: list[PreparedCell], store: Store, open_executor: OpenExecutor) -> dict[str, RunResult]:
    store.prepare()
    found = list[RunResult]()
    with Display(len(cells)) as display:
        run_sweep(cells, store, display, open_executor, found.append)
    return {result.cell_id: result for result in found}


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """By cell id, as one process gives them."""
    folder = tmp_path_factory.mktemp("serial")
    cells = [prepare(cell) for cell in study_file(folder).cells]
    found = sweep(cells, Store(folder / "store"), lambda cells: Serial())
    assert len(found) == 4
    return {cell_id: result.digest for cell_id, result in found.items()}


def sleeping() -> list[psutil.Process]:
    return [found for found in psutil.process_iter(["cmdline"]) if found.info["cmdline"] == ["sleep", NAP]]


def test_processes_give_the_digests_of_one_process(tmp_path: Path, digests: dict[str, str | None]) -> None:
    cells = [prepare(cell) for cell in study_file(tmp_path).cells]
    found = sweep(cells, Store(tmp_path / "store"), partial(Processes, 2))
    assert {cell_id: result.digest for cell_id, result in found.items()} == digests
    assert all(result.ran_beside_others for result in found.values())
    assert not [path for path in (tmp_path / "store").iterdir() if path.suffix != ".json"]


def test_what_a_method_does_is_its_own_cells_outcome(tmp_path: Path) -> None:
    plug_in(tmp_path, "unruly", UNRULY, *(f"methods:{name}=unruly:{name.capitalize()}" for name in METHODS))
    names = json.dumps([*METHODS, "random"])
    study = f'devices = ["cpu"]\n[[grid]]\nmethods = {names}\ntasks = ["probe-bandit"]\nseeds = 1\nbudget = 100\n'
    limits = {"POLOBENCH_TEST": "", "PYTHONPATH": str(tmp_path)}
    path = write_study(tmp_path, "timeout_seconds = 2\nmemory_mib = 1\n" + study)
    done = started("run", str(path), "--jobs", "4", "--timeout", "4", "--memory", "1024", cwd=tmp_path, **limits)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    table = polobench.load(tmp_path / "results" / "mini").set_index("method")
    assert table.status.to_dict() == {
        "sleeps": "timeout", "leaks": "timeout", "exits": "crashed", "prints": "failed", "orphans": "crashed",
        "returns": "failed", "yields": "failed", "swallows": "timeout", "random": "ok",
    }  # fmt: skip
    assert "limit: 4 s" in table.reason["sleeps"]
    assert "exit code 7" in table.reason["exits"]
    assert "said enough" in table.reason["prints"]
    assert not sleeping()


def _cell_of(method: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **limits: float) -> PreparedCell:
    plug_in(folder, f"unruly_{method}", UNRULY, f"methods:{method}=unruly_{method}:{method.capitalize()}")
    monkeypatch.syspath_prepend(str(folder))
    grid = {"methods": [method], "tasks": ["probe-bandit"], "seeds": 1, "budget": 100}
    (cell,) = parse_study("s", {"grid": [grid], "devices": ["cpu"], **limits}).cells
    return prepare(cell)


def test_a_limit_ends_a_cell_and_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = _cell_of("leaks", tmp_path, monkeypatch, memory_mib=64)
    (result,) = sweep([prepared], Store(tmp_path / "store"), partial(Processes, 1)).values()
    assert result.status == "out_of_memory"
    assert "limit: 64 MiB" in result.reason
    assert result.final_score == 0
    assert pending([prepared], statuses(Store(tmp_path / "store"))) == [prepared]


def test_an_unknown_executor_or_a_limit_that_it_cannot_keep_is_one_line(tmp_path: Path) -> None:
    study = study_file(tmp_path)
    for given, named in (
        ({"name": "rai"}, "did you mean 'ray'"),
        ({"name": "serial", "jobs": 2}, "one cell at a time"),
        ({"name": "processes", "address": "auto"}, "has no address"),
        ({"name": "ray", "chunk": 2}, "--chunk and --slurm are for"),
        ({"name": "slurm", "settings": ["partition"]}, "allowed: NAME=VALUE"),
    ):
        with pytest.raises(PoloError, match=named):
            choose(**{"study": study, "folder": tmp_path, "jobs": None} | given)  # type: ignore[arg-type]
    with pytest.raises(PoloError, match="cannot limit"):
        choose("serial", study.limited(memory_mib=64.0), tmp_path, None)


def test_an_order_of_a_part_of_a_study_names_the_same_cell(tmp_path: Path) -> None:
    """Also where preparing gives the cell another label, as dpo on sampled pairs is called online dpo."""
    text = STUDY.replace('"ppo"]', '"dpo"]').replace('"probe-bandit"', '"CartPole-v1", "probe-bandit"')
    study = load_study(write_study(tmp_path, text))
    part = study.narrowed(tasks=["probe-bandit"])
    prepared = [prepare(cell) for cell in part.cells]
    found = [remote._accepted(json.loads(order)) for order in map(remote.orders(part), prepared)]
    assert [item.cell_id for item in map(prepare, (item.cell for item in found))] == [one.cell_id for one in prepared]
    assert {item.cell.label for item in found} == {"random", "online dpo"}


def test_limits_of_the_command_take_the_place_of_the_studys(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, "timeout_seconds = 60\nmemory_mib = 512\n" + STUDY))
    assert {(cell.timeout_seconds, cell.memory_mib) for cell in study.cells} == {(60, 512)}
    limited = study.limited(timeout_seconds=5.0, memory_mib=None)
    assert {(cell.timeout_seconds, cell.memory_mib) for cell in limited.cells} == {(5, 512)}
    assert [prepare(a).cell_id for a in study.cells] == [prepare(b).cell_id for b in limited.cells]


def test_status_counts_what_is_done_running_failed_and_missing(command: Command, tmp_path: Path) -> None:
    study = write_study(tmp_path, STUDY)
    cells = [prepare(cell) for cell in load_study(study).cells]
    store = Store(tmp_path / "store")
    store.prepare()
    for item, how in zip(cells, ("ok", "diverged", "skipped")):
        store.save(blank_result(item, how, ""))
    (store.folder / "damaged.json").write_text("{")
    with Mark(store) as mark:
        mark.show([cells[3].cell_id])
        assert running(store) == {cells[3].cell_id}
        found = status(store, cells)
        assert [found[name] for name in ("done", "running", "failed", "missing", "damaged")] == [1, 1, 1, 1, 1]
        by_label = {arm["label"]: arm for arm in found["arms"]}
        assert (by_label["random"]["done"], by_label["random"]["failed"]) == (1, 1)
        assert (by_label["ppo"]["running"], by_label["ppo"]["missing"]) == (1, 1)
        assert found["left"].startswith("about ")
    assert running(store) == set()
    assert pending(cells, statuses(store)) == cells[2:]
    assert pending(cells, statuses(store), retry_failed=True) == cells[1:]
    assert json.loads(command("status", store.folder, "--study", study, "--json").out)["missing"] == 2
    said = command("status", store.folder).out
    assert "cells: done 1, running 0, failed 1, missing 1, damaged files: 1" in said


def test_what_a_killed_sweep_left_goes_once_no_sweep_is_at_work(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = time.time() - FRESH_SECONDS - 1
    left = [tmp_path / ".sweep-1-a.tmp", tmp_path / ".writing-b-2.tmp", tmp_path / ".slurm-c"]
    left[2].mkdir()
    for path in (*left[:2], left[2] / "log"):
        path.write_text('["cell"]')
    for path in left:
        os.utime(path, (old, old))
    with Mark(store) as mark:
        mark.show(["another"])
        tidy(store)
        assert all(path.exists() for path in left)
        assert running(store) == {"another"}
    tidy(store)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_call_that_fails_stops_the_sweep_in_one_line_and_loses_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [prepare(cell) for cell in study_file(tmp_path).cells]
    store, calls, real = Store(tmp_path / "store"), [], getattr(os, call)

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(PoloError, match="cannot be written to: Input/output error"):
        sweep(cells, store, lambda cells: Serial())
    assert len(list(store.folder.iterdir())) == 1, "the finished cell, and no temporary file"
    found = sweep(pending(cells, statuses(store)), store, lambda cells: Serial())
    assert len(found) == 3
    assert not pending(cells, statuses(store))


def test_slurm_gives_the_digests_of_one_process(tmp_path: Path, digests: dict[str, str | None]) -> None:
    pytest.importorskip("submitit")
    study = study_file(tmp_path)
    cells, store = [prepare(cell) for cell in study.cells], Store(tmp_path / "store")
    modes: set[int] = set()

    class Watched(Mark):
        def show(self, running: object) -> None:
            modes.update(path.stat().st_mode & 0o777 for path in store.folder.glob(".slurm-*"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polobench.run.sweep.Mark", Watched)
        found = sweep(cells, store, choose("slurm", study, store.folder, 1, "local", chunk=4))
    assert {cell_id: result.digest for cell_id, result in found.items()} == digests
    assert modes == {0o700}
    assert not [path for path in store.folder.iterdir() if path.suffix != ".json"]


def test_a_slurm_task_asks_for_the_time_of_its_cells_and_without_a_limit_for_a_day(tmp_path: Path) -> None:
    study = study_file(tmp_path)
    limited = [prepare(cell) for cell in study.limited(timeout_seconds=90.0).cells]
    assert minutes_of(limited, 4) == 7, "six of the cells, and one to start and end"
    assert minutes_of([*limited, prepare(study.cells[0])], 4) == 24 * 60


def test_a_job_that_dies_fails_its_cells_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr("polobench.run.slurm.LATE_SECONDS", 0.0)
    study = study_file(tmp_path)
    cells, store = [prepare(cell) for cell in study.cells][:2], Store(tmp_path / "store")
    cells[0] = replace(cells[0], cell_id="no/such/folder")  # where its job cannot leave a word
    store.prepare()
    with choose("slurm", study, store.folder, 2, "local")(cells) as jobs:
        for item in cells:
            jobs.start(item)
        outcomes = dict[str, object]()
        while len(outcomes) < 2:
            outcomes |= {item.cell_id: outcome for item, outcome in jobs.outcomes(lambda *_: None)}
    assert outcomes[cells[1].cell_id].status == "ok"  # type: ignore[attr-defined]
    assert outcomes[cells[0].cell_id].status == "crashed"  # type: ignore[attr-defined]
    assert "ended without a result" in outcomes[cells[0].cell_id].reason  # type: ignore[attr-defined]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> object:
    """Ray, if it is installed; which address it takes for this machine's own is decided when it is imported."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return pytest.importorskip("ray")


def test_ray_listens_on_loopback_alone_and_gives_the_digests_of_one_process(
    ray: object, tmp_path: Path, digests: dict[str, str | None]
) -> None:
    study = study_file(tmp_path)
    cells, store = [prepare(cell) for cell in study.cells], Store(tmp_path / "store")
    listening: set[str] = set()

    class Watched(Mark):
        def show(self, running: object) -> None:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it may end while it is looked at
                    if "ray" in process.name() or "gcs" in process.name():
                        found = process.net_connections("tcp")
                        listening.update(one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polobench.run.sweep.Mark", Watched)
        found = sweep(cells, store, choose("ray", study, store.folder, 2))
    assert {cell_id: result.digest for cell_id, result in found.items()} == digests
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.fixture
def cluster(ray: object) -> Iterator[object]:
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    made.nodes = [made.add_node(num_cpus=1, **small) for _ in range(2)]
    yield made
    made.shutdown()


def test_the_cells_of_a_lost_node_run_again_elsewhere(
    cluster: object, tmp_path: Path, digests: dict[str, str | None]
) -> None:
    """Slow: three raylets on this machine, one of which is killed while it runs a cell."""
    study = study_file(tmp_path)
    cells, store = [prepare(cell) for cell in study.cells], Store(tmp_path / "store")
    losses = list[int]()

    class Kills(Mark):
        def show(self, running: object) -> None:
            if len(cluster.nodes) == 2 and len(list(store.folder.glob("*.json"))) == 1:  # type: ignore[attr-defined]
                cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)  # type: ignore[attr-defined]
                losses.append(len(list(running)))  # type: ignore[call-overload]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polobench.run.sweep.Mark", Kills)
        found = sweep(cells, store, choose("ray", study, store.folder, None, cluster.address))  # type: ignore[attr-defined]
    assert losses
    assert {cell_id: result.digest for cell_id, result in found.items()} == digests


def test_folders_of_killed_processes_go_and_all_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"polobench-{ended.pid}-a", f"polobench-{os.getpid()}-b", "polobench-notes-c", "another"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "socket").touch()
    made = Path(scratch.__wrapped__())
    assert made.stat().st_mode & 0o777 == 0o700
    kept = {path.name for path in tmp_path.iterdir()} - {made.name}
    assert kept == {f"polobench-{os.getpid()}-b", "polobench-notes-c", "another"}


@pytest.mark.parametrize(("executor", "number"), [
    ("processes", signal.SIGKILL), ("processes", signal.SIGTERM), ("serial", signal.SIGTERM), ("ray", signal.SIGTERM),
])  # fmt: skip
def test_a_sweep_that_is_ended_from_outside_leaves_no_process_and_no_folder(
    executor: str, number: signal.Signals, tmp_path: Path
) -> None:
    if executor == "ray":
        pytest.importorskip("ray")
    plug_in(tmp_path, "unruly", UNRULY, "methods:sleeps=unruly:Sleeps")
    study = write_study(tmp_path, STUDY.replace('"random", "ppo"', '"sleeps"'))
    whole = [sys.executable, "-m", "polobench", "run", str(study), "--executor", executor]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    driver = subprocess.Popen(whole, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    store, temporary = Store(tmp_path / "results" / "mini"), Path(tempfile.gettempdir())
    while not running(store) and driver.poll() is None:
        time.sleep(0.05)
    processes = psutil.Process(driver.pid).children(recursive=True)
    assert executor == "serial" or len(processes) >= 3, "for one, a tracker of resources, a server, a worker"
    driver.send_signal(number)
    said = driver.communicate()[1].splitlines()[1:]
    assert driver.returncode == (130 if number == signal.SIGTERM else -number)
    assert [line.partition(";")[0] for line in said] == ["polobench: interrupted"] * (number == signal.SIGTERM)
    assert not psutil.wait_procs(processes, timeout=60)[1]
    assert not list(store.folder.glob("*.json"))
    if number == signal.SIGKILL:
        subprocess.run([sys.executable, "-c", "from polobench.run.scratch import scratch; scratch()"], check=True)
    else:
        assert not list(store.folder.iterdir())
    assert not list(temporary.glob(f"polobench-{driver.pid}-*"))


# a SIGTERM may meet an import that makes a class from text; CPython would die of it, although it was caught
ENDS = """import polobench.cli as cli
import polobench.run.sweep as sweep

def ends(*anything):
    exec("raise KeyboardInterrupt")

{place} = ends
cli.main()
"""


@pytest.mark.parametrize(("place", "said"), [("cli.app", "interrupted"), ("sweep.run_sweep", "interrupted; 0 of 4")])
def test_an_interrupt_inside_an_exec_of_text_ends_as_any_other(place: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(ENDS.format(place=place))
    command = [sys.executable, "-m", "ends", "run", str(write_study(tmp_path, STUDY))]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].startswith(f"polobench: {said}")


def test_an_arms_cells_are_prepared_once_and_have_the_ids_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"methods": ["random", "ppo"], "tasks": ["probe-bandit"], "seeds": 20, "budget": 300, "throughput_rounds": 5}
    cells = parse_study("s", {"devices": ["cpu", "mps"], "grid": [grid]}).cells
    expected = [(item.cell, item.cell_id, item.unavailable) for item in map(prepare, cells)]
    calls = list[object]()
    monkeypatch.setattr("polobench.cells.runner.prepare", lambda cell: calls.append(cell) or prepare(cell))
    assert [(item.cell, item.cell_id, item.unavailable) for item in prepare_all(cells)] == expected
    assert len(calls) == 2 * 2 * 2, "one per method, device and kind"


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_pending_takes_one_reading_of_each_file(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = prepare_all(parse_study("s", {"devices": ["cpu"], "grid": [GRID | {"seeds": 40}]}).cells)
    store = Store(tmp_path / "store")
    store.prepare()
    for item in cells[:30]:
        store.save(blank_result(item, "ok", ""))
    if packed:
        write_pack([store.folder], tmp_path / "store.zip")
    reads = list[Path]()
    for module in ("folder", "pack"):
        read = getattr(sys.modules[f"polobench.store.{module}"], "result_of")  # noqa: B009
        counted = partial(_noting, reads, read)
        monkeypatch.setattr(f"polobench.store.{module}.result_of", counted)
    assert pending(cells, statuses(open_store(tmp_path / ("store.zip" if packed else "store")))) == cells[30:]
    assert len(reads) == len(set(reads)) == 30


def _noting(reads: list[Path], read: Callable[..., object], path: Path, *rest: object) -> object:
    reads.append(path)
    return read(path, *rest)
