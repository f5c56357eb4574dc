"""The methods of each world by final score, with what they cost."""

from __future__ import annotations

from functools import partial
from itertools import groupby

from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.overall import Comparable, Overall, Standing, Standings, horizons
from polobench.analysis.statistics.hypothesis import CEILING, OPEN, SEPARATED
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.summary import is_smoke
from polobench.report.blocks import (
    Block,
    Bullets,
    Figure,
    Heading,
    Link,
    Paragraph,
    Section,
    Strong,
    Table,
    Text,
    compact,
)
from polobench.report.draw.dots import draw_passes
from polobench.report.findings import Findings
from polobench.report.formatting import listed, number, p_text, sentence, share, significant, with_ends
from polobench.report.words import note, place_names, term

MOST_GROUPS = 4
MOST_ROWS = 12
MOST_ALONE = 6
MOST_ERROR = 0.02


def sections(findings: Findings) -> list[Section]:
    """A table per group of tasks on which the same methods ran; a method alone at its budget is compared with none."""
    every = list(zip(findings.overalls, findings.leaders, strict=True))
    compared = [(group, items, found) for (group, items), found in every if len(items) > 1]
    alone = [(group, items[0]) for (group, items), _ in every if len(items) == 1]
    blocks = [block for n, found in enumerate(compared[:MOST_GROUPS], 1) for block in _group(findings, n, *found)]
    if any(arm.method == "ranking" for arm in findings.collection.arms):
        blocks.append(Paragraph(note("ranking")))
    if len(compared) > MOST_GROUPS:
        more = len(compared) - MOST_GROUPS
        blocks.append(Paragraph([f"{more} more groups are in ", Link("overall.csv", "tables/overall.csv"), "."]))
    if alone:
        blocks += [Paragraph("Alone at their budget, so compared with nothing:"), _alone(findings, alone)]
    blocks += _without_target(findings)
    rows = []
    for group, items in findings.overalls:
        places = place_names(group.places, findings.budgets)
        rows += flat_rows(items, world=group.world, device=group.device, places=places)
    return [Section("Leaderboard", blocks, {"overall": table_of(rows)})] if blocks else []


def _group(findings: Findings, rank: int, group: Comparable, items: list[Overall], found: Standings) -> list[Block]:
    by_label = {item.label: item for item in items}
    rows = [_row(found, item, by_label[item.label]) for item in found.items[:MOST_ROWS]]
    more = len(found.items) - MOST_ROWS
    few = found.n < CONCLUSIVE_SEEDS
    return [
        Heading(f"{group.world.capitalize()}: {place_names(group.places, findings.budgets)}"),
        *compact(Table.of(rows, "lrlrrrrrrrrrrr")),
        Paragraph(_flags(group, items)),
        *_passes(findings, rank, group),
        Paragraph(f"{more} more are in tables/overall.csv." if more > 0 else ""),
        Paragraph(f"Fewer than {CONCLUSIVE_SEEDS} seeds: nothing can be concluded." if few else ""),
    ]


def _row(found: Standings, standing: Standing, item: Overall) -> dict[str, Text]:
    return {
        "method": Strong(item.label) if standing in found.equal and found.is_conclusive else item.label,
        "score [95 %]": with_ends(standing.value.value, standing.value.interval),
        "against the best": _against(found, standing),
        "worst quarter of seeds": number(item.tail.value, 2),
        "solved [95 %]": share(item.solved, item.runs, item.solved_interval),
        "below start": f"{item.below_start}/{item.runs}",
        "sampled": number(item.sampled, 2),
        "untrained": number(item.untrained, 2),
        "KL [nats]": number(item.kl, 2),
        "gradient steps": number(item.gradient_steps),
        "rows backward": number(item.backward_rows),
        "CPU s": significant(item.cpu_seconds, 2) + "‡" * bool(item.beside_others),
        "score at equal CPU s": number(item.at_equal_seconds, 2) + "†" * item.is_annealed,
        "n": str(item.n),
    }


