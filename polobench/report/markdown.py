"""The report of a store: report.md with its figures and tables. The same store gives the same bytes of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from polobench.analysis.collection import Collection, OnProgress, collect
from polobench.analysis.frame import frame
from polobench.analysis.statistics import CONCLUSIVE_SEEDS
from polobench.analysis.summary import ArmSummary, comparisons, losses, throughputs
from polobench.core.checks import KINDS
from polobench.core.errors import UsageError
from polobench.report import article, language
from polobench.report.answers import SMOKE, answer, caveats, is_smoke
from polobench.report.figures import draw_all
from polobench.report.gradient_noise import NOISE_CAPTION, noise_frame, noise_section
from polobench.report.origins import (
    commit_text,
    hyperparameter_tables,
    is_word,
    provenance_table,
    pytest_commands,
    span,
    studies,
)
from polobench.report.panels import Drawn
from polobench.report.tables import (
    comparison_frame,
    comparison_text_table,
    failures_frame,
    failures_text_table,
    ledger_text_table,
    loss_text_table,
    skipped_text_table,
    throughput_frame,
    throughput_text_table,
)
from polobench.report.text import decimals_for, escape, number, plain, runs_of
from polobench.report.tuning import tuning_frame, tuning_section

HOW_TO_READ = f"""\
- Arms are ranked within one task and budget only, by the mean final return: the held-out evaluation at the end.
- A run that failed stays in every average, at the task's floor; `status` counts how the runs ended.
- [95 %] after a final return: percentile bootstrap of the mean over the `n` seeds. It is too narrow at few seeds (at
  n = 5 it holds the mean of normal data about 85 times in 100). After a share of runs: Wilson's interval, same `n`.
- `score`: 0 is the floor, 1 the target. `solved`: the final evaluation is at or above the target. `reached`: so were
  two evaluations in a row at some time; a run can reach the target and lose it again.
- Samples and seconds to target: when it was first reached, the median over all runs, with those that failed or never
  reached it counted as never; "never" means that no more than half of the runs got there.
- Seconds are of training alone, evaluation excluded. `samples/s` is the mean over the runs that ran alone. Peak memory
  is the largest of the runs; on the CPU it is the resident set of the whole process.
