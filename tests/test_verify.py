"""`polobench verify`: a digest that holds, and every way in which one does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from synthetic import failed, make_result, make_throughput, save_all
from typer.testing import CliRunner

from polobench.cells.runner import prepare, run_cell
from polobench.cli import app
from polobench.core.errors import UsageError
from polobench.core.method import Method
from polobench.core.recorder import Update
from polobench.core.result import RunResult
from polobench.methods.ppo import PPO
from polobench.run.progress import Display
from polobench.run.study import parse_study
from polobench.run.verify import Verification, cell_of, complaint, draw, reruns, summary
from polobench.store.folder import Store

SMALL = {
    "method": "ppo", "label": "small", "hidden_sizes": [8, 4], "n_envs": 4, "n_steps": 16, "minibatch_size": 32,
    "epochs": 1,
}  # fmt: skip
STUDY = {
    "devices": ["cpu"],
    "grid": [{"methods": ["random", SMALL], "tasks": ["probe-bandit"], "seeds": [0, 7], "budget": 500}],
}


@pytest.fixture(scope="module")
def ran() -> list[RunResult]:
    return [run_cell(prepare(cell)) for cell in parse_study("mini", STUDY).cells]


@pytest.fixture
def store(ran: list[RunResult], tmp_path: Path) -> Path:
    return save_all(tmp_path / "store", *ran)


def rerun(folder: Path, count: int = 10, seed: int = 0) -> list[Verification]:
    drawn = draw(Store(folder).read()[0], count, seed)
    with Display(len(drawn)) as display:
        return reruns(drawn, display)


def changed(folder: Path, label: str, **values: Any) -> None:
    """Write other values into every cell of the label; those of `provenance` are merged."""
    for path in list(folder.glob("*.json")):
        plain = json.loads(path.read_text())
        if plain["label"] == label:
            plain["provenance"] |= values.get("provenance", {})
            plain |= {name: value for name, value in values.items() if name != "provenance"}
            path.unlink()
            (folder / f"{plain['cell_id']}.json").write_text(json.dumps(plain))  # a file has its cell's id as its name


def test_a_stored_result_is_the_same_cell_again(ran: list[RunResult], store: Path) -> None:
    results, damaged = Store(store).read()
    assert not damaged
    for result in results:  # an id holds all that defines a cell, so that equal ids leave nothing out
        assert prepare(cell_of(result)).cell_id == result.cell_id
    results[0].provenance["threads"] = 3
    assert cell_of(results[0]).threads == 3
    assert len(results) == len(ran) == 4


def test_a_trial_is_run_again_on_its_own_split() -> None:
    study = {"devices": ["cpu"], "grid": [{"methods": ["random"], "tasks": ["CartPole-v1"], "seeds": 1, "budget": 50}]}
    (cell,) = parse_study("mini", study).cells
    trial = prepare(replace(cell, split="tuning", facts={"split": "tuning", "trial": 0, "arm": "random"}))
    assert prepare(cell_of(run_cell(trial))).cell_id == trial.cell_id != prepare(cell).cell_id


def test_tuned_values_are_set_by_hand(tmp_path: Path) -> None:
    study = {"devices": ["cpu"], "grid": [{"methods": ["ppo"], "tasks": ["CartPole-v1"], "seeds": 1, "budget": 50}]}
    prepared = prepare(parse_study("mini", study).cells[0])
    assert prepared.method is not None
    stored = replace(run_cell(prepared), policy=None)
    again = RunResult.from_dict(json.loads(json.dumps(stored.to_dict())))
    assert prepare(cell_of(again)).cell_id == prepared.cell_id
    assert prepare(replace(cell_of(again), overrides={})).cell_id != prepared.cell_id  # the tuned ones are no defaults


def test_every_digest_holds(store: Path, command: Command) -> None:
    found = rerun(store)
    assert [item.sentence for item in found] == ["holds"] * 4
    code, printed, said = command("verify", store, "--cells", 2)
    assert (code, printed.count("  holds\n")) == (0, 2)
    assert "2 of 2 digests hold on this platform" in said


def _with_another_loss(learn: Any, at: int) -> Any:
    def planted(self: Method, task: Any, rng: Any) -> Iterator[Update]:
        for number, update in enumerate(learn(self, task, rng), 1):
            yield replace(update, loss=update.loss + 1e-12) if number == at else update

    return planted


def test_the_first_update_that_differs_is_named(store: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PPO, "learn", _with_another_loss(PPO.learn, 3))
    found = rerun(store)
    assert {(item.stored.label, item.sentence) for item in found} == {
        ("random", "holds"),
        ("small", "differs from update 3 on"),
    }
    code, _, said = command("verify", store, "--cells", 4)
    assert code == 1
    assert said.splitlines()[-1] == "polobench: digests that differ on the same platform: 2 with equal code"


def test_a_difference_of_the_last_evaluation_alone(store: Path) -> None:
    changed(store, "small", digest="0" * 64)
    assert {item.sentence for item in rerun(store) if item.stored.label == "small"} == {
        "differs in its last evaluation"
    }


@pytest.mark.parametrize(
    ("provenance", "beside", "code", "said"),
    [
        ({"code_hash": "other"}, "other code", 1, "2 with other code"),
        ({"platform_fingerprint": "other"}, "other platform", 0, "2 differs"),
        ({"platform_fingerprint": "other", "code_hash": "other"}, "other platform, other code", 0, "2 differs"),
        ({"platform_fingerprint": None}, "other platform", 0, "2 differs"),
    ],
)
def test_what_changed_stands_beside_a_difference(
    provenance: dict[str, Any], beside: str, code: int, said: str, store: Path, command: Command
) -> None:
    changed(store, "small", digest="0" * 64, trail="", provenance=provenance)
    differing = [item for item in rerun(store) if item.stored.label == "small"]
    assert [item.sentence for item in differing] == [f"differs from update 1 on ({beside})"] * 2
    ended = command("verify", store, "--cells", 4)
    assert (ended.code, said in ended.err) == (code, True), ended.err


def test_other_code_that_gives_the_same_bits_holds(store: Path) -> None:
    changed(store, "random", provenance={"code_hash": "other"})
    found = rerun(store)
    assert {item.sentence for item in found} == {"holds", "holds (other code)"}
    assert not complaint(found)


def test_another_definition_of_the_task_is_named(store: Path) -> None:
    changed(store, "small", digest="0" * 64, cell_id="0" * 20)
    assert {item.sentence for item in rerun(store) if item.stored.label == "small"} == {
        "differs in its last evaluation (other task)"
    }


def test_what_cannot_run_here_is_unavailable(store: Path, command: Command) -> None:
    changed(store, "small", method="of-a-plug-in")
    unavailable = [item for item in rerun(store) if item.stored.label == "small"]
    assert {item.verdict for item in unavailable} == {"unavailable"}
    assert all(item.reason.startswith("unknown method 'of-a-plug-in'") for item in unavailable)
    assert summary(unavailable) == "0 of 2 digests hold on this platform, 2 unavailable"
    code, _, said = command("verify", store, "--cells", 4)
    assert code == 0
    assert "2 of 4 digests hold" in said
    changed(store, "random", method="of-a-plug-in")
    code, _, said = command("verify", store, "--cells", 4)
    assert code == 2
    assert "nothing is verified" in said.splitlines()[-1]


def test_a_hyper_parameter_that_is_no_more(store: Path) -> None:
    changed(store, "random", hyperparameters={"gone": 1})
    assert any("gone" in item.reason for item in rerun(store) if item.verdict == "unavailable")


def test_a_rerun_that_fails_says_how(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Method, task: Any, rng: Any) -> Iterator[Update]:
        raise ValueError("broken since")

    monkeypatch.setattr(PPO, "learn", broken)
    found = [item for item in rerun(store) if item.stored.label == "small"]
    assert all(item.is_fault for item in found)
    assert "it ended failed: ValueError: broken since" in found[0].sentence


def test_json(store: Path) -> None:
    changed(store, "small", digest="0" * 64)
    done = CliRunner().invoke(app, ["verify", str(store), "--cells", "4", "--json"])
    rows = json.loads(done.stdout)
    assert sorted((row["verdict"], row["first_difference"], row["is_fault"]) for row in rows) == [
        ("differs", None, True), ("differs", None, True), ("holds", None, False), ("holds", None, False),
    ]  # fmt: skip
    assert {row["cell"] for row in rows if row["is_fault"]} == {
        "small · probe-bandit · seed 0 · cpu", "small · probe-bandit · seed 7 · cpu",
    }  # fmt: skip


def test_the_draw_is_random_and_the_same_again() -> None:
    results = [make_result(seed=seed) for seed in range(40)]
    draws = [tuple(item.cell_id for item in draw(results, 3, seed)) for seed in range(30)]
    assert all(len(set(drawn)) == 3 for drawn in draws)
    assert draws[0] == tuple(item.cell_id for item in draw(list(reversed(results)), 3, 0))
    assert len({cell for drawn in draws for cell in drawn}) > 30  # 90 draws of 40 leave out 4 on average
    assert len(draw(results, 100, 0)) == 40


def test_only_ok_learning_cells_with_a_digest_are_drawn_and_the_newest_of_equal_ones() -> None:
    sound, older = make_result(seed=0), make_result(seed=0, started_at="2024-01-01T00:00:00+00:00")
    older.cell_id, older.provenance = "older", older.provenance | {"code_hash": "before"}
    others = [failed(make_result(seed=1)), make_result(seed=2, digest=None), make_throughput()]
    assert draw([older, sound, *others], 10, 0) == [sound]
    with pytest.raises(UsageError, match="no learning cell that ended ok and has a digest"):
        draw(others, 3, 0)


@pytest.mark.parametrize(("text", "said"), [
    ("", "is damaged"), ('{"schema_version": 2}', "schema version 2; this polobench reads 1"), (None, "is empty"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(text: str | None, said: str, command: Command, tmp_path: Path) -> None:
    if text is not None:
        save_all(tmp_path, make_result())
        (tmp_path / "bad.json").write_text(text)
    ended = command("verify", tmp_path)
    (line,) = ended.err.splitlines()
    assert ended.code == 2
    assert said in line


def test_no_store(command: Command, tmp_path: Path) -> None:
    code, _, said = command("verify", tmp_path / "none")
    assert code == 2
    assert "does not exist" in said