def _against(found: Standings, standing: Standing) -> str:
    """The word of the adjusted tests."""
    contrast = standing.contrast
    if contrast is None:
        return "best" if standing.value.value == found.best.value.value else "not tested"
    if contrast.word == SEPARATED:
        return f"{number(contrast.compared.difference, 2)} behind ({p_text(contrast.p)})"
    if contrast.word == OPEN:
        return "not tested" if contrast.reason else f"open ({p_text(contrast.p)})"
    return contrast.word if contrast.word == CEILING else f"equivalent ({p_text(contrast.equal_p)})"


def _flags(group: Comparable, items: list[Overall]) -> str:
    """What the marks of the table mean, and how sure a single final evaluation is."""
    said = list[str]()
    if any(item.sampled == item.sampled for item in items):
        said.append("sampled: the score of drawn actions on the curve's episodes, or the first of them")
    said += [
        f"drawn at its own temperature, {item.label} scores {number(item.at_own_temperature, 2)}"
        for item in items
        if item.at_own_temperature == item.at_own_temperature
    ]
    said += ["untrained: of greedy ones before the first update"]
    said += [f"CPU seconds are equal at {', '.join(significant(end, 2) for end in horizons(group))}"]
    said += ["‡: some runs ran beside others"] if any(item.beside_others for item in items) else []
    said += ["†: its learning rate falls over the whole budget"] if any(item.is_annealed for item in items) else []
    errors = {item.label: item.evaluation_error for item in items if item.evaluation_error == item.evaluation_error}
    if errors:
        said.append(f"standard error of a final score: at most {number(max(errors.values()), 3)}")
        loose = [label for label, error in errors.items() if error > MOST_ERROR]
        said += [f"above {MOST_ERROR:g}, so noisy: {listed(loose)}"] if loose else []
    return sentence("; ".join(said))


def _passes(findings: Findings, rank: int, group: Comparable) -> list[Block]:
    """pass@1 beside pass@8, before and after."""
    found = [
        item
        for item in findings.sharpenings
        if (item.arm.task, item.arm.budget) in group.places and item.arm.label in group.runs
    ]
    if not found:
        return []
    headers = ["task", "method", "pass@1: before", "after", "pass@8: before", "after ", "so it is"]
    rows = [
        [item.arm.task, item.arm.label, *(number(share, 2) for share in (*item.pass_1, *item.pass_8)), item.word]
        for item in found
    ]
    tasks = [list(items) for _, items in groupby(found, lambda item: item.arm.task)]
    drawn = partial(draw_passes, tasks, findings.looks)
    return [
        Figure(f"pass_at_k_{rank}", "pass@1 and pass@8 before and after", drawn, note("sharpening")),
        Table(headers, rows, "llrrrrl"),
    ]


def _alone(findings: Findings, found: list[tuple[Comparable, Overall]]) -> Bullets:
    lines = []
    for group, item in found[:MOST_ALONE]:
        score = with_ends(item.mean.value, item.mean.interval)
        places = place_names(group.places, findings.budgets)
        lines.append(f"{listed([item.label])} on {places}: score {score}, n = {item.n}")
    more = [f"{len(found) - MOST_ALONE} more in tables/overall.csv"] if len(found) > MOST_ALONE else []
    return Bullets([*lines, *more])


def _without_target(findings: Findings) -> list[Block]:
    smoke = {place for place, items in findings.comparisons.items() if is_smoke(items)}
    arms = findings.collection.learning.items()
    rest = sorted({arm.task for arm, runs in arms if (arm.task, arm.budget) not in smoke and runs[0].target is None})
    said: list[Block] = []
    if rest:
        cards = [piece for task in rest for piece in (Link(task, findings.task_files[task]), " ")]
        said.append(Paragraph(["Without a ", term("target"), " there is no score: ", *cards]))
    if smoke:
        tasks = listed(sorted({task for task, _ in smoke}))
        said.append(Paragraph(f"Smoke runs, from which nothing is concluded: {tasks}."))
    return said
