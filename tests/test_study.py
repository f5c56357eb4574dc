"""Studies, seeds and everything a user can write wrongly in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polobench.cells.runner import prepare, run_cell
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import tuned_values
from polobench.registry import make
from polobench.run.library import BUILT_IN, find_study
from polobench.run.listing import rows
from polobench.run.study import load_study, parse_seeds, parse_study
from polobench.store.validation import problem

SEARCHES = {
    BUILT_IN / "tuning" / f"{name}.toml" for name in ("matrix", "group-size", "preferences-tuned")
}  # of `polobench tune`, no studies


def study(**grid: Any) -> dict[str, Any]:
    base = {"methods": ["ppo"], "tasks": ["CartPole-v1"], "seeds": 2, "budget": 100}
    return {"grid": [{key: value for key, value in (base | grid).items() if value is not None}]}


@pytest.mark.parametrize(
    ("text", "seeds"),
    [(5, [0, 1, 2, 3, 4]), ("5", [0, 1, 2, 3, 4]), ("3,7", [3, 7]), ("10-12", [10, 11, 12]), ([4, 2], [4, 2]),
     ("1-2,7", [1, 2, 7]), ("7-7", [7]), ("0-1", [0, 1])],
)  # fmt: skip
def test_seeds(text: object, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", [0, -1, "", "a", "1,", "3-", "-3", "5-3", 2.0, True, [], [1.5], [-1], None])
def test_bad_seeds_name_what_is_allowed(text: object) -> None:
    with pytest.raises(UsageError, match="10-19"):
        parse_seeds(text)


def test_cells_are_the_cross_product_and_throughput_stands_last() -> None:
    cells = parse_study("s", study(methods=["ppo", "trpo"], throughput_rounds=4), ["cpu", "cuda"]).cells
    assert [cell.kind for cell in cells] == ["learning"] * 8 + ["throughput"] * 4
    assert {(cell.method, cell.seed, cell.device) for cell in cells[:8]} == {
        (method, seed, device) for method in ("ppo", "trpo") for seed in (0, 1) for device in ("cpu", "cuda")
    }


def test_variants_carry_their_label_and_hyperparameters() -> None:
    item = {"method": "ppo", "label": "ppo tight", "clip_eps": 0.1}
    cell = parse_study("s", study(methods=["ppo", item], seeds=1)).cells[1]
    assert (cell.method, cell.label, dict(cell.overrides)) == ("ppo", "ppo tight", {"clip_eps": 0.1})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"budget": 0}, "samples"),
        ({"budget": -3}, "samples"),
        ({"budget": float("nan")}, "nan"),
        ({"budget": "many"}, "many"),
        ({"budget": {"steps": 3}}, "steps"),
        ({"budget": {"seconds": float("inf")}}, "seconds"),
        ({"seed": 3}, "seed"),
        ({"methods": []}, "methods"),
        ({"methods": "ppo"}, "methods"),
        ({"methods": [3]}, "methods"),
        ({"methods": [{"method": "ppo", "device": "cpu"}]}, "device"),
        ({"tasks": [None]}, "tasks"),
        ({"throughput_rounds": 0}, "throughput_rounds"),
        ({"budget": None}, "budget"),
        ({"methods": ["ppo", "ppo"]}, "twice"),
        ({"seeds": [1, 1]}, "twice"),
    ],
)
def test_bad_grids_name_the_culprit_in_one_line(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        parse_study("s", study(**change))
    assert "\n" not in str(caught.value)


def test_a_cell_named_twice_across_grids_is_refused() -> None:
    grids = study()["grid"] + study(seeds="1-1")["grid"]
    with pytest.raises(UsageError, match="twice"):
        parse_study("s", {"grid": grids})


@pytest.mark.parametrize(
    ("text", "named"),
    [({}, "grid"), ({"grid": {}}, "grid"), ({"grids": []}, "grids"), ({**study(), "threads": 0}, "threads"),
     ({**study(), "looks": 0}, "looks"),
     ({**study(), "timeout_seconds": -1}, "timeout_seconds"), ({**study(), "devices": "cpu"}, "devices")],
)  # fmt: skip
def test_bad_studies(text: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        parse_study("s", text)


def test_unreadable_files(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="no study"):
        load_study(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("methods = [")
    with pytest.raises(UsageError, match=r"broken\.toml"):
        load_study(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.toml"):
        load_study(tmp_path / "binary.toml")


def test_a_study_of_too_many_seeds_is_refused_before_it_eats_the_memory() -> None:
    for text in (10**12, "1000000000000", "0-1000000000000"):
        with pytest.raises(UsageError, match="too many"):
            parse_seeds(text)


def test_labels_cannot_carry_terminal_escapes() -> None:
    with pytest.raises(UsageError, match="printed"):
        parse_study("s", study(methods=[{"method": "ppo", "label": "\x1b[31mred"}]))


@pytest.mark.parametrize("path", sorted({*(BUILT_IN / "tuning").glob("*.toml")} - SEARCHES), ids=lambda path: path.stem)
def test_no_two_settings_of_a_tuning_study_are_the_same(path: Path) -> None:
    """Tuned values under an entry of a tuning study would make it another one than it says."""
    seen: dict[str, str] = {}
    for cell in load_study(path).cells:
        prepared = prepare(cell)
        assert prepared.method is not None
        values = f"{cell.method} {prepared.method.hp}"
        assert seen.setdefault(values, cell.label) == cell.label


def test_tuned_values_apply_unless_told_otherwise() -> None:
    values = [prepare(parse_study("s", study() | more).cells[0]).method for more in ({}, {"tuned": False})]
    tuned, default = (method.hp for method in values if method is not None)
    assert default == type(default)()
    assert tuned != default


def write_study(path: Path, title: str = "") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'title = "{title}"\n[[grid]]\nmethods = ["ppo"]\ntasks = ["x"]\nseeds = 1\nbudget = 3\n')
    return path


@pytest.mark.parametrize("files", [
    pytest.param(["quick.toml", "studies/quick.toml"], id="the current folder first"),
    pytest.param(["studies/quick.toml"], id="then its studies"), pytest.param([], id="then the built-in ones"),
])  # fmt: skip
def test_own_studies_win_over_built_in_ones(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in files:
        write_study(Path(name), title=name)
    study = load_study("quick")
    assert (study.name, study.cells[0].study) == ("quick", "quick")
    assert study.title == (files[0] if files else load_study(BUILT_IN / "quick.toml").title)
    (row,) = (row for row in rows("studies") if row["name"] == "quick")
    assert (row["source"], row["about"]) == (files[0] if files else "built in", study.title)


@pytest.mark.parametrize("given", ["ci", "ci.toml", "studies/ci", "studies/ci.toml", "tuning/matrix"])
def test_a_built_in_study_has_a_name(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ci").mkdir()  # a folder is no study
    (tmp_path / "tuning" / "matrix").mkdir(parents=True)
    assert find_study(given) == BUILT_IN / ("tuning/matrix.toml" if "tuning" in given else "ci.toml")


def test_a_name_of_no_study_is_one_line_that_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "studies" / "mine.toml")
    with pytest.raises(
        UsageError, match=r"unknown study 'quikc'; did you mean 'quick'\? .*article, .*mine, "
    ) as caught:
        load_study("quikc")
    assert "\n" not in str(caught.value)
    with pytest.raises(
        UsageError,
        match=r"unknown tuning file 'quikc' \(allowed: tuning/group-size, tuning/matrix, tuning/preferences-tuned, ",
    ):
        find_study("quikc", "tuning file")
    with pytest.raises(UsageError, match="no study at 'studies/quikc"):
        load_study("studies/quikc.toml")


def test_other_toml_files_of_the_current_folder_are_no_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / "speed.toml").write_text("[project]")  # takes the name of one, so whoever asks for it learns why
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "broken.toml").write_text("grid = [")
    found = {row["name"]: row for row in rows("studies")}
    assert "pyproject" not in found
    assert "project" in found["speed"]["reason"]
    assert "cannot be read" in found["broken"]["reason"]
    assert "polobench tune tuning/matrix" in found["tuning/matrix"]["about"]


def test_the_built_in_studies_can_be_read() -> None:
    paths = sorted({*BUILT_IN.rglob("*.toml")} - SEARCHES)
    assert paths
    for path in paths:
        assert load_study(path).cells


def test_every_result_of_a_study_says_how_many_looks_it_declares() -> None:
    text = {**study(methods=["random"], budget=100, seeds=1), "looks": 2}
    results = [
        run_cell(prepare(parse_study("s", item).cells[0])) for item in (text, study(methods=["random"], seeds=1))
    ]
    declared = [[result.provenance.get(name) for name in ("looks", "seeds")] for result in results]
    assert declared == [[2, 1], [None, None]]
    assert len({result.cell_id for result in results}) == 1, "they define nothing"
    results[0].provenance["looks"] = 0
    assert [problem(result) for result in results] == ["provenance.looks is not a count from 1 or null", ""]


def test_other_numbers_of_pairs_are_run_at_the_values_that_were_tuned_on_two_thousand() -> None:
    """A task under another label has no tuned values of its own."""
    for cell in load_study("preference-sizes").cells:
        task = cell.task.split(",")[0]
        assert dict(cell.overrides) == tuned_values(cell.method, task, cell.label) != {}


def test_values_of_another_task_are_named_and_what_the_row_says_comes_first() -> None:
    rows = ["ppo", {"method": "ppo", "label": "far", "clip_eps": 0.9}]
    cells = parse_study("s", study(methods=rows, tasks=["Acrobot-v1"], tuned_for="CartPole-v1", seeds=1)).cells
    methods = [prepare(cell).method for cell in cells]
    tuned = make("ppo", task="CartPole-v1").hp
    assert make("ppo", task="Acrobot-v1").hp != tuned
    assert [method.hp for method in methods if method] == [tuned, replace(tuned, clip_eps=0.9)]
    with pytest.raises(UsageError, match=r"tuned_for of 'ppo': 'CartPole'.* \(allowed: Acrobot-v1, CartPole-v1, "):
        parse_study("s", study(tuned_for="CartPole"))


def test_a_label_takes_the_values_of_what_stands_before_its_comma() -> None:
    of_ipo = tuned_values("dpo", "digit-preferences", "ipo")
    assert of_ipo["loss"] == "ipo"
    assert tuned_values("dpo", "digit-preferences", "ipo,beta 3, again") == of_ipo
    assert tuned_values("dpo", "digit-preferences", "dpo, beta 3") == tuned_values("dpo", "digit-preferences") != of_ipo
    assert tuned_values("dpo", "digit-preferences", "mine, beta 3") == tuned_values("dpo", "digit-preferences")


def test_the_frontier_sweeps_the_pull_alone_around_what_was_tuned() -> None:
    """Four strengths of each arm beside the tuned one, which the study `preferences-tuned` runs; oracles have all."""
    pulls: dict[tuple[str, str], list[float]] = {}
    for cell in load_study("preferences").cells:
        line, _, said = cell.label.partition(", ")
        if not said:
            continue
        name = said.partition(" ")[0]
        pull, tuned = cell.overrides[name], tuned_values(cell.method, cell.task.replace("-gold", "-learned"), line)
        assert said == f"{name} {pull:g}"
        assert tuned | dict(cell.overrides) | {name: tuned[name]} == tuned
        pulls.setdefault((cell.task, line), []).append(pull / tuned[name])
    assert len(pulls) == 12
    for (task, _), found in pulls.items():
        strengths = sorted(set(found))
        assert strengths == pytest.approx([1 / 9, 1 / 3, *[1] * ("gold" in task), 3, 9], rel=0.01)


def test_a_task_under_another_name_says_that_it_is_not_tuned() -> None:
    named = {"id": "CartPole-v1", "label": "CartPole, long", "max_episode_steps": 1000}
    values = tuned_values("ppo", "CartPole-v1")
    found = parse_study("s", study(methods=["ppo", "trpo"], tasks=["CartPole-v1", named]))
    assert found.untuned() == [
        "not tuned: ppo, trpo on 'CartPole, long', since the tuned values are of 'CartPole-v1' under its own name"
    ]
    written_out = parse_study("s", study(methods=[{"method": "ppo", **values}], tasks=[named]))
    by_choice = parse_study("s", {**study(tasks=[named]), "tuned": False})
    assert values
    assert written_out.untuned() == by_choice.untuned() == []
