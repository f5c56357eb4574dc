"""How fast DPO, GRPO and sampling are beside TRL and `generate()`, on the same tiny GPT-2 in one process and thread.

    python -m benchmarks.peers.trl_language

from the repository's root; needs `pip install -e ".[peers]"`. `trl_sides.py` says what exactly is compared.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.peers.alternation import Alternation, Comparison
from polobench.core.errors import PoloError, Unavailable, UsageError, unknown

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
NAMES = ("dpo", "grpo", "sampling-distinct", "sampling-shared")
COLUMNS = ("comparison", "ours ms", "peer ms", "ours /s", "peer /s", "unit", "ratio, median [95 %]", "target")


class Clock(StrEnum):
    """What a step's seconds are."""

    wall = "wall"
    cpu = "cpu"


CLOCKS = {Clock.wall: time.perf_counter, Clock.cpu: time.process_time}


def main(
    only: Annotated[str, typer.Option(help="Comparisons, by comma.")] = ",".join(NAMES),
    rounds: Annotated[int, typer.Option(min=2, help="Timed rounds, a step of each side in each.")] = 100,
    warmup: Annotated[int, typer.Option(min=1, help="Rounds before these; after them the sides are checked.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the order of the sides within the rounds.")] = 0,
    clock: Annotated[Clock, typer.Option(help="cpu is the process's own time, for a busy machine.")] = Clock.wall,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time DPO, GRPO and sampling side by side with TRL and generate()."""
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in NAMES:
            raise unknown("comparison", name, NAMES)
    load = [os.getloadavg()[0]]
    rows = [found.row() for found in compare(names, partial(_alternation, rounds, warmup, seed, CLOCKS[clock]))]
    load.append(os.getloadavg()[0])
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "clock": clock, "rounds": rounds} | machine()
    facts |= {"warmup": warmup, "seed": seed, "load_average": load}
    print(json.dumps(facts | {"rows": rows}, indent=2) if as_json else table(rows, facts))


def _alternation(
    rounds: int,
    warmup: int,
    seed: int,
    clock: Callable[[], float],
    on_round: Callable[[], None],
    ours: Callable[[], None],
    check: Callable[[], None],
) -> Alternation:
    return Alternation(ours, rounds, warmup, seed, check, on_round, clock)


def compare(names: Sequence[str], start: Callable[..., Alternation]) -> list[Comparison]:
    """The comparisons, one after the other, each with a bar."""
    import torch

    trl_sides, generate_sides = _sides()
    runs = {
        "dpo": trl_sides.compare_dpo,
        "grpo": trl_sides.compare_grpo,
        "sampling-distinct": partial(generate_sides.compare_sampling, distinct=64),
        "sampling-shared": partial(generate_sides.compare_sampling, distinct=8),
    }
    torch.set_num_threads(1)
    found = []
    # no thread that refreshes: nothing but the two sides runs while they are timed
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        for name in names:
            bar = progress.add_task(name, total=None)

            def begin(ours: Callable[[], None], check: Callable[[], None], bar: Any = bar) -> Alternation:
                def on_round() -> None:
                    progress.update(bar, advance=1, refresh=True)

                alternation = start(on_round, ours, check)
                progress.update(bar, total=alternation.total)
                return alternation

            found.append(runs[name](begin))
    return found


def _sides() -> tuple[Any, Any]:
    """The modules that load TRL and transformers, with nothing said and nothing asked of a network."""
    os.environ.update(QUIET)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        import datasets
        import transformers
        import trl  # noqa: F401
    except ImportError as error:
        raise Unavailable(f"TRL cannot be loaded: {error} (install it: pip install -e '.[peers]')") from None
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    from benchmarks.peers import generate_sides, trl_sides

    return trl_sides, generate_sides


def machine() -> dict[str, Any]:
    """Versions, commit and processor."""
    import torch

    from polobench.core import provenance

    facts = provenance.collect("", torch.device("cpu"), threads=1)
    versions = facts["versions"] | {name: version(name) for name in ("trl", "accelerate")}
    return {"versions": versions} | {name: facts[name] for name in ("commit", "dirty", "cpu_model", "cpu_count")}


def table(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """For a terminal."""
    from tabulate import tabulate

    cells = []
    for row in rows:
        ratio = f"{row['ratio_median']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
        reached = "reached" if row["ratio_median"] >= row["target"] else "missed"
        times = [f"{row[key]:.1f}" for key in ("ours_ms", "theirs_ms")]
        rates = [f"{row[key]:,.1f}" for key in ("ours_per_second", "theirs_per_second")]
        cells.append([row["comparison"], *times, *rates, row["unit"], ratio, f"{row['target']} {reached}"])
    load = " -> ".join(f"{value:.1f}" for value in facts["load_average"])
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "transformers", "trl"))
    return "\n".join(
        [
            tabulate(cells, COLUMNS, stralign="right", disable_numparse=True),
            f"{facts['rounds']} rounds in turns, one thread, {facts['clock']} seconds; {versions}",
            f"{facts['cpu_model']}, {facts['cpu_count']} cores, load average {load}",
        ]
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except PoloError as error:
        print(f"polobench: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
