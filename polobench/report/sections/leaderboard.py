"""The methods of each world by final score, with what they cost."""

from __future__ import annotations

from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.overall import Comparable, Overall
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.summary import is_smoke
from polobench.analysis.use_cases import Standing, Standings
from polobench.report.blocks import Block, Bullets, Heading, Link, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.findings import Findings
from polobench.report.naming import place_names
from polobench.report.text import listed, number, p_text, share, significant, with_ends
from polobench.report.words import note, term

MOST_GROUPS = 4
MOST_ROWS = 12
MOST_ALONE = 6


def sections(findings: Findings) -> list[Section]:
    """A table per group of tasks on which the same methods ran; a method alone at its budget is compared with none."""
    every = list(zip(findings.overalls, findings.leaders, strict=True))
    compared = [(group, items, found) for (group, items), found in every if len(items) > 1]
    alone = [(group, items[0]) for (group, items), _ in every if len(items) == 1]
    blocks = [block for found in compared[:MOST_GROUPS] for block in _group(findings, *found)]
    if any(arm.method == "ranking" for arm in findings.collection.arms):
        blocks.append(Paragraph(note("ranking")))
    if len(compared) > MOST_GROUPS:
        more = len(compared) - MOST_GROUPS
        blocks.append(Paragraph([f"{more} more groups are in ", Link("overall.csv", "tables/overall.csv"), "."]))
    if alone:
        blocks += [Paragraph("Alone at their budget, so compared with nothing:"), _alone(findings, alone)]
    blocks += _without_target(findings)
    rows = [
        row
        for group, items in findings.overalls
        for row in flat_rows(
            items, world=group.world, device=group.device, places=place_names(group.places, findings.budgets)
        )
    ]
    return [Section("Leaderboard", blocks, {"overall": table_of(rows)})] if blocks else []


def _group(findings: Findings, group: Comparable, items: list[Overall], found: Standings) -> list[Block]:
    by_label = {item.label: item for item in items}
    rows = [_row(found, item, by_label[item.label]) for item in found.items[:MOST_ROWS]]
    more = len(found.items) - MOST_ROWS
    few = found.n < CONCLUSIVE_SEEDS
    return [
        Heading(f"{group.world.capitalize()}: {place_names(group.places, findings.budgets)}"),
        *compact(Table.of(rows, "lrlrrrrrr")),
        Paragraph(f"{more} more are in tables/overall.csv." if more > 0 else ""),
        Paragraph(f"Fewer than {CONCLUSIVE_SEEDS} seeds: nothing can be concluded." if few else ""),
    ]


def _row(found: Standings, standing: Standing, item: Overall) -> dict[str, Text]:
    return {
        "method": Strong(item.label) if standing in found.equal and found.is_conclusive else item.label,
        "score [95 %]": with_ends(standing.value.value, standing.value.interval),
        "against the best": _against(found, standing),
        "solved [95 %]": share(item.solved, item.runs, item.solved_interval),
        "sampled return": number(item.sampled, 3),
        "greedy return": number(item.greedy, 3),
        "CPU s": significant(item.cpu_seconds, 2),
        "gradient steps": number(item.gradient_steps),
        "n": str(item.n),
    }


def _against(found: Standings, standing: Standing) -> str:
    """Marked instead of ranked where no test tells it from the best."""
    contrast = standing.contrast
    if standing is found.best:
        return "best" if len(found.equal) == 1 else "equal best"
    if contrast is None or contrast.reason:
        return "equal best" if standing in found.equal else "not tested"
    if standing in found.equal:
        return f"equal best ({p_text(contrast.p)})"
    if not contrast.is_separated:
        return f"not separated ({p_text(contrast.p)})"
    return f"{number(contrast.compared.difference, 2)} behind ({p_text(contrast.p)})"


def _alone(findings: Findings, found: list[tuple[Comparable, Overall]]) -> Bullets:
    lines = [
        f"{listed([item.label])} on {place_names(group.places, findings.budgets)}: "
        f"score {with_ends(item.mean.value, item.mean.interval)}, n = {item.n}"
        for group, item in found
    ]
    more = len(lines) - MOST_ALONE
    return Bullets(lines[:MOST_ALONE] + ([f"{more} more in tables/overall.csv"] if more > 0 else []))


def _without_target(findings: Findings) -> list[Block]:
    scored = {place for group in findings.groups for place in group.places}
    smoke = {place for place, items in findings.comparisons.items() if is_smoke(items)}
    rest = sorted({task for task, budget in findings.comparisons if (task, budget) not in scored | smoke})
    said: list[Block] = []
    if rest:
        cards = [piece for task in rest for piece in (Link(task, findings.task_files[task]), " ")]
        said.append(Paragraph(["Without a ", term("target"), " there is no score: ", *cards]))
    if smoke:
        tasks = listed(sorted({task for task, _ in smoke}))
        said.append(Paragraph(f"Smoke runs, from which nothing is concluded: {tasks}."))
    return said
