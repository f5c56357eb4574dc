"""How fast DPO, GRPO, RLOO and sampling are beside TRL and `generate()`, on the same model in one thread.

`trl_sides.py` and `generate_sides.py` say what exactly is compared. The limit of a work is measured after each round:
the matrix products of the model's passes in one step, forward and backward, and nothing else (`limits.py`).
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.peers.alternation import Alternation, Comparison
from polobench.core.errors import Unavailable

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
SEED = 40


def _compare(name: str, rounds: int | None, world: str = "TINY", distinct: int | None = None) -> Comparison:
    """One comparison in CPU seconds, with a bar.

    Nothing but the two sides runs while they are timed: no thread refreshes the bar.
    """
    import torch

    worlds, limits, trl_sides, generate_sides = _sides()
    torch.set_num_threads(1)
    asked = getattr(worlds, world)
    compare = getattr(generate_sides if name == "sampling" else trl_sides, f"compare_{name}")
    more = {} if distinct is None else {"distinct": distinct}
    model = asked.load().model.to(getattr(torch, asked.compute_dtype))
    products = limits.Products(model, limits.passes(name, asked, distinct or asked.groups))
    limit: list[float] = []
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        bar = progress.add_task(name, total=None)

        def start(ours: Callable[[], None], check: Callable[[], None]) -> Alternation:
            def on_round() -> None:
                progress.update(bar, advance=1, refresh=True)
                limit.append(products.seconds())

            steps = rounds or asked.rounds, asked.warmup
            alternation = Alternation(ours, *steps, SEED, check, on_round, time.process_time)
            progress.update(bar, total=alternation.total)
            return alternation

        found: Comparison = compare(start, asked, **more)
    return replace(found, limit_seconds=limit[asked.warmup :])


WORKS: dict[str, Callable[[int | None], Comparison]] = {
    "dpo": partial(_compare, "dpo"),
    "grpo": partial(_compare, "grpo"),
    "rloo": partial(_compare, "rloo"),
    "sampling-distinct": partial(_compare, "sampling", distinct=64),
    "sampling-shared": partial(_compare, "sampling", distinct=8),
    "dpo-smollm2": partial(_compare, "dpo", world="SMOLLM2"),
    "grpo-smollm2": partial(_compare, "grpo", world="SMOLLM2"),
    "dpo-smollm2-bfloat16": partial(_compare, "dpo", world="SMOLLM2_BFLOAT16"),
    "grpo-smollm2-bfloat16": partial(_compare, "grpo", world="SMOLLM2_BFLOAT16"),
}


def _sides() -> tuple[Any, ...]:
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
    from benchmarks.peers import generate_sides, limits, trl_sides, worlds

    return worlds, limits, trl_sides, generate_sides
