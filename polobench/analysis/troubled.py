"""Runs that went wrong, and how: the gallery of failures."""

from __future__ import annotations

from dataclasses import dataclass

from polobench.analysis.collection import Arm, Collection
from polobench.analysis.reliability import COLLAPSED_BELOW, scores
from polobench.core.result import RunResult

LEARNT_NOTHING = 0.1
FELL = 0.1


@dataclass(frozen=True)
class Troubled:
    """A learning run that failed, learnt nothing, or lost what it had.

    Attributes:
        what: in a few words; `reason` in more, where there is one.
        badness: the larger the worse, to order them.
    """

    arm: Arm
    run: RunResult
    what: str
    reason: str
    badness: float


def troubled(collection: Collection) -> list[Troubled]:
    """Such runs of all learning arms, the worst first; a policy that learns nothing by design is none."""
    arms = collection.of_kind("learning")
    found = [item for arm, runs in arms.items() for run in runs if (item := _look(arm, run)) is not None]
    return sorted(found, key=lambda item: (-item.badness, item.arm, item.run.seed))


def _look(arm: Arm, run: RunResult) -> Troubled | None:
    if run.status != "ok":
        return Troubled(arm, run, run.status.replace("_", " "), run.reason, 10.0)
    known = scores(run).found
    if run.final_score is None or len(known) < 2 or not run.ledger.gradient_steps:
        return None
    start, best, end = float(known[0]), float(known.max()), run.final_score
    if end < start - FELL:
        return Troubled(
            arm, run, "fell below its start", f"score {start:.2f} at first, {end:.2f} at last", 5 + start - end
        )
    if best < LEARNT_NOTHING:
        return Troubled(arm, run, "did not learn", f"its best score is {best:.2f}", 3 - best)
    if best >= 1 and end < COLLAPSED_BELOW:
        return Troubled(arm, run, "collapsed", f"score {best:.2f} at best, {end:.2f} at last", 1 + best - end)
    return None
