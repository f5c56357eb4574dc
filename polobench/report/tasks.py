"""The detail of each task: the answer, the comparison table, each arm against the best, and what failed runs change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.contrasts import Contrast, against_best
from polobench.analysis.frame import table_of
from polobench.analysis.statistics.coverage import coverage_note
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.summary import ArmSummary
from polobench.report.answers import answer, arm_name, is_smoke
from polobench.report.tables import TextTable, arm_columns, comparison_text_table
from polobench.report.text import NOTHING, decimals_for, ends, escape, number, p_value, sentence

Compared = Mapping[tuple[str, str], list[ArmSummary]]  # by task and budget, as `comparisons` gives them
HOW_TO_READ = f"""\
- Arms are ranked within one task and budget only, by the mean final return: the held-out evaluation at the end.
- A run that failed stays in every average, at the task's floor; `status` counts how the runs ended.
- [95 %] after a final return: Student's t interval of the mean over the `n` seeds; after a share of runs: Wilson's.
- `score`: 0 is the floor, 1 the target. `solved`: the final evaluation is at or above the target. `reached`: so were
  two evaluations in a row at some time; a run can reach the target and lose it again.
- Samples and seconds to target: when it was first reached, the median over all runs, with those that failed or never
  reached it counted as never; "never" means that no more than half of the runs got there.
- Seconds are of training alone, evaluation excluded. `samples/s` is the mean over the runs that ran alone. Peak memory
  is the largest of the runs; on the CPU it is the resident set of the whole process.
- Against the best: its mean less the other's, Welch's 95 % interval; p by permutation of the runs, adjusted by Holm
  over the arms of the table; detectable: the smallest difference that such a test would have found 80 times in 100 with
  this spread. The best was chosen by the same runs, so a difference looks larger than it is.
- Below {CONCLUSIVE_SEEDS} seeds nothing can be concluded. – means not known, or not defined for this task."""


def task_sections(collection: Collection, groups: Compared) -> str:
    """Every task and budget, one after the other; empty without a learning cell."""
    parts = [part for key, group in groups.items() for part in _task_section(collection, *key, group)]
    return "\n\n".join([*parts, "How to read the tables:", HOW_TO_READ]) if parts else ""


def _task_section(collection: Collection, task: str, budget: str, group: list[ArmSummary]) -> list[str]:
    parts = [f"### {escape(task)}, {escape(budget)}", answer(group), _reference(group[0])]
    parts.append(comparison_text_table(group).markdown())
    if not is_smoke(group):
        parts += [sentence(coverage_note(min(item.n for item in group))), _without_failed(collection, group)]
        contrasts = task_contrasts(collection, group)
        parts.append(_contrast_table(contrasts, group).markdown() if contrasts else "")
    return [part for part in parts if part]


def _reference(summary: ArmSummary) -> str:
    decimals = decimals_for(summary.floor, summary.target, [summary.floor])
    target = "none" if summary.target is None else number(summary.target, decimals)
    unit = f" Returns are in: {escape(summary.unit)}." if summary.unit else ""
    return f"Floor {number(summary.floor, decimals)}, target {target}.{unit}"


def _without_failed(collection: Collection, group: Sequence[ArmSummary]) -> str:
    """What would change if failed runs were dropped, which they are not."""
    changed = []
    for item in group:
        kept = [run.final_return for run in collection.arms[item.arm] if run.status == "ok"]
        if len(kept) < item.n:
            decimals = decimals_for(item.floor, item.target, [item.final_return])
            without = number(float(np.mean(kept)), decimals) if kept else "unknown"
            name = arm_name(item.arm, [other.arm for other in group])
            changed.append(f"{name} {without} instead of {number(item.final_return, decimals)} (n = {len(kept)})")
    return f"Without the runs that failed the means would be: {'; '.join(changed)}." if changed else ""


def task_contrasts(collection: Collection, group: Sequence[ArmSummary]) -> list[Contrast]:
    """Each arm of a task against its best one."""
    return against_best([(item.arm, collection.arms[item.arm]) for item in group])


def _contrast_table(contrasts: Sequence[Contrast], group: Sequence[ArmSummary]) -> TextTable:
    arms = [item.arm for item in group]
    decimals = decimals_for(group[0].floor, group[0].target, [item.compared.difference for item in contrasts])
    best = arm_name(contrasts[0].best, arms)
    headers = [f"{best} against", "difference [95 %]", "p (Holm)", "detectable at 80 %", "test refused"]
    return TextTable(headers, [_contrast_row(item, arms, decimals) for item in contrasts], "lrrrl")


def _contrast_row(item: Contrast, arms: Sequence[Arm], decimals: int) -> list[str]:
    found = item.compared
    return [
        arm_name(item.other, arms),
        f"{number(found.difference, decimals)} {ends(found.interval, decimals)}".strip(),
        p_value(item.p),
        number(found.detectable, decimals),
        escape(item.reason) or NOTHING,
    ]


def contrast_frame(collection: Collection, groups: Compared) -> pd.DataFrame:
    """Every number of the tables against the best."""
    return table_of(
        arm_columns(item.other)
        | {"best": item.best.label, "difference": item.compared.difference}
        | {"low": item.compared.interval.low, "high": item.compared.interval.high}
        | {"interval": f"95 % {item.compared.interval.method}", "p_holm": item.p}
        | {"detectable_difference": item.compared.detectable, "refused": item.reason}
        for group in groups.values()
        if not is_smoke(group)
        for item in task_contrasts(collection, group)
    )
