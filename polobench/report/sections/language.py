"""What language models prefer, are like and answer, before and after training, and what was left out of their data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from polobench.analysis.collection import Arm
from polobench.analysis.frame import flat_table
from polobench.analysis.preferences import PreferenceSummary
from polobench.analysis.snapshots import Conversation, MeasureSummary
from polobench.report.blocks import Block, Figure, Heading, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.draw.panels import Drawn, Panel, merged
from polobench.report.draw.policy import draw_accuracies, draw_policy
from polobench.report.draw.preference import draw_distributions, draw_shift
from polobench.report.findings import Findings
from polobench.report.naming import arm_name, term
from polobench.report.sections.curves import ARMS_A_PAGE
from polobench.report.sections.diagnostics import parts
from polobench.report.text import NOTHING, number, significant, with_ends

PROMPTS_SHOWN = 8
LONGEST_ANSWER = 200
PAIR_SETS = {"heldout": "held-out", "train": "training"}
ACCURACY_NOTE: Text = [
    "Words: ", term("preference accuracy"), ", ", term("margin"), ". [95 %]: percentile bootstrap over prompts, too "
    "narrow at few prompts. n: seeds; 4/5 means that one run knows no pairs. Unchanged: runs that failed count with "
    "what they were before.",
]  # fmt: skip
FIGURE_CAPTION = (
    "Margins and log-probabilities of held-out pairs, all seeds pooled: hollow before training, filled after. "
    "Accuracy over samples is a mean over the seeds; one half is chance."
)
POLICY_CAPTION = "Means over the seeds on the held-out prompts; a run that failed is as it began from where it ended."
MEASURE_NOTE = (
    "Means over the seeds; failed runs count with what they were before. KL and entropy are in nats per token."
)
FEW_PROMPTS = (
    "Measured on the few prompts whose answers are stored, unlike the figures, which read all held-out prompts."
)
ANSWER_NOTE = (
    "Greedy answers to held-out prompts, of the lowest seed that ended ok; for illustration only. At most "
    f"{PROMPTS_SHOWN} prompts per method, texts cut at {LONGEST_ANSWER} characters; ⏎ is a new line."
)
DIGITS = "On add-digits the digits of a sum are written in reverse: 34+85= is answered by 911."
Draw = Callable[..., Drawn | None]


def preference_sections(findings: Findings) -> list[Section]:
    """Accuracies, log-probabilities and margins of every set of pairs; empty without any."""
    items = findings.preferences
    if not items:
        return []
    blocks: list[Block] = []
    for heading, group in _grouped(items):
        blocks += [heading, *compact(_accuracy_table(group), 2), *compact(_log_prob_table(group), 2)]
    blocks.append(Paragraph(ACCURACY_NOTE))
    figures = _figures(findings, draw_accuracies, draw_shift, draw_distributions)
    blocks += [*figures, Paragraph(FIGURE_CAPTION if figures else "")]
    return [Section("Preferences", blocks, {"preferences": flat_table(items)})]


def policy_sections(findings: Findings) -> list[Section]:
    """KL to the reference, entropy, length and whatever else was measured; empty without any."""
    items = findings.measures
    if not items:
        return []
    blocks: list[Block] = []
    for heading, group in _grouped(items):
        blocks += [heading, *compact(_measure_table(group), 2)]
    blocks += [Paragraph(MEASURE_NOTE), Paragraph("" if all(item.everywhere for item in items) else FEW_PROMPTS)]
    figures = _figures(findings, draw_policy)
    blocks += [*figures, Paragraph(POLICY_CAPTION if figures else "")]
    return [Section("The policy before and after", blocks, {"measures": flat_table(items)})]


def answer_sections(findings: Findings) -> list[Section]:
    """What the policies say; empty if none says anything."""
    items = findings.conversations
    if not items:
        return []
    blocks: list[Block] = [Paragraph(ANSWER_NOTE)]
    blocks.append(Paragraph(DIGITS if any(item.arm.task == "add-digits" for item in items) else ""))
    for heading, group in _grouped(items):
        blocks.append(heading)
        for item in group:
            ended = "" if item.status == "ok" else f", which ended {item.status}: no seed ended ok"
            blocks.append(Paragraph([Strong(_name(item.arm, group)), f", seed {item.seed}{ended}"]))
            blocks.append(_answer_table(item))
    return [Section("Answers before and after", blocks)]


def note_sections(findings: Findings) -> list[Section]:
    """Which rows of the data were left out, and how many."""
    rows = [[item.arm.task, item.arm.budget, item.arm.label, item.text, _span(item)] for item in findings.notes]
    table = Table(["task", "budget", "method", "left out", "rows"], rows, "llllr")
    return [Section("Left out of the data", [table])] if rows else []


def _figures(findings: Findings, *kinds: Draw) -> list[Block]:
    """A kind of figure for all tasks before the next kind."""
    speaking: list[tuple[str, Panel]] = [
        (number, part) for number, part in parts(merged(findings.panels, ARMS_A_PAGE)) if part.speaks
    ]
    return [Figure(partial(draw, part, number, findings.looks)) for draw in kinds for number, part in speaking]


def _span(item: Any) -> str:
    least, most = number(item.least), number(item.most)
    return least if least == most else f"{least} to {most}"


def _grouped(items: Sequence[Any]) -> list[tuple[Heading, list[Any]]]:
    """By task and budget, with a heading each."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for item in items:
        groups.setdefault((item.arm.task, item.arm.budget), []).append(item)
    return [(Heading(f"{task}, {budget}"), group) for (task, budget), group in groups.items()]


