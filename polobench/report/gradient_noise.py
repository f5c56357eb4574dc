"""The report's section on gradient noise: a table for reading, and one of every number."""

from __future__ import annotations

import pandas as pd

from polobench.analysis.collection import Collection
from polobench.analysis.frame import table_of
from polobench.analysis.gradient_noise import NoiseSummary, gradient_noises
from polobench.report.tables import TextTable, arm_columns
from polobench.report.text import NOTHING, escape, number, significant

NOISE_CAPTION = (
    "Gradients of the actor over batches of the method's own updates at a policy that does not move: `initial` before "
    "any training, `trained` about halfway to the target. Signal-to-noise: squared length of the mean gradient over "
    "the summed variance of its components, of a batch of exactly the samples asked; it is estimated without bias and "
    "may be negative where noise hides the signal. Noise scale: the samples at which the two are equal (McCandlish et "
    "al. 2018); never: none was seen. Both are free of the objective's scale and may be compared between methods, but "
    "say nothing of how much a sample costs, nor of bias. [95 %]: jackknife over the batches of one run. The cosine is "
    "the mean over pairs of batches; it grows with their size. A batch ends with an update, so it may be larger than "
    "asked; a method with large updates may have fewer batches."
)


def noise_section(collection: Collection, figures: str) -> str:
    """The table, and the figures with their caption; empty without such cells."""
    items = gradient_noises(collection)
    if not items:
        return ""
    headers = [
        "task", "method", "policy", "device", "seed", "batches", "samples asked", "samples a batch",
        "signal-to-noise [95 %]", "noise scale in samples [95 %]", "mean cosine",
    ]  # fmt: skip
    table = TextTable(headers, [_row(item) for item in items], "llllrrrrrrr").markdown()
    return f"{table}\n\n{figures or NOISE_CAPTION}"


def _row(item: NoiseSummary) -> list[str]:
    return [
        *(escape(text) for text in (item.arm.task, item.arm.label, item.policy, item.arm.device)),
        str(item.seed),
        str(item.batches),
        number(item.samples),
        number(item.batch_samples),
        f"{significant(item.snr)} {_ends(item.interval.low, item.interval.high)}".strip(),
        f"{significant(item.noise_scale)} {_ends(item.scale_interval.low, item.scale_interval.high)}".strip(),
        number(item.mean_cosine, 2),
    ]


def _ends(low: float, high: float) -> str:
    low_text, high_text = significant(low), significant(high)
    return "" if NOTHING in (low_text, high_text) else f"[{low_text}, {high_text}]"


def noise_frame(collection: Collection) -> pd.DataFrame:
    """Every number of the table, a row a cell; an infinite noise scale is one where no signal was seen."""
    return table_of(
        {
            **arm_columns(item.arm),
            "policy": item.policy,
            "seed": item.seed,
            "batches": item.batches,
            "samples": item.samples,
            "batch_samples_mean": item.batch_samples,
            "snr": item.snr,
            "snr_low": item.interval.low,
            "snr_high": item.interval.high,
            "snr_interval": f"95 % {item.interval.method}",
            "noise_scale": item.noise_scale,
            "noise_scale_low": item.scale_interval.low,
            "noise_scale_high": item.scale_interval.high,
            "mean_cosine": item.mean_cosine,
            "trace": item.trace,
        }
        for item in gradient_noises(collection)
    )
