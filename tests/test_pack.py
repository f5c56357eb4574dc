"""Packs: the same bytes for the same store, read like the folder, without a trace of the home, and never trusted."""

from __future__ import annotations

import json
import random
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Command
from synthetic import demo, failed, language_demo, make_language, make_result, make_throughput, save_all

import polobench
from polobench.analysis.collection import collect
from polobench.analysis.overall import LANGUAGE, PREFERENCES, comparables
from polobench.core.errors import UsageError
from polobench.core.result import RunResult
from polobench.gate.reading import read_whole
from polobench.report.findings import Findings
from polobench.report.page import verdict_text, write_report
from polobench.store import pack
from polobench.store.folder import Damaged, Store
from polobench.store.pack import Pack, open_store, store_to_fill, write_pack

Make = Callable[[Path, RunResult], Path]
TRACE = 'Traceback:\n  File "/home/alice/my project/polobench/core/method.py", line 3, in run\n    raise OSError\n'


def packed(folder: Path, *results: RunResult) -> Path:
    write_pack([save_all(folder / "store", *results)], folder / "store.zip")
    return folder / "store.zip"


def rezip(path: Path, *entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def content_of(result: RunResult) -> bytes:
    return json.dumps(result.to_dict()).encode()


def test_the_same_store_gives_the_same_bytes(tmp_path: Path) -> None:
    results = [make_result(seed=seed) for seed in range(3)]
    first = packed(tmp_path / "a", *results).read_bytes()
    assert packed(tmp_path / "b", *reversed(results)).read_bytes() == first
    write_pack([tmp_path / "a" / "store.zip"], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "again.zip") as file:
        assert {(entry.date_time, entry.compress_type, entry.external_attr) for entry in file.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_DEFLATED, 0o100644 << 16)
        }


