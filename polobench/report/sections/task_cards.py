"""A card per task: its curves, its tables, its answers and its settings, each on a page of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from polobench.analysis.collection import Arm
from polobench.analysis.contrasts import Contrast
from polobench.analysis.frame import flat_table
from polobench.analysis.statistics.coverage import coverage_note
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.summary import ArmSummary, is_smoke
from polobench.report.blocks import Block, Figure, Link, Page, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.draw.panels import Drawn, Panel, merged, split
from polobench.report.draw.returns import draw_returns
from polobench.report.findings import Findings
from polobench.report.naming import arm_name, names, term
from polobench.report.sections.curves import ARMS_A_PAGE, RETURNS_CAPTION
from polobench.report.sections.settings import settings_blocks
from polobench.report.sections.welcome import SMOKE
from polobench.report.text import NOTHING, decimals_for, number, p_value, sentence, share, with_ends

DIGITS = "Digits of a sum are written in reverse, so that a carry goes to the next digit: 34+85= is answered by 911."
ON_A_TERMINAL = (
    "method",
    "device",
    "n",
    "final return [95 %]",
    "solved [95 %]",
    "samples to target",
    "CPU s to target",
    "status",
)
TASK_NOTES = {"add-digits": DIGITS}
HOW_TO_READ: Text = [
    "Words: ", term("final return"), ", ", term("score"), ", ", term("solved"), " and ", term("reached"), ", ",
    term("samples to target"), ", ", term("against the best"), ". Every number is in ",
    Link("comparison.csv", "tables/comparison.csv"), " and ", Link("against_best.csv", "tables/against_best.csv"), ".",
]  # fmt: skip


def pages(findings: Findings) -> list[Page]:
    """One per task with a learning cell."""
    found: dict[str, list[tuple[str, str]]] = {}
    for task, budget in findings.comparisons:
        found.setdefault(task, []).append((task, budget))
    return [_page(findings, task, places) for task, places in found.items()]


def tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """Every number of all cards."""
    summaries = [item for group in findings.comparisons.values() for item in group]
    contrasts = [item for found in findings.contrasts.values() for item in found]
    return {"comparison": flat_table(summaries), "against_best": flat_table(contrasts)}


def _page(findings: Findings, task: str, places: Sequence[tuple[str, str]]) -> Page:
    file = findings.task_files[task]
    intro = [Paragraph(TASK_NOTES.get(task, "")), *_curves(findings, task, file.rpartition("/")[2])]
    sections = [Section(findings.budgets[place], _comparison(findings, place)) for place in places]
    sections.append(Section("Settings", settings_blocks(findings, task)))
    return Page(file, task, [*sections], [*intro, Paragraph(HOW_TO_READ)])


def _curves(findings: Findings, task: str, folder: str) -> list[Block]:
    """Over samples and over seconds; a part of the methods at a time where they are many."""
    mine = [panel for panel in merged(findings.panels, ARMS_A_PAGE) if panel.task == task and panel.has_curves]
    parts: list[Panel] = [part for panel in mine for part in split(panel, findings.looks)]
    if not parts:
        return []

    def draw(over_seconds: bool, below: Path) -> Drawn:
        return draw_returns(parts, 1, over_seconds, findings.looks, below / folder)

    return [Figure(partial(draw, False), RETURNS_CAPTION), Figure(partial(draw, True))]


def _comparison(findings: Findings, place: tuple[str, str]) -> list[Block]:
    group = findings.comparisons[place]
    blocks: list[Block] = [Paragraph(answer(group)), Paragraph(_reference(group[0])), *compact(comparison_table(group))]
    blocks.append(Paragraph(_solved_at_the_end(group)))
    if not is_smoke(group):
        contrasts = findings.contrasts[place]
        n = min(item.n for item in group)
        blocks += [Paragraph(sentence(coverage_note(n))), Paragraph(_without_failed(findings, group))]
        blocks += compact(_contrast_table(contrasts, group)) if contrasts else []
    return blocks


def answer(group: Sequence[ArmSummary]) -> Text:
    """Which arm of one task and budget ends best; the table of contrasts says how sure that is.

    Args:
        group: best mean final return first, as `comparisons` gives it.
    """
    best = group[0]
    if is_smoke(group):
        return SMOKE
    if math.isnan(best.final_return):
        return "No run has a final return."
    arms = [summary.arm for summary in group]
    ties = [arm_name(item.arm, arms) for item in group if _shown_return(item) == _shown_return(best)]
    if min(summary.n for summary in group) < CONCLUSIVE_SEEDS:
        return f"Fewer than {CONCLUSIVE_SEEDS} seeds of a method: nothing can be concluded."
    if len(group) == 1:
        return f"{ties[0]} alone ran at this budget."
    if len(ties) == len(group):
        return f"All {len(group)} methods are tied at a mean final return of {_shown_return(best)}."
    if len(ties) > 1:
        return [Strong(names(ties)), f" share the highest mean final return, {_shown_return(best)}."]
    return [Strong(ties[0]), f" has the highest mean final return, {_shown_return(best)}.{_above_floor(best)}"]


def _shown_return(summary: ArmSummary) -> str:
    return number(summary.final_return, decimals_for(summary.floor, summary.target, [summary.final_return]))


def _above_floor(best: ArmSummary) -> str:
    if not best.final_interval.low <= best.floor:
        return ""
    return f" It is not separated from the floor ({number(best.floor, decimals_for(best.floor, best.target, []))})."


def _reference(summary: ArmSummary) -> str:
    decimals = decimals_for(summary.floor, summary.target, [summary.floor])
    target = "none" if summary.target is None else number(summary.target, decimals)
    unit = f" Returns are in: {summary.unit}." if summary.unit else ""
    return f"Floor {number(summary.floor, decimals)}, target {target}.{unit}"


def comparison_table(group: Sequence[ArmSummary]) -> Table:
    """A row per arm of one task and budget."""
    columns = (
        ("method", "l"), ("device", "l"), ("n", "r"), ("final return [95 %]", "r"), ("score", "r"),
        ("solved [95 %]", "r"), ("reached", "r"), ("samples to target", "r"), ("wall s to target", "r"),
        ("CPU s to target", "r"), ("peak MiB", "r"), ("status", "l"),
    )  # fmt: skip
    returns = [item.final_return for item in group if not math.isnan(item.final_return)]
    decimals = decimals_for(group[0].floor, group[0].target, returns)
    rows = [_comparison_row(item, decimals) for item in group]
    return Table([name for name, _ in columns], rows, "".join(side for _, side in columns))


def _comparison_row(item: ArmSummary, decimals: int) -> list[str]:
    label = item.arm.label if item.arm.label == item.arm.method else f"{item.arm.label} ({item.arm.method})"
    return [
        label,
        item.arm.device,
        str(item.n),
        with_ends(item.final_return, item.final_interval, decimals),
        number(item.final_score, 2),
        share(item.solved, item.n, item.solved_interval),
        NOTHING if item.reached is None else f"{item.reached}/{item.n}",
        number(item.samples_to_target),
        number(item.wall_seconds_to_target, 1),
        number(item.cpu_seconds_to_target, 1),
        number(item.peak_memory_mib),
        ", ".join(f"{status} {count}" for status, count in item.statuses.items()),
    ]


def _solved_at_the_end(group: Sequence[ArmSummary]) -> str:
    """Why more runs of a method may be solved than have reached the target."""
    late = [item.arm.label for item in group if (item.solved or 0) > (item.reached or 0)]
    if not late:
        return ""
    return (
        f"More runs of {names(late)} solved the task than reached the target: “solved” looks at the final evaluation "
        "alone, “reached” asks for two evaluations in a row, which those runs had no time left for."
    )


def _without_failed(findings: Findings, group: Sequence[ArmSummary]) -> str:
    """What would change if failed runs were dropped, which they are not."""
    changed = []
    for item in group:
        kept = [run.final_return for run in findings.collection.arms[item.arm] if run.status == "ok"]
        if len(kept) < item.n:
            decimals = decimals_for(item.floor, item.target, [item.final_return])
            without = number(float(np.mean(kept)), decimals) if kept else "unknown"
            name = arm_name(item.arm, [other.arm for other in group])
            changed.append(f"{name} {without} instead of {number(item.final_return, decimals)} (n = {len(kept)})")
    return f"Without the runs that failed the means would be: {'; '.join(changed)}." if changed else ""


def _contrast_table(contrasts: Sequence[Contrast[Arm]], group: Sequence[ArmSummary]) -> Table:
    arms = [item.arm for item in group]
    decimals = decimals_for(group[0].floor, group[0].target, [item.compared.difference for item in contrasts])
    headers = [
        f"{arm_name(contrasts[0].best, arms)} against", "ahead by [95 %]", "p (Holm)", "detectable", "test refused",
    ]  # fmt: skip
    return Table(headers, [_contrast_row(item, arms, decimals) for item in contrasts], "lrrrl")


def _contrast_row(item: Contrast[Arm], arms: Sequence[Arm], decimals: int) -> list[str]:
    found = item.compared
    return [
        arm_name(item.other, arms),
        with_ends(found.difference, found.interval, decimals),
        p_value(item.p),
        number(found.detectable, decimals),
        item.reason or NOTHING,
    ]
