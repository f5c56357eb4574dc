"""The store: whole files or none, and one bad file stops nothing."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic import failed, make_result, make_throughput, save_all

from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.store.folder import Damaged, Store


def test_round_trip(tmp_path: Path) -> None:
    result = failed(make_result(), reason='quotes ", new\nline, ünïcode')
    result.peak_memory_mib = math.inf
    store = Store(tmp_path)
    path = store.save(result)
    found = store.load(result.cell_id)
    assert path.name == f"{result.cell_id}.json"
    assert isinstance(found, RunResult)
    assert found.to_dict() == result.to_dict()
    pd.testing.assert_frame_equal(found.curve, result.curve)
    assert math.isnan(found.final_return_std)
    assert found.peak_memory_mib == math.inf


def test_files_are_strict_json(tmp_path: Path) -> None:
    path = Store(tmp_path).save(make_throughput())

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(path.read_text(), parse_constant=refuse)["final_return"] == "NaN"


def test_absent_cell_is_none(tmp_path: Path) -> None:
    assert Store(tmp_path).load("nothing") is None


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    result, store = make_result(), Store(tmp_path)
    before = store.save(result).read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    result.final_return = -1.0
    with pytest.raises(OSError, match="No space left"):
        store.save(result)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    result = make_result()
    before = save_all(tmp_path, result).joinpath(f"{result.cell_id}.json").read_bytes()
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from synthetic import make_result, save_all
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
save_all({str(tmp_path)!r}, make_result(final_return=-1.0))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    results, damaged = Store(tmp_path).read()
    assert (len(results), damaged) == (1, [])
    assert (tmp_path / f"{result.cell_id}.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"schema_version": 1, "cell', "JSONDecodeError"),
        (b"", "JSONDecodeError"),
        (b'{"schema_version": 99}', "schema version 99"),
        (b'{"schema_version": 1}', "KeyError"),
        (b"[1, 2]", "TypeError"),
        (b"\x80\x81\xff\x00", "UnicodeDecodeError"),
    ],
)
def test_damaged_file_is_named_and_the_rest_read(tmp_path: Path, content: bytes, reason: str) -> None:
    save_all(tmp_path, make_result())
    (tmp_path / "0bad.json").write_bytes(content)
    seen: list[tuple[int, int]] = []
    results, damaged = Store(tmp_path).read(lambda done, total: seen.append((done, total)))
    assert len(results) == 1
    assert [item.path.name for item in damaged] == ["0bad.json"]
    assert reason in damaged[0].reason
    assert seen == [(1, 2), (2, 2)]
    assert isinstance(Store(tmp_path).load("0bad"), Damaged)


def test_other_files_and_folders_are_no_cells(tmp_path: Path) -> None:
    save_all(tmp_path, make_result())
    (tmp_path / ".writing-x.tmp").write_text("{")
    (tmp_path / "pytest-benchmark").mkdir()
    (tmp_path / "pytest-benchmark" / "a.json").write_text("{")
    results, damaged = Store(tmp_path).read()
    assert (len(results), damaged) == (1, [])


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Store(tmp_path / "absent").read()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="is not a folder"):
        Store(file).read()
    with pytest.raises(UsageError, match="is not a folder"):
        Store(file).prepare()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="cannot be written to"):
            Store(tmp_path).prepare()
    finally:
        tmp_path.chmod(0o700)


def test_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("polobench.store.folder.tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(UsageError, match="cannot be written to: Read-only file system"):
        Store(tmp_path).prepare()
