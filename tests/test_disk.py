"""Disks that are full, read-only or slow to say so, and several commands on one store: one line, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from children import write_study
from conftest import Command
from synthetic import make_result, save_all

from polobench.analysis.collection import collect
from polobench.store.folder import Store

STUDY = 'devices = ["cpu"]\n[[grid]]\nmethods = ["random"]\ntasks = ["probe-bandit"]\nseeds = 8\nbudget = 200\n'
Said = Callable[..., tuple[int, str]]


@pytest.fixture
def polobench(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """The command in this process: its exit code and what it says on stderr, less the lines of a sweep."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        code, _, said = command(*arguments)
        lines = said.splitlines(keepends=True)
        return code, "".join(line for line in lines if not line.startswith(("[", "cells: ", "\n")))

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    with suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            yield folder
            subprocess.run(["umount", str(folder)], check=True)
            return
    pytest.skip("this user may not mount a file system")


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """No file may grow beyond this many bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_a_full_disk_is_one_line_and_the_sweep_goes_on_when_there_is_room(small_disk: Path, polobench: Said) -> None:
    run = ("run", write_study(Path.cwd(), STUDY), "--executor", "serial", "--store", small_disk / "store")
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (96 * 2**10))
    code, said = polobench(*run)
    assert (code, said) == (1, f"polobench: store '{small_disk / 'store'}' cannot be written to: "
                               "No space left on device\n")  # fmt: skip
    before = contents(small_disk / "store")
    assert 0 < len(before) < 8
    assert Store(small_disk / "store").read()[1] == []
    assert polobench("status", small_disk / "store") == (0, "")
    code, said = polobench("report", small_disk / "store", "-o", small_disk / "report")
    assert (code, said.count("\n"), "No space left" in said) == (2, 1, True), said
    filler.unlink()
    assert polobench(*run) == (0, "")
    after = contents(small_disk / "store")
    assert (len(after), {name: after[name] for name in before}) == (8, before)


def test_a_read_only_disk_is_one_line_and_can_be_read(small_disk: Path, polobench: Said) -> None:
    run = ("run", write_study(Path.cwd(), STUDY), "--executor", "serial", "--store")
    assert polobench(*run, small_disk / "store") == (0, "")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for store in ("store", "another"):
        code, said = polobench(*run, small_disk / store)
        assert (code, said.count("\n"), "Read-only file system" in said) == (2, 1, True), said
    assert polobench("status", small_disk / "store") == (0, "")
    assert polobench("report", small_disk / "store", "-o", "report") == (0, "")


def test_a_limit_on_the_size_of_files_is_one_line_and_loses_nothing(polobench: Said) -> None:
    run = ("run", write_study(Path.cwd(), STUDY), "--executor", "serial", "--store", "store")
    with longest_file(1000):
        code, said = polobench(*run)
    assert (code, said) == (1, "polobench: store 'store' cannot be written to: File too large\n")
    assert list(Path("store").iterdir()) == []
    assert polobench(*run) == (0, "")
    assert len(list(Path("store").iterdir())) == 8


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_call_that_fails_while_a_pack_is_written_is_one_line_and_leaves_no_file(
    call: str, polobench: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_all(Path("store"), make_result(), make_result(seed=1))

    def failing(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        code, said = polobench("pack", "store", "-o", "out.zip")
    assert (code, said.count("\n"), "Input/output error" in said) == (2, 1, True), said
    assert [path.name for path in Path().iterdir()] == ["store"]
    assert polobench("pack", "store", "-o", "out.zip") == (0, "")


def test_two_sweeps_and_reports_on_one_store(tmp_path: Path) -> None:
    """Every cell is there once, and nobody ever sees half a file."""
    write_study(tmp_path, STUDY.replace("seeds = 8", "seeds = 30"))
    whole = [sys.executable, "-m", "polobench", "run", "mini.toml", "--executor", "serial", "--store", "store"]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    sweeps = [subprocess.Popen(whole, cwd=tmp_path, **said) for _ in range(2)]  # type: ignore[call-overload]
    seen = [0]
    while any(sweep.poll() is None for sweep in sweeps):
        if (tmp_path / "store").exists():
            found = collect(tmp_path / "store")
            assert found.damaged == []
            seen.append(len(found.cells))
        time.sleep(0.1)
    for sweep in sweeps:
        text, _ = sweep.communicate()
        assert sweep.returncode == 0, text
    assert seen == sorted(seen)
    assert len(contents(tmp_path / "store")) == len(collect(tmp_path / "store").cells) == 30
