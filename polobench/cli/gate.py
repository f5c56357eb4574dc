"""The commands of the gate: what changed between two stores or two commits, and by how much.

Heavy imports stand inside the commands, as in cli.py, which registers them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from polobench.core.errors import PoloError, UsageError
from polobench.core.text import printable

baseline_app = typer.Typer(
    help="The baseline: the results in the repository that later ones are compared with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
BASELINE = Path("results/baseline")
SPEED_STUDY = Path("speed")
HISTORY = Path("results/history.jsonl")


def verify(
    store: Annotated[Path, typer.Argument(help="Folder of the results.")],
    cells: Annotated[int, typer.Option(min=1, help="How many learning cells to draw and run again.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run random learning cells of a store again and say which digests hold on this platform.

    Exits with 1 if one differs although the platform is the same, 2 on a mistake or where none of them can run.
    """
    from polobench.gate.reading import read_whole
    from polobench.run.progress import Display
    from polobench.run.verify import UNAVAILABLE, complaint, draw, reruns, summary

    drawn = draw(read_whole(store), cells, seed)
    with Display(len(drawn)) as display:
        found = reruns(drawn, display)
    if as_json:
        typer.echo(json.dumps([item.as_dict() for item in found], indent=2))
    else:
        for item in found:
            typer.echo(printable(f"{item.stored.cell_id}  {item.name}  {item.sentence}"))
    typer.echo(summary(found), err=True)
    if all(item.verdict == UNAVAILABLE for item in found):
        raise UsageError("none of the drawn cells can run here, so nothing is verified")
    if complaint(found):
        raise PoloError(complaint(found))


@baseline_app.command("update")
def baseline_update(
    store: Annotated[Path, typer.Argument(help="Folder of the results that become the baseline.")],
    into: Annotated[Path, typer.Option(help="Folder of the baseline.")] = BASELINE,
    why: Annotated[str, typer.Option(help="The reason, which the log keeps.", show_default=False)] = "",
) -> None:
    """Replace the baseline by a store's cells, and log why; a mistake exits with 2 and changes nothing."""
    from polobench.gate.baseline import LOG_NAME, update_baseline

    entry = update_baseline(store, into, why)
    counts = {name: sum(map(len, arms.values())) for name, arms in entry["changes"].items()}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"baseline: {into}, {entry['cells']} cells ({said}); log: {into / LOG_NAME}")


@baseline_app.command("show")
def baseline_show(
    into: Annotated[Path, typer.Option(help="Folder of the baseline.")] = BASELINE,
    lines: Annotated[int, typer.Option(min=1, help="How many lines of the log.")] = 5,
) -> None:
    """Show the last lines of the baseline's log, and where its cells come from."""
    from polobench.analysis.collection import collect
    from polobench.gate.baseline import read_log
    from polobench.report.origins import provenance_table

    for entry in read_log(into)[-lines:]:
        typer.echo(printable(f"{entry['date']}  {entry['cells']} cells  {entry['why']}"))
        for change, arms in entry["changes"].items():
            for arm, seeds in arms.items():
                typer.echo(printable(f"  {change}: {arm}, seeds {', '.join(map(str, seeds))}"))
    typer.echo(provenance_table(collect(into)).terminal())


def history(
    store: Annotated[Path, typer.Argument(help="Folder of the results of one study at one commit.")],
    file: Annotated[Path, typer.Option(help="The history, a file of JSON lines.")] = HISTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print the line.")] = False,
) -> None:
    """Append a store's scores and speeds to the history as the line of their commit.

    Nothing happens if that line is there already; another one of the same commit and study is a mistake, exit code 2.
    """
    from polobench.gate.history import record

    entry, is_new = record(store, file)
    if as_json:
        typer.echo(json.dumps(entry, indent=2))
    did = "appended to" if is_new else "unchanged, since this line is there already:"
    arms = f"{len(entry['scores'])} learning arms, {len(entry['speeds'])} throughput arms"
    typer.echo(printable(f"commit {entry['commit'][:12]}, {entry['study']}, {arms}: {did} {file}"), err=as_json)


