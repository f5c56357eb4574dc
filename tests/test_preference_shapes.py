"""Preference files as others publish them: ten invented rows per shape, kinds of files, and `polobench data`."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from typer.testing import CliRunner

import polobench
from polobench.cli import app
from polobench.core.errors import Unavailable, UsageError
from polobench.registry import find_task
from polobench.tasks import preference_formats
from polobench.tasks.fields import Field
from polobench.tasks.preference_data import RankedGroup, hub_preferences, read_preferences, split_by_prompt

N = range(10)
GROUPS = [(f"What is {n} and {n}?", f"It is {2 * n}.", f"Perhaps {2 * n + 1}.") for n in N]
TINY = str(Path(polobench.__file__).parent / "tasks" / "checkpoints" / "preferences-bytes")


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def share(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


def human(asked: str) -> str:
    return f"\n\nHuman: {asked}\n\nAssistant:"


Rows = Callable[[str, str, str], list[dict[str, Any]]]
USER: Callable[[str], Any] = lambda asked: (("user", asked),)  # noqa: E731
PLAIN: Callable[[str], Any] = lambda asked: asked  # noqa: E731
SAMPLES: dict[str, tuple[Rows, Callable[[str], Any], str]] = {
    "UltraFeedback, binarized": (
        lambda asked, good, bad: [{
            "prompt": asked, "prompt_id": "0f", "chosen": [say("user", asked), say("assistant", good)],
            "rejected": [say("user", asked), say("assistant", bad)],
            "messages": [say("user", asked), say("assistant", good)], "score_chosen": 8.5, "score_rejected": 6.0,
        }], USER, "",
    ),
    "dialogues (HH-RLHF)": (
        lambda asked, good, bad: [{"chosen": f"{human(asked)} {good}", "rejected": f"{human(asked)} {bad}"}], human, " "
    ),
    "Orca pairs": (
        lambda asked, good, bad: [{"system": "Think first.", "question": asked, "chosen": good, "rejected": bad}],
        lambda asked: (("system", "Think first."), ("user", asked)), "",
    ),
    "SHP": (
        lambda asked, good, bad: [{
            "post_id": "x1", "domain": "d", "history": asked, "human_ref_A": bad, "human_ref_B": good, "labels": 0,
            "score_A": 3, "score_B": 9, "score_ratio": 3.0,
        }], PLAIN, "",
    ),
    "HelpSteer2": (
        lambda asked, good, bad: [
            {"prompt": asked, "response": bad, "helpfulness": 1, "correctness": 4, "coherence": 4, "verbosity": 2},
            {"prompt": asked, "response": good, "helpfulness": 3, "correctness": 0, "coherence": 4, "verbosity": 2},
        ], PLAIN, "",
    ),
    "HelpSteer2 preference": (
        lambda asked, good, bad: [
            {"prompt": asked, "response_1": bad, "response_2": good, "preference_strength": 2, "split": "train"}
        ], PLAIN, "",
    ),
    "KTO": (
        lambda asked, good, bad: [
            {"prompt": asked, "completion": good, "label": True},
            {"prompt": f"{asked} ", "completion": bad, "label": False},
        ], PLAIN, "",
    ),
    "ShareGPT": (
        lambda asked, good, bad: [{
            "conversations": [share("system", "Be kind."), share("human", asked)],
            "chosen": share("gpt", good), "rejected": share("gpt", bad),
        }], lambda asked: (("system", "Be kind."), ("user", asked)), "",
    ),
    "Nectar": (
        lambda asked, good, bad: [{
            "prompt": human(asked), "answers": [
                {"answer": bad, "model": "m1", "rank": 2.0}, {"answer": good, "model": "m2", "rank": 1.0}
            ], "turns": 1, "num_responses": 2, "source": ["s"],
        }], human, "",
    ),
    "UltraFeedback": (
        lambda asked, good, bad: [{
            "source": "s", "instruction": asked, "models": ["m1", "m2"], "completions": [
                {"response": bad, "overall_score": 4.5, "model": "m1"}, {"response": good, "overall_score": 7.0}
            ],
        }], PLAIN, "",
    ),
    "ranked group": (
        lambda asked, good, bad: [{"prompt": asked, "responses": [bad, good], "ranks": [2.0, 1.0]}], PLAIN, ""
    ),
    "pair": (lambda asked, good, bad: [{"prompt": asked, "chosen": good, "rejected": bad, "id": 1}], PLAIN, ""),
    "marked answers": (
        lambda asked, good, bad: [{
            "question": asked, "a": {"solution": bad, "is_correct": False}, "b": {"solution": good, "is_correct": True}
        }], PLAIN, "",
    ),
}  # fmt: skip


def sample(shape: str) -> list[dict[str, Any]]:
    return [row for group in GROUPS for row in SAMPLES[shape][0](*group)]


def as_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def as_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    written = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), written)
    return written.getvalue()


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    written = io.StringIO(newline="")
    table = csv.DictWriter(written, list(rows[0]))
    table.writeheader()
    for row in rows:
        table.writerow(
            {name: json.dumps(value) if isinstance(value, (list, dict)) else value for name, value in row.items()}
        )
    return written.getvalue().encode()


KINDS = {
    "jsonl": as_lines, "json": lambda rows: json.dumps(rows, indent=1).encode(), "parquet": as_parquet, "csv": as_csv
}  # fmt: skip


def best_first(group: RankedGroup) -> list[str]:
    return [text for _, text in sorted(zip(group.scores, group.responses), reverse=True)]


def test_every_shape_has_a_sample() -> None:
    assert set(SAMPLES) == {shape.name for shape in preference_formats.SHAPES}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SAMPLES)
def test_ten_rows_of_a_shape(shape: str, kind: str, packed: bool, tmp_path: Path) -> None:
    if (shape, kind) == ("marked answers", "csv"):
        pytest.skip("objects in cells are no columns of CSV")
    rows, (_, prompt, before) = sample(shape), SAMPLES[shape]
    content = KINDS[kind](rows)
    path = tmp_path / f"some rows@home.{kind}{'.gz' * packed}"
    path.write_bytes(gzip.compress(content) if packed else content)
    data = read_preferences(path)
    assert (data.name, data.shapes, data.skipped) == ("some rows@home", ((shape, len(rows)),), ())
    assert [group.prompt for group in data.groups] == [prompt(asked) for asked, _, _ in GROUPS]
    for group, (_, good, bad) in zip(data.groups, GROUPS, strict=True):
        assert best_first(group) == [before + good, before + bad]


TIES = {
    "UltraFeedback, binarized": {"score_chosen": 6.0}, "SHP": {"score_A": 9}, "HelpSteer2": {"helpfulness": 3},
    "HelpSteer2 preference": {"preference_strength": 0}, "KTO": {"label": True}, "ranked group": {"ranks": [1.5, 1.5]},
}  # fmt: skip


@pytest.mark.parametrize("shape", TIES)
def test_equal_scores_make_no_pair(shape: str, tmp_path: Path) -> None:
    rows = sample(shape)
    size = len(rows) // 10
    for row in rows[:size]:
        row |= TIES[shape]
    path = tmp_path / "x.jsonl"
    path.write_bytes(as_lines(rows))
    data = read_preferences(path)
    assert len(data.groups) == 9
    assert data.skipped == (("x.jsonl:1", "its responses tie everywhere"),)


def test_the_sign_of_a_preference_strength_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(as_lines(sample("HelpSteer2 preference")))
    assert best_first(read_preferences(path).groups[0])[0] == GROUPS[0][1]
    monkeypatch.setattr(Field, "score", lambda field: -float(field.value))
    assert best_first(read_preferences(path).groups[0])[0] != GROUPS[0][1]


def dialogues(path: Path) -> Path:
    """Three pairs of answers to each question, which begin alike: their longest common beginning is no prompt."""
    answers = [("I am fine", "I am not sure"), ("I think so", "I think that depends"), ("Yes, it is", "Yes, sure")]
    rows = [
        {"chosen": f"{human(f'Question {n}?')} {good}", "rejected": f"{human(f'Question {n}?')} {bad}"}
        for n in range(40) for good, bad in answers
    ]  # fmt: skip
    path.write_bytes(as_lines(rows))
    return path


def questions_on_both_sides(path: Path) -> set[str]:
    sides = split_by_prompt(read_preferences(path), 0.25, 0)
    train, heldout = ({str(group.prompt).split()[2] for group in side} for side in sides)
    assert len(train | heldout) == 40
    return train & heldout


def test_dialogues_are_cut_at_the_last_turn_so_that_no_question_is_on_both_sides(tmp_path: Path) -> None:
    path = dialogues(tmp_path / "hh.jsonl")
    assert read_preferences(path).groups[0].prompt == "\n\nHuman: Question 0?\n\nAssistant:"
    assert read_preferences(path).groups[0].responses == (" I am fine", " I am not sure")
    assert questions_on_both_sides(path) == set()


def test_a_cut_at_the_longest_common_beginning_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*given: Field) -> tuple[Field, list[Field]]:
        length = next(i for i, (one, other) in enumerate(zip(*(field.value for field in given))) if one != other)
        shared = given[0].value[:length].rsplit(" ", 1)[0]
        return Field("chosen", shared), [Field(field.name, field.value[len(shared) :]) for field in given]

    monkeypatch.setattr(preference_formats, "_dialogues", cut)
    assert questions_on_both_sides(dialogues(tmp_path / "hh.jsonl"))


# kinds of files


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("x.json", b"3", ["x.json: 3 (allowed: a list of rows)"]),
        ("x.json", b"[]", ["x.json: it has no row"]),
        ("x.json", b'[{"prompt": "a"', ["x.json: it is not JSON"]),
        ("x.json", b'[{"text": "a"}]', ["x.json:1: columns ['text'] are no preference"]),
        ("x.json", b"[" * 100_000, ["x.json: it is nested too deep"]),
        ("x.csv", b"", ["x.csv: it has no row"]),
        ("x.csv", b"prompt,chosen,rejected\na,b", ["x.csv:2: 2 cells (allowed: 3"]),
        ("x.csv", b"prompt,chosen,chosen\na,b,c", ["x.csv: column 'chosen' stands twice"]),
        ("x.csv", b"prompt;chosen;rejected\na;b;c", ["x.csv:2: columns ['prompt;chosen;rejected'] are no preference"]),
        ("x.csv", b'prompt,chosen,rejected\na,"b', ["x.csv: line", "is not CSV"]),
        ("x.csv", b"prompt,chosen,rejected\na,b,\xff", ["x.csv: byte 28 is not UTF-8"]),
        ("x.csv", b"prompt,responses,scores\na,\"['a', 'b']\",1", ["x.csv:2: field 'responses'", "list as JSON"]),
        (
            "x.csv", b"prompt,chosen,rejected\na,\"[{'role': 'assistant', 'content': 'x'}]\",b",
            ["x.csv:2: field 'chosen'", "text, or a list as JSON"],
        ),
        ("x.csv", b"prompt,completion,label\na,b,yes", ["x.csv:2: field 'label': 'yes' (allowed: true, false)"]),
        ("x.parquet", b"PAR1 and no more", ["x.parquet: it is not Parquet"]),
        ("x.parquet.gz", gzip.compress(b"x" * 99, mtime=0)[:-9], ["x.parquet.gz: its gzip is damaged or cut short"]),
    ],
)  # fmt: skip
def test_bad_files_are_named_in_one_line(name: str, content: bytes, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_preferences(tmp_path / name)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_cells_of_csv_are_text_however_they_look(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(
        b'prompt,chosen,rejected,scores\n1+1,2,3,\n"Sort [2, 1]","[1, 2]","{""value"": 3}",\n"two\nlines",a,"",\n'
    )
    data = read_preferences(path)
    assert [(group.prompt, group.responses) for group in data.groups] == [
        ("1+1", ("2", "3")), ("Sort [2, 1]", ("[1, 2]", '{"value": 3}'))
    ]  # fmt: skip
    assert data.skipped == (("x.csv:4", "field 'rejected' is empty: 1 response to choose from (needed: 2)"),)


@pytest.mark.parametrize(
    "form", [lambda rows: {"data": rows, "version": 1}, lambda rows: rows[0]], ids=["object", "row"]
)
def test_json_may_hold_its_rows_in_an_object(form: Callable[[Any], Any], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(form(sample("pair")), indent=1))
    assert read_preferences(tmp_path / "x.json").groups[0].responses == GROUPS[0][1:]


def test_json_lines_under_the_name_of_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(as_lines(sample("pair")))
    assert len(read_preferences(tmp_path / "x.json").groups) == 10


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(Unavailable, match=r"polobench\[hub\]"):
        read_preferences(tmp_path / "x.parquet")


def test_a_data_set_in_a_folder_through_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_bytes(as_lines(sample("UltraFeedback, binarized")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = hub_preferences(str(tmp_path / "set"), "test")
    assert (len(data.groups), data.shapes) == (10, (("UltraFeedback, binarized", 10),))
    assert find_task(f"hub:{tmp_path / 'set'}:test@{TINY}").identity()["data"] == data.digest
    with pytest.raises(UsageError, match="cannot be loaded"):
        hub_preferences(str(tmp_path / "set"))


# what the command shows


def shown(*arguments: str) -> str:
    ended = CliRunner().invoke(app, ["data", *arguments], catch_exceptions=False)
    assert ended.exit_code == 0
    return ended.stdout


def mixed(folder: Path) -> Path:
    """Nine pairs, one of them twice, and a group with a tie; two rows that are left out, one with an escape code."""
    same, odd = sample("pair")[0] | {"rejected": GROUPS[0][1]}, sample("pair")[9]
    tied = {"prompt": "Tie?", "responses": ["a", "b", "c"], "scores": [1, 1, 0.5]}
    first = sample("pair")[0] | {"rejected": "\x1b[2JNo."}
    rows = [
        first,
        *sample("pair")[1:9],
        sample("pair")[8] | {"prompt": f" {GROUPS[8][0]}"},
        tied,
        same,
        odd | {"chosen": ""},
    ]
    path = folder / "a b@c.jsonl"
    path.write_bytes(as_lines(rows))
    return path


def test_the_command_counts_what_it_understood(tmp_path: Path) -> None:
    found = json.loads(shown(str(mixed(tmp_path)), "--json"))
    assert found["rows"] == {"pair": 12, "ranked group": 1}
    counted = {name: found[name] for name in ("prompts", "groups", "responses", "pairs", "ties", "duplicates", "unit")}
    assert counted == {
        "prompts": 10, "groups": 11, "responses": 23, "pairs": 12, "ties": 1, "duplicates": 1, "unit": "characters"
    }  # fmt: skip
    assert found["left_out"] == {
        "its two responses are the same": 1,
        "field 'chosen' is empty: 1 response to choose from (needed: 2)": 1,
    }
    assert found["lengths"]["response"] == {"least": 1, "median": 11, "95 %": 11.0, "most": 11} | {
        name: found["lengths"]["response"][name] for name in ("median", "95 %", "most")
    }
    assert len(found["examples"]) == 3
    assert found["examples"][1] == {
        "row": "a b@c.jsonl:2", "prompt": GROUPS[1][0],
        "responses": [{"score": 1.0, "text": GROUPS[1][1]}, {"score": 0.0, "text": GROUPS[1][2]}],
    }  # fmt: skip


def test_the_command_shows_text_that_cannot_move_the_cursor(tmp_path: Path) -> None:
    text = shown(str(mixed(tmp_path)))
    assert "\x1b" not in text
    assert "rows by shape    pair: 12; ranked group: 1" in text
    assert "example a b@c.jsonl:1" in text


def test_with_a_model_lengths_are_in_its_tokens_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    path = mixed(tmp_path)
    path.write_bytes(path.read_bytes() + b"\n" + as_lines([{"prompt": "x" * 5_000, "chosen": "a", "rejected": "b"}]))
    found = json.loads(shown(str(path), "--model", TINY, "--json"))
    assert found["unit"] == "tokens"
    assert found["lengths"]["prompt"]["most"] == 5_000
    assert found["left_out"]["longer than the model's context"] == 1
    assert found["examples"][1]["responses"][0]["text"] == f"{GROUPS[1][1]}<end>"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no.jsonl"], "no preferences at 'no.jsonl'"),
        (["x.jsonl", "--model", "/no/model"], "unknown model '/no/model'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments: list[str], said: str, command: Command) -> None:
    ended = command("data", *arguments)
    (line,) = ended.err.splitlines()
    assert ended.code == 2
    assert said in line


def test_paths_with_blanks_and_at_signs_are_tasks(tmp_path: Path) -> None:
    path = mixed(tmp_path)
    assert find_task(f"{path}@{TINY}").name == f"{path}@{TINY}"
    with pytest.raises(UsageError, match="names no model after the @"):
        find_task(f"{path}@")
