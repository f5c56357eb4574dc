"""The report of a store: report.md with its figures and tables. The same store gives the same bytes of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from polobench.analysis.claims import Claims
from polobench.analysis.collection import Collection, OnProgress, collect
from polobench.analysis.frame import frame
from polobench.analysis.summary import comparisons, losses, throughputs
from polobench.core.errors import UsageError
from polobench.report import article, language
from polobench.report.answers import SMOKE, caveats, is_smoke
from polobench.report.arrivals import TIME_CAPTION, arrival_frame, arrival_table
from polobench.report.draw.aggregate import IMPROVEMENT_CAPTION, PROFILE_CAPTION
from polobench.report.draw.cost import COST_CAPTION
from polobench.report.draw.figures import draw_all
from polobench.report.draw.panels import Drawn
from polobench.report.findings import Findings
from polobench.report.gradient_noise import NOISE_CAPTION, noise_frame, noise_section
from polobench.report.origins import (
    hyperparameter_tables,
    provenance_table,
    reproduce_section,
    what_was_run,
)
from polobench.report.overall import Groups, overall_answer, overall_frame, overall_section
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
from polobench.report.tasks import contrast_frame, task_sections
from polobench.report.text import escape, plain
from polobench.report.trend import TREND_CAPTION, draw_trend, trend_section
from polobench.report.tuning import tuning_frame, tuning_section
from polobench.report.verdicts import (
    TABLE_NOTE,
    Verdicts,
    article_table,
    claim_frame,
    claims_section,
    pair_frame,
    summary_sentence,
    word_frame,
)

RETURN_CAPTION = (
    "Lines: mean over all seeds; bands: 95 % percentile bootstrap of that mean, n seeds as in the table. Runs are "
    "interpolated linearly between their evaluations; one that failed is at the floor from where it ended. Over "
    "seconds a line ends at the median end of its runs; panels say whether these are wall or CPU seconds."
)
UPDATE_CAPTION = (
    "A thin line a run, or a band of nine in ten where they are many; a thick line the median; band and median while "
    "at least half of the runs are going; a cross where a run failed. Losses of different methods measure different "
    "things and are not to be compared. KL is of one update and shares its scale; an update whose KL is exactly 0 "
    "has no place on a logarithmic scale. Panels without such numbers are left out."
)
LOSS_NOTE = (
    "The smoothed loss: means at its start and end over the n runs, failed ones included. Near its end: the samples "
    "after which it stays within 10 % of its range of its end, the median over the runs, one without losses counted "
    "as never. An arm whose loss never moves is left out."
)


def write_report(
    store: Collection | Path | str,
    folder: Path | str,
    on_progress: OnProgress | None = None,
    claims: Claims | None = None,
    history: pd.DataFrame | None = None,
) -> Path:
    """Write report.md, figures/*.png and tables/*.csv.

    Args:
        store: the folder of a store, or what `collect` made of it.
        folder: where the report goes; made if it is not there.
        on_progress: hears `("reading" or "drawing", done, total)`.
        claims: that get a verdict; by default the source article's.
        history: whose trend the report shows, as `polobench.gate.history.history_table` gives it.

    Returns:
        The path of report.md.

    Raises:
        UsageError: there is no such store, or the folder cannot be written to.
    """
    folder = Path(folder)
    collection = store if isinstance(store, Collection) else collect(store, on_progress)
    findings = Findings.of(collection, claims)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = draw_all(collection, folder / "figures", on_progress)
        if history is not None:
            drawn += draw_trend(history, collection.labels, folder / "figures")
        _write_tables(collection, findings, folder / "tables")
        path = folder / "report.md"
        path.write_text(markdown(collection, drawn, findings, history), encoding="utf-8", newline="\n")
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
    notes.append("[95 %]: Student's t interval of the mean return, Wilson's interval of the share; n seeds.")
    return "\n\n".join([*(parts or ["No learning cell has run."]), "\n".join(notes)]) + "\n"


def markdown(
    collection: Collection,
    drawn: Sequence[Drawn],
    findings: Findings | None = None,
    history: pd.DataFrame | None = None,
) -> str:
    """The text of the report, figures linked under figures/: a first page, then figures, then details."""
    findings = findings or Findings.of(collection)
    groups, verdicts = findings.groups, findings.verdicts
    sections = (
        ("", what_was_run(collection)),
        ("The answer", _answer(groups, verdicts)),
        ("Method comparison", _method_comparison(groups, verdicts)),
        ("Before you read on", "\n".join(f"- {note}" for note in caveats(collection))),
        *_figure_sections(collection, drawn, findings),
        (
            "Trend over commits",
            "" if history is None else trend_section(history, _figures(drawn, "trend", TREND_CAPTION)),
        ),
        *_language(collection, drawn),
        ("Task by task", task_sections(collection, findings.comparisons)),
        ("The article's claims one by one", claims_section(verdicts) if verdicts.is_about_something else ""),
        ("The article", article.article_section(collection, _figures(drawn, "article", article.FIGURE_CAPTION))),
        *_details(collection),
    )
    text = [f"# Report on {escape(collection.name)}"]
    for title, body in sections:
        if body:
            text += [f"## {title}", body] if title else [body]
    return "\n\n".join(text) + "\n"


def _answer(groups: Groups, verdicts: Verdicts) -> str:
    parts = [overall_answer(groups), summary_sentence(verdicts) if verdicts.is_about_something else ""]
    return " ".join(part for part in parts if part)


def _method_comparison(groups: Groups, verdicts: Verdicts) -> str:
    """The article's table beside ours, then the scores over tasks."""
    table = [article_table(verdicts), TABLE_NOTE] if verdicts.has_words else []
    return "\n\n".join([*table, *filter(None, [overall_section(groups)])])


def _figure_sections(collection: Collection, drawn: Sequence[Drawn], findings: Findings) -> tuple[tuple[str, str], ...]:
    return (
        ("Learning curves", _figures(drawn, "returns", RETURN_CAPTION)),
        ("Performance profiles", _figures(drawn, "profiles", PROFILE_CAPTION)),
        ("Probability of improvement", _figures(drawn, "improvement", IMPROVEMENT_CAPTION)),
        ("Time to target", _arrivals(drawn, findings)),
        ("Loss and KL", _updates(collection, drawn)),
        ("Cost against score", _figures(drawn, "cost", COST_CAPTION)),
        ("Throughput", _throughput(collection, drawn)),
        ("Gradient noise", noise_section(collection, _figures(drawn, "noise", NOISE_CAPTION))),
    )


def _details(collection: Collection) -> tuple[tuple[str, str], ...]:
    damaged = [f"- {escape(item.path.name)}: {escape(item.reason)}" for item in collection.damaged]
    return (
        ("Runs that failed", _failures(collection)),
        ("Cells that were skipped", skipped_text_table(collection.skipped).markdown() if collection.skipped else ""),
        ("Damaged files", "\n".join(damaged)),
        ("What was spent", _spent(collection)),
        ("Hyper-parameters", _hyperparameters(collection)),
        ("What tuning cost", tuning_section(collection)),
        ("Provenance", provenance_table(collection).markdown() if collection.arms else ""),
        ("Reproduce", reproduce_section(collection)),
    )


def _figures(drawn: Sequence[Drawn], section: str, caption: str) -> str:
    links = [f"![{escape(item.subject)}](figures/{item.path.name})" for item in drawn if item.section == section]
    return "\n\n".join([*links, caption]) if links else ""


def _arrivals(drawn: Sequence[Drawn], findings: Findings) -> str:
    figures = _figures(drawn, "time_to_target", TIME_CAPTION)
    return "\n\n".join(part for part in (figures, arrival_table(findings.arrivals)) if part)


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
        "[95 %] Student's t intervals over these cells, which say little of two or three; seconds and shares are "
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


def _write_tables(collection: Collection, findings: Findings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {
        "cells": frame(collection),
        "comparison": comparison_frame(findings.comparisons),
        "against_best": contrast_frame(collection, findings.comparisons),
        "overall": overall_frame(findings.groups),
        "time_to_target": arrival_frame(findings.arrivals),
        "throughput": throughput_frame(throughputs(collection)),
        "gradient_noise": noise_frame(collection),
        "failures": failures_frame(collection),
        "preferences": language.preference_frame(collection),
        "measures": language.measure_frame(collection),
        "article": article.article_frame(collection),
        "tuning": tuning_frame(collection),
    }
    verdicts = findings.verdicts
    if verdicts.is_about_something:
        tables |= {"verdicts": word_frame(verdicts), "pairs": pair_frame(verdicts), "claims": claim_frame(verdicts)}
    for name, table in tables.items():
        if not table.empty:
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", errors="replace")
