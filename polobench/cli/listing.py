"""`polobench list`: the methods, tasks, devices and studies there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from polobench.cli.common import AsJson, show


class Listed(StrEnum):
    """What `polobench list` can list."""

    methods = "methods"
    tasks = "tasks"
    devices = "devices"
    studies = "studies"


def list_command(
    kind: Annotated[Listed | None, typer.Argument(help="What to list [default: everything].")] = None,
    as_json: AsJson = False,
) -> None:
    """List methods, tasks, devices and studies.

    Each line says where the thing comes from and, if it cannot be used here, why.
    """
    from polobench.run import listing

    rows = {item.value: listing.rows(item.value) for item in ([kind] if kind else Listed)}
    show(as_json, rows[kind.value] if kind else rows, _lines(rows))


def _lines(rows: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    for name, entries in rows.items():
        yield f"{name}:"
        for row in entries:
            state = f"UNAVAILABLE: {row['reason']}" if row["reason"] else row.get("about", "")
            state += f" ({row['cells']:,} cells)" if "cells" in row else ""
            yield f"  {row['name']:<26} {row['source']:<14} {state}".rstrip()
