"""Our sampling loop and transformers' `generate()` on the same prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from benchmarks.peers.alternation import Comparison, Start
from benchmarks.peers.worlds import NEW_TOKENS, PROMPT, World
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import PoloError
from polobench.core.seeding import SeedAxes
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import complete
from polobench.tasks.text import TextCodec


def compare_sampling(start: Start, world: World, distinct: int) -> Comparison:
    """16 tokens after each of 64 prompts of 16 tokens, `distinct` of them different, against `generate()`.

    Ours draws its keyed uniforms and gives log-probabilities; `generate()`, without top-k, gives tokens alone.
    """
    given = world.endless()
    policy, model = CausalLM(given.model), world.endless().model
    policy.ledger = Ledger(Budget(updates=1))
    codec = TextCodec(given.tokenizer)
    prompts = [codec.prompt(text) for text in world.texts(distinct, PROMPT, "prompts")]
    samples, rng = world.rows // distinct, SeedAxes(0)
    rows = [prompt for prompt in prompts for _ in range(samples)]
    asked = torch.tensor(prompts)

    def ours(uniforms: Tensor | None) -> Tensor:
        return complete(policy, rows, uniforms, limit=NEW_TOKENS, end_token=codec.end_token, batch=world.rows).tokens

    def theirs(**how: Any) -> Tensor:
        settings = {"max_new_tokens": NEW_TOKENS, "pad_token_id": codec.end_token, **how}
        return model.generate(input_ids=asked, attention_mask=torch.ones_like(asked), **settings)[:, PROMPT:]

    def check() -> None:
        if not torch.equal(ours(None)[::samples], theirs(do_sample=False)):
            raise PoloError("sampling: the most likely completions differ (allowed: none)")

    def sample_ours() -> None:
        keys = [(row // samples, row % samples) for row in range(world.rows)]
        ours(torch.from_numpy(np.stack([rng.numpy("tokens", 0, *key).random(NEW_TOKENS) for key in keys])))

    alternation = start(sample_ours, check)
    alternation.begin()
    for _ in range(alternation.total):
        theirs(do_sample=True, top_k=0, num_return_sequences=samples)
        alternation.after_step()
    work = f"sampling, {distinct} prompts x {samples}"
    peer = f"generate(), transformers {transformers.__version__}"
    return Comparison(
        work, peer, "tokens", world.rows * NEW_TOKENS, world.goal, alternation.ours_seconds, alternation.theirs_seconds
    )
