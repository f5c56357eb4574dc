"""Five hundred damaged files beside three sound ones: each is named and set aside, and the sound ones are read."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import pytest
from synthetic import make_language, make_result, make_throughput, report_text

from polobench.analysis.collection import collect
from polobench.core.result import RunResult
from polobench.store.folder import LARGEST_FILE, Damaged, Store

KINDS = (make_result, make_throughput, make_language)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) - 2)]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    """A bit of the structure: one of a number gives another number, which no reader can tell from a sound one."""
    changed = bytearray(content)
    at = rng.choice([place for place, sign in enumerate(content) if sign in b'{}[]:"'])
    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _swapped(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(make_result(seed=rng.randrange(9)).to_dict()).encode()


def _wrong_schema(content: bytes, rng: random.Random) -> bytes:
    version = rng.choice([0, 999, "x", None, [], 1.5])
    return json.dumps(json.loads(content) | {"schema_version": version}).encode()


def _without_a_key(content: bytes, rng: random.Random) -> bytes:
    plain = json.loads(content)
    del plain[rng.choice(["method", "task", "seed", "ledger", "budget", "status", "curve", "cell_id"])]
    return json.dumps(plain).encode()


def _nested(content: bytes, rng: random.Random) -> bytes:
    nested = b'{"a":' * 40 + b"1" + b"}" * 40
    return content.replace(b'"hyperparameters":{', b'"hyperparameters":{"deep":' + nested + b",", 1)


def _not_a_number(content: bytes, rng: random.Random) -> bytes:
    word = rng.choice(["NaN", "Infinity", "-Infinity"])
    return content.replace(b'"seed":0', f'"seed":{word}'.encode(), 1)


def _key_twice(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b'"seed":0', b'"seed":0,"seed":0', 1)


def _brackets(content: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"[", b"{", b'{"a":', b"[[],"]) * rng.randrange(2_000, 200_000)


DAMAGE = (
    _cut, _flipped, _swapped, _wrong_schema, _without_a_key, _nested, _not_a_number, _key_twice, _brackets,
    lambda content, rng: b"", lambda content, rng: b"\0" * len(content),
)  # fmt: skip


def test_five_hundred_damaged_files_are_named_and_never_counted(tmp_path: Path) -> None:
    rng, store = random.Random(0), Store(tmp_path)
    sound: list[RunResult] = [make(seed=7) for make in KINDS]
    for result in sound:
        store.save(result)
    contents = [_content(make()) for make in KINDS]
    for number in range(500):
        damaged = DAMAGE[number % len(DAMAGE)](contents[number % len(KINDS)], rng)
        named = damaged.replace(b'"cell_id":"ID"', b'"cell_id":"bad%03d"' % number)
        (tmp_path / f"bad{number:03}.json").write_bytes(named)
    found = collect(store)
    assert sorted(result.cell_id for result in found.cells) == sorted(result.cell_id for result in sound)
    assert len(found.damaged) == 500
    assert all(item.reason and item.reason.isprintable() and len(item.reason) <= 500 for item in found.damaged)
    assert report_text(found)


def _content(result: RunResult) -> bytes:
    return json.dumps(result.to_dict() | {"cell_id": "ID"}, separators=(",", ":")).encode()


def test_undamaged_the_same_files_are_read(tmp_path: Path) -> None:
    for number, make in enumerate(KINDS):
        content = _content(make()).replace(b'"cell_id":"ID"', b'"cell_id":"good%d"' % number)
        (tmp_path / f"good{number}.json").write_bytes(content)
    assert [item for item in Store(tmp_path).each() if isinstance(item, Damaged)] == []


@pytest.mark.parametrize("mib", [LARGEST_FILE // 2**20 - 1, 100])
def test_a_file_of_brackets_is_damage(mib: int) -> None:
    with tempfile.TemporaryDirectory() as folder:  # which pytest would keep
        (Path(folder) / "big.json").write_bytes(b"[" * (mib * 2**20))
        (damaged,) = Store(folder).each()
    assert isinstance(damaged, Damaged)
    assert damaged.reason.startswith("larger than" if mib == 100 else "RecursionError")
