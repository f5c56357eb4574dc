"""The threat model of SECURITY.md: each of its lines names a test, here or in another file, and each of them exists."""

from __future__ import annotations

import ast
import getpass
import json
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import plug_in, started, write_study
from conftest import Command
from synthetic import failed, make_result, save_all

from polobench.cells.runner import prepare
from polobench.core.errors import PoloError
from polobench.report.page import write_report
from polobench.run.remote import orders, words
from polobench.run.study import load_study, parse_study
from polobench.store.folder import Damaged, Store
from polobench.store.pack import without_home, write_pack

ROOT = Path(__file__).resolve().parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text("utf-8")
SOURCES = sorted((ROOT / "polobench").rglob("*.py"))
STUDY = 'devices = ["cpu"]\n[[grid]]\nmethods = ["random"]\ntasks = ["probe-bandit"]\nseeds = 2\nbudget = 100\n'
# what must not be in our sources: unpickling, running text, a shell
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}


def test_every_line_of_the_threat_model_names_a_test_that_exists() -> None:
    rows = [line for line in SECURITY.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 12
    for row in rows:
        named = re.findall(r"`tests/(test_\w+\.py)::(test_\w+)", row)
        assert named, row
        for file, name in named:
            assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), row


# No code in data


def _faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (name for name in names if name.partition(".")[0] in PICKLES)
        elif isinstance(node, ast.Call) and ast.unparse(node) != "exec('')":  # runs nothing
            called = ast.unparse(node.func)
            if called in RUNS_TEXT or called.endswith((".load_module", "os.system", "os.popen")):
                yield called
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                if (keyword.arg in ("shell", "trust_remote_code", "allow_pickle") and value != "False") or (
                    keyword.arg == "weights_only" and value != "True"
                ):
                    yield f"{keyword.arg}={value}"
            if called == "torch.load" and "weights_only" not in {keyword.arg for keyword in node.keywords}:
                yield called


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_unpickles_evaluates_or_starts_a_shell(path: Path) -> None:
    assert list(_faults(path.read_text("utf-8"))) == []


@pytest.mark.parametrize("line", [
    "import pickle", "from pickle import loads", "eval(text)", "exec(text)", "os.system(text)", "torch.load(path)",
    "subprocess.run(text, shell=True)", "load(name, trust_remote_code=True)", "np.load(path, allow_pickle=True)",
])  # fmt: skip
def test_a_planted_fault_is_seen(line: str) -> None:
    assert list(_faults(line))


