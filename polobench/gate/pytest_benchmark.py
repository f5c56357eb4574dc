"""pytest-benchmark's own JSON of base and head: vanished benchmarks are regressions, seconds are only notes.

The two files come from different runs, so that a ratio may be the machine's and not the code's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from polobench.core.errors import UsageError, first_line


@dataclass(frozen=True)
class Timings:
    """Median seconds of each benchmark of a file, by its full name."""

    path: str
    median_seconds: dict[str, float]


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


def read_timings(path: Path) -> Timings:
    """A file that `pytest --benchmark-json` or its storage has written.

    Raises:
        UsageError: it cannot be read, is no such file, or holds no benchmark.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        found = {str(item["fullname"]): float(item["stats"]["median"]) for item in plain["benchmarks"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is no JSON of pytest-benchmark: {first_line(error)}") from error
    if not found or not all(0 < seconds < float("inf") for seconds in found.values()):
        raise UsageError(f"{str(path)!r} holds no benchmark with a positive median")
    return Timings(str(path), found)


def compare_timings(base: Timings, head: Timings) -> TimingComparison:
    """Benchmarks of equal names side by side."""
    one, other = base.median_seconds, head.median_seconds
    return TimingComparison(
        ratios={name: other[name] / one[name] for name in one if name in other},
        vanished=sorted(one.keys() - other.keys()),
        new=sorted(other.keys() - one.keys()),
    )