- Below {CONCLUSIVE_SEEDS} seeds nothing can be concluded. – means not known, or not defined for this task."""
RETURN_CAPTION = (
    "Lines: mean over all seeds; bands: 95 % percentile bootstrap of that mean, n seeds as in the table. Runs are "
    "interpolated linearly between their evaluations; one that failed is at the floor from where it ended. Over "
    "seconds a line ends at the median end of its runs; panels say whether these are wall or CPU seconds."
)
UPDATE_CAPTION = (
    "A thin line a run, a thick one the median while at least half are going, a cross where a run failed. Losses of "
    "different methods measure different things and are not to be compared. KL is of one update and shares its scale; "
    "an update whose KL is exactly 0 has no place on a logarithmic scale. Panels without such numbers are left out."
)
LOSS_NOTE = (
    "The smoothed loss: means at its start and end over the n runs, failed ones included. Near its end: the samples "
    "after which it stays within 10 % of its range of its end, the median over the runs, one without losses counted "
    "as never. An arm whose loss never moves is left out."
)


def write_report(store: Collection | Path | str, folder: Path | str, on_progress: OnProgress | None = None) -> Path:
    """Write report.md, figures/*.png and tables/*.csv.

    Args:
        store: the folder of a store, or what `collect` made of it.
        folder: where the report goes; made if it is not there.
        on_progress: hears `("reading" or "drawing", done, total)`.

    Returns:
        The path of report.md.

    Raises:
        UsageError: there is no such store, or the folder cannot be written to.
    """
    folder = Path(folder)
    collection = store if isinstance(store, Collection) else collect(store, on_progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = draw_all(collection, folder / "figures", on_progress)
        _write_tables(collection, folder / "tables")
        path = folder / "report.md"
        path.write_text(markdown(collection, drawn), encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"report folder {str(folder)!r} cannot be written to: {error.strerror}") from error
    return path


def comparison_text(store: Collection | Path | str) -> str:
    """The comparison table of each task as plain text for a terminal, with what to know about the store.

    Raises:
        UsageError: there is no such store.
    """
    collection = store if isinstance(store, Collection) else collect(store)
    parts = []
    for (task, budget), group in comparisons(collection).items():
        table = comparison_text_table(group, clean=plain).without("score", "reached", "peak MiB")
        parts.append(f"{plain(task)}, {plain(budget)}\n\n{table.terminal()}")
        parts += [SMOKE] if is_smoke(group) else []
    notes = [f"- {plain(note)}" for note in caveats(collection, clean=plain)]
    notes += [f"- damaged file {plain(item.path.name)}: {plain(item.reason)}" for item in collection.damaged]
    notes.append("[95 %]: percentile bootstrap of the mean return, Wilson's interval of the share; n seeds.")
    return "\n\n".join([*(parts or ["No learning cell has run."]), "\n".join(notes)]) + "\n"


def markdown(collection: Collection, drawn: Sequence[Drawn]) -> str:
    """The text of the report; figures are linked under figures/."""
    sections = (
        ("", _what_was_run(collection)),
        ("Before you read on", "\n".join(f"- {note}" for note in caveats(collection))),
        ("Results", _results(comparisons(collection))),
        ("The article", article.article_section(collection, _figures(drawn, "article", article.FIGURE_CAPTION))),
        ("Learning curves", _figures(drawn, "returns", RETURN_CAPTION)),
        ("Loss and KL", _updates(collection, drawn)),
        *_language(collection, drawn),
        ("Gradient noise", noise_section(collection, _figures(drawn, "noise", NOISE_CAPTION))),
        ("Throughput", _throughput(collection, drawn)),
        ("Runs that failed", _failures(collection)),
        ("Cells that were skipped", skipped_text_table(collection.skipped).markdown() if collection.skipped else ""),
        (
            "Damaged files",
            "\n".join(f"- {escape(item.path.name)}: {escape(item.reason)}" for item in collection.damaged),
        ),
        ("What was spent", _spent(collection)),
        ("Hyper-parameters", _hyperparameters(collection)),
        ("What tuning cost", tuning_section(collection)),
        ("Provenance", provenance_table(collection).markdown() if collection.arms else ""),
        ("Reproduce", _reproduce(collection)),
    )
    text = [f"# Report on {escape(collection.name)}"]
    for title, body in sections:
        if body:
            text += [f"## {title}", body] if title else [body]
    return "\n\n".join(text) + "\n"


def _what_was_run(collection: Collection) -> str:
    cells = [result for result in collection.cells if result.status != "skipped"]
    if not cells:
        return "The store holds no cell that ran."
    kinds = {kind: sum(result.kind == kind for result in cells) for kind in KINDS}
    origins = [result.provenance for result in cells]
    versions = [found for item in origins if isinstance(found := item.get("versions"), dict)]
    facts = {
        "Study": _listed(studies(collection)),
        "Cells": ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in kinds.items() if count),
        "Tasks": _listed(result.task for result in cells),
        "Methods": _listed(result.label for result in cells),
        "Seeds": runs_of([result.seed for result in cells]),
        "Budget": _listed((arm.budget for arm in collection.of_kind("learning")), separator="; "),
        "Devices": _listed(str(item.get("device_name") or "unknown") for item in origins),
        "Processor": _listed(str(item.get("cpu_model") or "unknown") for item in origins),
        "Started": f"{span(result.started_at for result in cells)} (UTC)",
        "Commit": _listed(commit_text(item) for item in origins),
        "Versions": _listed(f"{name} {value}" for found in versions for name, value in found.items()),
    }
    return "\n".join(f"- {name}: {text}" for name, text in facts.items() if text)


def _listed(items: Iterable[str], separator: str = ", ") -> str:
    return separator.join(escape(item) for item in sorted(set(items)))


def _results(groups: dict[tuple[str, str], list[ArmSummary]]) -> str:
    if not groups:
        return ""
    parts = []
    for (task, budget), group in groups.items():
        parts += [f"### {escape(task)}, {escape(budget)}", answer(group), _reference(group[0])]
        parts.append(comparison_text_table(group).markdown())
    return "\n\n".join([*parts, "How to read the tables:", HOW_TO_READ])


def _reference(summary: ArmSummary) -> str:
    decimals = decimals_for(summary.floor, summary.target, [summary.floor])
    target = "none" if summary.target is None else number(summary.target, decimals)
    unit = f" Returns are in: {escape(summary.unit)}." if summary.unit else ""
    return f"Floor {number(summary.floor, decimals)}, target {target}.{unit}"


def _figures(drawn: Sequence[Drawn], section: str, caption: str) -> str:
    links = [f"![{escape(item.subject)}](figures/{item.path.name})" for item in drawn if item.section == section]
    return "\n\n".join([*links, caption]) if links else ""


def _updates(collection: Collection, drawn: Sequence[Drawn]) -> str:
    items, figures = losses(collection), _figures(drawn, "updates", UPDATE_CAPTION)
    spread = _figures(drawn, "losses", language.LOSS_CAPTION)
    table = f"{LOSS_NOTE}\n\n{loss_text_table(items).markdown()}" if items else ""
    return "\n\n".join(part for part in (figures, spread, table) if part)


def _language(collection: Collection, drawn: Sequence[Drawn]) -> tuple[tuple[str, str], ...]:
    """What there is to say of language models; every section is empty for control."""
    prefers = (language.preference_section(collection), _figures(drawn, "preferences", language.FIGURE_NOTE))
    is_like = (language.policy_section(collection), _figures(drawn, "policy", language.POLICY_CAPTION))
    return (
        ("Preferences", "\n\n".join(part for part in prefers if part)),
        ("The policy before and after", "\n\n".join(part for part in is_like if part)),
        ("Answers before and after", language.answer_section(collection)),
        ("Left out of the data", language.note_section(collection)),
    )


def _throughput(collection: Collection, drawn: Sequence[Drawn]) -> str:
    items = throughputs(collection)
    if not items:
        return ""
    caption = (
        "An iteration is a rollout and its update. Speeds are means over the n cells that ended ok and ran alone, "
        "[95 %] a percentile bootstrap over these cells, which says little of two or three; seconds and shares are "
        "over all their timed rounds."
    )
    table = throughput_text_table(items).markdown()
    return "\n\n".join(part for part in (table, _figures(drawn, "throughput", caption) or caption) if part)


def _failures(collection: Collection) -> str:
    failures = failures_frame(collection)
    if failures.empty:
        return ""
    note = "Each of the learning runs among them counts with its task's floor in every average."
    return f"{note}\n\n{failures_text_table(failures).markdown()}"


def _spent(collection: Collection) -> str:
    table = ledger_text_table(collection)
    if not table.rows:
        return ""
    note = "Means over the runs of each arm, failed ones included; wall seconds over those that ran alone."
    return f"{note}\n\n{table.markdown()}"


def _hyperparameters(collection: Collection) -> str:
    parts = []
    for method, (shared, table) in hyperparameter_tables(collection).items():
        parts.append(f"**{escape(method)}**: {shared or 'none in common'}.")
        if table:
            parts.append(table.markdown())
    return "\n\n".join(parts)


def _reproduce(collection: Collection) -> str:
    if not collection.arms:
        return ""
    commands, left_out = pytest_commands(collection)
    store = collection.name if is_word(collection.name) else "STORE"
    study = _study_word(collection)
    lines = [f"polobench run {study} --store {store}", f"polobench report {store}", *commands]
    fence = "`" * 3
    text = [
        f"`{store}` stands for the path of this store, `{study}` for the study that filled it. The lines of pytest, if "
        "any, run the same cells with default and tuned hyper-parameters; where a study set others, use the study.",
        "\n".join([f"{fence}sh", *lines, fence]),
    ]
    if left_out:
        arms = (
            "1 arm is a variant or has a name"
            if len(left_out) == 1
            else f"{len(left_out)} arms are variants or have names"
        )
        text.append(f"{arms} that `pytest benchmarks` cannot be given; use the study.")
    return "\n\n".join(text)


def _study_word(collection: Collection) -> str:
    names = studies(collection)
    return names[0] if len(names) == 1 and is_word(names[0]) else "STUDY"


def _write_tables(collection: Collection, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {
        "cells": frame(collection),
        "comparison": comparison_frame(comparisons(collection)),
        "throughput": throughput_frame(throughputs(collection)),
        "gradient_noise": noise_frame(collection),
        "failures": failures_frame(collection),
        "preferences": language.preference_frame(collection),
        "measures": language.measure_frame(collection),
        "article": article.article_frame(collection),
        "tuning": tuning_frame(collection),
    }
    for name, table in tables.items():
        if not table.empty:
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", errors="replace")
