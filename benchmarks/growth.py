"""How the cost of a sample grows with what a run is made of: environments, minibatch, width, completion and group.

    python -m benchmarks.growth --figure docs/growth.png

from the repository's root. CPU microseconds per sample of training in one thread, from the difference of a long and a
short run, so that what happens once is in neither. Each axis changes one number and keeps the samples of an update.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from tabulate import tabulate

from benchmarks.peers.worlds import PROMPT, TINY, tiny
from polobench.core.errors import PoloError
from polobench.methods.grpo import GRPO
from polobench.methods.ppo import PPO
from polobench.methods.trpo import TRPO
from polobench.registry import find_task
from polobench.tasks.reward import RewardTask

SHORT, LONG, SEED = 1, 5, 1000  # updates of the two runs
ROLLOUT = 4_096  # samples of an update in control
COMPLETIONS, LENGTH = 128, 16  # of an update in language
TICKS = (10, 20, 50, 100, 200, 500)  # CPU us per sample
COLUMNS = ("axis", "method", "value", "CPU us per sample")
Make = Callable[[int], Any]  # a method at a value of its axis


@dataclass(frozen=True)
class Axis:
    """What changes, its values, and the methods that are measured."""

    name: str
    values: Sequence[int]
    methods: dict[str, Make]


def _control(kind: type[Any], value: int, **asked: Callable[[int], Any]) -> Any:
    given = {"n_envs": 8, "hidden_sizes": (64, 64)} | {name: of(value) for name, of in asked.items()}
    return kind(find_task("CartPole-v1"), n_steps=ROLLOUT // given["n_envs"], **given)


def _ppo(value: int, **asked: Callable[[int], Any]) -> Any:
    return _control(PPO, value, epochs=lambda _: 10, **({"minibatch_size": lambda _: 256} | asked))


def _trpo(value: int, **asked: Callable[[int], Any]) -> Any:
    return _control(TRPO, value, critic_epochs=lambda _: 10, **({"critic_minibatch_size": lambda _: 256} | asked))


def _grpo(length: int, size: int) -> Any:
    world = replace(TINY, load=partial(tiny, PROMPT + length))
    prompts = world.texts(256, PROMPT, "growth/train"), world.texts(8, PROMPT, "growth/heldout")
    task = RewardTask("growth", world.endless, *prompts, world.first_half_share, max_new_tokens=length)
    return GRPO(task, n_groups=COMPLETIONS // size, group_size=size, beta=0.0, generation_batch=COMPLETIONS)


def _square(width: int) -> tuple[int, int]:
    return width, width


AXES = (
    Axis(
        "environments",
        (1, 4, 16, 64, 512),
        {"ppo": partial(_ppo, n_envs=int), "trpo": partial(_trpo, n_envs=int)},
    ),
    Axis(
        "rows of a minibatch",
        (32, 128, 512, 2_048),
        {"ppo": partial(_ppo, minibatch_size=int), "trpo": partial(_trpo, critic_minibatch_size=int)},
    ),
    Axis(
        "width of both hidden layers",
        (16, 64, 256, 512),
        {"ppo": partial(_ppo, hidden_sizes=_square), "trpo": partial(_trpo, hidden_sizes=_square)},
    ),
    Axis("completion tokens", (8, 16, 32, 64, 128), {"grpo": lambda length: _grpo(length, 8)}),
    Axis("completions per prompt", (2, 4, 8, 16, 32), {"grpo": lambda size: _grpo(LENGTH, size)}),
)


def main(
    figure: Annotated[Path | None, typer.Option(help="A PNG file to draw.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure every axis and print, or draw, what a sample costs."""
    import torch

    torch.set_num_threads(1)
    if figure is not None and not figure.absolute().parent.is_dir():
        raise PoloError(f"--figure {str(figure)!r}: there is no such folder")
    points = [
        (axis, name, make, value) for axis in AXES for name, make in axis.methods.items() for value in axis.values
    ]
    shown = track(points, "growth", console=Console(stderr=True), transient=True)
    rows = [(axis.name, name, value, cost(make, value)) for axis, name, make, value in shown]
    if figure is not None:
        draw(rows).savefig(figure)
    if as_json:
        print(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=2))
    else:
        print(tabulate(rows, COLUMNS, floatfmt=".1f", intfmt=","))


def cost(make: Make, value: int) -> float:
    """CPU microseconds per sample, between the ends of a short and of a long run."""
    spent = []
    for updates in (SHORT, LONG):
        method = make(value)
        method.task.evaluations = method.task.evaluation_episodes = method.task.final_episodes = 1
        result = method.run(SEED, {"updates": updates})
        if result.status != "ok":
            raise PoloError(f"{method.label} at {value}: {result.reason}")
        spent.append((result.ledger.cpu_seconds, result.ledger.samples))
    (short, few), (long, many) = spent
    return 1e6 * (long - short) / (many - few)


def draw(rows: Sequence[tuple[str, str, int, float]]) -> Any:
    """A panel per axis, both scales logarithmic."""
    from matplotlib.figure import Figure

    from polobench.report.draw.style import DPI, GREY

    colours = {"ppo": "#029e73", "trpo": "#cc78bc", "grpo": "#de8f05"}
    whole = Figure(figsize=(13, 3.4), layout="constrained", dpi=DPI)
    panels = whole.subplots(1, len(AXES), sharey=True)
    above = {"ppo": 8, "trpo": -16, "grpo": 8}  # points from a line's end to its name
    for panel, axis in zip(panels, AXES, strict=True):
        for name, colour in colours.items():
            found = list(_of(rows, axis.name, name))
            if found:
                panel.plot(*zip(*found, strict=True), "o-", color=colour, ms=4)
                panel.annotate(
                    name, found[-1], xytext=(4, above[name]), textcoords="offset points", ha="right", color=colour
                )
        panel.set(xscale="log", yscale="log", xticks=axis.values, xticklabels=axis.values, xlabel=axis.name)
        panel.set(yticks=TICKS, yticklabels=TICKS, ylim=(0.8 * TICKS[0], 1.2 * TICKS[-1]))
        panel.minorticks_off()
        panel.grid(color=GREY, alpha=0.15)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("CPU us per sample")
    return whole


def _of(rows: Sequence[tuple[str, str, int, float]], axis: str, method: str) -> Iterator[tuple[int, float]]:
    return ((value, found) for name, of, value, found in rows if (name, of) == (axis, method))


if __name__ == "__main__":
    try:
        typer.run(main)
    except PoloError as error:
        print(f"polobench: {error}", file=sys.stderr)
        sys.exit(1)
