"""How often a 95 % interval holds what it is of, by its method, the number of runs and the distribution of returns.

    python -m benchmarks.interval_coverage                                       # print the table
    python -m benchmarks.interval_coverage -o polobench/analysis/statistics/coverage.toml   # and keep it as data

from the repository's root, some minutes on one core.
`polobench/analysis/statistics/coverage.py` reads what it keeps, and
`docs/statistics.md` shows it. The intervals are the project's own, over many simulated studies at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from scipy.stats import binom, bootstrap, norm
from tabulate import tabulate

from polobench.analysis.statistics.aggregates import STRATIFIED, iqm
from polobench.analysis.statistics.coverage import MEAN, Coverage
from polobench.analysis.statistics.intervals import (
    BAND_RESAMPLES,
    BOOTSTRAP,
    CONFIDENCE,
    RESAMPLES,
    STUDENT,
    TAILS,
    WILSON,
    Array,
    bootstrap_band,
    student_ends,
    wilson_interval,
)

SIZES = (3, 5, 10, 20)
SIMULATIONS = 4_000
SEED = 0
LEVELS = np.array([0.6, 0.8, 1.0, 1.2, 1.4])  # five tasks: the same returns times these
BCA = "BCa bootstrap"
IQM = "interquartile mean over tasks"
MEDIAN_OF_TASKS = "median of task means"
MEAN_OF_TASKS = "mean of task means"
SOLVED = "share of runs"
SOLVING = (0.5, 0.8, 0.95)
_BLOCK = 250  # simulated studies in memory at once
_POPULATION = 200_000

Ends = tuple[Array, Array]


@dataclass(frozen=True)
class Returns:
    """A distribution of the final returns of runs: its quantile function and its mean."""

    name: str
    quantile: Callable[[Array], Array]
    mean: float

    def draw(self, rng: np.random.Generator, *shape: int) -> Array:
        return self.quantile(rng.random(shape))


def _normal(u: Array) -> Array:
    """Mean 1, standard deviation 0.25."""
    return np.asarray(1 + 0.25 * norm.ppf(u), dtype=np.float64)


def _skewed(u: Array) -> Array:
    """Lognormal, the logarithm of mean 0 and standard deviation 1."""
    return np.asarray(np.exp(norm.ppf(u)), dtype=np.float64)


def _collapse_prone(u: Array) -> Array:
    """One run in five uniform on [0, 0.1], the others on [0.9, 1]."""
    return np.where(u < 0.2, 0.5 * u, 0.9 + 0.125 * (u - 0.2))


RETURNS = (
    Returns("normal", _normal, 1.0),
    Returns("skewed", _skewed, math.exp(0.5)),
    Returns("collapse-prone", _collapse_prone, 0.2 * 0.05 + 0.8 * 0.95),
)


def main(
    simulations: Annotated[int, typer.Option(min=1, help="Simulated studies of each kind and size.")] = SIMULATIONS,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the coverage as TOML.")] = None,
) -> None:
    """Simulate studies whose truth is known, and count the intervals that hold it."""
    found = list(coverages(simulations))
    print(table(found))
    if output:
        output.write_text(as_toml(found, simulations), encoding="utf-8")


def coverages(simulations: int, sizes: tuple[int, ...] = SIZES) -> Iterator[Coverage]:
    """Every row of the table; the same number of simulations gives the same figures."""
    for measure in (mean_coverage, aggregate_coverage):
        for returns in track(RETURNS, measure.__name__, console=Console(stderr=True)):
            by_size = {n: measure(returns, n, simulations) for n in sizes}
            for statistic, method in by_size[sizes[0]]:
                share = {n: by_size[n][statistic, method] for n in sizes}
                yield Coverage(statistic, method, returns.name, share)
    for probability in SOLVING:
        share = {n: wilson_coverage(probability, n) for n in sizes}
        yield Coverage(SOLVED, WILSON, f"solved with probability {probability}", share)


def mean_coverage(returns: Returns, n: int, simulations: int) -> dict[tuple[str, str], float]:
    """How often each method's interval of the mean of n runs holds the true one."""
    data = returns.draw(_rng("mean", returns, n), simulations, n)
    methods = {STUDENT: student_ends, BOOTSTRAP: _percentile_ends, BCA: _bca_ends}
    return {(MEAN, name): _covered(_in_blocks(method, data), returns.mean) for name, method in methods.items()}


