"""How often the tests of the verdicts find a difference where there is none: `python -m benchmarks.null_rates`.

Two methods whose runs have one distribution are compared again and again. The kinds of returns are those of
`benchmarks/interval_coverage.py`. `spread` compares the distances from each arm's median, which are exchangeable only
nearly; `search` compares the gains of two random searches, of 16 configurations on each task; `gradient` compares the
variance of the gradient of ten runs a side, two stages each, on two tasks. The columns of seven pairs are the share of
studies in which Holm's procedure finds anything among them. The last column shifts the one method by a margin of 1 and
tells how often the two are called equivalent within it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.stats import binomtest
from tabulate import tabulate

from benchmarks.interval_coverage import RETURNS, Returns
from polobench.analysis.measures import MEASURES
from polobench.analysis.statistics.hypothesis import (
    Strata,
    compare,
    equivalence_p,
    holm,
    permutation_p,
)
from polobench.analysis.statistics.intervals import Array
from polobench.analysis.tuning import gains
from tests.synthetic import noise_cell

LEVEL = 0.05
DRAWS = 999


def runs_of(returns: Returns, n: int, rng: np.random.Generator) -> Array:
    return returns.quantile(rng.random(n))


def final_scores(returns: Returns, n: int, tasks: int, rng: np.random.Generator) -> Strata:
    return [(runs_of(returns, n, rng), runs_of(returns, n, rng)) for _ in range(tasks)]


def spreads(returns: Returns, n: int, tasks: int, rng: np.random.Generator) -> Strata:
    found = final_scores(returns, n, tasks, rng)
    return [(np.abs(x - np.median(x)), np.abs(y - np.median(y))) for x, y in found]


def searches(returns: Returns, tasks: int, rng: np.random.Generator) -> Strata:
    found = final_scores(returns, 16, tasks, rng)
    return [(gains(x), gains(y)) for x, y in found]


def gradients(signal: float, rng: np.random.Generator) -> Strata:
    values = MEASURES["gradient_variance"].values
    seeds = rng.integers(0, 2**31, (2, 2, 10, 2))

    def side(runs: Array) -> Array:
        return values(
            [replace(noise_cell("ppo", signal, int(one)), seed=run) for run, two in enumerate(runs) for one in two]
        )

    return [(side(mine), side(theirs)) for mine, theirs in seeds]


def rate(make: Callable[[np.random.Generator], Strata], simulations: int) -> list[str]:
    """Shares of p <= 0.05, Welch intervals without 0, and wrong equivalence, with Clopper and Pearson's ends."""
    rng = np.random.default_rng(2026)
    studies = [make(rng) for _ in range(simulations)]
    tests = sum(permutation_p(strata, draws=DRAWS) <= LEVEL for strata in studies)
    ends = [compare(strata, alpha=LEVEL).interval for strata in studies]
    missed = sum(not found.low <= 0 <= found.high for found in ends)
    equal = sum(equivalence_p([(x + 1.0, y) for x, y in strata], 1.0) <= LEVEL for strata in studies)
    return [shown(count, simulations) for count in (tests, missed, equal)]


def shown(count: int, n: int) -> str:
    found = binomtest(count, n).proportion_ci(method="exact")
    return f"{count / n:.3f} [{found.low:.3f}, {found.high:.3f}]"


def whole_column(returns: Returns, n: int, tasks: int, simulations: int) -> list[str]:
    """One method against four and one of these against three, all alike: seven pairs that share their runs."""
    rng, found = np.random.default_rng(2027), 0
    for _ in range(simulations):
        runs = [[runs_of(returns, n, rng) for _ in range(tasks)] for _ in range(5)]
        pairs = [(0, other) for other in (1, 2, 3, 4)] + [(1, other) for other in (2, 3, 4)]
        p = [permutation_p(list(zip(runs[a], runs[b], strict=True)), draws=DRAWS) for a, b in pairs]
        found += min(holm(p)) <= LEVEL
    return [shown(found, simulations), "", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    count = parser.parse_args().simulations
    rows: list[list[str]] = []
    for returns in RETURNS:
        for n, tasks in ((5, 1), (8, 1), (5, 3), (5, 5)):
            made = rate(partial(final_scores, returns, n, tasks), count)
            rows.append([f"final score, {returns.name}", f"{n} x {tasks}", *made])
        rows.append([f"spread, {returns.name}", "5 x 5", *rate(partial(spreads, returns, 5, 5), count)])
        rows.append([f"search, {returns.name}", "16 x 4", *rate(partial(searches, returns, 4), count)])
        column = whole_column(returns, 5, 5, max(200, count // 4))
        rows.append([f"column of seven pairs, {returns.name}", "5 x 5", *column])
    for signal in (0.5, math.sqrt(20)):
        made = rate(partial(gradients, signal), max(200, count // 4))
        rows.append([f"gradient, signal-to-noise {signal**2 / 20:.2g}", "10 x 2", *made])
    print(
        tabulate(
            rows, ["null", "n x tasks", "permutation, p <= 0.05", "Welch 95 % misses 0", "wrongly equivalent"], "pipe"
        )
    )


if __name__ == "__main__":
    main()
