"""`polobench baseline`: replaced whole or not at all, and the log survives it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from conftest import Command
from synthetic import make_result, make_throughput, save_all
from typer.testing import CliRunner

from polobench.cli import app
from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.gate import baseline
from polobench.gate.baseline import LOG_NAME, read_log, update_baseline
from polobench.store.folder import Store

ARM = "ppo · CartPole-v1 · 50,000 samples · cpu"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "results" / "baseline"


def store_of(folder: Path, *results: RunResult) -> Path:
    return save_all(folder, *(results or (make_result(seed=0), make_result(seed=1))))


def fixed_batch(kl: float, method: str = "ppo") -> RunResult:
    found = {"batch_sha256": "", "metrics": {"kl": kl, "entropy": float("nan")}, "changes": {}}
    counts = {"batch_counts": {"samples_generated": 8}, "rollout_counts": {"samples_generated": 8}}
    return make_result(method, kind="fixed_batch", digest=None, fixed_batch=found | counts)


def dirty(seed: int = 0) -> RunResult:
    result = make_result(seed=seed)
    result.provenance["dirty"] = True
    return result


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder's parent, so that nothing left beside it goes unseen."""
    return {str(path): path.read_bytes() for path in sorted(folder.parent.rglob("*")) if path.is_file()}


def test_the_first_baseline(tmp_path: Path, into: Path) -> None:
    store = store_of(tmp_path / "store")
    entry = update_baseline(store, into, " the first\none ")
    assert entry["why"] == "the first one"
    assert (entry["cells"], entry["dirty"], entry["commits"]) == (2, False, ["0123456789abcdef0123"])
    assert entry["changes"] == {"new": {ARM: [0, 1]}, "gone": {}, "differing": {}}
    assert [result.to_dict() for result in Store(into).read()[0]] == [
        result.to_dict() for result in Store(store).read()[0]
    ]
    assert [{"schema_version": 1} | entry] == read_log(into)
    assert os.listdir(into.parent) == ["baseline"]


def test_an_update_says_what_changed_and_keeps_the_log_and_what_is_no_cell(tmp_path: Path, into: Path) -> None:
    update_baseline(store_of(tmp_path / "one", *(make_result(seed=seed) for seed in range(4))), into, "first")
    (into / "README.md").write_text("what this is")
    newer = make_result(seed=1, digest="1" * 64)
    newer.cell_id = "newer"  # an id holds the code's hash: the same cell has another one
    fixed = fixed_batch(0.25, method="trpo")
    after = [make_result(seed=0), newer, make_result(seed=7), make_throughput(), fixed]
    entry = update_baseline(store_of(tmp_path / "two", *after), into, "second")
    assert entry["changes"] == {
        "new": {ARM: [7], f"{ARM} (throughput)": [0], f"{ARM.replace('ppo', 'trpo')} (fixed batch)": [0]},
        "gone": {ARM: [2, 3]},
        "differing": {ARM: [1]},
    }
    assert {path.stem for path in into.glob("*.json")} == {result.cell_id for result in after}
    assert [line["why"] for line in read_log(into)] == ["first", "second"]
    assert (into / "README.md").read_text() == "what this is"
    assert os.listdir(into.parent) == ["baseline"]


def test_another_update_on_a_stored_batch_differs(tmp_path: Path, into: Path) -> None:
    for number, kl in enumerate((0.25, 0.25, 0.5)):
        entry = update_baseline(save_all(tmp_path / str(number), fixed_batch(kl)), into, "again")
        assert bool(entry["changes"]["differing"]) == (kl == 0.5)


@pytest.mark.parametrize(("fault", "said"), [
    ("empty", "is empty"), ("damaged", "bad.json is damaged: JSONDecodeError"),
    ("schema", "bad.json is damaged: schema version 2; this polobench reads 1"), ("absent", "does not exist"),
    ("dirty", "comes from a dirty tree"), ("no reason", "needs a reason"), ("itself", "lies in the baseline"),
    ("below", "lies in the baseline"), ("log", "line 2 of"),
])  # fmt: skip
def test_bad_input_is_one_line_and_changes_nothing(
    fault: str, said: str, command: Command, tmp_path: Path, into: Path
) -> None:
    update_baseline(store_of(tmp_path / "first"), into, "first")
    store = tmp_path / "store"
    if fault != "absent":
        store_of(store, *([dirty(), make_result(seed=1)] if fault == "dirty" else [make_result(seed=5)]))
    if fault == "empty":
        next(store.glob("*.json")).unlink()
    if fault in ("damaged", "schema"):
        (store / "bad.json").write_text({"damaged": "{", "schema": '{"schema_version": 2}'}[fault])
    if fault in ("itself", "below"):
        store = into if fault == "itself" else store_of(into / "below")
    if fault == "log":
        (into / LOG_NAME).write_text((into / LOG_NAME).read_text() + '{"schema_version": 1, "why": 3}\n')
    before = contents(into)
    why = "" if fault == "no reason" else "why not"
    code, _, text = command("baseline", "update", store, "--into", into, "--why", why)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert said in text
    assert contents(into) == before


