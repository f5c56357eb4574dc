"""How often the 95 % intervals of this project contain the truth, as simulated beforehand.

`benchmarks/interval_coverage.py` simulates the figures, `coverage.toml` keeps them, and docs/statistics.md shows them.
They are of three distributions of returns: they say what to expect of others, and promise nothing.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from polobench.analysis.statistics.intervals import STUDENT

SUFFICIENT = 0.93
ADVISED_SEEDS = 10
MEAN = "mean"


@dataclass(frozen=True)
class Coverage:
    """How often an interval contained the truth."""

    statistic: str  # what the interval is of
    method: str  # as `Interval.method`
    returns: str  # how the returns of the runs were distributed
    share: dict[int, float]  # of the simulated studies, by the number of runs (per task), ascending


@cache
def coverages() -> tuple[Coverage, ...]:
    """The simulated figures."""
    file = resources.files("polobench.analysis.statistics").joinpath("coverage.toml")
    rows = tomllib.loads(file.read_text("utf-8"))["coverage"]
    return tuple(Coverage(**row | {"share": {int(n): share for n, share in row["share"].items()}}) for row in rows)


def worst_coverage(statistic: str, method: str, n: int) -> float:
    """The least share over the distributions, at a simulated number of runs."""
    return min(row.share[n] for row in coverages() if (row.statistic, row.method) == (statistic, method))


def coverage_note(n: int) -> str:
    """What to read beside the interval of a mean of n runs, rounded down to a simulated number.

    Empty where 93 % or more of some method's intervals contain the truth.
    """
    rows = [row for row in coverages() if row.statistic == MEAN]
    size = max((size for size in rows[0].share if size <= n), default=0)
    if not size:
        return f"how well intervals of {n} runs cover is not known; use {ADVISED_SEEDS} seeds or more"
    if max(worst_coverage(MEAN, method, size) for method in {row.method for row in rows}) >= SUFFICIENT:
        return ""
    shown = [row for row in rows if row.method == STUDENT]
    kinds = _listed([row.returns for row in shown])
    shares = _listed([f"{100 * row.share[size]:.0f} %" for row in shown])
    note = f"in simulation, {shares} of such intervals (n = {size}) contained the true {MEAN} of {kinds} returns"
    return f"{note}; use {ADVISED_SEEDS} seeds or more" if n < ADVISED_SEEDS else note


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
