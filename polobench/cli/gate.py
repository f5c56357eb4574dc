"""The commands of the gate: what changed between two stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polobench.cli.common import AsJson, Markdown, note, print_json, say, show, write_text
from polobench.core.errors import PoloError, UsageError
from polobench.core.printable import printable

baseline_app = typer.Typer(
    help="Keep the stored results that later ones are compared with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
BASELINE = Path("results/baseline")
HISTORY = Path("results/history.jsonl")


def verify(
    store: Annotated[Path, typer.Argument(help="Folder of results.")],
    cells: Annotated[int, typer.Option(min=1, help="Number of learning cells to draw and run again.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the draw.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Rerun random cells and compare their digests.

    Shows which stored results this machine reproduces bit for bit.

    Exit code: 0 if all hold, 1 if one differs although the platform is the same, 2 on a usage error or if none of the
    cells can run here.
    """
    from polobench.gate.reading import read_whole
    from polobench.run.progress import Display
    from polobench.run.verify import UNAVAILABLE, cell_of, complaint, draw, reruns, summary

    drawn = draw(read_whole(store), cells, seed)
    with Display(len(drawn)) as display:
        found = reruns(drawn, display)
    lines = (f"{item.stored.cell_id}  {cell_of(item.stored)}  {item.sentence}" for item in found)
    show(as_json, [item.as_dict() for item in found], lines)
    note(summary(found))
    if all(item.verdict == UNAVAILABLE for item in found):
        raise UsageError("none of the drawn cells can run here, so nothing is verified")
    if complaint(found):
        raise PoloError(complaint(found))


@baseline_app.command("update", epilog="Example: polobench baseline update results/head --why 'new default'")
def baseline_update(
    store: Annotated[Path, typer.Argument(help="Folder of results that become the baseline.")],
    into: Annotated[Path, typer.Option(help="Folder of the baseline.")] = BASELINE,
    why: Annotated[str, typer.Option(help="Reason for the update; it is kept in the log.")] = "",
) -> None:
    """Replace the baseline by a store's cells.

    Exit code: 0, or 2 on a usage error, which changes nothing.
    """
    from polobench.gate.baseline import LOG_NAME, update_baseline

    entry = update_baseline(store, into, why)
    counts = {name: sum(map(len, arms.values())) for name, arms in entry["changes"].items()}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"baseline: {into}, {entry['cells']} cells ({said}); log: {into / LOG_NAME}")


@baseline_app.command("show", epilog="Example: polobench baseline show --lines 1")
def baseline_show(
    into: Annotated[Path, typer.Option(help="Folder of the baseline.")] = BASELINE,
    lines: Annotated[int, typer.Option(min=1, help="Number of log entries to show.")] = 5,
) -> None:
    """Show where the baseline comes from, and why it last changed."""
    from polobench.analysis.collection import collect
    from polobench.gate.baseline import read_log
    from polobench.report.markdown import terminal
    from polobench.report.sections.provenance import provenance_table

    for entry in read_log(into)[-lines:]:
        say(f"{entry['date']}  {entry['cells']} cells  {entry['why']}")
        for change, arms in entry["changes"].items():
            for arm, seeds in arms.items():
                say(f"  {change}: {arm}, seeds {', '.join(map(str, seeds))}")
    typer.echo(terminal(provenance_table(collect(into))))


def history(
    store: Annotated[Path, typer.Argument(help="Folder of results of one study at one commit.")],
    file: Annotated[Path, typer.Option(help="File that keeps the history, one JSON object per line.")] = HISTORY,
    as_json: AsJson = False,
) -> None:
    """Append a store's scores and speeds to a history.

    The history has one line per commit and study. Nothing happens if the same line is already there.

    Exit code: 0, or 2 on a usage error, such as another line for the same commit and study.
    """
    from polobench.gate.history import record

    entry, is_new = record(store, file)
    if as_json:
        print_json(entry)
    did = "appended to" if is_new else "unchanged, since this line is there already:"
    arms = f"{len(entry['scores'])} learning arms, {len(entry['speeds'])} throughput arms"
    (note if as_json else say)(f"commit {entry['commit'][:12]}, {entry['study']}, {arms}: {did} {file}")


def compare(
    base: Annotated[Path, typer.Argument(help="Store of the base, or a JSON file of pytest-benchmark.")],
    head: Annotated[Path, typer.Argument(help="Store of the head, or a JSON file of pytest-benchmark.")],
    output: Markdown = None,
    as_json: AsJson = False,
) -> None:
    """Did anything get worse between two stores?

    Compares learning, loss, cost and the report's answers, cell by cell. For two JSON files of pytest-benchmark, a
    benchmark that vanished is a regression; a change in seconds is only reported.

    Exit code: 0 if nothing got worse, 1 on a regression, 2 on a usage error, 3 if the stores cannot be compared.
    """
    from polobench.gate.compare import compare_stores
    from polobench.report.gate import answer, finding_line, gate_json, gate_markdown
    from polobench.store.pack import is_pack

    if all(path.is_file() and not is_pack(path) for path in (base, head)):
        raise typer.Exit(_compare_timings(base, head, output, as_json))
    found = compare_stores(base, head)
    if output:
        write_text(output, gate_markdown(found))
    written = [f"report: {output}"] if output else []
    show(as_json, gate_json(found), [*map(finding_line, found.findings), answer(found), *written])
    raise typer.Exit(found.exit_code)


def _compare_timings(base: Path, head: Path, output: Path | None, as_json: bool) -> int:
    from polobench.gate.pytest_benchmark import compare_timings, read_timings

    found = compare_timings(read_timings(base), read_timings(head))
    if output:
        write_text(output, "".join(f"- {printable(line)}\n" for line in found.lines()))
    show(as_json, vars(found) | {"exit_code": found.exit_code}, found.lines())
    return found.exit_code
