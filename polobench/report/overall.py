"""Methods over tasks: one number each with its interval, and the answer in a paragraph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from polobench.analysis.collection import Collection
from polobench.analysis.frame import table_of
from polobench.analysis.overall import Comparable, Overall, comparables, overall
from polobench.analysis.statistics.aggregates import Estimate
from polobench.analysis.statistics.coverage import IQM, MEAN_OF_TASKS, coverage_note
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.report.tables import TextTable
from polobench.report.text import escape, number, sentence, share

NOTE = (
    "Scores (0 = floor, 1 = target) of the final evaluations, failed runs at the floor; n runs on each task. Mean and "
    "median are over the tasks' means, the interquartile mean (IQM) over all runs: it drops the worst quarter of them, "
    "so read it beside the mean and the share solved. Gap: by how much runs miss the target. Worst quarter: the mean "
    "of each task's worst quarter of runs. [95 %]: stratified bootstrap over runs within tasks; of solved: Wilson's."
)
Groups = Sequence[tuple[Comparable, list[Overall]]]
_STATISTICS = ("mean", "iqm", "median", "optimality_gap", "tail")


def groups_of(collection: Collection) -> Groups:
    """Every comparable group with its labels, best mean first."""
    return [(group, overall(group)) for group in comparables(collection)]


def overall_answer(groups: Groups) -> str:
    """What the numbers say of each group with several methods, a sentence or two each."""
    return " ".join(_answer(group, items) for group, items in groups if len(items) > 1)


def _answer(group: Comparable, items: Sequence[Overall]) -> str:
    best, rest = items[0], items[1:]
    where = f"{group.world} ({_tasks(group)})"
    name = f"On {where}, **{escape(best.label)}** has the highest mean score, {_shown(best.mean)}, n = {best.n} seeds"
    solved = f"{best.solved} of {best.runs} runs solved"
    near = [item for item in rest if item.mean.interval.overlaps(best.mean.interval)]
    if min(item.n for item in items) < CONCLUSIVE_SEEDS:
        return f"{name} ({solved}); with fewer than {CONCLUSIVE_SEEDS} seeds nothing can be concluded."
    if near:
        listed = ", ".join(escape(item.label) for item in near)
        return f"{name} ({solved}); the intervals do not separate it from {listed}."
    return f"{name} ({solved}); its interval lies above that of every other method."


def _tasks(group: Comparable) -> str:
    return ", ".join(escape(task) for task in dict.fromkeys(task for task, _ in group.places))


def _shown(estimate: Estimate) -> str:
    if math.isnan(estimate.interval.low):
        return number(estimate.value, 2)
    return f"{number(estimate.value, 2)} [{number(estimate.interval.low, 2)}, {number(estimate.interval.high, 2)}]"


def overall_section(groups: Groups) -> str:
    """A table a group; empty without any."""
    parts = [NOTE] if groups else []
    for group, items in groups:
        places = "; ".join(escape(f"{task}, {budget}") for task, budget in group.places)
        parts += [f"**{group.world.capitalize()}**, {escape(group.device)}: {places}", _table(items).markdown()]
        parts.append(_coverage(min(item.n for item in items)))
    return "\n\n".join(part for part in parts if part)


def _coverage(n: int) -> str:
    """How often the intervals of two of the statistics held in simulations of so few runs."""
    notes = [sentence(coverage_note(n, statistic)) for statistic in (MEAN_OF_TASKS, IQM)]
    return " ".join(note for note in notes if note)


def _table(items: Sequence[Overall]) -> TextTable:
    headers = ["method", "n", "mean [95 %]", "solved [95 %]", "IQM [95 %]", "median", "gap", "worst quarter"]
    rows = [
        [
            escape(item.label),
            str(item.n),
            _shown(item.mean),
            share(item.solved, item.runs, item.solved_interval),
            *(_shown(getattr(item, name)) for name in _STATISTICS[1:]),
        ]
        for item in items
    ]
    return TextTable(headers, rows, "lrrrrrrr")


def overall_frame(groups: Groups) -> pd.DataFrame:
    """A row a label and group, with both ends of every interval."""
    return table_of(_numbers(group, item) for group, items in groups for item in items)


def _numbers(group: Comparable, item: Overall) -> dict[str, object]:
    row: dict[str, object] = {
        "world": group.world,
        "device": group.device,
        "places": "; ".join(f"{task}, {budget}" for task, budget in group.places),
        "label": item.label,
        "n": item.n,
        "runs": item.runs,
        "solved": item.solved,
        "solved_low": item.solved_interval.low,
        "solved_high": item.solved_interval.high,
    }
    for name in _STATISTICS:
        estimate: Estimate = getattr(item, name)
        row |= {f"{name}_score": estimate.value, f"{name}_low": estimate.interval.low}
        row |= {f"{name}_high": estimate.interval.high}
    return row | {"interval": f"95 % {item.mean.interval.method}"}
