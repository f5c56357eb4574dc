"""pytest-benchmark's own JSON of base and head: vanished benchmarks are regressions, seconds are only notes.

The two files come from different runs, so that a ratio may be the machine's and not the code's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polobench.core.errors import UsageError, first_line


@dataclass(frozen=True)
class TimingComparison:
    """Ratios head / base by name, what only one side has, and the exit code."""

    ratios: dict[str, float]
    vanished: list[str]
    new: list[str]

    @property
    def exit_code(self) -> int:
        return 1 if self.vanished else 0

    def lines(self) -> list[str]:
        """What to print, the slowest first."""
        ordered = sorted(self.ratios.items(), key=lambda item: -item[1])
        return [
            *(f"REGRESSION: {name}: vanished" for name in self.vanished),
            *(f"note: {name}: new" for name in self.new),
            *(f"note: {name}: {ratio:.2f} times the seconds of the base (advice)" for name, ratio in ordered),
        ]


def read_timings(path: Path) -> dict[str, float]:
    """Median seconds by the full name of a benchmark, from what `pytest --benchmark-json` or its storage has written.

    A cell that did not end ok is left out, as its seconds are of less work.

    Raises:
        UsageError: it cannot be read, is no such file, or holds no benchmark.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        sound = [item for item in plain["benchmarks"] if item.get("extra_info", {}).get("status", "ok") == "ok"]
        found = {str(item["fullname"]): float(item["stats"]["median"]) for item in sound}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is no JSON of pytest-benchmark: {first_line(error)}") from error
    if not found or not all(0 < seconds < float("inf") for seconds in found.values()):
        raise UsageError(f"{str(path)!r} holds no benchmark with a positive median")
    return found


def compare_timings(base: Mapping[str, float], head: Mapping[str, float]) -> TimingComparison:
    """Benchmarks of equal names side by side."""
    return TimingComparison(
        ratios={name: head[name] / base[name] for name in base if name in head},
        vanished=sorted(base.keys() - head.keys()),
        new=sorted(head.keys() - base.keys()),
    )
