"""What tuning found, from the results of its trials: winners, and how good the best of fewer trials would be.

Source of the latter: Dodge et al. 2019, "Show Your Work: Improved Reporting of Experimental Results", equation 2. It is
estimated from draws without replacement, which is unbiased (Tang et al. 2020, "Showing Your Work Doesn't Always Work",
section 3.2); the paper's own estimator draws with replacement and is too low. So it is a U-statistic, of which the
jackknife tells the error (Arvesen 1969, "Jackknifing U-Statistics").
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import comb

from polobench.analysis.collection import Arm, is_trial
from polobench.analysis.statistics.aggregates import Estimate
from polobench.analysis.statistics.intervals import BOOTSTRAP, TAILS, Array, Interval
from polobench.core.budget import budget_text
from polobench.core.result import RunResult

MOST_TRIALS = 8
RESAMPLES = 2_000
STEP_SIZES = ("learning_rate", "max_kl")  # of which a method has one


@dataclass(frozen=True)
class Trial:
    """One configuration of an arm, run on each tuning seed.

    Attributes:
        values: the hyper-parameters that the tuning file set.
    """

    number: int
    values: Mapping[str, Any]
    runs: Sequence[RunResult]

    @property
    def score(self) -> float:
        """Mean over the seeds; a failed run counts min(0, its lowest evaluation), 0 where nothing was evaluated."""
        scores = [0.0 if run.final_score is None else run.final_score for run in self.runs]
        return float(np.nan_to_num(scores).mean())


def trials_of(results: Iterable[RunResult]) -> dict[Arm, list[Trial]]:
    """The trials of each arm, by number; of a skipped trial nothing is known."""
    found: dict[Arm, dict[int, list[RunResult]]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        if is_trial(result) and result.status != "skipped":
            label = str(result.provenance.get("arm"))
            arm = Arm(result.task, budget_text(result.budget), label, result.device, result.method, result.kind)
            found.setdefault(arm, {}).setdefault(result.provenance["trial"], []).append(result)
    return {
        arm: [Trial(number, runs[0].provenance.get("overrides") or {}, runs) for number, runs in sorted(trials.items())]
        for arm, trials in sorted(found.items())
    }


def winner(trials: Sequence[Trial]) -> Trial:
    """The best mean over the seeds; of equals the earliest."""
    return max(trials, key=lambda trial: (trial.score, -trial.number))


def edge_of(trials: Sequence[Trial]) -> str:
    """Which edge of the step sizes that were tried won, "lowest" or "highest", so that better ones may lie beyond."""
    for name in STEP_SIZES:
        tried = sorted({float(trial.values[name]) for trial in trials if name in trial.values})
        if len(tried) > 2:
            best = winner(trials).values[name]
            return "lowest" if best == tried[0] else "highest" if best == tried[-1] else ""
    return ""


def expected_best(scores: Array, most: int) -> Array:
    """`[..., most]` the expected maximum of k = 1 to `most` of n scores `[..., n]`, drawn without replacement.

    Of the sorted scores v_1 <= ... <= v_n, v_i is the largest of k with probability C(i - 1, k - 1) / C(n, k).
    """
    n = scores.shape[-1]
    k = np.arange(1, most + 1)[:, None]
    weights = comb(np.arange(n), k - 1) / comb(n, k)
    return np.asarray(np.sort(scores, axis=-1) @ weights.T, dtype=np.float64)


def gains(scores: Array) -> Array:
    """`[n]` one number per configuration; their mean is what a search gains: expected best of 8 less that of one.

    They are pseudo-values: n times the gain less n - 1 times that without the configuration. So their spread counts
    that other configurations would have had another best one. Empty below 16 scores, `[n]`.
    """
    n = len(scores)
    if n < 2 * MOST_TRIALS:
        return np.empty(0)
    others = scores[(np.arange(n)[:, None] + np.arange(1, n)) % n]  # `[n, n - 1]`
    every, without = (expected_best(part, MOST_TRIALS)[..., -1] - part.mean(axis=-1) for part in (scores, others))
    return np.asarray(n * every - (n - 1) * without)


@dataclass(frozen=True)
class Search:
    """What a random search found for an arm: the expected best of 1 to K trials, and how much more K find than one.

    K is 8, or half of the trials; of fewer than four nothing is known of a gain. Each has a percentile bootstrap
    interval, configurations resampled.
    """

    arm: Arm
    trials: Sequence[Trial]
    best: Sequence[Estimate]
    gain: Estimate

    @classmethod
    def of(cls, arm: Arm, trials: Sequence[Trial]) -> Search:
        """Resampled from a fixed seed."""
        scores = np.array([trial.score for trial in trials])
        most = max(1, min(MOST_TRIALS, len(scores) // 2))
        drawn = scores[np.random.default_rng(0).integers(0, len(scores), (RESAMPLES, len(scores)))]

        def estimates(measured: Array, resampled: Array) -> list[Estimate]:
            low, high = np.quantile(resampled, TAILS, axis=0).tolist()
            intervals = [Interval(*ends, BOOTSTRAP, len(trials)) for ends in zip(low, high, strict=True)]
            return [Estimate(*both) for both in zip(measured.tolist(), intervals, strict=True)]

        best, resampled = expected_best(scores, most), expected_best(drawn, most)
        gained = (best[-1:] - best[:1], resampled[:, -1:] - resampled[:, :1])
        (gain,) = estimates(*(values if most > 1 else np.full_like(values, np.nan) for values in gained))
        return cls(arm, trials, estimates(best, resampled), gain)


def trial_frame(found: Mapping[Arm, Sequence[Trial]]) -> pd.DataFrame:
    """A row per trial: what it tried (`values`, JSON), its mean score, what its training cost, and whether it won."""
    return pd.DataFrame([
        {
            **{name: getattr(arm, name) for name in ("method", "label", "task", "budget")},
            "trial": trial.number,
            "seeds": " ".join(str(run.seed) for run in trial.runs),
            "failed": sum(run.status != "ok" for run in trial.runs),
            "score": round(trial.score, 4),
            "samples": sum(run.ledger.samples for run in trial.runs),
            "cpu_seconds": round(sum(run.ledger.cpu_seconds for run in trial.runs), 1),
            "chosen": trial is winner(trials),
            "values": json.dumps(trial.values),
        }
        for arm, trials in found.items()
        for trial in trials
    ])  # fmt: skip


def tuned_toml(found: Mapping[Arm, Sequence[Trial]], command: str) -> str:
    """The winners in the form of `methods/tuned.toml`: by method, or by label where a task has variants of a method."""
    several = Counter((arm.method, arm.task) for arm in found)
    lines = [f"# Found by `{command}`: of the trials of each method and task the one with the best mean score."]
    for arm, trials in found.items():
        best = winner(trials)
        name = arm.method if several[arm.method, arm.task] == 1 else json.dumps(arm.label)
        seeds = sorted({run.seed for run in best.runs})
        lines += ["", f"# trial {best.number} of {len(trials)}, score {best.score:.3f}, {arm.budget}, seeds {seeds}"]
        lines.append(f"[{name}.{json.dumps(arm.task)}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in best.values.items()]
    return "\n".join(lines) + "\n"
