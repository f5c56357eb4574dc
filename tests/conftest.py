"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # transformers reads it when it is imported

import pytest
import torch

from polobench.cli import main

LONGEST_ID = 60

gc.set_threshold(50_000)  # as `polobench` itself: libraries make a million objects that stay


class Said(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


def pytest_configure(config: pytest.Config) -> None:
    """Floors that tests measure are kept apart from those of the user's own runs; workers inherit the folder."""
    if not hasattr(config, "workerinput"):
        cache = getattr(config, "cache", None)  # none where pytest runs without its provider
        kept = cache.mkdir("polobench") if cache else tempfile.mkdtemp(prefix="polobench-tests-")
        os.environ["POLOBENCH_CACHE"] = str(kept)


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """A command that a test runs in this process leaves Ctrl-C ignored and the collector at ease, as it then ends."""
    handler, thresholds = signal.getsignal(signal.SIGINT), gc.get_threshold()
    yield
    signal.signal(signal.SIGINT, handler)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pytest that a test starts is nobody's worker; pytest-benchmark would take no rounds in one."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small lose time on threads, most of all where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`polobench` with these arguments, in this process: a start takes as long as torch takes to load."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["polobench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a report are empty files, where a test reads its text alone."""

    def save(figure: object, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr("polobench.report.page.save", save)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A case that is a list, a table or a path is called by what it holds, and not by its number."""
    if isinstance(val, BaseException):
        return type(val).__name__
    if isinstance(val, str):
        return None if len(val) <= LONGEST_ID else repr(val)[:LONGEST_ID]
    return repr(val)[:LONGEST_ID] if isinstance(val, (dict, list, tuple, range, Path)) and _is_plain(val) else None


def _is_plain(val: object) -> bool:
    """Whether it reads the same in every process."""
    if isinstance(val, dict):
        return all(map(_is_plain, [*val, *val.values()]))
    if isinstance(val, (list, tuple)):
        return all(map(_is_plain, val))
    return val is None or isinstance(val, (str, int, float, range, Path))
