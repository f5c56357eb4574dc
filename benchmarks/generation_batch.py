"""How often the number of completions sampled side by side changes one, by the type that the model computes in.

    python -m benchmarks.generation_batch

from the repository's root. The uniforms are keyed by prompt and sample, so in exact arithmetic nothing would change; in
fewer bits a sum rounds by the shape of its batch, and now and then a uniform lies between the two results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import pad

from polobench.analysis.statistics.intervals import wilson_interval
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import PoloError, UsageError
from polobench.core.seeding import SeedAxes
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import complete
from polobench.policies.pretrained import load, locate
from polobench.tasks.digits import LENGTHS, SORT
from polobench.tasks.text import TextCodec

BATCHES = (1, 7, 64)
LONGEST = LENGTHS[-1] + 1  # an answer and the end token
TYPES = ("float64", "float32", "bfloat16")
COLUMNS = ("type", "batch", "differ from batch 64", "share [95 %, Wilson]", "largest gap of a log-prob, nats")


def main(
    completions: Annotated[int, typer.Option(min=1, help="Sampled for held-out prompts of sort-digits.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the uniforms.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sample the sort-digits checkpoint's completions in batches of 1, 7 and 64, and count those that differ."""
    torch.set_num_threads(1)
    rows = list(differences(completions, seed))
    if as_json:
        print(json.dumps({"task": SORT.name, "completions": completions, "seed": seed, "rows": rows}, indent=2))
        return
    cells = []
    for row in rows:
        share = f"{row['share']:.3%} [{row['share_low']:.3%}, {row['share_high']:.3%}]"
        count = f"{row['differing']} of {completions}"
        cells.append([row["compute_dtype"], row["batch"], count, share, f"{row['largest_log_prob_gap']:.1e}"])
    print(tabulate(cells, COLUMNS))


def differences(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each type and for each batch beside the largest, which the others are held against."""
    heldout = SORT.prompts()["heldout"]
    keys = [(index % len(heldout), index // len(heldout)) for index in range(count)]
    rng = SeedAxes(seed)
    uniforms = torch.from_numpy(np.stack([rng.numpy("tokens", *key).random(LONGEST) for key in keys]))
    texts = [heldout[prompt] for prompt, _ in keys]
    jobs = [(dtype, batch) for dtype in TYPES for batch in sorted(BATCHES, reverse=True)]
    for dtype, batch in track(jobs, "sampling", console=Console(stderr=True)):
        found = _sampled(dtype, batch, texts, uniforms)
        if batch == max(BATCHES):
            expected = found
        else:
            yield {"compute_dtype": dtype, "batch": batch} | _difference(found, expected)


def _sampled(dtype: str, batch: int, texts: Sequence[str], uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """`[N, longest]` tokens, and their log-probabilities."""
    checkpoint = load(locate(str(resources.files("polobench.tasks").joinpath("checkpoints", SORT.name))))
    codec = TextCodec(checkpoint.tokenizer)
    policy = CausalLM(checkpoint.model, compute_dtype=dtype)
    policy.ledger = Ledger(Budget(updates=1))
    prompts = [codec.prompt(text) for text in texts]
    found = complete(policy, prompts, uniforms, limit=LONGEST, end_token=codec.end_token, batch=batch)
    room = (0, LONGEST - found.tokens.shape[1])
    return pad(found.tokens, room, value=codec.end_token), pad(found.log_probs, room)


def _difference(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """The completions that differ, and how far the log-probabilities of the others are apart."""
    equal = (found[0] == expected[0]).all(1)
    differing, count = int((~equal).sum()), len(equal)
    interval = wilson_interval(differing, count)
    gaps = (found[1] - expected[1])[equal].abs()
    return {
        "differing": differing,
        "share": differing / count,
        "share_low": interval.low,
        "share_high": interval.high,
        "largest_log_prob_gap": float(gaps.max()) if len(gaps) else 0.0,
    }


if __name__ == "__main__":
    try:
        typer.run(main)
    except PoloError as error:
        print(f"polobench: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
