"""Whatever comes as a study, an argument, a preference file, a pack or a stored result ends cleanly or in one line.

POLOBENCH_FUZZ is the number of inputs of each of the five; 2,000 makes 10,000.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_result

from polobench.cli import main
from polobench.core.errors import PoloError
from polobench.core.result import RunResult
from polobench.run.study import load_study
from polobench.store.folder import Damaged, result_of
from polobench.store.pack import Pack, write_pack
from polobench.tasks.preference_data import read_source

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

few = settings(
    max_examples=int(os.environ.get("POLOBENCH_FUZZ", "25")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
text = st.text(max_size=20)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), text,
    st.sampled_from(["ppo", "random", "probe-bandit", "samples", "cpu", "../x", "5-", "10-19", 10**400, -1, 0]),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4))
)


def in_one_line(call: Callable[[], object]) -> object:
    """What the call gives, or None if it ends in an error of ours, which must be one line."""
    try:
        return call()
    except PoloError as error:
        said = str(error)
    assert said
    assert "\n" not in said, said
    return None


def written(content: bytes | str, ending: str, read: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ending}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        in_one_line(lambda: read(path))


def toml(value: Any) -> str:
    """The value in TOML; what TOML does not know, as its text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if type(value) in (int, float) else json.dumps(value)


GRID_KEYS = (
    "methods",
    "tasks",
    "seeds",
    "budget",
    "devices",
    "kind",
    "overrides",
    "throughput_rounds",
    "tuned_for",
    "probe",
    "smoke",
)
GRID = {"methods": ["ppo"], "tasks": ["probe-bandit"], "seeds": 2, "budget": 100}
grids = st.dictionaries(st.one_of(st.sampled_from(GRID_KEYS), text), values, max_size=4).map(lambda more: GRID | more)
studies = st.one_of(
    st.text(),
    st.builds(
        lambda top, grid: "\n".join(
            [*(f"{json.dumps(key)} = {toml(value)}" for key, value in top.items()), "[[grid]]"]
            + [f"{json.dumps(key)} = {toml(value)}" for key, value in grid.items()]
        ),
        st.dictionaries(
            st.sampled_from(["title", "devices", "threads", "tuned", "timeout_seconds", "memory_mib"]), values
        ),
        grids,
    ),
)


@few
@given(studies)
def test_studies(content: str) -> None:
    written(content, ".toml", load_study)


rows = st.dictionaries(
    st.sampled_from(["prompt", "chosen", "rejected", "responses", "scores", "x"]), values, max_size=4
)
files = st.one_of(
    st.binary(max_size=200),
    st.lists(rows, max_size=4).map(lambda found: "\n".join(json.dumps(row) for row in found)),
    values.map(json.dumps),
)


@few
@given(files, st.sampled_from([".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".txt", ""]))
def test_preference_files(content: bytes | str, ending: str) -> None:
    written(content, ending, lambda path: read_source(str(path)))


PLAIN = json.loads(json.dumps(make_result(budget=2_000).to_dict()))
changes = st.dictionaries(st.one_of(st.sampled_from(sorted(PLAIN)), text), values, max_size=3)
stored = st.one_of(st.binary(max_size=200), changes.map(lambda change: json.dumps(PLAIN | change).encode()))


@few
@given(stored)
@example(json.dumps(PLAIN | {"budget": {"\x1f" * 1000: None}}).encode())  # which random input found, shorter
def test_stored_results(content: bytes) -> None:
    found = result_of(Path(f"{PLAIN['cell_id']}.json"), content)
    if isinstance(found, Damaged):
        assert found.reason.isprintable()
        assert len(found.reason) <= 500
    else:
        json.dumps(found.to_dict(), allow_nan=False)


@pytest.fixture(scope="module")
def sound_pack(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("pack")
    (folder / f"{PLAIN['cell_id']}.json").write_text(json.dumps(PLAIN))
    write_pack([folder], folder / "sound.zip")
    return (folder / "sound.zip").read_bytes()


@few
@given(st.lists(st.tuples(st.integers(0, 2**20), st.binary(max_size=8)), max_size=4), st.integers(0, 2**20))
def test_packs(sound_pack: bytes, edits: list[tuple[int, bytes]], end: int) -> None:
    content = bytearray(sound_pack)
    for at, new in edits:
        at %= len(content)
        content[at : at + len(new)] = new

    def read(path: Path) -> None:
        assert all(isinstance(item, (RunResult, Damaged)) for item in Pack(path).each())

    written(bytes(content if end % 3 else content[: end % len(content)]), ".zip", read)


# commands that neither train nor reach out; the first part of `run` and `tune` is the study's
COMMANDS = (
    "list",
    "status",
    "pack",
    "compare",
    "history",
    "data",
    "report",
    "verify",
    "baseline",
    "run",
    "",
    "--debugging",
)
words = st.one_of(
    text,
    st.sampled_from(
        ["--json", "-o", "--output", "--study", "--jobs", "--help", "store", "x.zip", "-1", "--slim", "=", "--"]
    ),
    st.sampled_from(["methods", "tasks", "studies", "none.toml", "1e400", "nan", "../..", "check", "update"]),
).filter(lambda word: "\0" not in word and not word.startswith("hub:"))


@few
@given(st.sampled_from(COMMANDS), st.lists(words, max_size=4))
def test_arguments(command: str, rest: list[str]) -> None:
    rest = ["--dry-run", *rest] if command == "run" else rest
    said, before = io.StringIO(), (sys.argv, Path.cwd())
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
        try:
            os.chdir(folder)
            sys.argv = ["polobench", command, *rest]
            with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as ended:
                main()
        finally:
            sys.argv = before[0]
            os.chdir(before[1])
    assert ended.value.code in (0, 1, 2), said.getvalue()
    assert "Traceback" not in said.getvalue()
    assert "unexpected; " not in said.getvalue(), (command, rest, said.getvalue())
