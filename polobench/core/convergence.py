"""Time to target and convergence of the loss of one run, from its own curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

SUSTAINED_EVALUATIONS = 2
SMOOTHING_SHARE = 0.05
CONVERGED_WITHIN = 0.10


def time_to_target(curve: pd.DataFrame, target: float | None) -> dict[str, float | None]:
    """Samples and seconds at the first of two evaluations in a row at or above the target, both after an update.

    A first hit alone is fragile: runs reach a target and lose it again. What the policy reaches before its first update
    is not the method's doing. None where it never happened or where the task has no target.

    Args:
        curve: `RunResult.curve`.
        target: in the task's unit.
    """
    columns = ("samples", "wall_seconds", "cpu_seconds")
    if target is None or curve.empty:
        return dict.fromkeys(columns)
    above = ((curve["return_mean"] >= target) & (curve["updates"] > 0)).to_numpy()
    sustained = above[: 1 - SUSTAINED_EVALUATIONS] & above[SUSTAINED_EVALUATIONS - 1 :]
    if not sustained.any():
        return dict.fromkeys(columns)
    row = curve.iloc[int(sustained.argmax())]
    return {name: float(row[name]) for name in columns}


def loss_convergence(samples: Sequence[float], losses: Sequence[float]) -> dict[str, float | None]:
    """Start and end of the smoothed loss, and the samples after which it stays near its end.

    Near: within 10 % of the smoothed loss's range. Smoothed: a centred moving mean over 5 % of the updates.

    Args:
        samples: `[U]` the ledger's samples at each update.
        losses: `[U]`; the finite ones count.
    """
    points = [(taken, loss) for taken, loss in zip(samples, losses, strict=True) if np.isfinite(loss)]
    if not points:
        return {"start": None, "end": None, "samples": None}
    taken = np.array([point[0] for point in points])
    window = max(1, round(SMOOTHING_SHARE * len(points)))
    smooth = pd.Series([point[1] for point in points]).rolling(window, min_periods=1, center=True).mean().to_numpy()
    far = np.abs(smooth - smooth[-1]) > CONVERGED_WITHIN * np.ptp(smooth)
    first_near = int(far.nonzero()[0][-1]) + 1 if far.any() else 0
    return {"start": float(smooth[0]), "end": float(smooth[-1]), "samples": float(taken[first_near])}
