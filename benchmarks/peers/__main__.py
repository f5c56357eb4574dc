"""One table of all goals: `python -m benchmarks.peers`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.peers.alternation import LIMIT_SHARE, row
from polobench.core.errors import PoloError, UsageError, unknown

MODULES = ("control", "learning", "solve", "today", "language", "cost")
PEERS = ("stable-baselines3", "sb3-contrib", "trl", "envpool")
COLUMNS = ("work", "peer", "unit", "peer's", "ours", "ratio", "95 % interval", "goal", "limit", "met", "note")
Work = Callable[[int | None], Any]  # from the rounds to something that gives a `row()`


def works() -> dict[str, Work]:
    """Every work by name."""
    return {
        name: compare
        for module in MODULES
        for name, compare in importlib.import_module(f"benchmarks.peers.{module}").WORKS.items()
    }


def main(
    only: Annotated[str, typer.Option(help="Works, by comma; all by default.")] = "",
    rounds: Annotated[int | None, typer.Option(min=2, help="Timed rounds per work, both sides in each.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the rows here, after each work.")] = None,
) -> None:
    """Measure every goal against its peer, in turns, in one process and one thread."""
    known = works()
    names = [name.strip() for name in only.split(",")] if only else list(known)
    for name in names:
        if name not in known:
            raise unknown("work", name, known)
    rows, load = [], [os.getloadavg()[0]]
    for name in names:
        rows.append({"name": name} | measured(name, known[name], rounds))
        facts = machine() | {"load_average": [*load, os.getloadavg()[0]]}
        print(table(rows[-1:], facts).splitlines()[2], file=sys.stderr)
        if as_json is not None:
            as_json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")
    print(table(rows, facts))


def measured(name: str, work: Work, rounds: int | None) -> dict[str, Any]:
    """The work's row; one that cannot run here, or whose sides differ, says why and spares the others' time."""
    try:
        return dict(work(rounds).row())
    except PoloError as error:
        return row(name, "", None, "", None, note=f"not measured: {error}")


def machine() -> dict[str, Any]:
    """Date, versions, commit and processor."""
    import torch

    from polobench.core import provenance

    facts = provenance.collect("", torch.device("cpu"), threads=1)
    kept = {name: facts[name] for name in ("commit", "dirty", "cpu_model", "cpu_count")}
    versions = facts["versions"] | {name: found for name in PEERS if (found := _version(name))}
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions} | kept


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """For a terminal, and for docs/performance.md."""
    from tabulate import tabulate

    cells = [
        [
            *(found[key] or "" for key in ("work", "peer", "unit")),
            *(_shown(found[key]) for key in ("theirs", "ours", "ratio")),
            "" if found["low"] is None else f"{_interval(found)} {found['interval_of']}".strip(),
            found["goal"],
            _shown(found["limit"]),
            {True: "yes", False: "no", None: ""}[found["met"]],
            found["note"],
        ]
        for found in rows
    ]
    load = " -> ".join(f"{value:.1f}" for value in facts["load_average"])
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in facts["versions"])
    return "\n".join(
        [
            tabulate(cells, COLUMNS, tablefmt="github", disable_numparse=True),
            "",
            f"CPU seconds of one thread; `s`: wall seconds. Met: the goal, or {LIMIT_SHARE:.0%} of the limit.",
            f"{facts['date']}, commit {str(facts['commit'])[:7]}; {versions}",
            f"{facts['cpu_model']}, {facts['cpu_count']} cores, load average {load}",
        ]
    )


def _interval(found: dict[str, Any]) -> str:
    return f"[{_shown(found['low'])}, {_shown(found['high'])}]"


if __name__ == "__main__":
    try:
        typer.run(main)
    except PoloError as error:
        print(f"polobench: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