@pytest.mark.parametrize("make", [demo, language_demo])
def test_a_pack_is_read_like_its_folder(make: Callable[..., Path], tmp_path: Path) -> None:
    folder, seen = make(tmp_path / "store", seeds=2), []
    write_pack([folder], tmp_path / "store.zip")
    found, damaged = Pack(tmp_path / "store.zip").read(lambda done, total: seen.append((done, total)))
    for item, original in zip(found, Store(folder).read()[0], strict=True):
        assert {name for name, value in item.to_dict().items() if value != original.to_dict()[name]} <= {
            "updates", "curve", "snapshots"}  # fmt: skip
        assert item.final_score == original.final_score
        pd.testing.assert_frame_equal(item.curve, original.curve, rtol=1e-6, atol=0)
    assert (damaged, seen[-1]) == ([], (len(found), len(found)))
    assert verdict_text(Findings(collect(tmp_path / "store.zip"))) == verdict_text(Findings(collect(folder)))
    pd.testing.assert_frame_equal(polobench.load(tmp_path / "store.zip"), polobench.load(folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.zip"]


def test_updates_keep_five_digits_snapshots_and_curves_seven_and_returns_all(tmp_path: Path) -> None:
    loss, text = 0.10784840583801270, "0.10784840583801270"

    def before(log_prob: float) -> dict[str, Any]:
        counts = {key: [2] for key in ("prompt", "chosen_tokens", "rejected_tokens")}
        pairs = {"heldout": counts | {"chosen_log_prob": [log_prob], "rejected_log_prob": [-1.5]}}
        return {"before": {"completions": [{"prompt": text, "completion": text, "reward": None}], "pairs": pairs}}

    updates = pd.DataFrame({"samples": [123_456_789.0], "loss": [loss]})
    result = replace(make_result(), updates=updates, snapshots=before(-loss))
    result.curve["entropy"] = result.curve["return_mean"] = loss
    (found,) = open_store(packed(tmp_path, result)).each()
    assert isinstance(found, RunResult)
    assert found.updates.to_dict("list") == {"samples": [123_456_789.0], "loss": [0.10785]}
    assert found.snapshots == before(-0.1078484)
    assert set(found.curve["entropy"]) == {0.1078484}
    assert set(found.curve["return_mean"]) == {loss}


def test_a_report_has_the_same_bytes_from_both(tmp_path: Path) -> None:
    """But for the name of what it was drawn from."""
    path = packed(tmp_path / "first", make_result(), failed(make_result("trpo")), make_throughput())
    path = packed(tmp_path, *Pack(path).whole())  # of numbers with few digits
    pages = [write_report(place, tmp_path / name) for place, name in ((path, "a"), (tmp_path / "store", "b"))]
    files = [{found.relative_to(page.parent): found.read_bytes().replace(b"store.zip", b"store")
              for found in page.parent.rglob("*") if found.is_file()} for page in pages]  # fmt: skip
    assert len(files[0]) > 5
    assert files[0] == files[1]


def test_sources_name_no_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "results", make_result())
    monkeypatch.chdir(tmp_path)
    found = collect(path, None, Path("results/store"), "./results/../results/store.zip")
    assert found.sources == ["results/store.zip", "results/store", "results/store.zip"]
    assert found.names == ["store"] * 3
    monkeypatch.chdir(path.parent / "store")
    assert open_store(path).source == "store.zip"


# What a pack does not tell


@pytest.mark.parametrize(("text", "shown"), [
    ("File \"/home/alice/a b/x.py\", line 3", "File \"…/x.py\", line 3"), ("'/home/alice'", "'~'"), ("/Users/al/", "~"),
    ("no file /srv/data/bob/x.csv: gone", "no file …/x.csv: gone"), ("'C:\\Users\\alice\\x y.txt'", "'…/x y.txt'"),
    ("C:\\\\Users\\\\alice\\\\x.txt is no file", "…/x.txt is no file"), ("C:/Users/alice/x", "C:…/x"),
    ("/usr/bin:/home/alice/bin", "…/bin:…/bin"), ("my.jsonl@/home/alice/models/tiny", "my.jsonl@…/tiny"),
    ("file:///home/alice/x", "file://…/x"), ("path=~/secret/x", "path=…/x"), ("'~/secret/x'", "'…/x'"),
    ("at \\\\server\\share\\x", "at …/x"), ("3 samples/s and/or 1/2", None), ("https://example.org/a/b", None),
    ("owner/model, ./a/b and ../a/b", None), ("'/' and '' and \"it's\"", None), ("…/x.py", None),
])  # fmt: skip
def test_paths_are_cut_to_their_last_part(text: str, shown: str | None) -> None:
    found = pack._shortened({"a": [text]})["a"][0]
    assert found == (text if shown is None else shown)
    assert pack._shortened(found) == found


def test_a_pack_holds_no_home_path(tmp_path: Path) -> None:
    reason = "FileNotFoundError: [Errno 2] No such file or directory: '/home/alice/data.csv'"
    result = failed(make_result(task="/home/alice/my.jsonl@/home/alice/models/tiny"), status="failed", reason=reason)
    result.traceback = TRACE
    result.hyperparameters["data"] = {"train": "/Users/alice/train.csv"}
    result.provenance["versions"]["mine"] = "file:///home/alice/mine"
    path = packed(tmp_path, result)
    with zipfile.ZipFile(path) as file:
        texts = [file.read(name).decode() for name in file.namelist()]
    assert texts
    for text in (*texts, path.read_bytes().decode("latin-1")):
        assert not any(word in text for word in ("alice", "/home", "/Users", str(tmp_path)))
    ((found,), _) = Pack(path).read()
    assert found.reason.endswith("No such file or directory: '…/data.csv'")
    assert 'File "…/method.py", line 3, in run' in found.traceback
    assert found.task == "…/my.jsonl@…/tiny"


def test_what_a_model_said_stays_as_it_is(tmp_path: Path) -> None:
    result = make_language()
    result.snapshots["after"]["answers"] = [{"prompt": "Where?", "completion": "in /home/alice/x"}]
    ((found,), _) = Pack(packed(tmp_path, result)).read()
    assert found.snapshots["after"]["answers"][0]["completion"] == "in /home/alice/x"


def test_two_tasks_that_would_have_one_name_are_refused(tmp_path: Path) -> None:
    results = [make_result(task=f"/data/{name}/pairs.jsonl") for name in ("a", "b")]
    with pytest.raises(UsageError, match="two tasks would both be called"):
        packed(tmp_path, *results)


def test_a_slim_pack_keeps_outcomes_curves_settings_and_the_reward_model(tmp_path: Path) -> None:
    result = make_language()
    model: dict[str, Any] = {"accuracy": 0.7, "gold_accuracy": 0.8, "calibration_error": 0.1, "cpu_seconds": 1.5}
    model |= {"gradient_steps": 3, "samples_read": 9, "pairs": 2, "predicted": [0.5], "observed": [0.5], "counts": [2]}
    result.snapshots["before"]["reward_model"] = model
    folder = save_all(tmp_path / "store", result, failed(make_result()))
    for slim in (True, False):
        write_pack([folder], tmp_path / f"{slim}.zip", slim)
    packs = [read_whole(tmp_path / f"{slim}.zip") for slim in (True, False)]
    found, whole = (next(item for item in cells if item.cell_id == result.cell_id) for cells in packs)
    left_out = {"updates": {}, "trail": "", "snapshots": {"before": {"reward_model": model}}, "traceback": ""}
    assert found.to_dict() == whole.to_dict() | left_out
    assert (tmp_path / "True.zip").stat().st_size < 0.7 * (tmp_path / "False.zip").stat().st_size
    assert verdict_text(Findings(collect(tmp_path / "True.zip"))) == verdict_text(Findings(collect(folder)))


def test_language_stays_language_in_a_slim_pack(tmp_path: Path) -> None:
    folder = language_demo(tmp_path / "store", seeds=2)
    write_pack([folder], tmp_path / "slim.zip", slim=True)
    worlds = [[group.world for group in comparables(collect(place))] for place in (folder, tmp_path / "slim.zip")]
    assert worlds[0] == worlds[1] != []
    assert set(worlds[0]) <= {LANGUAGE, PREFERENCES}


# What is not trusted


def _lying(path: Path, result: RunResult) -> Path:
    """An entry that declares fewer bytes than it holds."""
    path = rezip(path, (f"{result.cell_id}.json", content_of(result)))
    return change(path, len(content_of(result)).to_bytes(4, "little"), (100).to_bytes(4, "little"))


def change(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def _encrypted(path: Path, result: RunResult) -> Path:
    path = rezip(path, (f"{result.cell_id}.json", content_of(result)))
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + at] |= 1
    path.write_bytes(content)
    return path


def under(*names: str, content: bytes | None = None, method: int = zipfile.ZIP_DEFLATED) -> Make:
    """Makes a pack whose entries of these names hold that content, or else the result; `ID` is the result's id."""

    def make(path: Path, result: RunResult) -> Path:
        data = content_of(result) if content is None else content
        return rezip(path, *((name.replace("ID", result.cell_id), data) for name in names), method=method)

    return make


NAMES = (
    "../../evil.json", "/etc/evil.json", "a/0123456789abcdef.json", "0123456789ABCDEF.json", "0123456789abcdef.txt",
    "0123456789abcdef.json/", "..\\0123456789abcdef.json", "0123456789abcdef\n.json", "\u00e9" * 9 + ".json",
)  # fmt: skip
HOSTILE: dict[str, tuple[Make, str]] = {
    **{f"named {name!r}": (under(name), "is no CELLID.json") for name in NAMES},
    "another cell's name": (under("0123456789abcdef.json"), "it holds the cell"),
    "one name twice": (under("ID.json", "ID.json"), "stands in it 2 times"),
    "100 MiB of zeros": (under("ID.json", content=bytes(100 * pack.MIB)), "is larger than 16 MiB"),
    "bzip2": (under("ID.json", content=b"{}", method=zipfile.ZIP_BZIP2), "not compressed by deflate"),
    "lzma": (under("ID.json", content=b"{}", method=zipfile.ZIP_LZMA), "not compressed by deflate"),
    "deep": (under("ID.json", content=b"[" * 100_000), "RecursionError"),
    "no text": (under("ID.json", content=b"\xff"), "UnicodeDecodeError"),
    "no object": (under("ID.json", content=b"[]"), "TypeError"),
    "a size that lies": (_lying, "BadZipFile"),
    "encrypted": (_encrypted, "is encrypted"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_entry_is_named_and_the_rest_is_read(what: str, tmp_path: Path) -> None:
    (make, said), sound = HOSTILE[what], make_result(seed=7)
    path = make(tmp_path / "bad.zip", make_result())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"{sound.cell_id}.json", content_of(sound))
    results, (damaged,) = Pack(path).read()
    assert [item.to_dict() for item in results] == [sound.to_dict()]
    assert said in damaged.reason
    assert f"{damaged.path.name}{damaged.reason}".isprintable()
    with pytest.raises(UsageError, match="is damaged"):
        store_to_fill(path, print)
    assert [item.name for item in tmp_path.rglob("*")] == ["bad.zip"]


@pytest.mark.parametrize("kept", [0, 0.5, 0.99], ids=["empty", "half of it", "without its end"])
def test_a_file_that_was_cut_is_one_line(kept: float, tmp_path: Path) -> None:
    path = packed(tmp_path, make_result())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UsageError, match=r"store\.zip' is damaged: BadZipFile") as caught:
        Pack(path).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("limit", "value"), [("LARGEST_PACK", 99), ("LARGEST_SUM", 99), ("MOST_CELLS", 1)])
