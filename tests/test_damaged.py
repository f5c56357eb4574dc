"""One bad file stops nothing: whatever a value of it is changed to, it is read or named, and the others are there."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_result, make_throughput, report_text, save_all

from polobench.analysis.collection import Collection, collect
from polobench.analysis.frame import frame, load
from polobench.report.page import write_report
from polobench.store.folder import Store

NASTY = (None, "x", True, [], {}, 10**400, "Infinity", -1.5)
NEIGHBOUR = "healthy"
CELLS = {"learning": make_result, "throughput": make_throughput}


def _plain(kind: str) -> dict[str, Any]:
    """A cell as its file holds it, short enough to be read a thousand times."""
    plain: dict[str, Any] = json.loads(json.dumps(CELLS[kind]().to_dict()))
    for name in ("curve", "updates"):
        plain[name] = {column: values[:4] for column, values in plain[name].items()}
    return plain | {"trail": "0123abcd", "cell_id": "bad"}


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and, of a list, the first item: the others are read the same way."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*place, key))


def _changed(plain: dict[str, Any], place: tuple[Any, ...], value: object) -> str:
    changed = copy.deepcopy(plain)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(changed)


def _store(folder: Path, kind: str = "learning") -> Path:
    """A store with one healthy cell, of the same arm as the file that will be bad."""
    save_all(folder)
    (folder / f"{NEIGHBOUR}.json").write_text(json.dumps(_plain(kind) | {"cell_id": NEIGHBOUR, "seed": 77}))
    return folder


def _collect(folder: Path) -> Collection:
    """What both `load` and the report do with a store, figures left out."""
    found = collect(folder)
    table = frame(found)
    assert NEIGHBOUR in table["cell_id"].tolist()
    assert report_text(found)
    return found


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.filterwarnings("ignore")
def test_any_value_of_a_file_may_be_bad(tmp_path: Path, kind: str) -> None:
    plain, store, damaged = _plain(kind), _store(tmp_path, kind), 0
    # the other keys are those of a learning cell, which one function reads
    places = _places(plain) if kind == "learning" else _places(plain["throughput"], ("throughput",))
    for place in places:
        for seed, value in enumerate(NASTY):
            (store / f"bad{seed}.json").write_text(_changed(plain | {"seed": seed}, place, value))
        try:
            damaged += len(_collect(store).damaged)
        except Exception as error:
            raise AssertionError(f"{kind} cells with {place} = each of {NASTY}") from error
    assert damaged > (300 if kind == "learning" else 10)


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("learning", ("ledger", "wall_seconds"), "Infinity"),
        ("learning", ("floor",), "Infinity"),
        ("learning", ("floor",), "NaN"),
        ("learning", ("floor",), 1.7e308),
        ("learning", ("final_return",), "NaN"),
        ("learning", ("curve", "return_mean"), ["NaN", "Infinity", -1e308, 1.7e308]),
        ("learning", ("curve", "wall_seconds"), ["NaN", "Infinity", -1.5, None]),
        ("learning", ("updates", "loss"), [1.7e308, -1.7e308, "Infinity", 5e-324]),
        ("learning", ("updates", "kl"), [1.7e308, 5e-324, "NaN", 0.0]),
        ("learning", ("updates", "samples"), ["Infinity", "NaN", -1.5, 1e308]),
        ("learning", ("unit",), "a\ud800\n$^{"),
        ("throughput", ("throughput", "samples_per_second"), None),
        ("throughput", ("throughput", "iteration_seconds"), [0.0] * 10),
        ("throughput", ("throughput", "rounds"), "NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_figures_of_a_store_with_a_bad_file(tmp_path: Path, kind: str, place: tuple[str, ...], value: object) -> None:
    store = _store(tmp_path / "store", kind)
    (store / "bad.json").write_text(_changed(_plain(kind), place, value))
    path = write_report(store, tmp_path / "report")
    assert list((path.parent / "figures").iterdir())


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("final_return_std",), "x", "final_return_std is not a number"),
        (("ran_beside_others",), None, "ran_beside_others is not true or false"),
        (("kind",), "x", "kind is not learning or throughput"),
        (("budget", "samples"), "x", "budget.samples is not an amount or null"),
        (("budget", "; curl evil"), 5, "budget.; curl evil is no limit"),
        (("ledger", "samples"), None, "ledger.samples is not an amount"),
        (("ledger", "wall_seconds"), "Infinity", "ledger.wall_seconds is not an amount"),
        (("time_to_target", "samples"), [], "time_to_target.samples is not an amount or null"),
        (("loss_convergence", "samples"), "x", "loss_convergence.samples is not an amount or null"),
        (("curve", "return_mean"), [10**400] * 4, "curve.return_mean is not a list of numbers"),
        (("throughput", "rounds"), "NaN", "throughput.rounds is not an amount"),
        (("throughput", "rollout_seconds"), [[1.0]], "throughput.rollout_seconds is not a list of finite numbers"),
        (("throughput", "update_seconds"), [1.0], "throughput: iteration_seconds, rollout_seconds, update_seconds are"),
    ],
)
def test_the_reason_names_the_key(tmp_path: Path, place: tuple[str, ...], value: object, reason: str) -> None:
    store = _store(tmp_path)
    kind = "throughput" if place[0] == "throughput" else "learning"
    (store / "bad.json").write_text(_changed(_plain(kind), place, value))
    with pytest.warns(UserWarning, match="damaged file bad.json"):
        table = load(store)
    assert table["cell_id"].tolist() == [NEIGHBOUR]
    assert table.attrs["damaged"][0][1].startswith(reason)


@pytest.mark.parametrize("name", ["floor", "final_return", "final_return_std", "peak_memory_mib"])
def test_numbers_that_may_be_unknown_are_read(tmp_path: Path, name: str) -> None:
    store = _store(tmp_path)
    (store / "bad.json").write_text(_changed(_plain("learning"), (name,), "NaN"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(store)) == 2


def test_files_that_cannot_even_be_parsed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    (store / "deep.json").write_text("[" * 200_000)
    (store / "long.json").write_text('{"schema_version": ' + "9" * 10_000 + "}")
    nested: Any = {}
    for _ in range(300):
        nested = {"a": nested}
    (store / "nested.json").write_text(json.dumps(_plain("learning") | {"hyperparameters": nested}))
    assert [item.path.name for item in _collect(store).damaged] == ["deep.json", "long.json", "nested.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipe_and_folder_named_as_cells(tmp_path: Path) -> None:
    store = _store(tmp_path)
    (store / "folder.json").mkdir()
    os.mkfifo(store / "pipe.json")
    found = _collect(store).damaged
    assert [(item.path.name, item.reason) for item in found] == [
        ("folder.json", "not a file"),
        ("pipe.json", "not a file"),
    ]
    assert len(Store(store).read()[0]) == 1
