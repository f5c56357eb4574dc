"""How often the gate alarms for nothing, and how often it sees a fault; from the pools that benchmarks.gate_runs makes.

    python -m benchmarks.gate_rates

- Random splits of the pool of sound runs: every arm's base and head are ten runs each, drawn without replacement, their
  seeds relabelled to the study's; equal bits are not looked at. The splits share one pool, so they are dependent.
- Null comparisons simulated from distributions fitted to the pool: the smoothed bootstrap of all measures of a run
  together (Silverman and Young 1987, "The Bootstrap: To Smooth or Not to Smooth?"), its variance that of the pool.
- Faults that learning has to show: ten of the faulty runs against ten sound ones, the other arms as in a split.
- Faults that a stored batch has to show: faulty and sound cell of each seed.
- What the gate says that it cannot see: a shift of 2/3 of it must be found less, one of 4/3 more often than in 80 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest

from benchmarks.gate_faults import FAULTS
from benchmarks.gate_runs import SOUND, folder_of
from polobench.analysis.collection import Arm
from polobench.analysis.statistics.permutation import HARM, shift_of
from polobench.core.result import RunResult
from polobench.gate.compare import compare_results
from polobench.gate.exact import differences, growths
from polobench.gate.learning import LEVEL, WATCHED, Name, columns_of, judge
from polobench.gate.matching import matched_arms
from polobench.store.folder import Store

RUNS = 10
SPLITS, SIMULATED, RESAMPLED, SHIFTED = 200, 1_000, 200, 1_000
WITHIN = 1 / 3
Array = np.ndarray[Any, np.dtype[np.float64]]
Pool = Mapping[Arm, Sequence[RunResult]]


def sound_pool() -> dict[Arm, list[RunResult]]:
    """The sound learning runs, probes too, by arm and then by seed."""
    found: dict[Arm, list[RunResult]] = {}
    for result in sorted(_read(SOUND), key=lambda result: result.seed):
        if result.kind == "learning":
            found.setdefault(Arm.of(result), []).append(result)
    return found


def _read(pool: str) -> list[RunResult]:
    results, damaged = Store(folder_of(pool)).read()
    if damaged:
        raise SystemExit(f"{damaged[0].path} is damaged: {damaged[0].reason}")
    return results


def split_alarms(pool: Pool, rng: np.random.Generator) -> list[str]:
    """What the whole gate calls a regression between two halves of twenty sound runs an arm."""
    base: list[RunResult] = []
    head: list[RunResult] = []
    for runs in pool.values():
        order = rng.permutation(len(runs))
        base += _relabelled([runs[index] for index in order[:RUNS]])
        head += _relabelled([runs[index] for index in order[RUNS : 2 * RUNS]])
    found = compare_results(base, head, by_bits=False)
    return [f"{finding.arm}: {finding.what}" for finding in found.regressions]


def _relabelled(runs: Sequence[RunResult]) -> list[RunResult]:
    return [dataclasses.replace(run, seed=seed) for seed, run in enumerate(runs)]


def values_of(runs: Mapping[Arm, Sequence[RunResult]]) -> dict[Name, Array]:
    """The finite values of every measure of every arm's runs; probes are judged by their answers alone."""
    arms = [pair for pair in matched_arms(*[[run for arm in runs.values() for run in arm]] * 2) if not pair.is_probe]
    return {name: values for name, (values, _) in columns_of(arms).items()}


def fitted(values: Mapping[Name, Array], rng: np.random.Generator, count: int) -> dict[Name, Array]:
    """`count` runs an arm from the smoothed bootstrap of its measures together."""
    drawn: dict[Name, Array] = {}
    for arm in {arm for arm, _ in values}:
        names = [name for name in values if name[0] == arm]
        table = np.stack([values[name] for name in names], axis=1)
        n, k = table.shape
        width = (4 / (n * (k + 2))) ** (1 / (k + 4))
        rows = table[rng.integers(n, size=count)]
        noise = rng.multivariate_normal(np.zeros(k), np.cov(table, rowvar=False), size=count, method="svd")
        smoothed = table.mean(0) + (rows - table.mean(0) + width * noise) / np.sqrt(1 + width**2)
        drawn.update({name: smoothed[:, index] for index, name in enumerate(names)})
    return drawn


def simulated_alarms(values: Mapping[Name, Array], rng: np.random.Generator) -> list[str]:
    drawn = fitted(values, rng, 2 * RUNS)
    rows = judge({name: (column[:RUNS], column[RUNS:]) for name, column in drawn.items()})
    return [f"{row.arm.label} on {row.arm.task}: {WATCHED[row.measure].title}" for row in rows if row.is_regression]


def _drawn(column: Array, rng: np.random.Generator, count: int) -> Array:
    return column[rng.permutation(len(column))[:count]]


def detected(values: Mapping[Name, Array], faulty: Mapping[Name, Array], rng: np.random.Generator) -> list[str]:
    """The measures of the faulty arm that the gate calls a regression, all other arms being sound."""
    orders = {arm: rng.permutation(min(len(values[name]) for name in values if name[0] == arm)) for arm, _ in values}
    columns = {}
    for name, column in values.items():
        order = orders[name[0]]
        columns[name] = column[order[:RUNS]], column[order[RUNS : 2 * RUNS]]
        if name in faulty:
            columns[name] = columns[name][0], _drawn(faulty[name], rng, RUNS)
    return [row.measure for row in judge(columns) if row.is_regression and (row.arm, row.measure) in faulty]


