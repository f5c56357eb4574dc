"""Where the numbers come from: hyper-parameters, provenance, and the commands that make them again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from polobench.analysis.collection import Arm, Collection
from polobench.core.result import RunResult
from polobench.kinds.table import kinds as all_kinds
from polobench.report.tables import TextTable
from polobench.report.text import NOTHING, escape, runs_of

_SHOWN = ("commit", "os", "os_release", "machine", "cpu_model", "cpu_count", "instruction_set", "threads")
_OF_THE_STUDY = ("code_hash", "study", "smoke")
_SAFE_WORD = re.compile(r"[\w.:/+][\w.:/+-]*", re.ASCII)


def hyperparameter_tables(collection: Collection) -> dict[str, tuple[str, TextTable | None]]:
    """For each method: the values that all its arms share, as text, and a table of those that differ."""
    variants: dict[str, dict[tuple[str, str, str], dict[str, str]]] = {}
    for arm, runs in collection.arms.items():
        rows = variants.setdefault(arm.method, {})
        different = {json.dumps(run.hyperparameters, default=str): run.hyperparameters for run in runs}
        for found in different.values():
            values = {name: _value(value) for name, value in found.items()}
            rows.setdefault((arm.label, arm.task, json.dumps(values, sort_keys=True)), values)
    return {method: _hyperparameters(variants[method]) for method in sorted(variants)}


def _hyperparameters(variants: dict[tuple[str, str, str], dict[str, str]]) -> tuple[str, TextTable | None]:
    names = sorted({name for values in variants.values() for name in values})
    found = {name: {values.get(name, NOTHING) for values in variants.values()} for name in names}
    shared = ", ".join(f"{escape(name)} = {next(iter(found[name]))}" for name in names if len(found[name]) == 1)
    differing = [name for name in names if len(found[name]) > 1]
    if not differing:
        return shared, None
    rows = [
        [escape(label), escape(task), *(values.get(name, NOTHING) for name in differing)]
        for (label, task, _), values in sorted(variants.items())
    ]
    headers = ["label", "task", *(escape(name) for name in differing)]
    return shared, TextTable(headers, rows, "ll" + "r" * len(differing))


def _value(value: Any) -> str:
    return escape(json.dumps(value, default=str))


def provenance_table(collection: Collection) -> TextTable:
    """A column for each machine, environment and state of the code that cells come from, a row a fact."""
    groups: dict[str, list[RunResult]] = {}
    for result in collection.cells:
        if result.status != "skipped":
            facts = {name: value for name, value in result.provenance.items() if name not in _OF_THE_STUDY}
            groups.setdefault(json.dumps(facts, sort_keys=True, default=str), []).append(result)
    columns = [_facts(groups[key]) for key in sorted(groups)]
    names = list(dict.fromkeys(name for facts in columns for name in facts))
    rows = [[escape(name), *(escape(facts.get(name, NOTHING)) for facts in columns)] for name in names]
    headers = ["", *(f"origin {index}" for index in range(1, len(columns) + 1))]
    return TextTable(headers, rows, "l" * len(headers))


def _facts(cells: list[RunResult]) -> dict[str, str]:
    first = cells[0].provenance
    days = sorted(result.started_at for result in cells)
    facts = {"cells": f"{len(cells):,}", "started (UTC)": span(days)}
    facts |= {name: NOTHING if first.get(name) is None else str(first[name]) for name in _SHOWN}
    facts["commit"] = commit_text(first)
    facts["devices"] = ", ".join(sorted({str(result.provenance.get("device_name", NOTHING)) for result in cells}))
    facts["platform fingerprint"] = str(first.get("platform_fingerprint") or NOTHING)
    versions = first.get("versions")
    return (
        facts | {name: str(value) for name, value in sorted(versions.items())} if isinstance(versions, dict) else facts
    )


def commit_text(provenance: dict[str, Any]) -> str:
    """The commit, and whether the checkout had changes that are in no commit."""
    commit = provenance.get("commit")
    if not commit:
        return "not a checkout"
    return f"{str(commit)[:12]}{' with uncommitted changes' if provenance.get('dirty') else ''}"


def span(moments: Iterable[str]) -> str:
    """`first to last` of ISO moments, or the one."""
    known = sorted(moment for moment in moments if moment)
    if not known:
        return NOTHING
    return known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def studies(collection: Collection) -> list[str]:
    """The studies that the cells name, if any do."""
    names = (result.provenance.get("study") for result in collection.cells)
    return sorted({name for name in names if isinstance(name, str) and name})


def pytest_commands(collection: Collection) -> tuple[list[str], list[Arm]]:
    """Command lines of `pytest benchmarks` that run these cells again, and the learning arms that it cannot name.

    A line for each group of tasks that share methods, seeds, device, budget and timed rounds. Variants, and names that
    a shell would read otherwise, need a study.
    """
    rounds = {
        (arm.method, arm.task, arm.device): max(int(cell.throughput.get("rounds") or 0) for cell in cells)
        for arm, cells in collection.of_kind("throughput").items()
        if arm.label == arm.method
    }
    methods: dict[tuple[str, str, str, int, str], set[str]] = {}
    left_out = []
    for arm, runs in collection.of_kind("learning").items():
        if arm.label != arm.method or not all(map(is_word, (arm.label, arm.task, arm.device))):
            left_out.append(arm)
            continue
        timed = rounds.get((arm.method, arm.task, arm.device), 0)
        seeds = _seeds_option([result.seed for result in runs])
        methods.setdefault((arm.device, _budget_option(runs[0].budget), seeds, timed, arm.task), set()).add(arm.method)
    tasks: dict[tuple[str, str, str, int, str], list[str]] = {}
    for (device, budget, seeds, timed, task), names in sorted(methods.items()):
        tasks.setdefault((device, budget, seeds, timed, ",".join(sorted(names))), []).append(task)
    return [_command(",".join(members), *key) for key, members in sorted(tasks.items())], left_out


def _seeds_option(seeds: list[int]) -> str:
    """As `--seeds` reads them; a number alone would be a count, so one seed is a range."""
    text = runs_of(seeds).replace(" ", "")
    return f"{text}-{text}" if text.isdecimal() else text


def _budget_option(budget: dict[str, float]) -> str:
    limits = {name: value for name, value in sorted(budget.items()) if value is not None}
    return f"{limits['samples']}" if set(limits) == {"samples"} else ",".join(f"{k}={v}" for k, v in limits.items())


def _command(tasks: str, device: str, budget: str, seeds: str, timed: int, methods: str) -> str:
    return (
        f"pytest benchmarks --methods {methods} --tasks {tasks} --seeds {seeds} --devices {device} --budget {budget} "
        f"--throughput-rounds {timed}"
    )


def is_word(text: str) -> bool:
    """Whether a shell reads it as one plain argument that is no option."""
    return bool(_SAFE_WORD.fullmatch(text))


def what_was_run(collection: Collection) -> str:
    """The study, its cells, the machine, the time and the code, a line each."""
    cells = [result for result in collection.cells if result.status != "skipped"]
    if not cells:
        return "The store holds no cell that ran."
    kinds = {kind: sum(result.kind == kind for result in cells) for kind in all_kinds()}
    origins = [result.provenance for result in cells]
    versions = [found for item in origins if isinstance(found := item.get("versions"), dict)]
    facts = {
        "Study": _listed(studies(collection)),
        "Cells": ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in kinds.items() if count),
        "Tasks": _listed(result.task for result in cells),
        "Methods": _listed(result.label for result in cells),
        "Seeds": runs_of([result.seed for result in cells]),
        "Budget": _listed((arm.budget for arm in collection.of_kind("learning")), separator="; "),
        "Devices": _listed(str(item.get("device_name") or "unknown") for item in origins),
        "Processor": _listed(str(item.get("cpu_model") or "unknown") for item in origins),
        "Started": f"{span(result.started_at for result in cells)} (UTC)",
        "Commit": _listed(commit_text(item) for item in origins),
        "Versions": _listed(f"{name} {value}" for found in versions for name, value in found.items()),
    }
    return "\n".join(f"- {name}: {text}" for name, text in facts.items() if text)


def _listed(items: Iterable[str], separator: str = ", ") -> str:
    return separator.join(escape(item) for item in sorted(set(items)))


def reproduce_section(collection: Collection) -> str:
    """The commands that make this store and its report again; several studies may fill one store."""
    if not collection.arms:
        return ""
    commands, left_out = pytest_commands(collection)
    store = collection.name if is_word(collection.name) else "STORE"
    names = studies(collection)
    known = names if names and all(map(is_word, names)) else ["STUDY"]
    lines = [f"polobench run {study} --store {store}" for study in known]
    lines += [f"polobench report {store}", *commands]
    fence = "`" * 3
    filled = "the study" if len(known) == 1 else "the studies"
    text = [
        f"`{store}` stands for the path of this store, {', '.join(f'`{study}`' for study in known)} for {filled} that "
        "filled it. The lines of pytest, if any, run the same cells with default and tuned hyper-parameters; where a "
        "study set others, use the study.",
        "\n".join([f"{fence}sh", *lines, fence]),
    ]
    if left_out:
        arms = (
            "1 arm is a variant or has a name"
            if len(left_out) == 1
            else f"{len(left_out)} arms are variants or have names"
        )
        text.append(f"{arms} that `pytest benchmarks` cannot be given; use the study.")
    return "\n\n".join(text)
