"""Cells on other machines: an order, which is JSON with the study's text and a cell's number, goes in; JSON comes out.

A worker reads the study anew, sees that it has the same code and platform, and runs the cell in a process of its own.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from polobench.cells.runner import PreparedCell, prepare
from polobench.core.errors import PoloError, first_line
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.run.executor import Ended, Outcome, SweepStopped
from polobench.run.processes import SOURCES_CHANGED, Processes
from polobench.run.study import LIMITS, Study, parse_study

Orders = Callable[[PreparedCell], str]


def orders(study: Study) -> Orders:
    """What gives the order of each prepared cell of a study that was read from a file, or of a part of it."""
    common = {"study": study.name, "text": study.text, "folder": str(study.folder), "devices": list(study.devices)}

    def order(prepared: PreparedCell) -> str:
        limits = {name: getattr(prepared.cell, name) for name in LIMITS}
        expected = {"cell_id": prepared.cell_id, "code": prepared.code, "platform": _platform(prepared)}
        expected["hyperparameters"] = _hyperparameters(prepared)
        return json.dumps(common | {"number": prepared.cell.number, "limits": limits, "expected": expected})

    return order


def _platform(prepared: PreparedCell) -> str:
    return str(prepared.method.provenance()["platform_fingerprint"]) if prepared.method else ""


def _hyperparameters(prepared: PreparedCell) -> str:
    """As text; the tuned ones are of a file that the hash of the code does not cover."""
    return json.dumps(prepared.defined_by["hyperparameters"], sort_keys=True)


def words(order: str) -> Iterator[str]:
    """Run the cell of an order; gives its progress as it comes, and last how it ended, all as JSON."""
    asked = json.loads(order)
    try:
        prepared = _accepted(asked)
        with Processes(1, [prepared]) as processes:
            processes.start(prepared)
            told: list[Progress] = []
            outcomes: Sequence[tuple[PreparedCell, Outcome]] = ()
            while not outcomes:
                outcomes = processes.outcomes(lambda _, progress: told.append(progress))
                while told:
                    yield json.dumps({"progress": asdict(told.pop(0))})
            yield _last_word(outcomes[0][1])
    except SweepStopped as error:
        yield json.dumps({"stop": str(error)})
    except PoloError as error:  # a plug-in or a device that this machine lacks, say
        yield _last_word(Ended("skipped", f"a worker's machine cannot run it: {first_line(error)}"))


def _accepted(asked: Mapping[str, Any]) -> PreparedCell:
    """The cell of an order, if it is here what it was where the order was written."""
    study = parse_study(asked["study"], tomllib.loads(asked["text"]), asked["devices"], asked["folder"])
    prepared, expected = prepare(study.limited(**asked["limits"]).cells[asked["number"]]), asked["expected"]
    if prepared.method is None:
        raise PoloError(prepared.unavailable)
    if (prepared.code, _hyperparameters(prepared)) != (expected["code"], expected["hyperparameters"]):
        raise SweepStopped(SOURCES_CHANGED)
    if _platform(prepared) != expected["platform"]:
        raise PoloError("its platform is another one, so that its digests would differ")
    return replace(prepared, cell_id=expected["cell_id"])


def _last_word(outcome: Outcome) -> str:
    try:
        if isinstance(outcome, RunResult):
            return json.dumps({"result": outcome.to_dict()}, allow_nan=False)
    except (TypeError, ValueError) as error:  # a plug-in's value that JSON does not know
        outcome = Ended("failed", f"the result cannot be stored: {first_line(error)}")
    return json.dumps({"ended": asdict(outcome)})


def heard(word: str) -> Progress | Outcome:
    """What a word says.

    Raises:
        SweepStopped: the worker's sources differ.
    """
    ((kind, said),) = json.loads(word).items()
    if kind == "stop":
        raise SweepStopped(said)
    if kind == "progress":
        return Progress(**said)
    return RunResult.from_dict(said) if kind == "result" else Ended(**said)


def last_words_into(folder: str, chunk: list[str]) -> None:
    """Run the cells of the orders one after the other; each leaves its last word in a file, named by its id.

    A cell that has left one already is not run again: a scheduler may start an interrupted job anew.
    """
    for order in chunk:
        path = word_file(Path(folder), json.loads(order)["expected"]["cell_id"])
        if path.exists():
            continue
        *_, word = words(order)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(word, encoding="utf-8")
        os.replace(temporary, path)


def word_file(folder: Path, cell_id: str) -> Path:
    """Where `last_words_into` leaves a cell's last word."""
    return folder / f"{cell_id}.word"
