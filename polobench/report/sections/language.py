"""What language models prefer, are like and answer, before and after training, and what was left out of their data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from polobench.analysis.frame import flat_table
from polobench.analysis.language import MeasureSummary, PreferenceSummary, known_number, snapshot
from polobench.core.result import RunResult
from polobench.report.blocks import Block, Heading, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.draw.curves import draw_accuracies, draw_policy
from polobench.report.draw.dots import draw_pairs
from polobench.report.findings import Findings
from polobench.report.formatting import NOTHING, known_of, number, plain, significant, span, with_ends
from polobench.report.sections.diagnostics import part_figures
from polobench.report.words import OfArm, name_among, note

PROMPTS_SHOWN = 8
LONGEST_ANSWER = 200
PAIR_SETS = {"heldout": "held-out", "train": "training"}


Item = TypeVar("Item", bound=OfArm)


def preference_sections(findings: Findings) -> list[Section]:
    """Accuracies and margins of every set of pairs; empty without any."""
    items = findings.preferences
    if not items:
        return []
    blocks = [*_tables(items, _accuracy_table), Paragraph(note("accuracy"))]
    parts, look = findings.spoken, findings.looks
    found = [
        *part_figures(parts, "accuracy", "Preference accuracy over samples", partial(draw_accuracies, look=look)),
        *part_figures(parts, "pairs", "Held-out pairs before and after", partial(draw_pairs, look=look)),
    ]
    blocks += [*found, Paragraph(note("preferences") if found else "")]
    return [Section("Preferences", blocks, {"preferences": flat_table(items)})]


def policy_sections(findings: Findings) -> list[Section]:
    """KL to the reference, entropy, length and whatever else was measured; empty without any."""
    items = findings.measures
    if not items:
        return []
    draw = partial(draw_policy, look=findings.looks)
    few = "" if all(item.everywhere for item in items) else note("few_prompts")
    found = part_figures(findings.spoken, "policy", "The policy over samples", draw)
    said = [Paragraph(note("measures")), Paragraph(few), *found, Paragraph(note("policy") if found else "")]
    blocks = [*_tables(items, _measure_table), *said]
    return [Section("The policy before and after", blocks, {"measures": flat_table(items)})]


def answer_sections(findings: Findings) -> list[Section]:
    """What the policies say; empty if none says anything."""
    items = findings.conversations
    if not items:
        return []
    blocks: list[Block] = [Paragraph(note("answers", prompts=PROMPTS_SHOWN, letters=LONGEST_ANSWER))]
    for heading, group in _grouped(items):
        blocks.append(heading)
        for item in group:
            ended = "" if item.run.status == "ok" else f", which ended {item.run.status}: no seed ended ok"
            blocks.append(Paragraph([Strong(name_among(item, group)), f", seed {item.run.seed}{ended}"]))
            blocks.append(_answer_table(item.run))
    return [Section("Answers before and after", blocks)]


def note_sections(findings: Findings) -> list[Section]:
    """Which rows of the data were left out, and how many."""
    rows = [
        [arm.task, arm.budget, arm.label, text, span(number(min(counts)), number(max(counts)))]
        for arm, text, counts in findings.notes
    ]
    table = Table(["task", "budget", "method", "left out", "rows"], rows, "llllr")
    return [Section("Left out of the data", [table])] if rows else []


def _grouped(items: Sequence[Item]) -> Iterator[tuple[Heading, list[Item]]]:
    """By task and budget, with a heading each."""
    for task, budget in dict.fromkeys((item.arm.task, item.arm.budget) for item in items):
        group = [item for item in items if (item.arm.task, item.arm.budget) == (task, budget)]
        yield Heading(f"{task}, {budget}"), group


def _tables(items: Sequence[Item], table: Callable[[Sequence[Item]], Table]) -> list[Block]:
    return [block for heading, group in _grouped(items) for block in (heading, *compact(table(group), 2))]


def _accuracy_table(group: Sequence[PreferenceSummary]) -> Table:
    headers = [
        "method", "pairs", "n", "unchanged", "prompts", "pairs each", "accuracy before [95 %]", "after [95 %]",
        "change [95 %]", "per token: before [95 %]", "after [95 %]", "change [95 %]",
        "margin [95 %]",
    ]  # fmt: skip
    rows = [
        [
            name_among(item, group),
            PAIR_SETS[item.pair_set],
            known_of(item.known, item.n),
            str(item.unchanged),
            number(item.prompts),
            number(item.pairs),
            *(with_ends(found.value, found.interval, 3) for found in (*item.accuracy, *item.normalised_accuracy)),
            with_ends(item.margin.value, item.margin.interval),
        ]
        for item in group
    ]
    return Table(headers, rows, "llrrrrrrrrrrr")


def _measure_table(group: Sequence[MeasureSummary]) -> Table:
    """A row per arm and measure, the arms of a measure below each other."""
    order = list(dict.fromkeys(item.name for item in group))
    rows = []
    for item in sorted(group, key=lambda item: order.index(item.name)):
        measure = " ".join("KL" if word == "kl" else word for word in item.name.split("_"))
        numbers = map(significant, (item.before, item.after, item.after - item.before))
        rows.append([measure, name_among(item, group), known_of(item.known, item.n), *numbers])
    return Table(["measure", "method", "n", "before", "after", "change"], rows, "llrrrr")


def _answer_table(run: RunResult) -> Table:
    """By the text of the prompt, should the two moments not list them alike; rewards where one is known."""
    before, after = (snapshot(run, moment).get("completions", []) for moment in ("before", "after"))
    by_prompt = {answer["prompt"]: answer for answer in after}
    rows: list[dict[str, Text]] = []
    rewards: list[tuple[float, float]] = []
    for first in before[:PROMPTS_SHOWN]:
        last = by_prompt.get(first["prompt"], {})
        texts = {"prompt": first["prompt"], "before": first["completion"], "after": last.get("completion")}
        rows.append({name: _quoted(text) for name, text in texts.items()})
        rewards.append((known_number(first.get("reward")), known_number(last.get("reward"))))
    if np.isfinite(rewards).any():
        for row, pair in zip(rows, rewards, strict=True):
            row |= dict(zip(("reward before", "reward after"), map(significant, pair), strict=True))
    return Table.of(rows, "lllrr")


def _quoted(text: str | None) -> str:
    """One line of it, cut."""
    if text is None:
        return NOTHING
    return plain(text.strip().replace("\r\n", "\n").replace("\n", " ⏎ "), LONGEST_ANSWER) or "(empty)"
