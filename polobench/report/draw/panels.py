"""What shares axes: the learning arms of one task, budget and device; and what came of drawing them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from polobench.analysis.collection import Arm, Collection
from polobench.core.result import RunResult
from polobench.report.draw.style import short

MOST_COMPARED = 12  # methods whose curves are in one panel: of more, none could be told from another
MOST_NAMED = 8  # methods whose names, or pairs, stand beside their marks


@dataclass(frozen=True)
class Drawn:
    """A figure that was written.

    Attributes:
        path: of the PNG.
        section: of the report: "article", "returns", "profiles", "improvement", "time_to_target", "cost", "updates",
            "noise", "throughput", "trend", "preferences", "policy" or "losses".
        subject: what it shows, in a few words; not escaped.
    """

    path: Path
    section: str
    subject: str


@dataclass(frozen=True)
class Panel:
    """The learning arms of one task, budget and device, with their runs."""

    task: str
    budget: str
    device: str
    arms: tuple[tuple[Arm, list[RunResult]], ...]

    @property
    def title(self) -> str:
        return f"{short(self.task)} ({short(self.budget)}, {short(self.device)})"

    @property
    def file_part(self) -> str:
        """The task as a part of a file's name."""
        return re.sub(r"[^A-Za-z0-9.-]+", "-", self.task)[:60]

    @property
    def speaks(self) -> bool:
        """Whether it is a task of language: only there is something said before and after."""
        return any(result.snapshots for _, runs in self.arms for result in runs)

    @property
    def seconds(self) -> str:
        """The axis of seconds: of wall, or of the CPU if one of the runs shared its machine."""
        beside = any(result.ran_beside_others for _, runs in self.arms for result in runs)
        return "cpu_seconds" if beside else "wall_seconds"

    @property
    def has_curves(self) -> bool:
        return any(len(result.curve) > 1 for _, runs in self.arms for result in runs)


def panels(collection: Collection) -> list[Panel]:
    """The panels of a store in a fixed order."""
    groups: dict[tuple[str, str, str], list[tuple[Arm, list[RunResult]]]] = {}
    for arm, runs in collection.of_kind("learning").items():
        groups.setdefault((arm.task, arm.budget, arm.device), []).append((arm, runs))
    return [Panel(*key, tuple(groups[key])) for key in sorted(groups)]
