"""What shares axes: the learning arms of one task, budget and device."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TypeVar

import numpy as np

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.columns import speaks
from polobench.analysis.overall import Comparable
from polobench.core.result import RunResult
from polobench.report.draw.style import Looks, compact, natural, pages, short
from polobench.report.words import OfArm

MOST_COMPARED = 12  # methods of a task or group: of more, no comparison is drawn
MOST_NAMED = 8  # methods whose names, or pairs, stand beside their marks
MOST_LINES = 7  # lines of a panel
PANELS_A_PAGE = 6
ARMS_A_FIGURE = 24
SEVERAL = "several budgets"
LEADING = "leaderboard"  # the part of a panel with the arms that a leaderboard compares
_LEAST_RUNS = 2
_LONGEST = 64  # letters of a name that may be in several lines
ArmRuns = tuple[Arm, list[RunResult]]
T = TypeVar("T")
Measured = TypeVar("Measured", bound=OfArm)


@dataclass(frozen=True)
class Panel:
    """The learning arms of one task and device, and of one budget unless they were merged, with their runs.

    Attributes:
        part: which of the methods it shows, where it does not show all.
    """

    task: str
    budget: str
    device: str
    arms: tuple[ArmRuns, ...]
    part: str = ""

    @property
    def title(self) -> str:
        part = f"{self.part}: " if self.part else ""
        return f"{part}{short(self.task)} ({short(self.budget)}, {short(self.device)})"

    @property
    def file_part(self) -> str:
        """The task as a part of a file's name."""
        return re.sub(r"[^A-Za-z0-9.-]+", "-", self.task)[:60]

    @property
    def speaks(self) -> bool:
        """Whether it is a task of language."""
        return any(speaks(result) for _, runs in self.arms for result in runs)

    @property
    def seconds(self) -> str:
        """The axis of seconds: of wall, or of the CPU if one of the runs shared its machine."""
        beside = any(result.ran_beside_others for _, runs in self.arms for result in runs)
        return "cpu_seconds" if beside else "wall_seconds"

    def name(self, arm: Arm) -> str:
        """The label of one of its arms, with the budget where that differs between them."""
        budget = re.match(r"([\d,]+) samples", arm.budget) if self.budget == SEVERAL else None
        label = short(arm.label, _LONGEST)
        return f"{label}, {compact(float(budget[1].replace(',', '')))}" if budget else label


def panels(collection: Collection) -> list[Panel]:
    """The panels of a store in a fixed order."""
    groups: dict[tuple[str, str, str], list[ArmRuns]] = {}
    for arm, runs in collection.learning.items():
        groups.setdefault((arm.task, arm.budget, arm.device), []).append((arm, runs))
    return [Panel(*key, tuple(groups[key])) for key in sorted(groups)]


def with_curves(every: Sequence[Panel], look: Looks, leading: Container[str]) -> list[Panel]:
    """The panels that have learning curves, in parts with no more arms than lines can be followed.

    Args:
        leading: labels that a leaderboard compares; of several parts they are the first, where they fit into one.
    """
    found: list[Panel] = []
    for panel in merged(every, ARMS_A_FIGURE):
        if any(len(result.curve) > 1 for _, runs in panel.arms for result in runs):
            parts = _parts_of_panel(panel, look, leading)
            found += [replace(panel, part=part, arms=tuple(arms)) for part, arms in parts]
    return found


def _parts_of_panel(panel: Panel, look: Looks, leading: Container[str]) -> list[tuple[str, list[ArmRuns]]]:
    def parts(arms: Iterable[ArmRuns]) -> list[tuple[str, list[ArmRuns]]]:
        return parts_of(arms, lambda item: (item[0].label, look[item[0].label].family))

    first = [item for item in panel.arms if item[0].label in leading]
    if len(panel.arms) <= MOST_LINES or not 0 < len(first) <= MOST_LINES:
        return parts(panel.arms)
    rest = parts(item for item in panel.arms if item[0].label not in leading)
    return [(LEADING, first), *((part or "others", arms) for part, arms in rest)]


