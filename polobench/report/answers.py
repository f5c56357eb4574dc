"""The answer for each task, made from its numbers by template, and what to know before believing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.summary import ArmSummary
from polobench.core.result import RunResult
from polobench.report.text import Clean, decimals_for, ends, escape, number, share

SMOKE = "Smoke run: it shows that the parts work together; nothing is concluded from it."
_NAMED = 5


def arm_name(arm: Arm, among: Sequence[Arm], clean: Clean = escape) -> str:
    """The label, with the method and the device where the label alone does not tell it from the others."""
    twins = [other for other in among if other.label == arm.label]
    name = arm.label
    if len({other.method for other in twins}) > 1:
        name += f" ({arm.method})"
    if len({other.device for other in twins}) > 1:
        name += f" on {arm.device}"
    return clean(name)


def answer(group: Sequence[ArmSummary]) -> str:
    """Which arm of one task and budget ends best, with how much certainty.

    Args:
        group: best mean final return first, as `comparisons` gives it.
    """
    best = group[0]
    if is_smoke(group):
        return SMOKE
    if math.isnan(best.final_return):
        return "No run has a final return."
    arms = [summary.arm for summary in group]
    ties = [summary for summary in group if _shown_return(summary) == _shown_return(best)]
    names = [arm_name(summary.arm, arms) for summary in ties]
    first = _best(best, names[0]) if len(ties) == 1 else _shared(best, names)
    sentences = [first, _separation(ties, group[len(ties) :], arms), _above_floor(best)]
    if min(summary.n for summary in group) < CONCLUSIVE_SEEDS:
        few = [summary for summary in group if summary.n < CONCLUSIVE_SEEDS]
        who = "every arm has" if len(few) == len(group) else f"{len(few)} of {len(group)} arms {_has(len(few))}"
        sentences.append(f"**Nothing can be concluded: {who} fewer than {CONCLUSIVE_SEEDS} seeds.**")
    return " ".join(sentence for sentence in sentences if sentence)


def is_smoke(group: Sequence[ArmSummary]) -> bool:
    """Whether an arm is marked as a smoke run: what it is compared with cannot be concluded from either."""
    return any(summary.smoke for summary in group)


def _shown_return(summary: ArmSummary) -> str:
    return number(summary.final_return, decimals_for(summary.floor, summary.target, [summary.final_return]))


def _shared(best: ArmSummary, names: Sequence[str]) -> str:
    listed = f"{', '.join(f'**{name}**' for name in names[:-1])} and **{names[-1]}**"
    return f"{listed} share the highest mean final return, {_shown_return(best)}; the table has their intervals."


def _best(best: ArmSummary, name: str) -> str:
    decimals = decimals_for(best.floor, best.target, [best.final_return])
    interval = best.final_interval
    certainty = f"n = {best.n} seeds" if best.n != 1 else "n = 1 seed, so no interval"
    if not math.isnan(interval.low):
        certainty = f"95 % {interval.method} interval {ends(interval, decimals)}, {certainty}"
    text = f"**{name}** has the highest mean final return, {_shown_return(best)} ({certainty})"
    if best.solved_interval is not None:
        found = share(best.solved, best.n, best.solved_interval)
        text += f"; {found.partition(' ')[0]} of its runs solved the task (95 % {best.solved_interval.method} interval "
        text += f"{found.partition(' ')[2]}, n = {best.n})"
    return f"{text}."


def _separation(ties: Sequence[ArmSummary], others: Sequence[ArmSummary], arms: Sequence[Arm]) -> str:
    near = [item for item in others if any(item.final_interval.overlaps(best.final_interval) for best in ties)]
    if not others:
        return "No other arm was run."
    if near:
        names = ", ".join(arm_name(item.arm, arms) for item in near[:_NAMED])
        names += f" and {len(near) - _NAMED} more" if len(near) > _NAMED else ""
        return f"The intervals overlap, so {'it is' if len(ties) == 1 else 'they are'} not separated from: {names}."
    if min(item.n for item in [*ties, *others]) < CONCLUSIVE_SEEDS:
        return ""
    return f"{'Its interval lies' if len(ties) == 1 else 'Their intervals lie'} above that of every other arm."


def _above_floor(best: ArmSummary) -> str:
    if not best.final_interval.low <= best.floor:
        return ""
    return f"It is not separated from the floor ({number(best.floor, decimals_for(best.floor, best.target, []))})."


def caveats(collection: Collection, clean: Clean = escape) -> list[str]:
    """What a reader has to know about the store, a sentence each; `clean` makes foreign text safe."""
    found = [
        _counted(collection.older_code, "left out: a newer cell differs from {it} only by code or platform"),
        _counted(
            collection.older_settings,
            "left out: a newer cell has the same arm and seed, but other hyper-parameters, threads or rounds",
        ),
        _counted(len(collection.skipped), "skipped and in no average; the reasons are below"),
        _beside_others(collection),
        *_mixed_arms(collection, clean),
        *_mixed_references(collection, clean),
    ]
    if collection.damaged:
        files = "file is" if len(collection.damaged) == 1 else "files are"
        found.append(f"{len(collection.damaged)} {files} damaged and named below; the rest was read.")
    return [sentence for sentence in found if sentence]


def _counted(count: int, what: str) -> str:
    if not count:
        return ""
    return f"{count} {'cell' if count == 1 else 'cells'} {what.format(it='it' if count == 1 else 'them')}."


def _beside_others(collection: Collection) -> str:
    runs = [result for runs in collection.arms.values() for result in runs]
    beside = sum(result.ran_beside_others for result in runs)
    if not beside:
        return ""
    return (
        f"{beside} of {len(runs)} cells ran beside others on the same machine: their wall seconds are in no speed, and "
        "curves over seconds use CPU seconds where such a cell takes part."
    )


def _mixed_arms(collection: Collection, clean: Clean) -> list[str]:
    """Arms whose seeds are not the same experiment; such an interval mixes more than chance."""
    checks: tuple[tuple[str, Callable[[RunResult], str]], ...] = (
        ("code", lambda result: str(result.provenance.get("code_hash"))),
        ("hyper-parameters", lambda result: repr(sorted(result.hyperparameters.items()))),
        ("platforms", lambda result: str(result.provenance.get("platform_fingerprint"))),
    )
    found = []
    for what, value in checks:
        names = [
            f"{arm.label} on {arm.task} ({arm.device}, {arm.budget})"
            for arm, runs in collection.arms.items()
            if len({value(result) for result in runs}) > 1
        ]
        if names:
            shown = clean("; ".join(names[:_NAMED]))
            shown += f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            found.append(f"The seeds of these arms differ in {what}: {shown}.")
    return found


def _mixed_references(collection: Collection, clean: Clean) -> list[str]:
    references: dict[str, set[tuple[float, float | None]]] = {}
    for result in collection.cells:
        if not math.isnan(result.floor):
            references.setdefault(result.task, set()).add((result.floor, result.target))
    mixed = [task for task, values in references.items() if len(values) > 1]
    return [f"The cells of {clean(task)} differ in floor or target; each run is scored by its own." for task in mixed]


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