def ab(
    base: Annotated[str, typer.Argument(metavar="BASE_REF", help="A branch, tag or commit of this checkout.")],
    head: Annotated[str, typer.Argument(metavar="HEAD_REF", help="The one that may be slower.")],
    study: Annotated[Path, typer.Option(help="Its throughput cells are timed, as they are in HEAD_REF.")] = SPEED_STUDY,
    seconds: Annotated[float, typer.Option(min=1, help="To time a cell, the start of its processes included.")] = 30,
    methods: Annotated[str, typer.Option(help="Only these, as in ppo,trpo.", show_default=False)] = "",
    tasks: Annotated[str, typer.Option(help="Only these, as in CartPole-v1.", show_default=False)] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the orders in which the two take turns.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File for the report.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Time two commits against each other, iteration by iteration, in worktrees that are gone afterwards.

    The seconds do not hold what is done once: making the environments and loading the libraries in them.

    Exits with 1 if a cell is slower or does not run any more, 2 on a mistake, with nothing changed.
    """
    from rich.console import Console
    from rich.progress import Progress

    from polobench.ab import speed, speed_text
    from polobench.ab.comparison import PARTS, load_cells, measure
    from polobench.ab.processes import servers
    from polobench.ab.sides import checked_out

    if output is not None and not output.parent.is_dir():
        raise UsageError(f"report {str(output)!r} has no folder to stand in")
    with checked_out(Path.cwd(), (base, head), lambda line: typer.echo(printable(line), err=True)) as sides:
        cells = load_cells(study, sides[1], _names(methods), _names(tasks))
        with servers(*sides) as between, Progress(console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(f"timing {len(cells)} cells", total=1.0)
            found = measure(between(*sides), cells, seconds, seed, lambda share: bars.update(bar, completed=share))
    times = [{part: cell.seconds(part) for part in PARTS} for cell in found]
    judged = [
        speed.judge(str(cell.cell), cell.clock, parts, *cell.problems) for cell, parts in zip(found, times, strict=True)
    ]
    named = [speed_text.Named(side.ref, side.commit) for side in sides]
    text = speed_text.page(named[0], named[1], judged)
    if output is not None:
        _write(output, text)
    typer.echo(json.dumps(speed_text.as_json(named[0], named[1], judged, times), indent=2) if as_json else text)
    if all(cell.verdict == speed.ABSENT for cell in judged):
        raise UsageError(f"no cell runs on either side: {judged[0].reason}")
    if any(cell.regression for cell in judged):
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def compare(
    base: Annotated[Path, typer.Argument(help="Store of the base; or a JSON file of pytest-benchmark.")],
    head: Annotated[Path, typer.Argument(help="Store of the head; or a JSON file of pytest-benchmark.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the report here, as Markdown.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two stores of one study: did learning, loss, cost or an answer get worse?

    Exits with 0 if nothing did, 1 on a regression, 2 on a mistake, 3 if the stores cannot be compared. Of two JSON
    files of pytest-benchmark a vanished benchmark is a regression, and seconds are advice.
    """
    from polobench.gate.compare import compare_stores
    from polobench.report.gate import answer, finding_line, gate_json, gate_markdown
    from polobench.store.pack import is_pack

    if all(path.is_file() and not is_pack(path) for path in (base, head)):
        raise typer.Exit(_compare_timings(base, head, output, as_json))
    found = compare_stores(base, head)
    if output:
        _write(output, gate_markdown(found))
    if as_json:
        typer.echo(json.dumps(gate_json(found), indent=2, allow_nan=False))
    else:
        for finding in found.findings:
            typer.echo(printable(finding_line(finding)))
        typer.echo(answer(found))
        if output:
            typer.echo(f"report: {output}")
    raise typer.Exit(found.exit_code)


def _compare_timings(base: Path, head: Path, output: Path | None, as_json: bool) -> int:
    from polobench.gate.pytest_benchmark import compare_timings, read_timings

    found = compare_timings(read_timings(base), read_timings(head))
    if output:
        _write(output, "\n".join(f"- {printable(line)}" for line in found.lines()) + "\n")
    if as_json:
        typer.echo(json.dumps(vars(found) | {"exit_code": found.exit_code}, indent=2))
    else:
        for line in found.lines():
            typer.echo(printable(line))
    return found.exit_code


def _write(path: Path, text: str) -> None:
    """Write a report; raises `UsageError` if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}") from error
