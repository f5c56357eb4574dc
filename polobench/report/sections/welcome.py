"""What a newcomer wants to know first: whether it works, what there is to see, and the next command."""

from __future__ import annotations

from polobench.report.blocks import Block, Code, Commands, Paragraph, Section, Strong
from polobench.report.findings import Findings
from polobench.report.formatting import counted, significant
from polobench.report.words import note, term


def sections(findings: Findings) -> list[Section]:
    """Empty unless the store is a first look."""
    if not findings.is_first_look:
        return []
    cells, ran = findings.collection.cells, findings.ran
    ok = sum(run.status == "ok" for run in ran)
    seconds = significant(sum(run.ledger.cpu_seconds for run in ran), 2)
    skipped = f" ({len(cells) - len(ran)} more skipped)" if len(ran) < len(cells) else ""
    ended = Strong(f"{ok} of {counted(len(ran), 'cell')} ended ok{skipped}")
    blocks: list[Block] = [
        Paragraph([ended, f", with {seconds} CPU seconds of training. ", term("cell", "A cell"), " is one run."]),
        Paragraph(note("see")),
        Paragraph(["Next, the comparison of all five methods (", Code("polobench list studies"), " has more):"]),
        Commands(["polobench run matrix", "polobench report results/matrix"]),
    ]
    return [Section("It works" if ok == len(ran) else "It ran, with failures", blocks)]
