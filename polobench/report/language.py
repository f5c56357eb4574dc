"""The sections on language models: what they prefer, are like and answer, before and after training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.frame import table_of
from polobench.analysis.preferences import Estimate, PreferenceSummary, preferences
from polobench.analysis.snapshots import Conversation, MeasureSummary, conversations, measures, notes
from polobench.report.answers import arm_name
from polobench.report.tables import TextTable, arm_columns
from polobench.report.text import NOTHING, ends, escape, number, significant

PROMPTS_SHOWN = 8
LONGEST_ANSWER = 200
PAIR_SETS = {"heldout": "held-out", "train": "training"}
ACCURACY_NOTE = """\
- A pair counts 1 where the policy finds the chosen response more likely than the rejected one, one half where both are
  as likely, else 0: by the summed log-probability, and by the log-probability a token, which a long response does not
  lower.
- [95 %]: percentile bootstrap over prompts, 10,000 resamples (all of them, where the prompts are 5 or fewer): each pair
  is averaged over the seeds first, and the pairs of a prompt are drawn together. It tells how the numbers depend on the
  prompts that were asked, not on the seed, and is too narrow at few prompts. The change is of the same pairs.
- `n`: seeds; `4/5` means that one run knows no pairs. `as before`: runs that failed, or whose numbers are not finite
  after training, and count as unchanged."""
LOG_PROB_NOTE = (
    "Log-probabilities are means over pairs and seeds, of whole responses in nats. Margin: how much more the chosen "
    "response gained than the rejected one, the implicit reward margin of DPO without its factor beta."
)
FIGURE_NOTE = (
    "Accuracy over samples: mean over the seeds, bands as in the learning curves; a run that failed is as it began "
    "from where it ended; one half is marked. The other figures show the held-out pairs of the runs that have numbers "
    "before and after, all seeds pooled, each panel on a scale of its own; values far out lie on its edge. Above the "
    "line a response became more likely. Spreads are Gaussian kernel estimates by Silverman's rule."
)
MEASURE_NOTE = (
    "Means over the seeds; a run that failed counts with what it was before training. KL and entropy are in nats a "
    "token. `n`: runs that know the number."
)
POLICY_CAPTION = (
    "Held-out evaluations: mean over the seeds, bands as in the learning curves; a run that failed is as it began from "
    "where it ended. Margins are of the held-out pairs."
)
ANSWER_NOTE = (
    "Greedy answers to held-out prompts that are the same before and after, of the lowest seed that ended ok: an "
    f"example, no sample. At most {PROMPTS_SHOWN} prompts a method, texts cut at {LONGEST_ANSWER} characters, ⏎ for a "
    "new line."
)
LOSS_CAPTION = (
    "How the losses are spread: the updates of all seeds, those of failed runs too; of many updates the means of at "
    "most 500 stretches. Values far out are in the outermost bins."
)


def preference_section(collection: Collection) -> str:
    """Accuracies, log-probabilities and margins of every set of pairs; empty without any."""
    items = preferences(collection)
    if not items:
        return ""
    parts = []
    for heading, group in _grouped(items, lambda item: item.arm):
        parts += [heading, _accuracy_table(group).markdown(), _log_prob_table(group).markdown()]
    return "\n\n".join([*parts, ACCURACY_NOTE, LOG_PROB_NOTE])


def policy_section(collection: Collection) -> str:
    """KL to the reference, entropy, length and whatever else was measured; empty without any."""
    items = measures(collection)
    if not items:
        return ""
    parts = []
    for heading, group in _grouped(items, lambda item: item.arm):
        parts += [heading, _measure_table(group).markdown()]
    return "\n\n".join([*parts, MEASURE_NOTE])


def answer_section(collection: Collection) -> str:
    """What the policies say; empty if none says anything."""
    items = conversations(collection)
    if not items:
        return ""
    parts = [ANSWER_NOTE]
    for heading, group in _grouped(items, lambda item: item.arm):
        parts.append(heading)
        for item in group:
            ended = "" if item.status == "ok" else f", which ended {escape(item.status)}: no seed ended ok"
            parts.append(f"**{_name(item.arm, group)}**, seed {item.seed}{ended}")
            parts.append(_answer_table(item).markdown())
    return "\n\n".join(parts)


def note_section(collection: Collection) -> str:
    """Which rows of the data were left out, and how many."""
    items = notes(collection)
    rows = [
        [*(escape(text) for text in (item.arm.task, item.arm.budget, item.arm.label, item.text)), _span(item)]
        for item in items
    ]
    return TextTable(["task", "budget", "method", "left out", "rows"], rows, "llllr").markdown() if rows else ""


def _span(item: Any) -> str:
    least, most = number(item.least), number(item.most)
    return least if least == most else f"{least} to {most}"


def _grouped(items: Sequence[Any], arm: Callable[[Any], Arm]) -> list[tuple[str, list[Any]]]:
    """By task and budget, with a heading each."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for item in items:
        groups.setdefault((arm(item).task, arm(item).budget), []).append(item)
    return [(f"### {escape(task)}, {escape(budget)}", group) for (task, budget), group in groups.items()]


