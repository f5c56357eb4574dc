"""The tables of the report: as numbers (a DataFrame, for CSV) and as text (for Markdown and the terminal)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.frame import LEDGER, table_of
from polobench.analysis.summary import ArmSummary, LossSummary, ThroughputSummary, ledger_means
from polobench.core.result import RunResult
from polobench.report.text import (
    NOTHING,
    Clean,
    decimals_for,
    ends,
    escape,
    number,
    runs_of,
    share,
    significant,
)


@dataclass(frozen=True)
class TextTable:
    """Headers, rows of ready text, and a letter for each column's side, l or r."""

    headers: list[str]
    rows: list[list[str]]
    align: str

    def markdown(self) -> str:
        """As a pipe table; the cells are escaped already."""
        return self._format("pipe")

    def terminal(self) -> str:
        """As aligned columns."""
        return self._format("simple")

    def without(self, *names: str) -> TextTable:
        """The same table less some columns."""
        kept = [index for index, name in enumerate(self.headers) if name not in names]
        rows = [[row[index] for index in kept] for row in self.rows]
        return TextTable([self.headers[index] for index in kept], rows, "".join(self.align[index] for index in kept))

    def _format(self, name: str) -> str:
        sides = ["right" if letter == "r" else "left" for letter in self.align]
        return tabulate(self.rows, self.headers, name, disable_numparse=True, colalign=sides)


def comparison_text_table(group: Sequence[ArmSummary], clean: Clean = escape) -> TextTable:
    """A row an arm of one task and budget; `clean` makes foreign text safe for where the table goes."""
    columns = (
        ("method", "l"), ("device", "l"), ("n", "r"), ("final return, mean [95 %]", "r"), ("score", "r"),
        ("solved [95 %]", "r"), ("reached", "r"), ("samples to target", "r"), ("wall s to target", "r"),
        ("CPU s to target", "r"), ("samples/s", "r"), ("peak MiB", "r"), ("status", "l"),
    )  # fmt: skip
    returns = [item.final_return for item in group if not math.isnan(item.final_return)]
    decimals = decimals_for(group[0].floor, group[0].target, returns)
    rows = [_comparison_row(item, decimals, clean) for item in group]
    return TextTable([name for name, _ in columns], rows, "".join(side for _, side in columns))


def _comparison_row(item: ArmSummary, decimals: int, clean: Clean) -> list[str]:
    label = item.arm.label if item.arm.label == item.arm.method else f"{item.arm.label} ({item.arm.method})"
    return [
        clean(label),
        clean(item.arm.device),
        str(item.n),
        f"{number(item.final_return, decimals)} {ends(item.final_interval, decimals)}".strip(),
        number(item.final_score, 2),
        share(item.solved, item.n, item.solved_interval),
        NOTHING if item.reached is None else f"{item.reached}/{item.n}",
        number(item.samples_to_target),
        number(item.wall_seconds_to_target, 1),
        number(item.cpu_seconds_to_target, 1),
        number(item.samples_per_second),
        number(item.peak_memory_mib),
        ", ".join(f"{status} {count}" for status, count in item.statuses.items()),
    ]


def comparison_frame(groups: dict[tuple[str, str], list[ArmSummary]]) -> pd.DataFrame:
    """Every number of the comparison tables, a row an arm; infinite times are runs that never got there."""
    return table_of([_comparison_numbers(item) for group in groups.values() for item in group])


def _comparison_numbers(item: ArmSummary) -> dict[str, object]:
    solved = item.solved_interval
    return {
        **arm_columns(item.arm),
        "n": item.n,
        "final_return_mean": item.final_return,
        "final_return_low": item.final_interval.low,
        "final_return_high": item.final_interval.high,
        "final_return_interval": f"95 % {item.final_interval.method}",
        "final_score_mean": item.final_score,
        "solved": item.solved,
        "solved_low": solved.low if solved else math.nan,
        "solved_high": solved.high if solved else math.nan,
        "solved_interval": f"95 % {solved.method}" if solved else "",
        "reached": item.reached,
        "samples_to_target_median": item.samples_to_target,
        "wall_seconds_to_target_median": item.wall_seconds_to_target,
        "cpu_seconds_to_target_median": item.cpu_seconds_to_target,
        "samples_per_second_mean": item.samples_per_second,
        "peak_memory_mib_max": item.peak_memory_mib,
        "ran_beside_others": item.beside_others,
        "statuses": " ".join(f"{status}={count}" for status, count in item.statuses.items()),
    }


def arm_columns(arm: Arm) -> dict[str, object]:
    """What names an arm in every CSV table."""
    return {
        "task": arm.task, "budget": arm.budget, "label": arm.label, "method": arm.method, "device": arm.device,
    }  # fmt: skip


def loss_text_table(items: Sequence[LossSummary]) -> TextTable:
    """A row a learning arm that has losses."""
    headers = [
        "task",
        "budget",
        "method",
        "device",
        "n",
        "loss at the start",
        "at the end",
        "samples until near its end",
    ]
    rows = [
        [
            *(escape(text) for text in (item.arm.task, item.arm.budget, item.arm.label, item.arm.device)),
            str(item.n) if item.known == item.n else f"{item.known}/{item.n}",
            significant(item.start),
            significant(item.end),
            number(item.samples),
        ]
        for item in items
    ]
    return TextTable(headers, rows, "llllrrrr")


