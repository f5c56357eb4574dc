"""How noisy each method's gradient is at a policy that does not move."""

from __future__ import annotations

from functools import partial

from polobench.analysis.frame import flat_table
from polobench.analysis.gradient_noise import NoiseSummary
from polobench.report.blocks import Block, Figure, Paragraph, Section, Table, compact
from polobench.report.draw.noise import draw_noise, noise_panels
from polobench.report.draw.style import pages
from polobench.report.findings import Findings
from polobench.report.naming import term
from polobench.report.sections.curves import PANELS_A_PAGE
from polobench.report.text import NOTHING, number, significant

CAPTION = (
    "Signal-to-noise of the actor's gradient, with jackknife intervals over batches of one run, at the policy before "
    "training (initial) and about halfway to the target (trained)."
)


def sections(findings: Findings) -> list[Section]:
    """Empty without such cells."""
    items = findings.noises
    if not items:
        return []
    figures = pages(noise_panels(items), PANELS_A_PAGE)
    headers = [
        "task", "method", "policy", "device", "seed", "batches", "samples asked", "samples per batch",
        "signal-to-noise [95 %]", "noise scale in samples [95 %]", "mean cosine",
    ]  # fmt: skip
    blocks: list[Block] = [
        *(
            Figure(partial(draw_noise, page, number, findings.looks), CAPTION if number == 1 else "")
            for number, page in figures
        ),
        *compact(Table(headers, [_row(item) for item in items], "llllrrrrrrr"), 3),
        Paragraph(["Words: ", term("signal-to-noise"), ", ", term("noise scale"), ", ", term("mean cosine"), "."]),
    ]
    return [Section("Gradient noise", blocks, {"gradient_noise": flat_table(items)})]


def _row(item: NoiseSummary) -> list[str]:
    return [
        item.arm.task,
        item.arm.label,
        item.policy,
        item.arm.device,
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
