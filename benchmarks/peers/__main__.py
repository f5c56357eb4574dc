"""One table of all works beside their peers: `python -m benchmarks.peers`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from benchmarks.peers.alternation import LIMIT_SHARE, Comparison
from polobench.core.errors import PoloError, UsageError, unknown

MODULES = ("control", "solve", "language")
PEERS = ("stable-baselines3", "sb3-contrib", "trl", "envpool")
COLUMNS = ("work", "peer", "unit", "peer /s", "ours /s", "ratio", "95 % interval", "goal", "limit", "met")


def works() -> dict[str, Callable[[int | None], Comparison]]:
    """Every work by name."""
    return {
        name: compare
        for module in MODULES
        for name, compare in importlib.import_module(f"benchmarks.peers.{module}").WORKS.items()
    }


def main(
    only: Annotated[str, typer.Option(help="Works, by comma; all by default.")] = "",
    rounds: Annotated[int | None, typer.Option(min=2, help="Timed rounds per work, both sides in each.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare CPU seconds of the same work, in turns, in one process and one thread."""
    known = works()
    names = [name.strip() for name in only.split(",")] if only else list(known)
    for name in names:
        if name not in known:
            raise unknown("work", name, known)
    load = [os.getloadavg()[0]]
    rows = [known[name](rounds).row() for name in names]
    facts = machine() | {"load_average": [*load, os.getloadavg()[0]]}
    print(json.dumps(facts | {"rows": rows}, indent=2) if as_json else table(rows, facts))


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


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def table(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """For a terminal, and for docs/performance.md."""
    from tabulate import tabulate

    cells = [
        [
            *(row[key] for key in ("work", "peer", "unit")),
            *(_shown(row[key]) for key in ("theirs_per_second", "ours_per_second")),
            f"{row['ratio']:.2f}",
            f"[{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]",
            f"{row['goal']:g}",
            "" if row["limit"] is None else f"{row['limit']:.1f}",
            "yes" if row["met"] else "no",
        ]
        for row in rows
    ]
    load = " -> ".join(f"{value:.1f}" for value in facts["load_average"])
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in facts["versions"])
    return "\n".join(
        [
            tabulate(cells, COLUMNS, tablefmt="github", disable_numparse=True),
            "",
            f"CPU seconds of one thread; a goal is met at its ratio or at {LIMIT_SHARE:.0%} of the limit's.",
            f"{facts['date']}, commit {str(facts['commit'])[:7]}; {versions}",
            f"{facts['cpu_model']}, {facts['cpu_count']} cores, load average {load}",
        ]
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except PoloError as error:
        print(f"polobench: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