class Mine:
    """Pickled, it would make a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def test_a_file_that_would_run_code_when_unpickled_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    store = Store(save_all(tmp_path / "store", make_result()))
    for name, content in (("a.json", pickle.dumps(Mine())), ("b.json", b'{"__reduce__": ["os.mkdir", ["pwned"]]}')):
        (store.folder / name).write_bytes(content)
    assert [item.path.name for item in store.read()[1]] == ["a.json", "b.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


# No path leaves the store

OUTSIDE = ("../evil", "../../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:\\evil", "CON", "NUL.json", ".", "..",
           "", "a\0b", "x" * 5_000, "\u202e", "a\nb", "~/evil", "-rf")  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_cell_with_a_hostile_id_is_damage_and_never_written(name: str, tmp_path: Path) -> None:
    result = make_result()
    plain = result.to_dict() | {"cell_id": name}
    store = Store(save_all(tmp_path / "store", result))
    (store.folder / "bad.json").write_text(json.dumps(plain))
    results, (damaged,) = store.read()
    assert [item.cell_id for item in results] == [result.cell_id]
    assert damaged.path.name == "bad.json"
    assert damaged.reason.isprintable()
    with pytest.raises(PoloError):
        write_pack([store.folder], tmp_path / "out.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_copy_of_a_cell_under_another_name_is_not_counted(tmp_path: Path) -> None:
    first, second = make_result(), make_result(seed=1)
    store = Store(save_all(tmp_path, first, second))
    (tmp_path / "copy.json").write_bytes(store.path(first.cell_id).read_bytes())
    paths = [store.path(item.cell_id) for item in (first, second)]
    contents = [path.read_bytes() for path in paths]
    results, (damaged,) = store.read()
    assert (len(results), damaged.path.name) == (2, "copy.json")
    for path, content in zip(paths, reversed(contents)):
        path.write_bytes(content)
    assert isinstance(store.load(first.cell_id), Damaged)
    assert store.read()[0] == []


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/random", "pipe", "loop.json", ".", "/absent"])
def test_a_link_to_a_device_or_to_itself_is_damage(target: str, tmp_path: Path) -> None:
    """A pipe stands for standard input, which is a file where a shell says so."""
    store = Store(save_all(tmp_path, make_result()))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop.json").symlink_to(target)
    results, (damaged,) = store.read()
    assert (len(results), damaged.reason) == (1, "not a file")


def test_saving_replaces_a_link_and_not_the_file_that_it_names(tmp_path: Path) -> None:
    result, outside = make_result(), tmp_path / "outside"
    outside.write_text("mine")
    store = Store(tmp_path / "store")
    store.prepare()
    store.path(result.cell_id).symlink_to(outside)
    store.save(result)
    assert outside.read_text() == "mine"
    assert not store.path(result.cell_id).is_symlink()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
def test_names_of_tasks_and_methods_make_no_path(tmp_path: Path) -> None:
    names = ("../../evil", "/evil", "..\\evil", "a/b", "nul", "x" * 300, "\u202e<script>", ".", "a\nb")
    cells = [make_result(task=name, seed=seed, label=name) for name in names for seed in range(2)]
    write_report(save_all(tmp_path / "in" / "store", *cells), tmp_path / "in" / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["report", "store"]
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert all(re.fullmatch(r"in(/[\w.-]{1,255})*", path) for path in found), found


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", "x" * 5_000])
def test_a_study_that_is_none_is_one_line(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, said = command("run", name)
    assert (code in (1, 2), said.count("\n"), "Traceback" in said) == (True, 1, False), said
    assert not list(tmp_path.iterdir())


# What results, packs and reports tell of their maker

TRAITOR = """
    from pathlib import Path
    from polobench import Method

    class Traitor(Method):
        name = "traitor"
        def learn(self, task, rng):
            Path.home().joinpath("secret", "data.csv").read_text()
            yield
"""


@pytest.mark.filterwarnings("ignore")
def test_packs_and_reports_name_no_user_host_or_home(tmp_path: Path) -> None:
    home = tmp_path / "home" / "alice-q7x"
    home.mkdir(parents=True)
    plug_in(home, "traitor", TRAITOR, "methods:traitor=traitor:Traitor")
    study = write_study(home, STUDY.replace('"random"', '"random", "traitor"'))
    mine = {"HOME": str(home), "USER": "alice-q7x", "LOGNAME": "alice-q7x", "PYTHONPATH": str(home)}
    assert started("run", str(study), "--executor", "serial", cwd=home, **mine).returncode == 1
    store = home / "results" / "mini"
    write_pack([store], tmp_path / "mini.zip")
    assert started("report", str(store), cwd=home, **mine).returncode == 0
    write_report(tmp_path / "mini.zip", tmp_path / "report")
    texts = {path.name: path.read_bytes().decode("latin-1") for path in home.rglob("reports/**/*") if path.is_file()}
    texts |= {f"packed {path.name}": path.read_text("utf-8") for path in (tmp_path / "report").rglob("*.md")}
    texts["pack"] = "".join(item.traceback + item.reason + json.dumps(item.provenance) for item in _packed(tmp_path))
    texts |= {path.name: json.dumps(json.loads(path.read_text())["provenance"]) for path in store.glob("*.json")}
    assert len(texts) > 6
    assert "data.csv" in texts["pack"]
    words = ["alice-q7x", str(tmp_path), *(word for word in (socket.gethostname(),) if len(word) > 5)]
    words += [word for word in (getpass.getuser(),) if word not in ("root", "runner")]
    assert [(name, word) for name, text in texts.items() for word in words if _says(text, word)] == []


def _says(text: str, word: str) -> bool:
    """Whether it is there for itself: a user may be called as a part of another word."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _packed(folder: Path) -> list[Any]:
    from polobench.store.pack import Pack

    return Pack(folder / "mini.zip").whole()