def throughput_text_table(items: Sequence[ThroughputSummary], clean: Clean = escape) -> TextTable:
    """A row a throughput arm; cells that failed or ran beside others have no part in its speeds."""
    headers = [
        "task", "method", "device", "n/cells", "rounds", "samples/s, mean [95 %]", "updates/s", "rollout samples/s",
        "update samples/s", "s an iteration, median [quartiles]", "rollout share", "update share", "peak MiB", "status",
    ]  # fmt: skip
    rows = [_throughput_row(item, clean) for item in items]
    return TextTable(headers, rows, "lllrrrrrrrrrrl")


def _throughput_row(item: ThroughputSummary, clean: Clean) -> list[str]:
    low, high = (significant(end) for end in item.quartiles)
    timed = f"{significant(item.iteration_seconds)} [{low}, {high}]" if item.n else NOTHING
    statuses = [f"{status} {count}" for status, count in item.statuses.items()]
    if item.beside_others:
        statuses.append(f"beside others {item.beside_others}")
    if item.without_samples:
        statuses.append(f"no new samples {item.without_samples}")
    return [
        clean(item.arm.task),
        clean(item.arm.label),
        clean(item.arm.device),
        f"{item.n}/{item.cells}",
        str(item.rounds),
        f"{number(item.samples_per_second)} {ends(item.interval, 0)}".strip(),
        significant(item.updates_per_second),
        number(item.rollout_samples_per_second),
        number(item.update_samples_per_second),
        timed,
        _percent(item.rollout_share),
        _percent(item.update_share),
        number(item.peak_memory_mib),
        ", ".join(statuses),
    ]


def throughput_frame(items: Sequence[ThroughputSummary]) -> pd.DataFrame:
    """Every number of the throughput table, a row an arm."""
    return table_of(
        {
            **arm_columns(item.arm),
            "n": item.n,
            "cells": item.cells,
            "rounds": item.rounds,
            "samples_per_second_mean": item.samples_per_second,
            "samples_per_second_low": item.interval.low,
            "samples_per_second_high": item.interval.high,
            "samples_per_second_interval": f"95 % {item.interval.method}",
            "updates_per_second_mean": item.updates_per_second,
            "rollout_samples_per_second_mean": item.rollout_samples_per_second,
            "update_samples_per_second_mean": item.update_samples_per_second,
            "iteration_seconds_median": item.iteration_seconds,
            "iteration_seconds_quartile_1": item.quartiles[0],
            "iteration_seconds_quartile_3": item.quartiles[1],
            "rollout_share": item.rollout_share,
            "update_share": item.update_share,
            "peak_memory_mib_max": item.peak_memory_mib,
            "ran_beside_others": item.beside_others,
            "without_samples": item.without_samples,
        }
        for item in items
    )


def _percent(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{100 * value:.0f} %"


def failures_frame(collection: Collection) -> pd.DataFrame:
    """A row for each run that failed: which, how, after how many samples and why."""
    columns = ("task", "budget", "label", "method", "device", "kind", "seed", "status", "samples", "reason", "cell_id")
    rows = [
        arm_columns(arm)
        | {"kind": arm.kind, "seed": run.seed, "status": run.status, "samples": run.ledger.samples}
        | {"reason": run.reason, "cell_id": run.cell_id}
        for arm, runs in collection.arms.items()
        for run in runs
        if run.status != "ok"
    ]
    return table_of(rows, columns)


def failures_text_table(failures: pd.DataFrame) -> TextTable:
    """The failures as the report lists them."""
    names = ["task", "label", "device", "budget", "kind", "seed", "status", "samples", "reason"]
    shown = failures[names].assign(samples=failures["samples"].map(number))
    rows = [[escape(value) for value in row] for row in shown.itertuples(index=False)]
    return TextTable(["task", "method", *names[2:]], rows, "lllllrlrl")


def skipped_text_table(skipped: Sequence[RunResult]) -> TextTable:
    """Skipped cells, those that differ only by seed in one row."""
    groups: dict[tuple[Arm, str], list[int]] = {}
    for result in skipped:
        groups.setdefault((Arm.of(result), result.reason), []).append(result.seed)
    rows = [
        [escape(text) for text in (arm.task, arm.label, arm.device, arm.budget, arm.kind, runs_of(seeds), reason)]
        for (arm, reason), seeds in groups.items()
    ]
    return TextTable(["task", "method", "device", "budget", "kind", "seeds", "reason"], rows, "lllllll")


def ledger_text_table(collection: Collection) -> TextTable:
    """Every count of the ledger, as means over the learning runs of each arm."""
    rows = []
    for arm, runs in collection.of_kind("learning").items():
        means = ledger_means(runs)
        named = [escape(text) for text in (arm.task, arm.budget, arm.label, arm.device)]
        counts = [number(means[name], 2 if name.endswith("_seconds") else 0) for name in LEDGER]
        rows.append([*named, str(len(runs)), *counts])
    headers = ["task", "budget", "method", "device", "n", *(name.replace("_", " ") for name in LEDGER)]
    return TextTable(headers, rows, "llll" + "r" * (1 + len(LEDGER)))