def test_a_folder_that_is_no_baseline_is_not_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letters.txt").write_text("dear")
    with pytest.raises(UsageError, match="is no baseline"):
        update_baseline(store_of(tmp_path / "store"), home, "why")
    with pytest.raises(UsageError, match="is not a folder"):
        update_baseline(tmp_path / "store", home / "letters.txt", "why")
    assert os.listdir(home) == ["letters.txt"]


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update_baseline(store_of(tmp_path / "first"), into, "first")
    before, saved = contents(into), []
    save = Store.save

    def full(self: Store, result: RunResult) -> Path:
        if saved:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(result)
        return save(self, result)

    monkeypatch.setattr(Store, "save", full)
    with pytest.raises(UsageError, match=r"cannot be written: No space left on device"):
        update_baseline(tmp_path / "first", into, "second")
    assert saved
    assert contents(into) == before
    assert os.listdir(into.parent) == ["baseline"]


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_a_second_rename_that_fails_puts_the_old_one_back(
    error: BaseException, tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_baseline(store_of(tmp_path / "first"), into, "first")
    before, rename = contents(into), os.rename

    def failing(source: Path, target: Path) -> None:
        if source.name.endswith(".new"):
            raise error
        rename(source, target)

    monkeypatch.setattr(baseline.os, "rename", failing)
    with pytest.raises((UsageError, KeyboardInterrupt)):
        update_baseline(tmp_path / "first", into, "second")
    assert contents(into) == before


def test_a_kill_between_the_renames_is_mended_by_the_next_call(tmp_path: Path, into: Path) -> None:
    update_baseline(store_of(tmp_path / "first"), into, "first")
    cells = {path.name for path in into.iterdir()}
    killed = into.parent / ".baseline.new"
    into.rename(into.parent / ".baseline.old")
    store_of(killed, make_result(seed=9))
    assert [line["why"] for line in read_log(into)] == ["first"]
    assert {path.name for path in into.iterdir()} == cells
    entry = update_baseline(store_of(tmp_path / "second", make_result(seed=0)), into, "second")
    assert entry["changes"] == {"new": {}, "gone": {ARM: [1]}, "differing": {}}
    assert [line["why"] for line in read_log(into)] == ["first", "second"]
    assert os.listdir(into.parent) == ["baseline"]


def test_a_damaged_baseline_can_be_replaced(tmp_path: Path, into: Path) -> None:
    update_baseline(store_of(tmp_path / "first"), into, "first")
    next(into.glob("*.json")).write_text("{")
    entry = update_baseline(tmp_path / "first", into, "mended")
    assert len(entry["changes"]["new"][ARM]) == 1
    assert not Store(into).read()[1]


def test_cells_of_no_checkout_have_no_commit(tmp_path: Path, into: Path) -> None:
    result = make_result()
    result.provenance |= {"commit": None, "dirty": None}
    entry = update_baseline(save_all(tmp_path / "store", result), into, "from a wheel")
    assert (entry["commits"], entry["dirty"]) == ([], None)


def test_show(command: Command, tmp_path: Path, into: Path) -> None:
    store = store_of(tmp_path / "store")
    for number in range(7):
        arguments = ["baseline", "update", str(store), "--into", str(into), "--why", f"reason {number}"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0
        assert f"2 cells ({2 if number == 0 else 0} new, 0 gone, 0 differing)" in done.output
    shown = CliRunner().invoke(app, ["baseline", "show", "--into", str(into)]).output
    assert [f"reason {number}" in shown for number in range(7)] == [False, False] + [True] * 5
    assert "0123456789ab" in shown
    assert "f1f1f1f1f1f1f1f1" in shown
    every = CliRunner().invoke(app, ["baseline", "show", "--into", str(into), "--lines", "9"]).output
    assert f"  new: {ARM}, seeds 0, 1" in every
    (into / LOG_NAME).write_text("[]\n")
    code, _, text = command("baseline", "show", "--into", into)
    assert (code, len(text.splitlines())) == (2, 1)
    assert "line 1 of" in text
    assert "is damaged: it is no object" in text
    code, _, text = command("baseline", "show", "--into", tmp_path / "none")
    assert (code, len(text.splitlines())) == (2, 1)


@pytest.mark.parametrize(("key", "value", "said"), [
    ("date", 3, "date is not a text"), ("why", None, "why is not a text"), ("commits", "x", "commits is not a list"),
    ("studies", {}, "studies is not a list"), ("cells", "3", "cells is not a number"),
    ("changes", [], "changes is not an object"), ("changes", {"new": {}}, "changes is not an object"),
    ("schema_version", 2, "schema version 2; this polobench reads 1"),
])  # fmt: skip
def test_a_damaged_line_of_the_log_names_its_key(
    key: str, value: object, said: str, tmp_path: Path, into: Path
) -> None:
    entry = update_baseline(store_of(tmp_path / "store"), into, "why")
    (into / LOG_NAME).write_text(json.dumps({"schema_version": 1} | entry | {key: value}) + "\n")
    with pytest.raises(UsageError, match=f"line 1 of .*{said}"):
        read_log(into)
