"""An arm in numbers: what the comparison table and the answers say, before any of it is text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polobench.analysis.collection import Arm, Collection, has_smoke_run
from polobench.analysis.columns import finite, mean_of
from polobench.analysis.frame import SPEEDS, reached, samples_per_second, solved
from polobench.analysis.statistics.intervals import (
    Array,
    Interval,
    mean_interval,
    median_time_to_target,
    wilson_interval,
)
from polobench.core.result import STATUSES, RunResult
from polobench.kinds.gradient_noise import GradientNoise
from polobench.kinds.throughput import ROUND_SECONDS, Throughput
from polobench.store.identity import age

LOSS_NOISE = 1e-6


@dataclass(frozen=True)
class ArmSummary:
    """The learning runs of one arm, failed ones at the floor; None or NaN where a target is needed and absent."""

    arm: Arm
    n: int  # runs, one per seed
    final_return: float  # the mean over the runs
    final_interval: Interval  # its Student's t interval
    final_score: float  # the mean over the runs
    solved: int | None  # runs whose final evaluation is at or above the target
    solved_interval: Interval | None  # Wilson's, of their share
    reached: int | None  # runs that held the target for two evaluations in a row at some time
    samples_to_target: float  # medians; infinite for a run that never reached it
    wall_seconds_to_target: float  # also NaN where a run of the arm ran beside others
    cpu_seconds_to_target: float
    samples_per_second: float  # the mean over the runs that ran alone; NaN if none did
    peak_memory_mib: float  # the largest of the runs
    statuses: dict[str, int]  # how many runs ended how, in the order of `STATUSES`
    beside_others: int  # how many ran beside others
    floor: float  # of the newest run, as target and unit
    target: float | None
    unit: str
    smoke: bool  # nothing is to be concluded


def summarize(arm: Arm, runs: Sequence[RunResult]) -> ArmSummary:
    """The numbers of one arm from its runs, one per seed."""
    returns = [result.final_return for result in runs]
    newest = max(runs, key=age)
    has_target = newest.target is not None
    n_solved = sum(bool(solved(result)) for result in runs)
    beside = sum(result.ran_beside_others for result in runs)
    return ArmSummary(
        arm=arm,
        n=len(runs),
        final_return=float(np.mean(returns)),
        final_interval=mean_interval(returns),
        final_score=mean_of(result.final_score for result in runs),
        solved=n_solved if has_target else None,
        solved_interval=wilson_interval(n_solved, len(runs)) if has_target else None,
        reached=sum(bool(reached(result)) for result in runs) if has_target else None,
        samples_to_target=_median_time(runs, "samples"),
        wall_seconds_to_target=math.nan if beside else _median_time(runs, "wall_seconds"),
        cpu_seconds_to_target=_median_time(runs, "cpu_seconds"),
        samples_per_second=mean_of(finite(map(samples_per_second, runs))),
        peak_memory_mib=float(max(finite(result.peak_memory_mib for result in runs), default=math.nan)),
        statuses=_statuses(runs),
        beside_others=beside,
        floor=newest.floor,
        target=newest.target,
        unit=newest.unit,
        smoke=has_smoke_run(runs),
    )


def _median_time(runs: Sequence[RunResult], name: str) -> float:
    times = [result.time_to_target.get(name) if reached(result) else None for result in runs]
    return math.nan if any(result.target is None for result in runs) else median_time_to_target(times)


def _statuses(runs: Sequence[RunResult]) -> dict[str, int]:
    counts = Counter(result.status for result in runs)
    return {status: counts[status] for status in STATUSES if counts[status]}


def comparisons(collection: Collection) -> dict[tuple[str, str], list[ArmSummary]]:
    """The learning arms that may be compared, by task and budget, the best mean final return first."""

    def best_first(item: ArmSummary) -> tuple[float, Arm]:
        return math.inf if math.isnan(item.final_return) else -item.final_return, item.arm

    groups: dict[tuple[str, str], list[ArmSummary]] = {}
    for arm, runs in collection.learning.items():
        groups.setdefault((arm.task, arm.budget), []).append(summarize(arm, runs))
    return {key: sorted(groups[key], key=best_first) for key in sorted(groups)}


def is_smoke(group: Sequence[ArmSummary]) -> bool:
    """Whether an arm has a smoke run: nothing is concluded from it, nor from what it is compared with."""
    return any(summary.smoke for summary in group)


def moves(losses: Array) -> bool:
    """Whether losses, at least one, differ by more than rounding errors of single precision."""
    with np.errstate(invalid="ignore"):  # two infinite ones
        return bool(np.ptp(losses) > LOSS_NOISE * max(1.0, float(np.abs(losses).min())))


@dataclass(frozen=True)
class ThroughputSummary:
    """The throughput cells of one arm; speeds are means over the n that ended ok and ran alone, NaN if none did."""

    arm: Arm
    cells: int
    n: int
    rounds: int  # timed ones, of the n cells
    samples_per_second: float
    interval: Interval  # Student's t, of the mean `samples_per_second`
    updates_per_second: float
    rollout_samples_per_second: float
    update_samples_per_second: float
    rollout_share: float  # of the seconds of all timed rounds
    update_share: float
    iteration_seconds: float  # the median over all timed rounds
    quartiles: tuple[float, float]  # of the same
    peak_memory_mib: float
    beside_others: int
    without_samples: int  # cells of the n that took no new samples in their timed rounds, and so have no rate
    statuses: dict[str, int]


def summarize_throughput(arm: Arm, cells: Sequence[RunResult]) -> ThroughputSummary:
    """The speeds of one arm from its throughput cells."""
    counted = [cell for cell in cells if cell.status == "ok" and cell.throughput and not cell.ran_beside_others]
    iteration, rollout, update = (
        np.array([seconds for cell in counted for seconds in cell.throughput[name]]) for name in ROUND_SECONDS
    )
    total = float(iteration.sum()) or math.nan
    low, middle, high = np.quantile(iteration, (0.25, 0.5, 0.75)).tolist() if len(iteration) else (math.nan,) * 3
    speeds = {name: np.array([cell.throughput.get(name) for cell in counted], np.float64) for name in SPEEDS}
    return ThroughputSummary(
        arm=arm,
        cells=len(cells),
        n=len(counted),
        rounds=len(iteration),
        interval=mean_interval(speeds["samples_per_second"]),
        **{name: mean_of(values) for name, values in speeds.items()},
        rollout_share=float(rollout.sum()) / total,
        update_share=float(update.sum()) / total,
        iteration_seconds=middle,
        quartiles=(low, high),
        peak_memory_mib=float(max(finite(cell.peak_memory_mib for cell in cells), default=math.nan)),
        beside_others=sum(cell.ran_beside_others for cell in cells),
        without_samples=int(np.isnan(speeds["samples_per_second"]).sum()),
        statuses=_statuses(cells),
    )


def throughputs(collection: Collection) -> list[ThroughputSummary]:
    """Every throughput arm, by task, budget and label."""
    return [summarize_throughput(arm, cells) for arm, cells in collection.of_kind(Throughput.name).items()]


@dataclass(frozen=True)
class NoiseSummary:
    """The gradient-noise cells of one arm at one stage; core/gradient_noise.py has the formulas.

    The trainer's run is the unit: the batches of a cell share its policy and its critic.
    """

    arm: Arm
    stage: float  # the share of the trainers' budget after which the policies were taken
    n: int  # runs of trainers, but for those at whose policies no gradient was or none was noisy
    batches: int  # of each run
    samples: int  # of a batch
    snr: float  # signal-to-noise, the mean over the runs
    interval: Interval  # its Student's t interval


def gradient_noises(collection: Collection) -> list[NoiseSummary]:
    """Every arm and stage that was measured, by task, stage and label."""
    stages: dict[tuple[Arm, float], list[RunResult]] = {}
    for arm, runs in collection.of_kind(GradientNoise.name).items():
        for run in runs:
            if "batches" in run.gradient_noise and "stage" in run.gradient_noise:
                stages.setdefault((arm, run.gradient_noise["stage"]), []).append(run)
    found = [_summarize_noise(arm, stage, runs) for (arm, stage), runs in stages.items()]
    return sorted(found, key=lambda item: (item.arm.task, item.stage, item.arm))


def _summarize_noise(arm: Arm, stage: float, runs: Sequence[RunResult]) -> NoiseSummary:
    ratios, noise = finite(run.gradient_noise["snr"] for run in runs), runs[0].gradient_noise
    mean, interval = mean_of(ratios), mean_interval(ratios)
    return NoiseSummary(arm, stage, len(ratios), noise["batches"], noise["samples"], mean, interval)
