"""What a newcomer wants to know first: whether it works, what there is to see, and the next command."""

from __future__ import annotations

from polobench.report.blocks import Code, Commands, Paragraph, Section, Strong, Text
from polobench.report.findings import Findings
from polobench.report.naming import term
from polobench.report.text import counted, significant

SMOKE = "Smoke run: it shows that the parts work together; nothing is concluded from it."


def sections(findings: Findings) -> list[Section]:
    """Empty unless the store is a first look."""
    if not findings.is_first_look:
        return []
    see: Text = [
        "Below: the methods by ", term("score"), " (0 is the floor, 1 the target) and their learning curves. Cells "
        "marked as smoke runs are too short to conclude anything from; they show that their part works.",
    ]  # fmt: skip
    next_step = Commands(["polobench run matrix", "polobench report results/matrix"])
    return [
        Section(
            "It works" if _all_ok(findings) else "It ran, with failures",
            [
                Paragraph(_ran(findings)),
                Paragraph(see),
                Paragraph(
                    ["Next, the comparison of all five methods (", Code("polobench list studies"), " has more):"]
                ),
                next_step,
            ],
        )
    ]


def _all_ok(findings: Findings) -> bool:
    return all(run.status == "ok" for run in findings.collection.cells)


def _ran(findings: Findings) -> Text:
    cells = findings.collection.cells
    ok = sum(run.status == "ok" for run in cells)
    seconds = sum(run.ledger.cpu_seconds for run in cells)
    ended = Strong(f"{ok} of {counted(len(cells), 'cell')} ended ok")
    return [
        ended,
        f", with {significant(seconds, 2)} CPU seconds of training. ",
        term("cell", "A cell"),
        " is one run.",
    ]
