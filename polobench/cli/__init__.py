"""The command `polobench`: one module per group of commands.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer

from polobench.cli import ab, data, gate, listing, reports, sweeps
from polobench.cli.common import Interrupted, ignore_further_interrupts
from polobench.core.errors import PoloError, ending_in_one_line, first_line

OVERVIEW = """Which policy-optimization method should I use, at what cost, and how sure are we?

\b
  polobench run quick               train every method of a small study
  polobench report results/quick    compare them: a table, figures, a page
  polobench COMMAND --help          options and an example
"""

# name, what runs, an example; `--help` lists them in this order
COMMANDS = (
    ("list", listing.list_command, "polobench list tasks"),
    ("run", sweeps.run, "polobench run quick --jobs 2"),
    ("status", sweeps.status, "polobench status results/quick --study quick"),
    ("tune", sweeps.tune, "polobench tune tuning/matrix --jobs 2"),
    ("data", data.data, "polobench data my.jsonl --model smollm2"),
    ("report", reports.report, "polobench report results/quick -o reports/quick"),
    ("pack", reports.pack, "polobench pack results/quick -o quick.zip"),
    ("compare", gate.compare, "polobench compare results/base results/head -o gate.md"),
    ("verify", gate.verify, "polobench verify results/quick --cells 3"),
    ("ab", ab.ab, "polobench ab main HEAD --methods ppo,trpo"),
    ("history", gate.history, "polobench history results/head"),
)

app = typer.Typer(
    help=OVERVIEW, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
for name, command, example in COMMANDS:
    app.command(name, epilog=f"Example: {example}")(command)
app.add_typer(gate.baseline_app, name="baseline")


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """What stands before every command; `main` reads it."""


@contextmanager
def _leaving_threads_behind() -> Iterator[None]:
    """Exit at once if an environment has left a thread that would keep the process alive for ever."""
    before = set(threading.enumerate())
    try:
        yield
    except SystemExit as ended:
        if any(not thread.daemon for thread in set(threading.enumerate()) - before):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise


@contextmanager
def _surprises_in_one_line() -> Iterator[None]:
    """Every error ends the command in one line, those too that polobench did not raise on purpose."""
    with ending_in_one_line():
        try:
            yield
        except PoloError:
            raise
        except Exception as error:
            raise PoloError(f"{first_line(error)} (unexpected; `polobench --debug COMMAND` shows where)") from error


def main() -> None:
    """Run the command; what went wrong becomes one line and an exit code: 2 for a mistake, 130 for Ctrl-C."""
    debug = sys.argv[1:2] == ["--debug"]
    gc.set_threshold(50_000)  # libraries make a million objects that stay
    with _leaving_threads_behind(), nullcontext() if debug else _surprises_in_one_line():
        try:
            app()
        except (SystemExit, KeyboardInterrupt) as ended:
            ignore_further_interrupts()
            gc.freeze()  # the interpreter would look for garbage among all of them as it ends
            code = Interrupted.exit_code if isinstance(ended, KeyboardInterrupt) else ended.code
            if code == Interrupted.exit_code:  # typer swallows Ctrl-C and says nothing
                print("polobench: interrupted", file=sys.stderr)
            raise SystemExit(code) from None
