"""How often the 95 % intervals of this project hold what they are of, as simulated beforehand.

`coverage.toml` holds the figures, `benchmarks/interval_coverage.py` simulates them, and `docs/statistics.md` says of
what. They are of three distributions of returns, so they bound what to expect of others, and promise nothing.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from polobench.analysis.statistics.aggregates import STRATIFIED
from polobench.analysis.statistics.intervals import STUDENT

SUFFICIENT = 0.93
ADVISED_SEEDS = 10
MEAN = "mean"
IQM = "interquartile mean over tasks"
MEDIAN_OF_TASKS = "median of task means"
MEAN_OF_TASKS = "mean of task means"
SOLVED = "share of runs"
SHOWN_METHOD = {MEAN: STUDENT, IQM: STRATIFIED, MEDIAN_OF_TASKS: STRATIFIED, MEAN_OF_TASKS: STRATIFIED}


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth.

    Attributes:
        statistic: what the interval is of.
        method: as `Interval.method`.
        returns: how the returns of the runs were distributed.
        share: of the simulated studies, by the number of runs (of a task), ascending.
    """

    statistic: str
    method: str
    returns: str
    share: dict[int, float]


@cache
def coverages() -> tuple[Coverage, ...]:
    """The simulated figures."""
    file = resources.files("polobench.analysis.statistics").joinpath("coverage.toml")
    content = tomllib.loads(file.read_text("utf-8"))
    return tuple(
        Coverage(row["statistic"], row["method"], row["returns"], {int(n): share for n, share in row["share"].items()})
        for row in content["coverage"]
    )


def worst_coverage(statistic: str, method: str, n: int) -> float:
    """The least share over the distributions, at a simulated number of runs."""
    return min(row.share[n] for row in coverages() if (row.statistic, row.method) == (statistic, method))


def coverage_note(n: int, statistic: str = MEAN) -> str:
    """What to read beside an interval of n runs; empty where 93 % or more of some method's intervals contain the truth.

    Args:
        n: runs, rounded down to a simulated number; the text says to which.
        statistic: a key of `SHOWN_METHOD`; over tasks, n is the smallest number of runs of a task.
    """
    rows = [row for row in coverages() if row.statistic == statistic]
    simulated = [size for size in rows[0].share if size <= n]
    if not simulated:
        return f"how well intervals of {n} runs cover is not known; use {ADVISED_SEEDS} seeds or more"
    size = simulated[-1]
    if max(worst_coverage(statistic, method, size) for method in {row.method for row in rows}) >= SUFFICIENT:
        return ""
    shown = [row for row in rows if row.method == SHOWN_METHOD[statistic]]
    kinds = _listed([row.returns for row in shown])
    shares = _listed([f"{100 * row.share[size]:.0f} %" for row in shown])
    note = f"in simulation, {shares} of such intervals (n = {size}) contained the true {statistic} of {kinds} returns"
    return f"{note}; use {ADVISED_SEEDS} seeds or more" if n < ADVISED_SEEDS else note


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