def numbered(every: Sequence[Panel]) -> list[tuple[str, Panel]]:
    """Panels with no more arms than a figure shows, numbered by panel and page."""
    found = []
    for place, panel in enumerate(merged(every, ARMS_A_FIGURE), 1):
        arms = sorted(panel.arms, key=lambda item: natural(item[0].label))
        shown = [replace(panel, arms=tuple(part)) for part in pages(arms, ARMS_A_FIGURE)]
        found += [(f"{place:02d}-{page}", part) for page, part in enumerate(shown, 1)]
    return found


def by_task(items: Iterable[Measured]) -> list[tuple[str, list[Measured]]]:
    """What was measured of each task and device, under a title for its panel."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for item in items:
        groups.setdefault((item.arm.task, item.arm.device), []).append(item)
    return [(f"{short(task)} ({short(device)})", groups[task, device]) for task, device in sorted(groups)]


def compared(groups: Sequence[Comparable]) -> list[Comparable]:
    """The groups in which there is something to compare: some methods, several runs of each, every score known."""

    def is_known(group: Comparable) -> bool:
        scores = [task for label in group.runs for task in group.scores(label)]
        return all(len(task) >= _LEAST_RUNS and bool(np.isfinite(task).all()) for task in scores)

    return [group for group in groups if 1 < len(group.runs) <= MOST_COMPARED and is_known(group)]


def title_of(group: Comparable) -> str:
    """`control, cpu, n = 10`, and the tasks below."""
    counts = sorted({len(task) for label in group.runs for task in group.scores(label)})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    names = ", ".join(short(task, 24) for task in dict.fromkeys(task for task, _ in group.places))
    lines = wrap(names, 50, max_lines=2, placeholder=" …")
    return "\n".join([f"{group.world}, {short(group.device)}, n = {n}", *lines])


def merged(every: Sequence[Panel], most: int) -> list[Panel]:
    """Panels of one arm together with the others of their task and device, as far as these are no more than `most`."""
    found: list[Panel] = []
    for task, device in dict.fromkeys((panel.task, panel.device) for panel in every):
        group = [panel for panel in every if (panel.task, panel.device) == (task, device)]
        lone = [panel for panel in group if len(panel.arms) == 1]
        joined = group if sum(len(panel.arms) for panel in group) <= most else lone
        if not lone or len(joined) < 2:
            found += group
            continue
        arms = tuple(item for panel in joined for item in panel.arms)
        found += [panel for panel in group if panel not in joined]
        found += [Panel(task, SEVERAL, device, tuple(part)) for part in pages(arms, most)]
    return found


def parts_of(items: Iterable[T], key: Callable[[T], tuple[str, str]]) -> list[tuple[str, list[T]]]:
    """Items in named parts of seven at most; variants of a method stay together if they fit, and one part has no name.

    Args:
        key: label and family of an item.
    """
    members: dict[str, list[T]] = {}
    for item in sorted(items, key=lambda item: natural(key(item)[0])):
        members.setdefault(key(item)[1], []).append(item)
    chunks = [chunk for found in members.values() for chunk in pages(found, MOST_LINES)]
    total = sum(map(len, chunks))
    wanted = total / max(1, -(-total // MOST_LINES))
    parts: list[list[T]] = []
    for chunk in chunks:
        if parts and len(parts[-1]) < wanted and len(parts[-1]) + len(chunk) <= MOST_LINES:
            parts[-1] += chunk
        else:
            parts.append([*chunk])
    return [("" if len(parts) == 1 else _name([key(item) for item in part]), part) for part in parts]


def _name(keys: Sequence[tuple[str, str]]) -> str:
    methods = dict.fromkeys(family for _, family in keys)
    ends = (keys[0][0], keys[-1][0])
    return ", ".join(short(name, 16) for name in methods) if len(methods) < 3 else " to ".join(map(short, ends))
