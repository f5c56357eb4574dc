"""Language runs in the store and in the report: what is read, refused, escaped, drawn and said."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import failed_language, language_demo, make_language, make_result, report_pages, report_text, save_all

from polobench.analysis.collection import collect
from polobench.analysis.frame import flat_table
from polobench.core.result import RunResult
from polobench.report.draw.style import typical_range
from polobench.report.findings import Findings
from polobench.report.page import verdict_text, write_report
from polobench.report.sections.language import LONGEST_ANSWER, PROMPTS_SHOWN
from polobench.report.words import note
from polobench.store.folder import Store
from polobench.store.validation import problem

SMOKE = note("smoke")[0]
NASTY = (None, "x", True, [], {}, 10**400, "Infinity", -1.5)
PAIRS = ("snapshots", "before", "pairs", "heldout")


def _text(*results: RunResult, folder: Path) -> str:
    return report_text(collect(save_all(folder, *results)))


def _pages(report: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(report.parent.rglob("*.md")))


def _section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def _rows(text: str) -> list[list[str]]:
    lines = (line for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def _plain() -> dict[str, Any]:
    """A small cell as its file holds it."""
    plain: dict[str, Any] = json.loads(json.dumps(make_language(prompts=2, pairs=3).to_dict()))
    for snapshot in plain["snapshots"].values():
        snapshot["completions"] = snapshot["completions"][:2]
    return plain | {"cell_id": "bad"}


_PLAIN = json.dumps(_plain())


def _changed(place: tuple[Any, ...], value: object, seed: int = 0) -> str:
    changed = json.loads(_PLAIN) | {"seed": seed}
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(changed)


def _answering(prompt: str, before: str, after: str, seed: int = 0, **changes: Any) -> RunResult:
    asked = {
        moment: {"completions": [{"prompt": prompt, "completion": text, "reward": None}]}
        for moment, text in (("before", before), ("after", after))
    }
    return make_language(seed=seed, snapshots=asked, **changes)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    return write_report(language_demo(folder / "store", seeds=3), folder / "report")


def test_snapshots_come_back_as_stored(tmp_path: Path) -> None:
    run = make_language()
    run.snapshots["before"]["completions"][0] |= {"prompt": "NaN", "completion": "Infinity", "reward": math.inf}
    run.snapshots["after"]["measures"]["entropy"] = -math.inf
    found = Store(save_all(tmp_path, run)).load(run.cell_id)
    assert isinstance(found, RunResult)
    assert found.snapshots == run.snapshots


def test_file_without_snapshots_is_read() -> None:
    plain = make_result().to_dict()
    assert plain.pop("snapshots") == {}
    assert RunResult.from_dict(plain).snapshots == {}


def _places(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*place, key))


@pytest.mark.filterwarnings("ignore")
def test_any_value_of_a_snapshot_may_be_bad(tmp_path: Path) -> None:
    store, damaged = save_all(tmp_path, make_language(seed=7, prompts=2, pairs=3)), 0
    curve = [("curve", name) for name in _plain()["curve"] if name.startswith("heldout_")]
    for place in [*_places(_plain()["snapshots"], ("snapshots",)), *curve]:
        for seed, value in enumerate(NASTY):
            (store / f"bad{seed}.json").write_text(_changed(place, value, seed))
        found = collect(store)
        assert len(found.cells) + len(found.damaged) == 1 + len(NASTY)
        assert report_text(found)
        damaged += len(found.damaged)
    assert damaged > 150


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("snapshots",), [], "snapshots is not an object"),
        (("snapshots", "before"), [], "snapshots.before is not an object"),
        (("snapshots", "after"), None, "snapshots.after is not an object"),
        (("snapshots", "before", "measures"), None, "snapshots.before.measures is not an object"),
        (("snapshots", "after", "measures", "entropy"), "x", "snapshots.after.measures.entropy is not a number"),
        (("snapshots", "before", "notes", "a"), -1, "snapshots.before.notes.a is not an amount"),
        (("snapshots", "before", "completions"), {}, "snapshots.before.completions is not a list of prompt"),
        (("snapshots", "before", "completions", 0, "reward"), "x", "snapshots.before.completions is not a list of"),
        (("snapshots", "before", "pairs", "test"), {}, "snapshots.before.pairs.test is not heldout or train"),
        (PAIRS, [], "snapshots.before.pairs.heldout is not an object"),
        ((*PAIRS, "prompt"), [0.5] * 3, "snapshots.before.pairs.heldout.prompt is not a list of counts"),
        ((*PAIRS, "prompt"), [0, 1], "snapshots.before.pairs.heldout: the columns are not equally long"),
        ((*PAIRS, "prompt"), [0, 0, 0], "snapshots.after.pairs.heldout is not of the pairs of before"),
        ((*PAIRS, "chosen_log_prob"), [[1.0]] * 3, "snapshots.before.pairs.heldout.chosen_log_prob is not a list of"),
        ((*PAIRS, "rejected_log_prob"), [10**400] * 3, "snapshots.before.pairs.heldout.rejected_log_prob is not a"),
        (("curve", "heldout_kl"), ["x"] * 21, "curve.heldout_kl is not a list of numbers"),
    ],
)
def test_the_reason_names_the_key(tmp_path: Path, place: tuple[Any, ...], value: object, reason: str) -> None:
    store = save_all(tmp_path)
    (store / "bad.json").write_text(_changed(place, value))
    assert [item.reason[: len(reason)] for item in collect(store).damaged] == [reason]


def test_nested_for_ever() -> None:
    run, nested = make_language(), {}
    for _ in range(300):
        nested = {"a": nested}
    run.snapshots["before"]["more"] = nested
    assert problem(run) == "snapshots is not a shallow object"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*PAIRS, "chosen_log_prob"), ["NaN", "Infinity", 1e308]),
        (("snapshots", "after", "pairs", "heldout", "rejected_log_prob"), ["-Infinity", 5e-324, -1e15]),
        (("snapshots", "before", "pairs", "train"), {}),
        (("snapshots", "after"), {}),
        (("updates", "loss"), ["Infinity", 1.7e308, -1.7e308] * 20),
        (("updates", "loss"), [1e99, 0.0, -1e99] * 20),
        (("curve", "heldout_accuracy"), ["NaN"] * 20 + ["Infinity"]),
        (("curve", "heldout_kl"), [None] * 21),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_figures_of_bad_numbers(tmp_path: Path, place: tuple[Any, ...], value: object) -> None:
    store = save_all(tmp_path / "store", make_language(seed=7, prompts=2, pairs=3))
    (store / "bad.json").write_text(_changed(place, value))
    path = write_report(store, tmp_path / "report")
    assert len(list((path.parent / "figures").iterdir())) >= 6


def test_every_figure_is_drawn_linked_and_the_same_again(report: Path, tmp_path: Path) -> None:
    linked = set(re.findall(r"\]\((?:\.\./)?figures/([^)]+)\)", _pages(report)))
    figures = report.parent / "figures"
    assert sorted(linked) == sorted(str(path.relative_to(figures)) for path in figures.rglob("*.png"))
    kinds = ("losses", "accuracy", "policy", "pairs", "loss")
    assert {f"{kind}_01-1_summaries.png" for kind in kinds} <= set(linked)
    again = write_report(report.parent.parent / "store", tmp_path)
    assert _pages(again) == _pages(report)
    for name in linked:
        assert (tmp_path / "figures" / name).read_bytes() == (report.parent / "figures" / name).read_bytes(), name


def test_control_has_no_word_of_language(tmp_path: Path) -> None:
    path = write_report(save_all(tmp_path / "store", make_result(), make_result(seed=1)), tmp_path / "report")
    names = {item.name.partition("_")[0] for item in (path.parent / "figures").rglob("*.png")}
    assert names == {"returns", "loss", "kl", "cost", "time"}
    assert not re.search(r"## (Preferences|Answers before|Left out of the data|The policy before)", _pages(path))


def test_sections_and_tables(report: Path) -> None:
    text = _pages(report)
    preferences = _section(text, "Preferences")
    rows = _rows(preferences.partition("### summaries")[2])
    dpo, grpo = (next(row for row in rows if row[:2] == [name, "held-out"]) for name in ("dpo", "grpo"))
    assert rows[0][:3] == ["method", "pairs", "unchanged"]
    assert (dpo[2], grpo[2]) == ("0", "1")
    assert "In every row: n = 3; prompts = 15; pairs each = 90." in preferences
    assert all(re.fullmatch(r"-?\d+\.\d{2,3} \[-?\d+\.\d{2,3}, -?\d+\.\d{2,3}\]", cell) for cell in dpo[3:])
    assert ["KL to reference", "dpo", "0"] in [row[:3] for row in _rows(_section(text, "The policy before and after"))]
    noted = _rows(_section(text, "Left out of the data"))
    assert noted[2] == ["summaries", "20,000 samples", "dpo", "chosen equals rejected", "2"]
    tables = {path.stem: pd.read_csv(path) for path in (report.parent / "tables").iterdir()}
    assert (len(tables["preferences"]), len(tables["measures"])) == (16, 24)
    assert tables["preferences"]["accuracy_3_value"].between(-1, 1).all()


def test_answers_are_of_the_lowest_seed_that_ended_ok(report: Path, tmp_path: Path) -> None:
    section = _section(_pages(report), "Answers before and after")
    summaries = section.partition("### sums")[0]
    assert re.findall(r"\*\*(\w+)\*\*, seed (\d)", summaries) == [
        ("dpo", "0"), ("grpo", "1"), ("ranking", "0"), ("reinforce", "0"),
    ]  # fmt: skip
    assert len(_rows(summaries)) == 4 * (PROMPTS_SHOWN + 2)
    text = _section(_text(failed_language(make_language()), folder=tmp_path), "Answers before and after")
    assert "**dpo**, seed 0, which ended diverged: no seed ended ok" in text
    assert _rows(text)[2] == ["What is 0 + 3?", "I am not sure; ⏎ perhaps 7", "–", "0", "–"]


def test_no_answer_breaks_a_table(tmp_path: Path) -> None:
    evil = "</td><script>x</script> | a\n\n| b | **c** `d` [e](f) ![g](h) \\| $i$ ~~j~~\n# k\r\n"
    evil += "\x1b[31m\u202e<!-- l\x00 &lt;\ud800"
    run = _answering(evil, "", "word " * 200, label="x|y")
    run.snapshots["before"] |= {"notes": {evil: 3}, "measures": {evil: 1.0}}
    text = _text(run, folder=tmp_path)
    assert flat_table(Findings(collect(tmp_path)).measures)["name"].tolist() == [evil.replace("\ud800", "?")]
    assert text.encode("utf-8")
    assert not re.search(r"<script|</td|<!--|\x1b|\x00|\u202e|!\[|\n# k|\*\*c|\]\(f", text)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(row) for row in _rows(table)}) == 1
    prompt, before, after = _rows(_section(text, "Answers before and after"))[2]
    assert "a ⏎ ⏎ &#124; b" in prompt
    assert before == "(empty)"
    assert (len(after), after[-1]) == (LONGEST_ANSWER, "…")


def test_prompts_listed_in_another_order(tmp_path: Path) -> None:
    run = make_language()
    run.snapshots["after"] = copy.deepcopy(run.snapshots["after"])
    run.snapshots["after"]["completions"] = run.snapshots["after"]["completions"][:0:-1]
    run.snapshots["after"]["completions"][-1]["completion"] = "moved"
    rows = _rows(_section(_text(run, folder=tmp_path), "Answers before and after"))
    assert (rows[2][2], rows[3][2]) == ("–", "moved")


def test_smoke_run_concludes_nothing(tmp_path: Path) -> None:
    runs = [make_language(method, seed=seed) for method in ("dpo", "grpo") for seed in range(5)]
    runs[0].provenance["smoke"] = True
    store = save_all(tmp_path, *runs, *(make_result(seed=seed) for seed in range(5)))
    found = report_pages(collect(store))
    assert SMOKE in found["tasks/summaries"]
    assert "has the highest" not in found["tasks/summaries"]
    assert "ppo alone ran at this budget" in found["tasks/CartPole-v1"]
    assert "nothing is concluded: summaries" in found["report"]
    assert "summaries" not in _section(found["report"], "Verdict")
    assert verdict_text(Findings(collect(store))).count(SMOKE) == 1
    assert "origin 2" not in found["provenance"]


@pytest.mark.parametrize("value", [False, "yes", 1, None])
def test_only_true_marks_a_smoke_run(tmp_path: Path, value: object) -> None:
    run = make_language()
    run.provenance["smoke"] = value
    assert SMOKE not in _text(run, folder=tmp_path)


def test_small_differences_of_a_share_are_shown(tmp_path: Path) -> None:
    runs = [make_language("dpo", seed=seed, final_return=value) for seed, value in enumerate((0.801, 0.803))]
    runs += [make_language("grpo", seed=seed, final_return=0.800) for seed in range(2)]
    text = _text(*runs, folder=tmp_path)
    assert "0.8020" in text
    assert "0.8000" in text
    assert "Floor 0.5200, target 1.0000. Returns are in: held-out preference accuracy." in text


def test_typical_range_is_that_of_most_values() -> None:
    values = np.append(np.linspace(0, 1, 101), 1e6)
    low, high = typical_range(values)
    assert low == 0
    assert 1 < high < 5
    assert typical_range(np.array([7.0, 7.0]), 1.0) == (6.5, 7.5)
    assert typical_range(np.array([1e99] * 3))[0] < 1e99
