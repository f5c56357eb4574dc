"""The methods of each world by final score, with what they cost."""

from __future__ import annotations

from polobench.analysis.frame import flat_rows, table_of
from polobench.analysis.overall import Comparable, Overall
from polobench.analysis.statistics.intervals import CONCLUSIVE_SEEDS
from polobench.analysis.use_cases import Standing, Standings
from polobench.report.blocks import Block, Bullets, Heading, Link, Paragraph, Section, Strong, Table, Text, compact
from polobench.report.findings import Findings
from polobench.report.naming import place_names, term
from polobench.report.sections.verdict import estimate
from polobench.report.text import listed, number, p_value, share, significant

MOST_GROUPS = 4
MOST_ROWS = 12
MOST_ALONE = 6
RANKING = (
    "Methods whose label begins with “ranking” fit the policy's likelihoods to the order of several responses (RRHF, "
    "Plackett-Luce); this is what the source article calls GRPO."
)


def sections(findings: Findings) -> list[Section]:
    """A table per group of tasks on which the same methods ran; a method alone at its budget is compared with none."""
    compared = [index for index, (group, _) in enumerate(findings.overalls) if len(group.runs) > 1]
    alone = [findings.overalls[index] for index in range(len(findings.overalls)) if index not in compared]
    blocks: list[Block] = []
    for index in compared[:MOST_GROUPS]:
        blocks += _group(findings, *findings.overalls[index], findings.leaders[index])
    if any(arm.method == "ranking" for arm in findings.collection.arms):
        blocks.append(Paragraph(RANKING))
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
    headers = [
        "method", "score [95 %]", "against the best", "solved [95 %]", "sampled return", "greedy return",
        "CPU s", "gradient steps", "n",
    ]  # fmt: skip
    by_label = {item.label: item for item in items}
    rows = [_row(found, item, by_label[item.label]) for item in found.items[:MOST_ROWS]]
    where = place_names(group.places, findings.budgets)
    more = len(found.items) - MOST_ROWS
    few = found.n < CONCLUSIVE_SEEDS
    return [
        Heading(f"{group.world.capitalize()}: {where}"),
        *compact(Table(headers, rows, "lrlrrrrrr")),
        Paragraph(f"{more} more are in tables/overall.csv." if more > 0 else ""),
        Paragraph(f"Fewer than {CONCLUSIVE_SEEDS} seeds: nothing can be concluded." if few else ""),
    ]


def _row(found: Standings, standing: Standing, item: Overall) -> list[Text]:
    return [
        Strong(item.label) if standing in found.equal and found.is_conclusive else item.label,
        estimate(standing.value),
        _against(found, standing),
        share(item.solved, item.runs, item.solved_interval),
        number(item.sampled, 3),
        number(item.greedy, 3),
        significant(item.cpu_seconds, 2),
        number(item.gradient_steps),
        str(item.n),
    ]


def _against(found: Standings, standing: Standing) -> str:
    """Marked instead of ranked where no test tells it from the best."""
    contrast = standing.contrast
    if standing is found.best:
        return "best" if len(found.equal) == 1 else "equal best"
    if contrast is None or contrast.reason:
        return "equal best" if standing in found.equal else "not tested"
    if standing in found.equal:
        return f"equal best (p = {p_value(contrast.p)})"
    if not contrast.is_separated:
        return f"not separated (p = {p_value(contrast.p)})"
    sure = p_value(contrast.p)
    return f"{number(contrast.compared.difference, 2)} behind (p {sure if '<' in sure else f'= {sure}'})"


def _alone(findings: Findings, groups: list[tuple[Comparable, list[Overall]]]) -> Bullets:
    lines = [
        f"{listed([item.label for item in items])} on {place_names(group.places, findings.budgets)}: "
        f"score {estimate(items[0].mean)}, n = {items[0].n}"
        for group, items in groups
    ]
    more = len(lines) - MOST_ALONE
    return Bullets(lines[:MOST_ALONE] + ([f"{more} more in tables/overall.csv"] if more > 0 else []))


def _without_target(findings: Findings) -> list[Block]:
    scored = {place for group in findings.groups for place in group.places}
    smoke = {place for place, items in findings.comparisons.items() if any(item.smoke for item in items)}
    rest = sorted({task for task, budget in findings.comparisons if (task, budget) not in scored | smoke})
    said: list[Block] = []
    if rest:
        cards = [piece for task in rest for piece in (Link(task, findings.task_files[task]), " ")]
        said.append(Paragraph(["Without a ", term("target"), " there is no score: ", *cards]))
    if smoke:
        tasks = listed(sorted({task for task, _ in smoke}))
        said.append(Paragraph(f"Smoke runs, from which nothing is concluded: {tasks}."))
    return said