def test_a_pack_has_limits(limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path, make_result(), make_result(seed=1))
    monkeypatch.setattr(pack, limit, value)
    with pytest.raises(UsageError, match="than"):
        Pack(path).read()


def test_no_flipped_byte_is_a_crash(tmp_path: Path) -> None:
    path, rng = packed(tmp_path, make_result(budget=2_000), make_throughput()), random.Random(0)
    sound = path.read_bytes()
    for _ in range(400):
        content = bytearray(sound)
        start = rng.choice([0, len(content) - 200])  # where the headers are
        for _ in range(rng.randint(1, 3)):
            content[start + rng.randrange(200)] = rng.randrange(256)
        path.write_bytes(content)
        with suppress(UsageError):
            assert all(isinstance(item, (RunResult, Damaged)) for item in Pack(path).each())


# Making and using one


def test_the_command_packs_several_stores(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        save_all(tmp_path / name, make_result(seed=seed))
    code, printed, _ = command("pack", "a", "b")
    assert (code, printed.startswith("pack: results/a.zip, 2 cells, ")) == (0, True)
    assert len(read_whole(Path("results/a.zip"))) == 2
    code, printed, _ = command("compare", "results/a.zip", "results/a.zip")
    assert (code, "2" in printed) == (0, True)


def test_what_cannot_be_packed_is_one_line(command: Command, tmp_path: Path) -> None:
    good = save_all(tmp_path / "good", make_result())
    other = save_all(tmp_path / "other", make_result(final_return=1.0))
    bad = save_all(tmp_path / "bad", make_result())
    (bad / "0bad.json").write_text("{")
    whole = tmp_path / "whole.zip"
    write_pack([good], whole)
    for stores, output, said in (
        ([good, other], "x.zip", "two different results of cell"), ([bad], "x.zip", "0bad.json is damaged"),
        ([tmp_path / "no"], "x.zip", "does not exist"), ([good], "x.tar", "ends in .zip"),
        ([good], "bad/0bad.json/x.zip", "cannot be written"), ([whole], "whole.zip", "written over itself"),
    ):  # fmt: skip
        code, printed, errors = command("pack", *stores, "-o", tmp_path / output)
        assert (code, printed, errors.count("\n")) == (2, "", 1)
        assert said in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "good", "other", "whole.zip"]