def _name(arm: Arm, group: Sequence[Any]) -> str:
    return arm_name(arm, [item.arm for item in group])


def _accuracy_table(group: Sequence[PreferenceSummary]) -> Table:
    headers = [
        "method", "pairs", "n", "unchanged", "prompts", "pairs each", "accuracy before [95 %]", "after [95 %]",
        "change [95 %]", "per token: before [95 %]", "after [95 %]", "change [95 %]",
    ]  # fmt: skip
    rows = [
        [
            _name(item.arm, group),
            PAIR_SETS[item.pair_set],
            str(item.n) if item.known == item.n else f"{item.known}/{item.n}",
            str(item.unchanged),
            number(item.prompts),
            number(item.pairs),
            *(with_ends(found.value, found.interval, 3) for found in (*item.accuracy, *item.normalised_accuracy)),
        ]
        for item in group
    ]
    return Table(headers, rows, "llrrrrrrrrrr")


def _log_prob_table(group: Sequence[PreferenceSummary]) -> Table:
    headers = [
        "method", "pairs", "chosen before", "chosen after", "rejected before", "rejected after", "margin [95 %]",
    ]  # fmt: skip
    rows = [
        [
            _name(item.arm, group),
            PAIR_SETS[item.pair_set],
            *(number(value, 2) for value in (*item.chosen, *item.rejected)),
            with_ends(item.margin.value, item.margin.interval),
        ]
        for item in group
    ]
    return Table(headers, rows, "llrrrrr")


def _measure_table(group: Sequence[MeasureSummary]) -> Table:
    """A row per arm and measure, the arms of a measure below each other."""
    order = {name: place for place, name in enumerate(dict.fromkeys(item.name for item in group))}
    rows = [
        [
            " ".join("KL" if word == "kl" else word for word in item.name.split("_")),
            _name(item.arm, group),
            str(item.known) if item.known == item.n else f"{item.known}/{item.n}",
            significant(item.before),
            significant(item.after),
            significant(item.after - item.before),
        ]
        for item in sorted(group, key=lambda item: order[item.name])
    ]
    return Table(["measure", "method", "n", "before", "after", "change"], rows, "llrrrr")


def _answer_table(item: Conversation) -> Table:
    shown = item.answers[:PROMPTS_SHOWN]
    rewarded = any(math.isfinite(value) for answer in shown for value in (answer.reward_before, answer.reward_after))
    rows = []
    for answer in shown:
        rewards = [significant(answer.reward_before), significant(answer.reward_after)] if rewarded else []
        rows.append([*map(_quoted, (answer.prompt, answer.before, answer.after)), *rewards])
    headers = ["prompt", "before", "after", *(["reward before", "reward after"] if rewarded else [])]
    return Table(headers, rows, "lllrr"[: len(headers)])


def _quoted(text: str | None) -> str:
    """One line of it, cut."""
    if text is None:
        return NOTHING
    line = " ".join(text.strip().replace("\r\n", "\n").replace("\n", " ⏎ ").split())
    return (line if len(line) <= LONGEST_ANSWER else f"{line[: LONGEST_ANSWER - 1]}…") or "(empty)"