def _percentile_ends(data: Array) -> Ends:
    """A curve's band is the interval at each of its points: here a point is a study."""
    return bootstrap_band(data.T, resamples=RESAMPLES)


def _bca_ends(data: Array) -> Ends:
    """Bias-corrected and accelerated: Efron and Tibshirani 1993, section 14.3."""
    found = bootstrap(
        (data,), np.mean, axis=-1, method="BCa", n_resamples=BAND_RESAMPLES, confidence_level=CONFIDENCE,
        vectorized=True, random_state=SEED,
    ).confidence_interval  # fmt: skip
    return found.low, found.high


def _in_blocks(method: Callable[[Array], Ends], data: Array) -> Ends:
    blocks = [method(data[start : start + _BLOCK]) for start in range(0, len(data), _BLOCK)]
    low, high = (np.concatenate(ends) for ends in zip(*blocks, strict=True))
    return low, high


def aggregate_coverage(returns: Returns, n: int, simulations: int) -> dict[tuple[str, str], float]:
    """How often the stratified bootstrap's interval of a statistic over five tasks, n runs each, holds the true one."""
    rng = _rng("aggregate", returns, n)
    population = LEVELS[:, None] * returns.quantile((np.arange(_POPULATION) + 0.5) / _POPULATION)
    truths = {name: float(statistic(population)) for name, statistic in AGGREGATES.items()}
    held = dict.fromkeys(AGGREGATES, 0)
    for _ in range(simulations):
        scores = LEVELS[:, None] * returns.draw(rng, len(LEVELS), n)
        drawn = scores[np.arange(len(LEVELS))[:, None], rng.integers(0, n, (BAND_RESAMPLES, *scores.shape))]
        for name, statistic in AGGREGATES.items():
            low, high = np.quantile(statistic(drawn), TAILS)
            held[name] += bool(low <= truths[name] <= high)
    return {(name, STRATIFIED): count / simulations for name, count in held.items()}


# `[..., tasks, n]` to `[...]`, as `analysis.statistics.aggregates` does, for many resamples at once
AGGREGATES: dict[str, Callable[[Array], Array]] = {
    IQM: lambda scores: iqm([scores.reshape(*scores.shape[:-2], -1)]),
    MEDIAN_OF_TASKS: lambda scores: np.asarray(np.median(scores.mean(axis=-1), axis=-1)),
    MEAN_OF_TASKS: lambda scores: scores.mean(axis=-1).mean(axis=-1),
}


def wilson_coverage(probability: float, n: int) -> float:
    """How often Wilson's interval holds the true share: exact, a sum over the number of runs that solved."""
    intervals = [wilson_interval(solved, n) for solved in range(n + 1)]
    holds = np.array([item.low <= probability <= item.high for item in intervals])
    return float(binom.pmf(np.arange(n + 1), n, probability)[holds].sum())


def _covered(ends: Ends, truth: float) -> float:
    low, high = ends
    return float(np.mean((low <= truth) & (truth <= high)))  # an end that is not known does not hold


def _rng(what: str, returns: Returns, n: int) -> np.random.Generator:
    return np.random.default_rng([SEED, *f"{what} {returns.name}".encode(), n])


def table(rows: list[Coverage]) -> str:
    """The coverage in percent, as Markdown."""
    sizes = rows[0].share
    cells = [[row.statistic, row.method, row.returns, *(f"{row.share[n]:.1%}" for n in sizes)] for row in rows]
    headers = ["interval of", "method", "returns", *(f"n = {n}" for n in sizes)]
    aligned = ["left"] * 3 + ["right"] * len(sizes)
    return tabulate(cells, headers, tablefmt="pipe", disable_numparse=True, colalign=aligned)


def as_toml(rows: list[Coverage], simulations: int) -> str:
    """What `polobench.analysis.statistics.coverage` reads."""
    parts = [
        "# How often 95 % intervals hold what they are of, by the number of runs; docs/statistics.md says of what.\n"
        "# Written by `python -m benchmarks.interval_coverage -o polobench/analysis/statistics/coverage.toml`.\n\n"
        f"simulations = {simulations}\nseed = {SEED}\n"
    ]
    for row in rows:
        share = ", ".join(f"{n} = {value:.5f}" for n, value in row.share.items())
        parts.append(
            f'[[coverage]]\nstatistic = "{row.statistic}"\nmethod = "{row.method}"\nreturns = "{row.returns}"\n'
            f"share = {{ {share} }}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    typer.run(main)