def detectable_agreement(values: Mapping[Name, Array], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Of each measure of each arm what the gate prints, and the power at 2/3 and at 4/3 of it."""
    splits = [_split(values, rng) for _ in range(SHIFTED)]
    printed = {name: [] for name in values}
    for columns in track(splits, "detectable", console=Console(stderr=True)):
        for row in judge(columns):
            printed[row.arm, row.measure].append(row.detectable)
    median = {name: float(np.median(found)) for name, found in printed.items()}
    level = LEVEL / len(values)
    power = {factor: dict.fromkeys(values, 0) for factor in (1 - WITHIN, 1.0, 1 + WITHIN)}
    for columns in track(splits, "power", console=Console(stderr=True)):
        for (name, (base, head)), (factor, found) in product(columns.items(), power.items()):
            measure = WATCHED[name[1]]
            shift = shift_of(base, head + factor * median[name] * _harmful(name), measure.harm)
            found[name] += shift.p <= level and abs(shift.difference) >= measure.smallest_change(base)
    return [
        {"arm": f"{arm.label} on {arm.task}", "measure": measure, "printed": median[arm, measure]}
        | {f"power at {factor:.2f}": found[arm, measure] / SHIFTED for factor, found in power.items()}
        for arm, measure in values
    ]


def _split(values: Mapping[Name, Array], rng: np.random.Generator) -> dict[Name, tuple[Array, Array]]:
    drawn = {name: _drawn(column, rng, 2 * RUNS) for name, column in values.items()}
    return {name: (column[:RUNS], column[RUNS:]) for name, column in drawn.items()}


def _harmful(name: Name) -> float:
    return HARM[WATCHED[name[1]].harm] or 1.0


def on_stored_batches(sound: Sequence[RunResult]) -> dict[str, tuple[int, int]]:
    """Of each fault that a stored batch shows how often it did, and of how many seeds."""
    by_arm = {(run.label, run.task, run.seed): run for run in sound if run.kind == "fixed_batch"}
    found = {}
    for name, fault in FAULTS.items():
        if fault.layer == "learning":
            continue
        seen: Callable[[RunResult, RunResult], object] = differences if fault.layer == "fixed batch" else _grown
        runs = {run.seed: run for run in _read(name)}  # of a seed that was run twice the later file
        pairs = [(by_arm[run.label, run.task, run.seed], run) for run in runs.values()]
        found[name] = sum(bool(seen(*pair)) for pair in pairs), len(pairs)
    return found


def _grown(base: RunResult, head: RunResult) -> bool:
    return any(growth.is_regression for growth in growths(base, head))


def rate(count: int, n: int) -> dict[str, Any]:
    """A share with its Clopper-Pearson interval at 95 %."""
    interval = binomtest(count, n).proportion_ci(method="exact")
    return {"count": count, "of": n, "low": interval.low, "high": interval.high}


def measure_all() -> dict[str, Any]:
    """Every rate; each of its own generator."""
    console = Console(stderr=True)
    pool = sound_pool()
    values = values_of(pool)
    rng = [np.random.default_rng([7, index]) for index in range(4)]
    splits = [split_alarms(pool, rng[0]) for _ in track(range(SPLITS), "splits", console=console)]
    simulated = [simulated_alarms(values, rng[1]) for _ in track(range(SIMULATED), "simulated", console=console)]
    learning = {}
    for name, fault in FAULTS.items():
        if fault.layer == "learning":
            runs = _read(name)
            faulty = values_of({Arm.of(runs[0]): runs})
            found = [detected(values, faulty, rng[2]) for _ in track(range(RESAMPLED), name, console=console)]
            seen_by = {measure: sum(measure in each for each in found) for measure in WATCHED}
            learning[name] = rate(sum(map(bool, found)), RESAMPLED) | {"by": seen_by, "failed": _failed(runs)}
    batches = on_stored_batches(_read(SOUND))
    return {
        "runs an arm": {f"{arm.label} on {arm.task}": len(runs) for arm, runs in pool.items()},
        "tests": len(values),
        "alarms of splits": rate(sum(map(bool, splits)), SPLITS) | {"what": [what for each in splits for what in each]},
        "alarms of simulated": rate(sum(map(bool, simulated)), SIMULATED)
        | {"what": [what for each in simulated for what in each]},
        "unanswered probes": sum(run.final_return < (run.target or 0) for arm, runs in pool.items() for run in runs
                                 if run.provenance.get("probe")),
        "faults by learning": learning,
        "faults on stored batches": {name: rate(*counts) for name, counts in batches.items()},
        "detectable": detectable_agreement(values, rng[3]),
    }  # fmt: skip


def _failed(runs: Sequence[RunResult]) -> int:
    return sum(run.status != "ok" for run in runs)


def main() -> None:
    """The command of the module's first lines."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(measure_all(), indent=2))


if __name__ == "__main__":
    main()
