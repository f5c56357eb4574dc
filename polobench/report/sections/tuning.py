"""How much tuning each method needs: the expected best of k random configurations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure

from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.tuning import Search, trial_frame, winner
from polobench.report.blocks import Paragraph, Section, Table, Text, compact, figures
from polobench.report.draw.lines import Chart, Line, draw_charts
from polobench.report.draw.panels import PANELS_A_PAGE
from polobench.report.draw.style import Looks, pages, short
from polobench.report.findings import Findings
from polobench.report.formatting import number, runs_of, with_ends
from polobench.report.words import note


def sections(findings: Findings) -> list[Section]:
    """Curves and a row per arm; empty without tuning trials."""
    searches = findings.searches
    if not searches:
        return []
    said = note(
        "tuning",
        trials=runs_of(len(search.trials) for search in searches),
        seeds=runs_of(run.seed for run in findings.collection.trials),
    )
    tasks = [list(group) for _, group in groupby(searches, lambda search: (search.arm.task, search.arm.budget))]
    drawn = draw, pages(tasks, PANELS_A_PAGE), findings.looks
    blocks = [
        Paragraph(said),
        *figures("best_of", "Expected best of k configurations", *drawn),
        *compact(Table.of([_row(search) for search in searches], "llrrrrrrrr"), 2),
    ]
    best = [
        flat_rows([item], task=search.arm.task, label=search.arm.label, budget=search.arm.budget)[0] | {"k": k}
        for search in searches
        for k, item in enumerate(search.best, 1)
    ]
    return [Section("Tuning", blocks, {"tuning": trial_frame(findings.trials), "best_of": table_of(best)})]


def draw(page: Sequence[Sequence[Search]], look: Looks) -> Figure:
    """A panel per task and budget."""
    charts = []
    for task in page:
        lines = []
        for search in task:
            y, low, high = np.array([(item.value, item.interval.low, item.interval.high) for item in search.best]).T
            label = search.arm.label
            lines.append(Line(short(label), look[label], np.arange(1.0, len(y) + 1), y, low, high))
        arm = task[0].arm
        title = f"{short(arm.task)} ({short(arm.budget)})"
        charts.append(Chart(title, lines, arm.task, "expected best score", "configurations tried"))
    return draw_charts(charts, 2, (6.0, 3.3))


def _row(search: Search) -> dict[str, Text]:
    best, runs = winner(search.trials), [run for trial in search.trials for run in trial.runs]
    last = search.best[-1]
    return {
        "task": search.arm.task,
        "method": search.arm.label,
        "configurations": str(len(search.trials)),
        "failed runs": f"{sum(run.status != 'ok' for run in runs)}/{len(runs)}",
        "CPU s": number(sum(run.ledger.cpu_seconds for run in runs)),
        "best of 1 [95 %]": with_ends(search.best[0].value, search.best[0].interval),
        "k": str(len(search.best)),
        "best of k [95 %]": with_ends(last.value, last.interval),
        "gain [95 %]": with_ends(search.gain.value, search.gain.interval),
        "best": number(best.score, 2),
    }