@pytest.mark.filterwarnings("ignore")
def test_a_report_calls_a_home_folder_by_a_tilde(tmp_path: Path) -> None:
    bad = failed(make_result(task="/home/alice/my.jsonl@/home/alice/tiny"), reason="no file '/Users/alice/x', /root/y")
    path = write_report(save_all(tmp_path / "store", bad, make_result(seed=1)), tmp_path / "report")
    files = {item.name: item.read_bytes().decode("latin-1") for item in path.parent.rglob("*") if item.is_file()}
    assert [name for name, text in files.items() if "alice" in text or "alice" in name or "/root" in text] == []
    assert "&#126;/my.jsonl" in files["report.md"]


# What is carried to other machines


def test_an_order_holds_the_studys_text_and_the_cells_number_and_no_object(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, STUDY))
    order = json.loads(orders(study)(prepare(study.cells[1])))
    assert sorted(order) == ["devices", "expected", "folder", "limits", "number", "study", "text"]
    assert (order["text"], order["number"]) == (STUDY, 1)
    assert sorted(order["expected"]) == ["cell_id", "code", "hyperparameters", "platform"]
    assert sorted(order["limits"]) == ["memory_mib", "timeout_seconds"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("code", "the sources changed"),
        ("hyperparameters", "values differ"),
        ("platform", "its platform is another"),
    ],
)
def test_a_worker_with_other_code_values_or_platform_runs_nothing(name: str, said: str, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, STUDY))
    order = json.loads(orders(study)(prepare(study.cells[1])))
    order["expected"][name] = "another"
    (word,) = words(json.dumps(order))
    assert said in word
    assert "result" not in json.loads(word)


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
def test_a_store_has_the_users_permissions(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        store = Store(tmp_path / "store")
        store.prepare()
        path = store.save(make_result())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


# Errors


def test_a_traceback_is_shown_only_with_debug(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("polobench.run.study.load_study", surprise)
    code, _, said = command("run", "x")
    assert (code, said.count("\n"), "Traceback" in said) == (1, 1, False), said
    assert "ZeroDivisionError: by design" in said
    with pytest.raises(ZeroDivisionError, match="by design"):  # Python shows it where it ends a process
        command("--debug", "run", "x")


def test_text_of_a_study_is_no_format_and_no_code() -> None:
    for text in ("{0.__class__}", "%s%n", "__import__('os')", "${HOME}", "`id`", "$(id)", "; rm -rf ."):
        grid = {"methods": [text], "tasks": ["probe-bandit"], "seeds": 1, "budget": 10}
        (cell,) = parse_study("s", {"grid": [grid], "devices": ["cpu"]}).cells
        with pytest.raises(PoloError, match=f"unknown method {re.escape(repr(text))}"):
            prepare(cell)


@pytest.mark.parametrize(("text", "shown"), [
    ("/home/alice/x", "~/x"), ("/cluster/home/alice/x", "~/x"), ("C:\\Users\\alice\\x", "~\\x"), ("/root/x", "~/x"),
    ("file:///home/alice/x", "file://~/x"), ("a@/home/alice:/home/bob/x", "a@~:~/x"), ("'/Users/alice'", "'~'"),
    ("https://example.org/home/page", None), ("/srv/rooted/x", None), ("at home/work", None),
])  # fmt: skip
def test_a_home_folder_is_called_by_a_tilde(text: str, shown: str | None) -> None:
    assert without_home({"a": [text]}) == {"a": [text if shown is None else shown]}
