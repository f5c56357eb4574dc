"""Preference data: every shape of a row, everything that can be wrong with a file, splits, and the built-in set."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polobench.core.errors import PoloError, Unavailable, UsageError
from polobench.tasks import preference_data
from polobench.tasks.fields import Field
from polobench.tasks.preference_data import (
    PreferenceData,
    RankedGroup,
    builtin_preferences,
    hub_preferences,
    read_preferences,
    split_by_prompt,
)

SHARED = Path(os.environ.get("POLOBENCH_SHARED", Path(__file__).parents[2] / "shared" / "data"))
MARKED = SHARED / "gsm8k-example-model-solutions.jsonl.gz"
PAIR = {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}
GROUP = {"prompt": "Sky?", "responses": ["Green.", "Blue.", "Grey."], "ranks": [3, 1, 2]}


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


USER, GOOD, BAD = message("user", "Sky?"), message("assistant", "Blue."), message("assistant", "Green.")


def written(folder: Path, rows: Sequence[object], name: str = "prefs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def changed(row: dict[str, Any], **change: object) -> dict[str, Any]:
    """The row with these fields; without those that are `...`."""
    return {key: value for key, value in (row | change).items() if value is not ...}


def one(folder: Path, row: object) -> RankedGroup:
    data = read_preferences(written(folder, [row]))
    assert data.skipped == ()
    (group,) = data.groups
    return group


CONVERSATION = (("user", "Sky?"),)
SYSTEM = (("system", "Be brief."), ("user", "Sky?"))
ASKED = "\n\nHuman: Sky?\n\nAssistant:"
SHAPES: dict[str, tuple[dict[str, Any], Any, tuple[str, ...], tuple[float, ...]]] = {
    "pair": (PAIR, "Sky?", ("Blue.", "Green."), (1, 0)),
    "conversations": (
        {"prompt": [message("system", ""), USER], "chosen": [GOOD], "rejected": [BAD]},
        (("system", ""), ("user", "Sky?")), ("Blue.", "Green."), (1, 0),
    ),
    "prompt as text, responses as messages": (
        {"prompt": "Sky?", "chosen": [GOOD], "rejected": [BAD]}, CONVERSATION, ("Blue.", "Green."), (1, 0)
    ),
    "implicit, conversations": (
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, CONVERSATION, ("Blue.", "Green."), (1, 0)
    ),
    "implicit, a longer conversation": (
        {"chosen": [USER, BAD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]},
        (("user", "Sky?"), ("assistant", "Green."), ("user", "Sky?")), ("Blue.", "Green."), (1, 0),
    ),
    "implicit, and the prompt once more as text": (
        {"prompt": "Sky?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, CONVERSATION, ("Blue.", "Green."), (1, 0)
    ),
    "implicit, text": (
        {"chosen": f"{ASKED} It is blue.", "rejected": f"{ASKED} It is black.", "prompt_id": 3},
        ASKED, (" It is blue.", " It is black."), (1, 0),
    ),
    "implicit, one text begins the other": (
        {"chosen": f"{ASKED} Blue", "rejected": f"{ASKED} Blue, mostly."}, ASKED, (" Blue", " Blue, mostly."), (1, 0)
    ),
    "implicit, text of several turns": (
        {"chosen": f"{ASKED} Blue.{ASKED} Yes", "rejected": f"{ASKED} Blue.{ASKED} Yes?"},
        f"{ASKED} Blue.{ASKED}", (" Yes", " Yes?"), (1, 0),
    ),
    "implicit, other marks of a turn": (
        {"chosen": "Instruction:\nSky?\n### Response:\nBlue.", "rejected": "Instruction:\nSky?\n### Response:\nB"},
        "Instruction:\nSky?\n### Response:", ("\nBlue.", "\nB"), (1, 0),
    ),
    "a system prompt beside text": (changed(PAIR, system="Be brief."), SYSTEM, ("Blue.", "Green."), (1, 0)),
    "a system prompt beside messages": (
        {"system_prompt": "Be brief.", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        SYSTEM, ("Blue.", "Green."), (1, 0),
    ),
    "a system prompt that stands twice": (
        {"system": "Be brief. ", "prompt": [message("system", "Be brief."), USER], "chosen": [GOOD], "rejected": [BAD]},
        SYSTEM, ("Blue.", "Green."), (1, 0),
    ),
    "an empty system prompt": (changed(PAIR, system=" "), "Sky?", ("Blue.", "Green."), (1, 0)),
    "nulls": (changed(PAIR, responses=None, scores=None, system=None), "Sky?", ("Blue.", "Green."), (1, 0)),
    "another name of the prompt": (
        changed(PAIR, prompt=..., instruction="Sky?", input=""), "Sky?", ("Blue.", "Green."), (1, 0)
    ),
    "a message as the response": (changed(PAIR, chosen=GOOD, rejected=BAD), CONVERSATION, ("Blue.", "Green."), (1, 0)),
    "ranks": (GROUP, "Sky?", ("Green.", "Blue.", "Grey."), (-3, -1, -2)),
    "ranks of a table": (changed(GROUP, ranks=[3.0, 1.5, 1.5]), "Sky?", ("Green.", "Blue.", "Grey."), (-3, -1.5, -1.5)),
    "ranks that tie": (changed(GROUP, ranks=[2, 1, 1]), "Sky?", ("Green.", "Blue.", "Grey."), (-2, -1, -1)),
    "scores": (changed(GROUP, ranks=..., scores=[-1, 2.5, 0]), "Sky?", ("Green.", "Blue.", "Grey."), (-1, 2.5, 0)),
    "a group of messages": (
        {"prompt": [USER], "responses": [[BAD], [GOOD]], "scores": [0, 1]}, CONVERSATION, ("Green.", "Blue."), (0, 1)
    ),
    "equal responses of one rank": (
        changed(GROUP, responses=["a", "a", "b"], ranks=[1, 1, 2]), "Sky?", ("a", "a", "b"), (-1, -1, -2)
    ),
    "marked answers": (
        {"question": "Sky?", "ground_truth": "Blue", "a": {"solution": "Blue.", "is_correct": True},
         "b": {"solution": "Green.", "is_correct": False}},
        "Sky?", ("Blue.", "Green."), (1, 0),
    ),
    "unknown fields": (changed(PAIR, id=3, source="x", margin=None), "Sky?", ("Blue.", "Green."), (1, 0)),
    "not only ASCII": (changed(PAIR, prompt="Ça va? 你好"), "Ça va? 你好", ("Blue.", "Green."), (1, 0)),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str, tmp_path: Path) -> None:
    row, prompt, responses, scores = SHAPES[shape]
    assert one(tmp_path, row) == RankedGroup(prompt, responses, scores, "prefs.jsonl:1")


def test_shapes_may_be_mixed_in_a_file_and_rows_are_counted_with_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "prefs.jsonl"
    path.write_bytes(b"\n" + json.dumps(PAIR).encode() + b"\r\n  \r\n" + json.dumps(GROUP).encode())
    data = read_preferences(str(path))
    assert [group.where for group in data.groups] == ["prefs.jsonl:2", "prefs.jsonl:4"]
    assert (data.name, data.skipped) == ("prefs", ())
    assert data.digest == hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", ["prefs.jsonl", "prefs.jsonl.gz", "prefs"])
def test_gzip_is_told_by_content_and_the_digest_is_of_what_it_holds(name: str, tmp_path: Path) -> None:
    plain = read_preferences(written(tmp_path, [PAIR, GROUP], "plain.jsonl"))
    (tmp_path / name).write_bytes(gzip.compress((tmp_path / "plain.jsonl").read_bytes()))
    packed = read_preferences(tmp_path / name)
    assert (packed.name, packed.digest) == ("prefs", plain.digest)
    assert [replace(group, where="") for group in packed.groups] == [replace(group, where="") for group in plain.groups]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = written(tmp_path, [PAIR])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_preferences(path).groups) == 1


BAD_ROWS: list[tuple[object, str]] = [
    ([PAIR], "is not a row (allowed: an object with columns)"),
    ("text", "is not a row (allowed: an object with columns)"),
    (None, "is not a row (allowed: an object with columns)"),
    ({}, "columns [] are no preference (allowed: prompt, chosen, rejected; "),
    ({"prompt": "Sky?"}, "columns ['prompt'] are no preference (allowed: prompt, chosen, rejected; "),
    ({"prompt": "Sky?", "choosen": "a", "reject": "b"}, "it has 'choosen': did you mean 'chosen'?"),
    ({"question": "Sky?", "answers": ["a"]}, "field 'answers[0]': 'a' (allowed: an object with answer and rank)"),
    (changed(PAIR, rejected=...), "field 'rejected' is missing"),
    (changed(PAIR, rejected=..., Rejected="x"), "it has 'Rejected': did you mean 'rejected'?"),
    (changed(PAIR, prompt=..., promt="Sky?"), "field 'prompt' is missing; it has 'promt': did you mean 'prompt'?"),
    ({"instruction": "?", "input": "x", "chosen": "a", "rejected": "b"}, "['instruction', 'input'] might each be the"),
    (changed(PAIR, prompt=...), "field 'prompt' is missing, and 'chosen' has no turns to cut at"),
    ({"chosen": "The sky is blue", "rejected": "The sky is up"}, "'chosen' has no turns to cut at"),
    ({"chosen": f"{ASKED} a", "rejected": "b"}, "'rejected' has no turns to cut at"),
    ({"chosen": "Assistant: a", "rejected": "Assistant: b"}, "'chosen' has no turns to cut at"),
    ({"chosen": [GOOD], "rejected": [BAD]}, "field 'chosen': one message, and field 'prompt' is missing"),
    (changed(PAIR, prompt="Sea?", chosen=[USER, GOOD], rejected=[USER, BAD]), "field 'prompt' is none of the user's"),
    (changed(PAIR, system="x", prompt=[message("system", "y"), USER]), "field 'system' and the system message"),
    (changed(PAIR, system=["x"]), "field 'system': ['x'] (allowed: text)"),
    (changed(PAIR, history=[["Sea?", "Wet."]]), "field 'history' would be part of what is asked, and is not read"),
    (changed(PAIR, score_chosen="a", score_rejected=1), "field 'score_chosen': 'a' (allowed: a finite number"),
    ({"chosen": [USER, GOOD], "rejected": "Green."}, "field 'chosen'"),
    ({"chosen": [GOOD, BAD], "rejected": [GOOD, GOOD]}, "field 'chosen[:-1]': its last message"),
    ({"chosen": [USER, GOOD, USER], "rejected": [USER, BAD]}, "field 'chosen[-1]': messages of user"),
    (changed(PAIR, prompt=""), "field 'prompt': ''"),
    (changed(PAIR, prompt=" \n"), "field 'prompt'"),
    (changed(PAIR, prompt=None), "field 'prompt' is missing, and 'chosen' has no turns"),
    (changed(PAIR, prompt=[]), "field 'prompt': it is empty"),
    (changed(PAIR, prompt=["Sky?"]), "field 'prompt[0]': 'Sky?' (allowed: an object with role and content)"),
    (changed(PAIR, prompt=[GOOD]), "field 'prompt': its last message"),
    (changed(PAIR, prompt=[message("human", "Sky?")]), "field 'prompt[0].role': 'human' (allowed: system, user"),
    (changed(PAIR, prompt=[{"role": ["user"], "content": "x"}]), "field 'prompt[0].role'"),
    (changed(PAIR, prompt=[{"role": "user"}]), "field 'prompt[0].content' is missing"),
    (changed(PAIR, prompt=[{"role": "user", "content": ["x"]}]), "field 'prompt[0].content': ['x'] (allowed: text)"),
    (changed(PAIR, prompt=[{"role": "user", "contents": "x"}]), "did you mean 'content'?"),
    (changed(PAIR, chosen=3), "field 'chosen': 3"),
    (changed(PAIR, chosen=None), "field 'chosen' is missing; columns ['prompt', 'rejected'] would fit pair (prompt, "),
    (changed(PAIR, chosen=[]), "field 'chosen': it is empty"),
    (changed(PAIR, chosen=[USER]), "field 'chosen': messages of user (allowed: one message, of the assistant)"),
    (changed(PAIR, prompt=[USER], chosen=[USER, GOOD]), "field 'chosen': messages of user, assistant"),
    (changed(PAIR, chosen="\ud800"), "field 'chosen': it has half of a surrogate pair"),
    (changed(PAIR, prompt="\udfff"), "field 'prompt': it has half of a surrogate pair"),
    (changed(PAIR, responses=["a", "b"]), "'responses' and 'chosen' or 'rejected' exclude each other"),
    (changed(GROUP, prompt=...), "field 'prompt' is missing"),
    (changed(GROUP, prompt=..., question="Sky?", query="Sea?"), "['question', 'query'] might each be the prompt"),
    (changed(GROUP, responses="Blue."), "field 'responses': 'Blue.' (allowed: a list of them)"),
    (changed(GROUP, responses=["a", "b", 3]), "field 'responses[2]': 3"),
    (changed(GROUP, ranks=...), "field 'ranks' or 'scores' is missing"),
    (changed(GROUP, ranks=..., rank=[1, 2, 3]), "it has 'rank': did you mean 'ranks'?"),
    (changed(GROUP, scores=[1, 2, 3]), "'ranks' and 'scores' exclude each other"),
    (changed(GROUP, ranks=[1, 2]), "field 'ranks': [1, 2] (allowed: a list of 3, as many as 'responses')"),
    (changed(GROUP, ranks=3), "field 'ranks': 3"),
    (changed(GROUP, ranks=[0, 1, 2]), "field 'ranks[0]': 0 (allowed: a number from 1, the best"),
    (changed(GROUP, ranks=[1, 2, 10**9]), "field 'ranks[2]'"),
    (changed(GROUP, ranks=[1, 0.5, 3]), "field 'ranks[1]': 0.5"),
    (changed(GROUP, ranks=[True, 2, 3]), "field 'ranks[0]': True"),
    (changed(GROUP, ranks=..., scores=[True, 0, 1]), "field 'scores[0]': True (allowed: a finite number"),
    (changed(GROUP, ranks=..., scores=[1, float("nan"), 0]), "field 'scores[1]': nan"),
    (changed(GROUP, ranks=..., scores=[1, 0, float("inf")]), "field 'scores[2]': inf"),
    (changed(GROUP, ranks=..., scores=[1, 0, 10**400]), "field 'scores[2]'"),
    (changed(GROUP, ranks=..., scores=[1, 0, "2"]), "field 'scores[2]': '2'"),
    ({"question": "Sky?", "a": {"solution": "x", "is_correct": 2}}, "field 'a.is_correct': 2 (allowed: true, false)"),
    ({"question": "Sky?", "a": {"is_correct": True}}, "field 'a.solution' is missing"),
    (
        {"question": "?", "a": {"solution": "x", "is_correct": True}, "b": {"solution": "x", "is_corect": True}},
        "field 'b.is_correct' is missing; it has 'is_corect'",
    ),
    (changed(PAIR, prompt=["x" * 1000] * 1000), "..."),
]


def refused(read: Callable[[], object], *parts: str) -> None:
    with pytest.raises(UsageError) as caught:
        read()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    for part in parts:
        assert part in text


@pytest.mark.parametrize(("row", "part"), BAD_ROWS, ids=[part for _, part in BAD_ROWS])
def test_bad_rows_are_named_in_one_line(row: object, part: str, tmp_path: Path) -> None:
    path = written(tmp_path, [PAIR, GROUP, row])
    refused(lambda: read_preferences(path), "prefs.jsonl:3: ", part)


LINE = json.dumps(PAIR).encode()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["prefs.jsonl: it has no row"]),
        (b"\n  \n", ["prefs.jsonl: it has no row"]),
        # the time in a header would be in the name of a test, and that differ between the workers that collect it
        (gzip.compress(b"", mtime=0), ["prefs.jsonl: it has no row"]),
        (LINE + b"\n{'prompt': 3}", ["prefs.jsonl:2: it is not JSON", "column 2"]),
        (LINE[:-4], ["prefs.jsonl:1: it is not JSON"]),
        (LINE + LINE, ["prefs.jsonl:1: it is not JSON"]),
        (b"\n" + LINE.replace(b"Sky", b"\xff"), ["prefs.jsonl:2: byte 13 is not UTF-8"]),
        (LINE.decode().encode("utf-16"), ["prefs.jsonl:1: byte 1 is not UTF-8"]),
        (LINE + b"\n" + b"[" * 100_000, ["prefs.jsonl:2: it is nested too deep"]),
        (b'{"n": ' + b"1" * 5000 + b"}", ["prefs.jsonl:1: it cannot be read"]),
        (b'{"prompt": "a", "prompt": "b"}', ["prefs.jsonl:1: field 'prompt' stands twice"]),
        (LINE + b"\n" + b" " * 10_000_001, ["prefs.jsonl:2: it is too long"]),
        (gzip.compress(b" " * 20_000_000, mtime=0), ["prefs.jsonl:1: it is too long"]),
        (gzip.compress(LINE + b"\n", mtime=0)[:-9], ["prefs.jsonl: its gzip is damaged or cut short"]),
        (gzip.compress(LINE, mtime=0)[:10] + b"\xff" * 50, ["prefs.jsonl: its gzip is damaged or cut short"]),
        (b'{"prompt": "a", "chosen": "b", "rejected": "b"}', ["none of 1 rows is of use", "prefs.jsonl:1: its two"]),
    ],
)
def test_bad_files_are_named_in_one_line(content: bytes, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "prefs.jsonl"
    path.write_bytes(content)
    refused(lambda: read_preferences(path), *parts)


def test_absent_files_and_folders(tmp_path: Path) -> None:
    refused(lambda: read_preferences(tmp_path / "absent.jsonl"), "no preferences at", "absent.jsonl")
    refused(lambda: read_preferences(tmp_path), "cannot be read")
    refused(lambda: read_preferences("nul\0.jsonl"), "cannot be read")


def test_the_name_of_a_file_cannot_break_the_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.jsonl"
    path.write_text("{")
    refused(lambda: read_preferences(path), "two?lines.jsonl:1")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (changed(PAIR, rejected=""), "field 'rejected' is empty: 1 response to choose from"),
        (changed(PAIR, chosen=" \n", rejected=""), "fields ['chosen', 'rejected'] are empty: 0 responses"),
        (changed(PAIR, prompt=..., chosen=f"{ASKED} Blue", rejected=""), "field 'rejected' is empty"),
        (changed(PAIR, prompt=..., chosen=f"{ASKED} Blue", rejected=f"{ASKED} "), "field 'rejected' is empty"),
        (
            {"chosen": f"{ASKED} a", "rejected": f"{ASKED} b{ASKED} c"},
            "the two dialogues differ before their last turn",
        ),
        ({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD]}, "the two dialogues differ before their last"),
        ({"chosen": [USER, GOOD], "rejected": [message("user", "x"), BAD]}, "the two dialogues differ before"),
        (changed(PAIR, score_chosen=7.5, score_rejected=7.5), "its responses tie everywhere"),
        (changed(PAIR, chosen_rating=1, rejected_rating=2), "the chosen response has the lower score"),
        (
            changed(GROUP, responses=["a", None, "b"], ranks=[2, 1, 2]),
            "field 'responses[1]' is empty: its responses tie",
        ),
        (changed(PAIR, chosen=[message("assistant", "")], rejected=[BAD]), "field 'chosen' is empty"),
        (changed(PAIR, rejected="Blue."), "its two responses are the same"),
        (changed(PAIR, rejected="Blue. "), "its two responses are the same"),
        (changed(PAIR, prompt=..., rejected="Blue."), "its two responses are the same"),
        ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, "its two responses are the same"),
        (changed(GROUP, responses=["a"], ranks=[1]), "1 response to choose from"),
        (changed(GROUP, responses=[], ranks=[]), "0 responses to choose from"),
        (changed(GROUP, ranks=[2, 2, 2]), "its responses tie everywhere"),
        (changed(GROUP, responses=["a", "a", "b"]), "two equal responses are ranked apart"),
        (changed(GROUP, responses=["a", "", "b"], ranks=[2, 1, 2]), "field 'responses[1]' is empty: its responses tie"),
        ({"question": "?", "a": {"solution": "x", "is_correct": False}}, "1 response to choose from"),
    ],
)
def test_rows_that_prefer_nothing_are_left_out_and_listed(row: object, reason: str, tmp_path: Path) -> None:
    data = read_preferences(written(tmp_path, [PAIR, row, GROUP]))
    assert [group.where for group in data.groups] == ["prefs.jsonl:1", "prefs.jsonl:3"]
    ((where, found),) = data.skipped
    assert where == "prefs.jsonl:2"
    assert reason in found


def test_an_empty_response_alone_is_left_out_of_a_larger_group(tmp_path: Path) -> None:
    row = {"prompt": "Sky?", "responses": ["Green.", " ", "Blue."], "ranks": [3, 1, 2]}
    data = read_preferences(written(tmp_path, [row]))
    assert data.groups == (RankedGroup("Sky?", ("Green.", "Blue."), (-3, -2), "prefs.jsonl:1"),)
    assert data.skipped == (("prefs.jsonl:1", "field 'responses[1]' is empty: left out of its group of 3"),)


@pytest.mark.parametrize("seed", range(20))
def test_what_was_written_is_read_again(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    alphabet = 'ab \n\t"\\é你\u2028\U0001f600'

    def text() -> str:
        return "x" + "".join(rng.choices(alphabet, k=rng.randrange(20)))

    groups = []
    for line in range(1, 30):
        responses = [f"{index}{text()}" for index in range(rng.randrange(2, 6))]
        scores = [rng.choice([0.0, 1.0, -2.5, rng.random() * 1e300]) for _ in responses[1:]]
        prompt = text() if rng.random() < 0.5 else (("system", text()), ("user", text()))
        groups.append(RankedGroup(prompt, tuple(responses), (7.0, *scores), f"prefs.jsonl:{line}"))
    rows = [
        {
            "prompt": [message(*part) for part in group.prompt] if isinstance(group.prompt, tuple) else group.prompt,
            "responses": group.responses,
            "scores": group.scores,
        }
        for group in groups
    ]
    data = read_preferences(written(tmp_path, rows))
    assert (data.groups, data.skipped) == (tuple(groups), ())


def test_a_rank_taken_for_a_score_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def best(row: dict[str, Any]) -> str:
        group = one(tmp_path, row)
        return max(zip(group.scores, group.responses))[1]

    assert best(GROUP) == "Blue."
    monkeypatch.setattr(Field, "rank", lambda field: float(field.value))
    assert best(GROUP) != "Blue."


# marked answers


@pytest.mark.skipif(not MARKED.exists(), reason=f"no {MARKED} (POLOBENCH_SHARED names another folder)")
def test_real_answers_of_models() -> None:
    data = read_preferences(MARKED)
    assert len(data.groups) == 731
    assert sum(sum(group.scores) * (len(group.scores) - sum(group.scores)) for group in data.groups) == 2429
    assert Counter(reason for _, reason in data.skipped) == {"its responses tie everywhere": 1319 - 731}


# the hub, through a stand-in for the package `datasets`


def stand_in(monkeypatch: pytest.MonkeyPatch, rows: Sequence[dict[str, Any]] | Exception) -> list[tuple[Any, ...]]:
    calls = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> Sequence[dict[str, Any]]:
        calls.append((name, config, split, revision))
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_a_hub_data_set_is_read_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, [PAIR | {"ranks": None}, changed(GROUP, ranks=[1, 1, 1]), GROUP | {"chosen": None}])
    data = hub_preferences("who/what", "test", config="small", revision="v1")
    assert calls == [("who/what", "small", "test", "v1")]
    assert [group.where for group in data.groups] == ["who/what/test:1", "who/what/test:3"]
    assert data.skipped == (("who/what/test:2", "its responses tie everywhere"),)
    assert (data.name, len(data.digest)) == ("who/what", 16)
    assert hub_preferences("who/what", "test").digest == data.digest
    stand_in(monkeypatch, [PAIR])
    assert hub_preferences("who/what").digest != data.digest


@pytest.mark.parametrize(
    ("rows", "kind", "part"),
    [
        ([], UsageError, "who/what/train: it has no row"),
        ([{"text": "x"}], UsageError, "who/what/train:1: columns ['text'] are no preference"),
        (FileNotFoundError("Dataset\nnot found"), UsageError, "not found"),
        (ValueError("Unknown split"), UsageError, "Unknown split"),
        (ConnectionError("Couldn't reach\nthe Hub"), Unavailable, "cannot be reached"),
        (RuntimeError("else"), Unavailable, "cannot be reached"),
    ],
)
def test_a_hub_data_set_that_cannot_be_read(
    rows: Any, kind: type[PoloError], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, rows)
    with pytest.raises(kind, match=part.replace("[", r"\[")) as caught:
        hub_preferences("who/what")
    assert "\n" not in str(caught.value)


def test_the_hub_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Unavailable, match=r"polobench\[hub\]") as caught:
        hub_preferences("who/what")
    assert "\n" not in str(caught.value)


# splits

Sides = tuple[Sequence[RankedGroup], Sequence[RankedGroup]]


def data_of(prompts: Sequence[Any]) -> PreferenceData:
    groups = [RankedGroup(prompt, ("a", "b"), (1.0, 0.0), f"x:{line}") for line, prompt in enumerate(prompts, 1)]
    return PreferenceData("x", tuple(groups), (), "")


def leaked(sides: Sides) -> set[str]:
    def said(prompt: Any) -> str:
        return " ".join((prompt if isinstance(prompt, str) else " ".join(part for _, part in prompt)).split())

    train, heldout = ({said(group.prompt) for group in side} for side in sides)
    return train & heldout


PROMPTS = [f"Prompt {number % 100}?" for number in range(300)]


def test_no_prompt_is_on_both_sides_and_no_group_is_lost() -> None:
    data = data_of(PROMPTS)
    for seed in range(20):
        train, heldout = split_by_prompt(data, 0.3, seed)
        assert leaked((train, heldout)) == set()
        assert sorted(train + heldout, key=repr) == sorted(data.groups, key=repr)


def test_a_prompt_that_differs_in_blanks_or_as_a_message_stays_on_its_side() -> None:
    forms: list[Any] = [
        form for prompt in PROMPTS[:100] for form in (prompt, f" {prompt}\n", (("user", prompt.replace(" ", "  ")),))
    ]
    assert leaked(split_by_prompt(data_of(forms), 0.5, 1)) == set()


def test_planted_splits_that_leak_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = data_of(PROMPTS).groups
    assert leaked((groups[:200], groups[200:]))
    rng = random.Random(0)
    monkeypatch.setattr(preference_data, "_draw", lambda prompt, seed: rng.random())
    assert leaked(split_by_prompt(data_of(PROMPTS), 0.3, 0))


def test_a_row_that_is_added_moves_no_other() -> None:
    few, many = (split_by_prompt(data_of(PROMPTS[:count]), 0.3, 5) for count in (60, 100))
    for side, larger in zip(few, many):
        assert {group.prompt for group in side} <= {group.prompt for group in larger}
    backwards = split_by_prompt(data_of(PROMPTS[:60][::-1]), 0.3, 5)
    assert {group.prompt for group in backwards[1]} == {group.prompt for group in few[1]}


def test_a_split_is_the_same_everywhere_and_another_seed_gives_another() -> None:
    data = data_of(PROMPTS[:20])
    heldout = [group.prompt for group in split_by_prompt(data, 0.25, 0)[1]]
    assert heldout == ["Prompt 6?", "Prompt 8?", "Prompt 12?"]
    assert len({split_by_prompt(data, 0.25, seed)[1] for seed in range(10)}) > 5


def test_a_larger_share_holds_out_more_and_the_share_is_met_on_average() -> None:
    data = data_of([f"Prompt {number}?" for number in range(4000)])
    small, large = ({group.prompt for group in split_by_prompt(data, share, 3)[1]} for share in (0.1, 0.4))
    assert small < large
    assert abs(len(small) - 400) < 100
    assert abs(len(large) - 1600) < 160


@pytest.mark.parametrize("share", [0, 1, 1.0, -0.1, float("nan"), True, "0.2", None])
def test_bad_shares(share: Any) -> None:
    refused(lambda: split_by_prompt(data_of(PROMPTS), share, 0), "heldout_share", "between 0 and 1")


@pytest.mark.parametrize("seed", [1.0, "1", None, True])
def test_bad_seeds(seed: Any) -> None:
    refused(lambda: split_by_prompt(data_of(PROMPTS), 0.2, seed), "seed", "an integer")


def test_a_side_without_a_prompt_is_an_error() -> None:
    refused(lambda: split_by_prompt(data_of(["a"] * 9), 0.5, 0), "of 1 (needed: more prompts")
    refused(lambda: split_by_prompt(data_of(PROMPTS[:5]), 1e-9, 0), "no prompt is held out", "of 5")
    refused(lambda: split_by_prompt(data_of(PROMPTS[:5]), 1 - 1e-9, 0), "no prompt is to train on")


# the built-in set

FILE = Path(preference_data.__file__).with_name("preferences.jsonl")
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
CATEGORIES = ("facts", "arithmetic", "style", "refusals", "jokes")
SUMS = {
    "17 times 6": 17 * 6,
    "45 plus 38": 45 + 38,
    "4 euros": 4 * 7,
    "144 divided by 12": 144 // 12,
    "15 percent of 80": 15 * 80 // 100,
    "50 marbles": 50 - 17,
    "square of 13": 13**2,
    "leaves at 9:40": f"{(9 * 60 + 40 + 35) // 60}:{(9 * 60 + 40 + 35) % 60}",
    "1000 minus 377": 1000 - 377,
    "half of 96": 96 // 2,
    "from 1 to 10": sum(range(1, 11)),
    "minutes are there in 3 hours": 3 * 60,
    "8 cm long and 5 cm wide": 8 * 5,
    "7 times 8 minus 6": 7 * 8 - 6,
    "6 eggs": -(-20 // 6),
}


def longer_share(rows: Sequence[dict[str, Any]], length: Callable[[str], int]) -> float:
    """How often the better of two responses is the longer one; where they are as long as each other, half."""
    wins = []
    for row in rows:
        for (rank, text), (other, rival) in combinations(zip(row["ranks"], row["responses"]), 2):
            if rank != other:
                longer = (length(text) > length(rival)) - (length(text) < length(rival))
                wins.append((1 + longer if rank < other else 1 - longer) / 2)
    return sum(wins) / len(wins)


def test_the_builtin_set_is_read_whole() -> None:
    data = builtin_preferences()
    assert (data.name, data.skipped, len(data.groups)) == ("builtin", (), len(ROWS))
    assert data.digest == hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]
    assert data is builtin_preferences()


def test_the_builtin_set_is_even() -> None:
    counts = Counter(row["category"] for row in ROWS)
    assert len(ROWS) >= 72
    assert set(counts) == set(CATEGORIES)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len({" ".join(row["prompt"].lower().split()) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert set(row) == {"prompt", "responses", "ranks", "category"}
        assert sorted(row["ranks"]) in ([1, 2, 3, 4], [1, 2, 3, 3])
        assert len(set(row["responses"])) == 4
        assert all(3 <= len(text.split()) <= 40 and text.isascii() for text in row["responses"])


@pytest.mark.parametrize("category", [*CATEGORIES, ""])
@pytest.mark.parametrize("length", [len, lambda text: len(text.split())], ids=["characters", "words"])
def test_length_does_not_tell_the_better_response(category: str, length: Callable[[str], int]) -> None:
    rows = [row for row in ROWS if category in ("", row["category"])]
    assert 0.4 <= longer_share(rows, length) <= 0.6


def test_place_does_not_tell_the_better_response() -> None:
    for place in range(4):
        assert abs(sum(row["ranks"][place] for row in ROWS) / len(ROWS) - 2.5) < 0.1
        assert 0.15 <= sum(row["ranks"][place] == 1 for row in ROWS) / len(ROWS) <= 0.35


def test_a_set_that_length_gives_away_is_seen() -> None:
    planted = [row | {"responses": ["word " * (5 - rank) for rank in row["ranks"]]} for row in ROWS]
    assert longer_share(planted, len) == 1


def test_the_sums_of_the_builtin_set_are_right() -> None:
    rows = [row for row in ROWS if row["category"] == "arithmetic"]
    assert len(rows) == len(SUMS)
    for part, answer in SUMS.items():
        (row,) = (row for row in rows if part.lower() in row["prompt"].lower())
        said = {
            rank: [word.strip(".,:;") for word in text.split()] for rank, text in zip(row["ranks"], row["responses"])
        }
        for rank, words in said.items():
            assert rank > 2 or str(answer) in words
            assert rank <= 2 or str(answer) not in words or str(answer) in row["prompt"]


def test_the_builtin_set_can_be_split() -> None:
    for seed in range(20):
        train, heldout = split_by_prompt(builtin_preferences(), 0.25, seed)
        assert min(len(train), len(heldout)) >= 5


def test_reading_preferences_does_not_load_torch() -> None:
    code = (
        "import sys\nfrom polobench.tasks.preference_data import builtin_preferences\nbuiltin_preferences()\n"
        "sys.exit(bool({'torch', 'numpy', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
