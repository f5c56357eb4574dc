"""An arm in numbers: what the comparison table and the answers say, before any of it is text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.frame import reached, samples_per_second, solved
from polobench.analysis.statistics.intervals import (
    Array,
    Interval,
    mean_interval,
    median_time_to_target,
    wilson_interval,
)
from polobench.core.result import STATUSES, RunResult
from polobench.kinds.throughput import ROUND_SECONDS
from polobench.store.identity import age

LOSS_NOISE = 1e-6


@dataclass(frozen=True)
class ArmSummary:
    """The learning runs of one arm, failed ones at the floor.

    Attributes:
        n: runs, one per seed.
        final_return, final_interval: mean over the runs, and its Student's t interval.
        final_score: mean over the runs; NaN without a target.
        solved, solved_interval: runs whose final evaluation is at or above the target, with Wilson's interval of
            their share; None without a target.
        reached: runs that held the target for two evaluations in a row at some time; None without a target.
        samples_to_target, wall_seconds_to_target, cpu_seconds_to_target: medians, with runs that never reached it as
            infinite; NaN without a target, and for wall seconds where a run of the arm ran beside others.
        samples_per_second: mean over the runs that ran alone; NaN if none did.
        peak_memory_mib: the largest of the runs.
        statuses: how many runs ended how, in the order of `STATUSES`.
        beside_others: how many ran beside others.
        floor, target, unit: of the newest run.
        smoke: a run of the arm is marked as one that only shows that the parts work together.
    """

    arm: Arm
    n: int
    final_return: float
    final_interval: Interval
    final_score: float
    solved: int | None
    solved_interval: Interval | None
    reached: int | None
    samples_to_target: float
    wall_seconds_to_target: float
    cpu_seconds_to_target: float
    samples_per_second: float
    peak_memory_mib: float
    statuses: dict[str, int]
    beside_others: int
    floor: float
    target: float | None
    unit: str
    smoke: bool


def summarize(arm: Arm, runs: Sequence[RunResult]) -> ArmSummary:
    """The numbers of one arm from its runs, one per seed."""
    returns = [result.final_return for result in runs]
    newest = max(runs, key=age)
    has_target = newest.target is not None
    n_solved = sum(bool(solved(result)) for result in runs)
    beside = sum(result.ran_beside_others for result in runs)
    counts = Counter(result.status for result in runs)
    return ArmSummary(
        arm=arm,
        n=len(runs),
        final_return=float(np.mean(returns)),
        final_interval=mean_interval(returns),
        final_score=_mean([math.nan if result.final_score is None else result.final_score for result in runs]),
        solved=n_solved if has_target else None,
        solved_interval=wilson_interval(n_solved, len(runs)) if has_target else None,
        reached=sum(bool(reached(result)) for result in runs) if has_target else None,
        samples_to_target=_median_time(runs, "samples"),
        wall_seconds_to_target=math.nan if beside else _median_time(runs, "wall_seconds"),
        cpu_seconds_to_target=_median_time(runs, "cpu_seconds"),
        samples_per_second=_mean([speed for speed in map(samples_per_second, runs) if not math.isnan(speed)]),
        peak_memory_mib=_largest(result.peak_memory_mib for result in runs),
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        beside_others=beside,
        floor=newest.floor,
        target=newest.target,
        unit=newest.unit,
        smoke=any(result.provenance.get("smoke") is True for result in runs),
    )


def _median_time(runs: Sequence[RunResult], name: str) -> float:
    if any(result.target is None for result in runs):
        return math.nan
    return median_time_to_target([result.time_to_target.get(name) if reached(result) else None for result in runs])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _largest(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return max(known, default=math.nan)


def comparisons(collection: Collection) -> dict[tuple[str, str], list[ArmSummary]]:
    """The learning arms that may be compared, by task and budget, the best mean final return first."""
    groups: dict[tuple[str, str], list[ArmSummary]] = {}
    for arm, runs in collection.of_kind("learning").items():
        groups.setdefault((arm.task, arm.budget), []).append(summarize(arm, runs))
    return {key: sorted(groups[key], key=_best_first) for key in sorted(groups)}


def is_smoke(group: Sequence[ArmSummary]) -> bool:
    """Whether an arm is marked as a smoke run: what it is compared with cannot be concluded from either."""
    return any(summary.smoke for summary in group)


def _best_first(summary: ArmSummary) -> tuple[bool, float, Arm]:
    unknown = math.isnan(summary.final_return)
    return unknown, 0.0 if unknown else -summary.final_return, summary.arm


def moves(losses: Array) -> bool:
    """Whether they differ by more than rounding errors of single precision; at least one."""
    with np.errstate(invalid="ignore"):  # two infinite ones
        return bool(np.ptp(losses) > LOSS_NOISE * max(1.0, float(np.abs(losses).min())))


@dataclass(frozen=True)
class ThroughputSummary:
    """The throughput cells of one arm; speeds are means over those that ended ok and ran alone, NaN if none did.

    Attributes:
        n: cells whose speeds count; `cells` all of them.
        without_samples: how many of the `n` took no new samples in their timed rounds, and so have no rate of them.
        interval: Student's t, of the mean `samples_per_second` over the `n` cells.
        rollout_share, update_share: of the iteration's seconds, over all timed rounds.
        iteration_seconds: median over all timed rounds; `quartiles` of the same.
    """

    arm: Arm
    cells: int
    n: int
    rounds: int
    samples_per_second: float
    interval: Interval
    updates_per_second: float
    rollout_samples_per_second: float
    update_samples_per_second: float
    rollout_share: float
    update_share: float
    iteration_seconds: float
    quartiles: tuple[float, float]
    peak_memory_mib: float
    beside_others: int
    without_samples: int
    statuses: dict[str, int]


def summarize_throughput(arm: Arm, cells: Sequence[RunResult]) -> ThroughputSummary:
    """The speeds of one arm from its throughput cells."""
    counted = [cell for cell in cells if cell.status == "ok" and cell.throughput and not cell.ran_beside_others]
    rounds = [np.concatenate([_seconds(cell, name) for cell in counted] or [np.empty(0)]) for name in ROUND_SECONDS]
    iteration, rollout, update = rounds
    total = float(iteration.sum())
    low, middle, high = np.quantile(iteration, (0.25, 0.5, 0.75)) if len(iteration) else (math.nan,) * 3
    speeds = [_speed(cell, "samples_per_second") for cell in counted]
    counts = Counter(cell.status for cell in cells)

    return ThroughputSummary(
        arm=arm,
        cells=len(cells),
        n=len(counted),
        rounds=len(iteration),
        samples_per_second=_mean(speeds),
        interval=mean_interval(speeds),
        updates_per_second=_mean([_speed(cell, "updates_per_second") for cell in counted]),
        rollout_samples_per_second=_mean([_speed(cell, "rollout_samples_per_second") for cell in counted]),
        update_samples_per_second=_mean([_speed(cell, "update_samples_per_second") for cell in counted]),
        rollout_share=float(rollout.sum()) / total if total else math.nan,
        update_share=float(update.sum()) / total if total else math.nan,
        iteration_seconds=float(middle),
        quartiles=(float(low), float(high)),
        peak_memory_mib=_largest(cell.peak_memory_mib for cell in cells),
        beside_others=sum(cell.ran_beside_others for cell in cells),
        without_samples=sum(map(math.isnan, speeds)),
        statuses={status: counts[status] for status in STATUSES if counts[status]},
    )


def _speed(cell: RunResult, name: str) -> float:
    value = cell.throughput.get(name)  # null where the clock saw no time pass
    return math.nan if value is None else float(value)


def _seconds(cell: RunResult, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(cell.throughput[name], dtype=np.float64)


def throughputs(collection: Collection) -> list[ThroughputSummary]:
    """Every throughput arm, by task, budget and label."""
    return [summarize_throughput(arm, cells) for arm, cells in sorted(collection.of_kind("throughput").items())]