def _name(arm: Arm, group: Sequence[Any]) -> str:
    return arm_name(arm, [item.arm for item in group])


def _accuracy_table(group: Sequence[PreferenceSummary]) -> TextTable:
    headers = [
        "method", "pairs", "n", "as before", "prompts", "pairs each", "accuracy before [95 %]", "after [95 %]",
        "change [95 %]", "by token before [95 %]", "after [95 %]", "change [95 %]",
    ]  # fmt: skip
    rows = [
        [
            _name(item.arm, group),
            PAIR_SETS[item.pair_set],
            str(item.n) if item.known == item.n else f"{item.known}/{item.n}",
            str(item.unchanged),
            number(item.prompts),
            number(item.pairs),
            *(_estimate(found, 3) for found in (*item.accuracy, *item.normalised_accuracy)),
        ]
        for item in group
    ]
    return TextTable(headers, rows, "llrrrrrrrrrr")


def _log_prob_table(group: Sequence[PreferenceSummary]) -> TextTable:
    headers = [
        "method", "pairs", "chosen before", "chosen after", "rejected before", "rejected after", "margin [95 %]",
    ]  # fmt: skip
    rows = [
        [
            _name(item.arm, group),
            PAIR_SETS[item.pair_set],
            *(number(value, 2) for value in (*item.chosen, *item.rejected)),
            _estimate(item.margin, 2),
        ]
        for item in group
    ]
    return TextTable(headers, rows, "llrrrrr")


def _estimate(found: Estimate, decimals: int) -> str:
    return f"{number(found.mean, decimals)} {ends(found.interval, decimals)}".strip()


def _measure_table(group: Sequence[MeasureSummary]) -> TextTable:
    """A row an arm and a measure, the arms of a measure below each other."""
    order = {name: place for place, name in enumerate(dict.fromkeys(item.name for item in group))}
    rows = [
        [
            escape(" ".join("KL" if word == "kl" else word for word in item.name.split("_"))),
            _name(item.arm, group),
            str(item.known) if item.known == item.n else f"{item.known}/{item.n}",
            significant(item.before),
            significant(item.after),
            significant(item.after - item.before),
        ]
        for item in sorted(group, key=lambda item: order[item.name])
    ]
    return TextTable(["measure", "method", "n", "before", "after", "change"], rows, "llrrrr")


def _answer_table(item: Conversation) -> TextTable:
    shown = item.answers[:PROMPTS_SHOWN]
    rewarded = any(math.isfinite(value) for answer in shown for value in (answer.reward_before, answer.reward_after))
    rows = []
    for answer in shown:
        rewards = [significant(answer.reward_before), significant(answer.reward_after)] if rewarded else []
        rows.append([*map(_quoted, (answer.prompt, answer.before, answer.after)), *rewards])
    headers = ["prompt", "before", "after", *(["reward before", "reward after"] if rewarded else [])]
    return TextTable(headers, rows, "lllrr"[: len(headers)])


def _quoted(text: str | None) -> str:
    """One line of it, cut before it is escaped, so that no entity is cut in two."""
    if text is None:
        return NOTHING
    line = " ".join(text.strip().replace("\r\n", "\n").replace("\n", " ⏎ ").split())
    return escape(line if len(line) <= LONGEST_ANSWER else f"{line[: LONGEST_ANSWER - 1]}…") or "*empty*"


def preference_frame(collection: Collection) -> pd.DataFrame:
    """Every number of the preference tables, a row an arm and set of pairs."""
    return table_of([_preference_numbers(item) for item in preferences(collection)])


def _preference_numbers(item: PreferenceSummary) -> dict[str, object]:
    row: dict[str, object] = arm_columns(item.arm) | {"pair_set": item.pair_set, "n": item.n, "known": item.known}
    row |= {"as_before": item.unchanged, "prompts": item.prompts, "pairs": item.pairs}
    named = {f"accuracy_{when}": found for when, found in zip(("before", "after", "change"), item.accuracy)}
    named |= {
        f"normalised_accuracy_{when}": found
        for when, found in zip(("before", "after", "change"), item.normalised_accuracy)
    }
    for name, found in (named | {"margin": item.margin}).items():
        row |= {f"{name}_mean": found.mean, f"{name}_low": found.interval.low, f"{name}_high": found.interval.high}
    for name, moments in (("chosen", item.chosen), ("rejected", item.rejected)):
        row |= {f"{name}_log_prob_before": moments[0], f"{name}_log_prob_after": moments[1]}
    return row | {"interval": f"95 % {item.margin.interval.method}"}


def measure_frame(collection: Collection) -> pd.DataFrame:
    """Every number of the tables of measures, a row an arm and measure."""
    return table_of(
        arm_columns(item.arm)
        | {"measure": item.name, "n": item.n, "known": item.known, "before": item.before, "after": item.after}
        for item in measures(collection)
    )