STUDY = '[[grid]]\nmethods = ["ppo"]\ntasks = ["probe-bandit"]\nseeds = {seeds}\nbudget = 2000\n'


def test_a_sweep_goes_on_from_a_pack(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(STUDY.format(seeds=1))
    assert command("run", "mine")[0] == 0
    assert command("pack", "results/mine", "-o", "kept.zip")[0] == 0
    before = Path("kept.zip").read_bytes()
    (tmp_path / "mine.toml").write_text(STUDY.format(seeds=2))
    code, printed, _ = command("run", "mine", "--store", "kept.zip", "--dry-run")
    assert (code, "cells: 2, to run: 1" in printed, Path("kept").exists()) == (0, True, False)
    code, _, said = command("run", "mine", "--store", "kept.zip")
    assert code == 0
    assert "pack: 1 of 1 cells unpacked into kept, which goes on" in said
    assert "cells: 2, already in kept: 1" in said
    assert len(list(Path("kept").glob("*.json"))) == 2
    assert Path("kept.zip").read_bytes() == before
    code, _, said = command("verify", "kept.zip", "--cells", "1")
    assert (code, "1 of 1 digests hold" in said) == (0, True)


def test_a_cell_of_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    result = make_result()
    path = packed(tmp_path, result, make_result(seed=1))
    newer = make_result(final_return=1.0)
    Store(tmp_path / "store").save(newer)
    (tmp_path / "store" / f"{make_result(seed=1).cell_id}.json").unlink()
    said: list[str] = []
    store = store_to_fill(path, said.append)
    assert len(said) == 1
    assert said[0].startswith("pack: 1 of 2 cells unpacked")
    found = store.load(result.cell_id)
    assert isinstance(found, RunResult)
    assert found.final_return == 1.0


def test_a_pack_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for use in (lambda path: Pack(path).read(), lambda path: store_to_fill(path, print)):
        with pytest.raises(UsageError, match="does not exist"):
            use(tmp_path / "absent.zip")
    assert list(tmp_path.iterdir()) == []


def test_the_committed_packs_are_small_and_sound() -> None:
    root = Path(polobench.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("only a checkout has packs")
    listed = subprocess.check_output(["git", "ls-files", "results/*.zip"], cwd=root, text=True)
    packs = [root / name for name in listed.splitlines()]
    assert packs
    assert sum(path.stat().st_size for path in packs) <= 20 * pack.MIB
    for path in packs:
        assert read_whole(path)
