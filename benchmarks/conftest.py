"""The pytest door: `pytest benchmarks` runs the same cells as `polobench run` and fills the same kind of store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from polobench.cells.runner import PreparedCell, prepare
from polobench.core.budget import LIMITS, Stopwatch
from polobench.core.device import present_devices
from polobench.core.errors import PoloError, UsageError, unknown
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.kinds.table import kinds
from polobench.run.executor import RunHere, Serial, SweepStopped
from polobench.run.progress import Display
from polobench.run.study import Study, load_study, parse_study
from polobench.run.sweep import interrupted_text, run_sweep
from polobench.store.pack import store_to_fill

AD_HOC = ("methods", "tasks", "seeds", "devices", "budget")
DEFAULTS = {"methods": "random,reinforce,trpo,ppo", "tasks": "CartPole-v1", "seeds": "5", "budget": "40000"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("polobench", "polobench: which cells to run")
    group.addoption("--study", metavar="STUDY", help="take the cells from a study file, or one by name; default quick")
    group.addoption("--methods", metavar="A,B", help=f"default {DEFAULTS['methods']}")
    group.addoption("--tasks", metavar="A,B", help=f"default {DEFAULTS['tasks']}")
    group.addoption("--seeds", metavar="SEEDS", help="5 means seeds 0 to 4; 3,7 and 10-19 list seeds; default 5")
    group.addoption("--devices", metavar="A,B", help="default: every device that is present (cpu, cuda, mps)")
    group.addoption("--budget", metavar="N", help="samples, or updates=500,samples=250000; default 40000")
    group.addoption(
        "--throughput-rounds", type=int, metavar="N", help="timed iterations per arm; 0 for none; default 20"
    )
    group.addoption("--store", metavar="DIR", help="default results/STUDY, or results/benchmarks without a study")


class Door:
    """The plan of a session and the store that it fills."""

    def __init__(self, config: pytest.Config) -> None:
        self.study = _study(config)
        self.cells = [prepare(cell) for cell in self.study.cells]
        self.store = store_to_fill(config.getoption("--store") or Path("results") / self.study.name, print)
        self._capture = config.pluginmanager.getplugin("capturemanager")
        self._display: Display | None = None

    def visible(self) -> Any:
        """A context in which writing reaches the terminal."""
        return self._capture.global_and_fixture_disabled() if self._capture else nullcontext()

    def open(self, total: int) -> None:
        with self.visible():
            console = Console(stderr=True, force_terminal=sys.stderr.isatty())
        self._display = Display(total, console, self.visible)
        with self.visible():
            self._display.__enter__()

    def run(self, prepared: PreparedCell, benchmark: Any, run: RunHere) -> RunResult:
        """Run the cell by `run` and store its result at once, whatever pytest-benchmark does with the row.

        Ctrl-C ends the session in one line, and so does a store that cannot be written to.
        """
        try:
            results = list[RunResult]()
            run_sweep([prepared], self.store, self.display, lambda cells: Serial(run), results.append)
            return results[0]
        except KeyboardInterrupt:
            # pytest-benchmark stumbles over a row without a round
            benchmark.has_error = benchmark.stats is None or not benchmark.stats.stats.data
            pytest.exit(f"polobench: {interrupted_text(self.cells, self.store)}", returncode=130)
        except SweepStopped as error:
            pytest.exit(f"polobench: {error}", returncode=1)

    def close(self) -> None:
        if self._display is not None:
            self._display.__exit__()

    @property
    def display(self) -> Display:
        assert self._display is not None
        return self._display


def _study(config: pytest.Config) -> Study:
    given = {name: config.getoption(f"--{name}") for name in AD_HOC}
    given = {name: value for name, value in given.items() if value is not None}
    rounds = config.getoption("--throughput-rounds")
    study = config.getoption("--study")
    if study and (given or rounds is not None):
        raise UsageError("--study takes the cells from its file (allowed beside it: --store)")
    if study or not (given or rounds is not None):
        return load_study(study or "quick", present_devices())
    text = DEFAULTS | given
    grid: dict[str, Any] = {name: _names(text[name]) for name in ("methods", "tasks", "devices") if name in text}
    grid |= {"seeds": text["seeds"], "budget": _budget(text["budget"])}
    if rounds != 0:
        grid["throughput_rounds"] = 20 if rounds is None else rounds
    return parse_study("benchmarks", {"grid": [grid]}, present_devices())


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _budget(text: str) -> object:
    limits = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else {"samples": text}
    for name in limits:
        if name not in LIMITS:
            raise unknown("budget limit", name, LIMITS)
    return {name: _number(name, value) for name, value in limits.items()}


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"budget of {name} is {text!r} (allowed: a positive number)") from None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.help:
        return
    try:
        door = Door(config)
    except PoloError as error:
        raise pytest.UsageError(f"polobench: {error}") from error
    config.pluginmanager.register(door, "polobench-door")
    if config.option.benchmark_storage == "file://./.benchmarks":  # pytest-benchmark's default
        config.option.benchmark_storage = f"file://{door.store.folder / 'pytest-benchmark'}"
    config.option.benchmark_autosave = config.option.benchmark_autosave or door.study.name
    config.option.benchmark_columns = config.option.benchmark_columns or ["median", "iqr", "rounds"]


def pytest_pycollect_makeitem(collector: pytest.Module, name: str) -> list[pytest.Item] | None:
    """No test of a kind that has no cells; pytest would show one that is skipped."""
    kind = name.removeprefix("test_")
    door: Any = collector.config.pluginmanager.getplugin("polobench-door")
    return [] if kind in kinds() and kind not in {item.cell.kind for item in door.cells} else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "prepared" not in metafunc.fixturenames:
        return
    kind = metafunc.function.__name__.removeprefix("test_")
    door: Any = metafunc.config.pluginmanager.getplugin("polobench-door")
    params = []
    for item in (item for item in door.cells if item.cell.kind == kind):
        clock = Stopwatch()
        timer = {"timer": clock} if item.cell.plan.learns else {}
        mark = pytest.mark.benchmark(group=f"{kind.replace('_', ' ')} · {item.cell.task} · {item.cell.device}", **timer)
        params.append(pytest.param(item, clock, marks=mark, id=_test_id(item.cell)))
    metafunc.parametrize(("prepared", "clock"), params)


def _test_id(cell: Cell) -> str:
    own = cell.plan.test_id(cell.seed, cell.budget)
    return "-".join([cell.label.replace(" ", "_"), cell.task, cell.device, *own])


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """No dots and letters: the door prints a line per cell."""
    return (report.outcome, "", report.outcome.upper()) if report.when == "call" else None


@pytest.fixture(scope="session")
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    """The session's plan and store, with progress."""
    found: Any = request.config.pluginmanager.getplugin("polobench-door")
    found.open(len(request.session.items))
    yield found
    found.close()
