"""`polobench ab`: is one commit slower than another?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polobench.cli.common import AsJson, Markdown, note, progress_bars, show, write_text
from polobench.core.errors import UsageError

SPEED_STUDY = Path("speed")


def ab(
    base: Annotated[str, typer.Argument(metavar="BASE_REF", help="Branch, tag or commit of this checkout.")],
    head: Annotated[str, typer.Argument(metavar="HEAD_REF", help="The branch, tag or commit that may be slower.")],
    study: Annotated[
        Path, typer.Option(help="Study whose throughput cells are timed, as it is in HEAD_REF.")
    ] = SPEED_STUDY,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per cell, including the start of its processes.")] = 30,
    methods: Annotated[str | None, typer.Option(help="Only these methods, separated by commas.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks, separated by commas.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the order in which the two take turns.")] = 0,
    output: Markdown = None,
    as_json: AsJson = False,
) -> None:
    """Time two commits against each other.

    Both run in temporary worktrees and take turns, iteration by iteration. What happens once is not timed: making
    the environments and importing libraries.

    Exit code: 0 if no cell is slower, 1 if one is slower or no longer runs, 2 on a usage error.
    """
    from polobench.ab import page, speed
    from polobench.ab.processes import servers
    from polobench.ab.sides import checked_out
    from polobench.ab.timing import PARTS, load_cells, time_cells

    if output is not None and not output.parent.is_dir():
        raise UsageError(f"report {str(output)!r} has no folder to stand in")
    with checked_out(Path.cwd(), (base, head), note) as sides:
        cells = load_cells(study, sides[1], _names(methods), _names(tasks))
        with servers(*sides) as between, progress_bars() as bars:
            bar = bars.add_task(f"timing {len(cells)} cells", total=1.0)
            found = time_cells(between(*sides), cells, seconds, seed, lambda share: bars.update(bar, completed=share))
    times = [{part: cell.seconds(part) for part in PARTS} for cell in found]
    judged = [
        speed.cell_speed(str(cell.cell), cell.clock, parts, *cell.problems)
        for cell, parts in zip(found, times, strict=True)
    ]
    text = page.page(sides[0], sides[1], judged)
    if output is not None:
        write_text(output, text)
    show(as_json, page.as_json(sides[0], sides[1], judged, times), text.split("\n"))
    if all(cell.verdict == speed.ABSENT for cell in judged):
        raise UsageError(f"no cell runs on either side: {judged[0].reason}")
    if any(cell.regression for cell in judged):
        raise typer.Exit(1)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
