"""A card per task: its curves, its tables, its answers and its settings, each on a page of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from polobench.analysis.collection import Arm
from polobench.analysis.frame import flat_table
from polobench.analysis.statistics.coverage import coverage_note
from polobench.analysis.statistics.hypothesis import Contrast
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.summary import ArmSummary, is_smoke
from polobench.report.blocks import Block, Bullets, Figure, Page, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.draw.curves import draw_returns
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, counts_text, decimals_for, number, p_value, sentence, share, with_ends
from polobench.report.sections.curves import RETURNS
from polobench.report.words import against_others, arm_name, name_among, names, note

Group = Sequence[ArmSummary]  # of one task and budget, the best mean final return first


def pages(findings: Findings) -> list[Page]:
    """One per task with a learning cell."""
    return [_page(findings, task) for task in dict.fromkeys(task for task, _ in findings.comparisons)]


def tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """Every number of all cards."""
    summaries = [item for group in findings.comparisons.values() for item in group]
    contrasts = [item for found in findings.contrasts.values() for item in found]
    return {"comparison": flat_table(summaries), "against_best": flat_table(contrasts)}


def _page(findings: Findings, task: str) -> Page:
    file = findings.task_files[task]
    sections = [
        Section(findings.budgets[place], _comparison(findings, place))
        for place in findings.comparisons
        if place[0] == task
    ]
    sections.append(Section("Settings", settings_blocks(findings, task)))
    return Page(file, task, sections, [*_curves(findings, task, file), Paragraph(note("card"))])


def _curves(findings: Findings, task: str, file: str) -> list[Block]:
    """Over samples and over seconds; a part of the methods at a time where they are many."""
    parts = [part for part in findings.curves if part.task == task]
    if not parts:
        return []
    name = f"{file.rpartition('/')[2]}/returns_over"
    draw = partial(draw_returns, parts, findings.looks)
    seconds = Figure(f"{name}_seconds_1", "Held-out return over seconds", partial(draw, over_seconds=True))
    return [Figure(f"{name}_samples_1", RETURNS, draw, note("returns")), seconds]


def _comparison(findings: Findings, place: tuple[str, str]) -> list[Block]:
    group = findings.comparisons[place]
    blocks: list[Block] = [
        Paragraph(answer(group, findings.contrasts.get(place, []))),
        Paragraph(_reference(group[0])),
        *compact(comparison_table(group)),
    ]
    late = [item.arm.label for item in group if (item.solved or 0) > (item.reached or 0)]
    blocks.append(Paragraph(note("late", names=names(late)) if late else ""))
    if not is_smoke(group):
        contrasts = findings.contrasts[place]
        n = min(item.n for item in group)
        blocks += [Paragraph(sentence(coverage_note(n))), Paragraph(_without_failed(findings, group))]
        blocks += compact(_contrast_table(contrasts, group)) if contrasts else []
    return blocks


def answer(group: Group, contrasts: Sequence[Contrast[Arm]]) -> Text:
    """Which arm of one task and budget ends best, and what the tests say of the others."""
    best = group[0]
    if is_smoke(group):
        return note("smoke")
    if math.isnan(best.final_return):
        return "No run has a final return."
    if min(summary.n for summary in group) < CONCLUSIVE_SEEDS:
        return f"Fewer than {CONCLUSIVE_SEEDS} seeds of a method: nothing can be concluded."
    if len(group) == 1:
        return f"{name_among(best, group)} alone ran at this budget."
    arms = [item.arm for item in group]
    said = against_others(contrasts, lambda arm: arm_name(arm, arms))
    return [Strong(name_among(best, group)), f" has the highest mean final return, {_shown_return(best)}: {said}."]


def _decimals(item: ArmSummary, *values: float) -> int:
    return decimals_for(item.floor, item.target, values)


def _shown_return(item: ArmSummary) -> str:
    return number(item.final_return, _decimals(item, item.final_return))


def _reference(item: ArmSummary) -> str:
    decimals = _decimals(item, item.floor)
    target = "none" if item.target is None else number(item.target, decimals)
    unit = f" Returns are in: {item.unit}." if item.unit else ""
    return f"Floor {number(item.floor, decimals)}, target {target}.{unit}"


def comparison_table(group: Group) -> Table:
    """A row per arm of one task and budget."""
    decimals = _decimals(group[0], *(item.final_return for item in group if not math.isnan(item.final_return)))
    return Table.of([_comparison_row(item, decimals) for item in group], "llrrrrrrrrrl")


def terminal_table(group: Group) -> Table:
    """The same with the columns that a terminal has room for."""
    table = comparison_table(group)
    left_out = ("score", "reached", "wall s to target", "peak MiB")
    return table.only([index for index, name in enumerate(table.headers) if name not in left_out])


def _comparison_row(item: ArmSummary, decimals: int) -> dict[str, Text]:
    return {
        "method": item.arm.label if item.arm.label == item.arm.method else f"{item.arm.label} ({item.arm.method})",
        "device": item.arm.device,
        "n": str(item.n),
        "final return [95 %]": with_ends(item.final_return, item.final_interval, decimals),
        "score": number(item.final_score, 2),
        "solved [95 %]": share(item.solved, item.n, item.solved_interval),
        "reached": NOTHING if item.reached is None else f"{item.reached}/{item.n}",
        "samples to target": number(item.samples_to_target),
        "wall s to target": number(item.wall_seconds_to_target, 1),
        "CPU s to target": number(item.cpu_seconds_to_target, 1),
        "peak MiB": number(item.peak_memory_mib),
        "status": counts_text(item.statuses),
    }


def _without_failed(findings: Findings, group: Group) -> str:
    """What would change if failed runs were dropped, which they are not."""
    changed = []
    for item in group:
        kept = [run.final_return for run in findings.collection.arms[item.arm] if run.status == "ok"]
        if len(kept) < item.n:
            without = number(float(np.mean(kept)), _decimals(item, item.final_return)) if kept else "unknown"
            changed.append(f"{name_among(item, group)} {without} instead of {_shown_return(item)} (n = {len(kept)})")
    return f"Without the runs that failed the means would be: {'; '.join(changed)}." if changed else ""


def _contrast_table(contrasts: Sequence[Contrast[Arm]], group: Group) -> Table:
    arms = [item.arm for item in group]
    decimals = _decimals(group[0], *(item.compared.difference for item in contrasts))
    headers = [
        f"{arm_name(contrasts[0].best, arms)} against", "ahead by [95 %]", "so they are", "p of no gap",
        "p of a gap that matters", "detectable", "equal within, if equal", "test refused",
    ]  # fmt: skip
    rows = []
    for item in contrasts:
        found = item.compared
        ahead = with_ends(found.difference, found.interval, decimals)
        sizes = [number(size, decimals) for size in (found.detectable, found.margin)]
        tests = [item.word, p_value(item.p), p_value(item.equal_p)]
        rows.append([arm_name(item.other, arms), ahead, *tests, *sizes, item.reason or NOTHING])
    return Table(headers, rows, "lrlrrrrl")


def settings_blocks(findings: Findings, task: str) -> list[Block]:
    """The values of every method on one task, a row each."""
    rows = {
        (arm.label, ", ".join(f"{name} = {json.dumps(value, default=str)}" for name, value in settings))
        for arm, runs in findings.collection.learning.items()
        if arm.task == task
        for settings in (sorted(run.hyperparameters.items()) for run in runs)
    }
    return [Bullets([[Strong(label), f": {values}"] for label, values in sorted(rows)])]
