"""The ratio of two commits' seconds per iteration, from interleaved pairs, and whether it is a regression.

Every pair of iterations, one of the base and one of the head, gives a log ratio. Their trimmed mean is the estimate
(10 % are cut off at each end, since a neighbour's burst of work hits single iterations); its error is Tukey and
McLaughlin's. Pairs of one block share their two processes, which differ a little even where the code is the same: the
variance of that, `PROCESS_SPREAD` squared over the number of blocks, is added, or where the blocks' means differ more
than that explains, the least variance that they prove at 99 %. The interval is Student's at 99.9 %. A part is slower, a
regression, where the whole interval lies above `1 + SMALLEST_SLOWDOWN`.

Sources: Tukey and McLaughlin 1963, "Less vulnerable confidence and significance procedures for location based on a
single sample"; Georges, Buytaert and Eeckhout 2007, "Statistically rigorous Java performance evaluation" (why
processes are restarted).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2
from scipy.stats import t as student

Array = NDArray[np.float64]
Blocks = Sequence[Sequence[Sequence[float]]]  # [blocks][pairs][2] seconds of base and head
CONFIDENCE = 0.999
SMALLEST_SLOWDOWN = 0.05
PROCESS_SPREAD = 0.01
PROOF = 0.99
CUT = 0.1  # share of the pairs that is cut at each end
POWER = 0.9  # as planned; in simulations 0.82 to 0.87, since blocks that differ by chance widen the interval
SHORTEST_SECONDS = 1e-4  # a part that is shorter on both sides is not judged
RESOLUTION_SECONDS = 1e-6

SLOWER, FASTER, ALIKE, SHORT, NEW, VANISHED, ABSENT = (
    "slower", "faster", "no change seen", "too short to time", "new", "failing", "cannot run",
)  # fmt: skip
REGRESSIONS = (SLOWER, VANISHED)


@dataclass(frozen=True)
class Ratio:
    """Seconds of the head over those of the base."""

    value: float
    low: float  # ends of the interval; 0 and infinity if one block or pair cannot show the error
    high: float
    base_seconds: float  # medians over the pairs
    head_seconds: float
    detectable: float  # a true ratio that would have been called slower at least 8 times in 10
    pairs: int
    blocks: int

    @property
    def verdict(self) -> str:
        if max(self.base_seconds, self.head_seconds) < SHORTEST_SECONDS:
            return SHORT
        if self.low > 1 + SMALLEST_SLOWDOWN:
            return SLOWER
        return FASTER if self.high < 1 else ALIKE


@dataclass(frozen=True)
class CellSpeed:
    """A cell's ratios by part; or, if a side could not run it, the verdict and the reason."""

    cell: str
    clock: str  # the kind of seconds, in a word
    parts: Mapping[str, Ratio]  # by the name of the part; empty where nothing could be compared
    verdict: str  # that of the worst part, or `new`, `failing` (a regression) or `cannot run`
    reason: str = ""

    @property
    def regression(self) -> bool:
        return self.verdict in REGRESSIONS


def cell_speed(cell: str, clock: str, parts: Mapping[str, Blocks], base_problem: str, head_problem: str) -> CellSpeed:
    """The verdict on a cell; a problem is one line on why a side could not run it, or empty."""
    if base_problem or head_problem:
        verdict = NEW if not head_problem else VANISHED if not base_problem else ABSENT
        return CellSpeed(cell, clock, {}, verdict, head_problem or base_problem)
    ratios = {name: ratio(blocks) for name, blocks in parts.items()}
    found = {item.verdict for item in ratios.values()}
    return CellSpeed(cell, clock, ratios, next((word for word in (SLOWER, FASTER) if word in found), ALIKE))


def ratio(blocks: Blocks) -> Ratio:
    """The ratio of the head's seconds to the base's.

    Raises:
        ValueError: no pairs.
    """
    seconds = [np.asarray(block, dtype=np.float64).reshape(-1, 2) for block in blocks if len(block)]
    if not seconds:
        raise ValueError("no pairs to compare")
    logs = [np.diff(np.log(np.maximum(block, RESOLUTION_SECONDS)), axis=1)[:, 0] for block in seconds]
    center, error, freedom = mean_log_ratio(logs)
    margin, reach = margins(error, freedom) if freedom else (math.inf, math.inf)
    base, head = np.median(np.concatenate(seconds), axis=0)
    return Ratio(
        value=math.exp(center),
        low=math.exp(center - margin),
        high=math.exp(center + margin),
        base_seconds=float(base),
        head_seconds=float(head),
        detectable=(1 + SMALLEST_SLOWDOWN) * math.exp(reach),
        pairs=sum(map(len, logs)),
        blocks=len(logs),
    )


def margins(error: float, freedom: int) -> tuple[float, float]:
    """Half the interval, and how far beyond the smallest slowdown a log ratio is found; see `POWER`.

    The latter holds the chance in the estimate and, by the delta method, that in the width of the next interval.
    """
    width = float(student.ppf((1 + CONFIDENCE) / 2, freedom))
    chance = float(student.ppf(POWER, freedom)) * math.sqrt(1 + width**2 / (2 * freedom))
    return width * error, (width + chance) * error


def mean_log_ratio(logs: Sequence[Array]) -> tuple[float, float, int]:
    """Trimmed mean of all log ratios, its standard error and the degrees of freedom.

    One block does not show how processes differ: no degrees of freedom.

    Args:
        logs: `[pairs]` for each block.
    """
    pooled = np.concatenate(logs)
    kept = trimmed(pooled)
    if len(logs) < 2:
        return float(kept.mean()), math.inf, 0
    winsorized = np.clip(pooled, kept[0], kept[-1])
    within = float(winsorized.var(ddof=1)) * len(pooled) / len(kept) ** 2
    between = float(np.var([trimmed(block).mean() for block in logs], ddof=1)) / len(logs)
    proven = between * (len(logs) - 1) / float(chi2.ppf(PROOF, len(logs) - 1))
    variance = max(within + PROCESS_SPREAD**2 / len(logs), proven)
    return float(kept.mean()), math.sqrt(variance), len(kept) - 1


def trimmed(values: Array) -> Array:
    """The values in order, without the share `CUT` at each end, `[n]`; at least one is left."""
    cut = int(CUT * len(values))
    return np.sort(values)[cut : len(values) - cut]
