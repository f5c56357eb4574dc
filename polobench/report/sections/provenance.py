"""Where the numbers come from: the store, its machines and its failures, and the commands that make it again."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.frame import ARM, table_of
from polobench.analysis.tuning import edge_of
from polobench.core.result import RunResult
from polobench.report.blocks import Block, Bullets, Commands, Link, Paragraph, Section, Table, Text, compact
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, counted, listed, number, plain, quoted, runs_of, span
from polobench.report.words import names, note

_SHOWN = ("os", "os_release", "machine", "cpu_model", "cpu_count", "instruction_set", "threads")
_OF_THE_STUDY = ("code_hash", "task_hash", "study", "smoke", "looks", "seeds")
_SAFE_WORD = re.compile(r"[\w.:/+][\w.:/+-]*", re.ASCII)
MOST_CAVEATS = 3


def about_sections(findings: Findings) -> list[Section]:
    """What was run, and everything that a reader of the store has to know."""
    notes: list[Text] = [*store_caveats(findings.collection)]
    runs = [result for found in findings.collection.arms.values() for result in found]
    if beside := sum(result.ran_beside_others for result in runs):
        notes.append(note("beside_others", beside=beside, runs=len(runs)))
    said: list[Block] = [Paragraph("To know before you compare:"), Bullets(notes)] if notes else []
    return [Section("About this store", [Bullets(_what_was_run(findings)), *said])]


def store_caveats(collection: Collection) -> list[str]:
    """What is unusual about the store, a sentence each."""
    code, settings = collection.older_code, collection.older_settings
    found = []
    if code:
        it = "it" if code == 1 else "them"
        found.append(f"{counted(code, 'cell')} left out: a newer cell differs from {it} only by code or platform.")
    if settings:
        same = "a newer cell has the same arm and seed, but other hyper-parameters, threads, rounds or task data"
        found.append(f"{counted(settings, 'cell')} left out: {same}.")
    found += [*_mixed_arms(collection), *_mixed_references(collection)]
    if collection.skipped:
        found.append(f"{counted(len(collection.skipped), 'cell')} skipped and in no average.")
    if collection.damaged:
        files = counted(len(collection.damaged), "file is", "files are")
        found.insert(0, f"{files} damaged and left out: {names([item.path.name for item in collection.damaged])}.")
    return found


def _mixed_arms(collection: Collection) -> list[str]:
    """Arms whose seeds are not the same experiment; such an interval mixes more than chance."""
    checks: dict[str, Callable[[RunResult], str]] = {
        "code": lambda result: str(result.provenance.get("code_hash")),
        "the task's data, model or arguments": lambda result: str(result.provenance.get("task_hash")),
        "hyper-parameters": lambda result: repr(sorted(result.hyperparameters.items())),
        "platforms": lambda result: str(result.provenance.get("platform_fingerprint")),
    }
    arms, found = collection.learning.items(), []
    for what, value in checks.items():
        mixed = {f"{arm.label} on {arm.task}": 1 for arm, runs in arms if len(set(map(value, runs))) > 1}
        found += [f"The seeds of these arms differ in {what}: {names(list(mixed))}."] if mixed else []
    return found


def _mixed_references(collection: Collection) -> list[str]:
    references: dict[str, set[tuple[float, float | None]]] = {}
    for result in (result for result in collection.cells if not math.isnan(result.floor)):
        references.setdefault(result.task, set()).add((result.floor, result.target))
    mixed = [task for task, values in references.items() if len(values) > 1]
    return [f"The cells of {task} differ in floor or target; each run is scored by its own." for task in mixed]


def failure_sections(findings: Findings) -> list[Section]:
    """Every run that failed, every cell that was skipped, every file that is damaged."""
    collection = findings.collection
    found = _failed(collection) + _skipped(collection)
    if collection.damaged:
        lines = [f"{item.path.name}: {item.reason}" for item in collection.damaged]
        found.append(Section("Damaged files", [Bullets(lines)]))
    return found


def _failed(collection: Collection) -> list[Section]:
    """A row for each run: which, how, after how many samples and why."""
    found = [(arm, run) for arm, runs in collection.arms.items() for run in runs if run.status != "ok"]
    if not found:
        return []
    failures = table_of(
        {name: getattr(arm, name) for name in (*ARM, "kind")}
        | {"seed": run.seed, "status": run.status, "samples": run.ledger.samples}
        | {"reason": run.reason, "cell_id": run.cell_id}
        for arm, run in found
    )
    columns = ["task", "label", "device", "budget", "kind", "seed", "status", "samples", "reason"]
    shown = failures[columns].assign(samples=failures["samples"].map(number))
    rows = [[plain(value) for value in row] for row in shown.itertuples(index=False)]
    table = compact(Table(["task", "method", *columns[2:]], rows, "lllllrlrl"), 2)
    return [Section("Failed runs", [Paragraph(note("failures")), *table], {"failures": failures})]


def _skipped(collection: Collection) -> list[Section]:
    """Those that differ only by seed in one row."""
    groups: dict[tuple[Arm, str], list[int]] = {}
    for result in collection.skipped:
        groups.setdefault((Arm.of(result), result.reason), []).append(result.seed)
    headers = ["task", "method", "device", "budget", "kind", "seeds", "reason"]
    rows = [
        [arm.task, arm.label, arm.device, arm.budget, arm.kind.replace("_", " "), runs_of(seeds), plain(reason)]
        for (arm, reason), seeds in groups.items()
    ]
    return [Section("Skipped cells", compact(Table(headers, rows, "lllllll"), 2))] if rows else []


def provenance_sections(findings: Findings) -> list[Section]:
    """The machines and versions."""
    return [Section("Provenance", [provenance_table(findings.collection)])] if findings.collection.arms else []


def provenance_table(collection: Collection) -> Table:
    """A column for each machine, environment and state of the code that cells come from, and a row for each fact."""
    groups: dict[str, list[RunResult]] = {}
    for result in collection.cells:
        if result.status != "skipped":
            facts = {name: value for name, value in result.provenance.items() if name not in _OF_THE_STUDY}
            groups.setdefault(json.dumps(facts, sort_keys=True, default=str), []).append(result)
    columns = [_facts(groups[key]) for key in sorted(groups)]
    keys = list(dict.fromkeys(name for facts in columns for name in facts))
    rows = [[name, *(facts.get(name, NOTHING) for facts in columns)] for name in keys]
    headers = ["", *(f"origin {index}" for index in range(1, len(columns) + 1))]
    return Table(headers, rows, "l" * len(headers))


def _facts(cells: list[RunResult]) -> dict[str, str]:
    first = cells[0].provenance
    changed = " with uncommitted changes" if first.get("dirty") else ""
    commit = f"{str(first['commit'])[:12]}{changed}" if first.get("commit") else "not a checkout"
    facts = {"cells": f"{len(cells):,}", "started (UTC)": _moments(cells), "commit": commit}
    facts |= {name: NOTHING if first.get(name) is None else str(first[name]) for name in _SHOWN}
    facts["devices"] = ", ".join(sorted({str(result.provenance.get("device_name", NOTHING)) for result in cells}))
    facts["platform fingerprint"] = str(first.get("platform_fingerprint") or NOTHING)
    versions = first.get("versions")
    known = sorted(versions.items()) if isinstance(versions, dict) else []
    return facts | {name: str(value) for name, value in known}


def _moments(cells: Iterable[RunResult]) -> str:
    """`first to last`, or the one."""
    known = sorted(result.started_at for result in cells if result.started_at)
    return span(known[0], known[-1]) if known else NOTHING


def _studies(collection: Collection) -> list[str]:
    """The studies that the cells name, if any do."""
    named = {result.provenance.get("study") for result in collection.cells}
    return sorted(name for name in named if isinstance(name, str) and name)


def _what_was_run(findings: Findings) -> list[str]:
    """The studies, their cells and the time, a line each."""
    cells = findings.ran
    if not cells:
        return ["The store holds no cell that ran."]
    facts = {
        "Studies": listed(_studies(findings.collection)),
        "Cells": kinds_of(cells),
        "Tasks": listed(sorted({result.task for result in cells})),
        "Methods": listed(sorted({result.label for result in cells})),
        "Seeds": runs_of(result.seed for result in cells),
        "Budgets": "; ".join(sorted(set(findings.budgets.values()))),
        "Started": f"{_moments(cells)} (UTC)",
    }
    return [f"{name}: {text}" for name, text in facts.items() if text]


def kinds_of(cells: Iterable[RunResult]) -> str:
    """How many cells of each kind there are."""
    kinds = Counter(result.kind for result in cells)
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted(kinds.items()))


def reproduce_sections(findings: Findings) -> list[Section]:
    """The commands that make this store and its report again; several studies may fill one store."""
    collection = findings.collection
    if not collection.arms:
        return []
    sources = collection.sources if report_command(collection.sources) else ["STORE"]
    studies = _studies(collection)
    lines = [f"polobench run {study} --store {sources[0]}" for study in filter(_is_word, studies)]
    lines = lines or [f"polobench run STUDY --store {sources[0]}"]
    unnamed = "" if studies else "No study is named in these cells: pytest benchmarks ran them."
    return [Section("Reproduce", [Commands([*lines, report_command(sources)]), Paragraph(unnamed)])]


def report_command(sources: Sequence[str]) -> str:
    """The command that draws a report from these stores; none if a shell reads their names as something else."""
    return f"polobench report {' '.join(sources)}" if all(map(_is_word, sources)) else ""


def _is_word(text: str) -> bool:
    """Whether a shell reads it as one plain argument that is no option."""
    return bool(_SAFE_WORD.fullmatch(text))


def _edges(findings: Findings) -> list[Text]:
    """Whose tuned step size is the lowest or the highest that was tried."""
    edges = [(arm, edge_of(trials)) for arm, trials in findings.trials.items()]
    who = [f"{quoted(arm.label)} on {arm.task} ({edge})" for arm, edge in edges if edge]
    return [note("edges", who=", ".join(who))] if who else []


def caveat_sections(findings: Findings) -> list[Section]:
    """The gravest first: what is wrong with the store, then what no comparison of this kind can tell."""
    found: list[Text] = [*store_caveats(findings.collection)]
    if findings.comparisons and not findings.is_first_look:
        counts = sorted({len(trials) for trials in findings.trials.values()})
        found.append(note("tuned", trials=" or ".join(map(str, counts))) if counts else note("untuned"))
        found += _edges(findings)
    if len(found) > MOST_CAVEATS:
        rest = f"{len(found) - MOST_CAVEATS + 1} more: "
        found[MOST_CAVEATS - 1 :] = [[rest, Link("about this store", "provenance#about-this-store")]]
    return [Section("What could flip it", [Bullets(found)])] if found else []
