"""Random streams by named axis, and a run that leaves the caller's random state and threads as they were.

A stream is derived from (seed, axis, indices) by SHA-256, never from a global generator, so that adding a draw on one
axis (say, evaluation) moves no other.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits


class SeedAxes:
    """The random streams of one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def integer(self, axis: str, *indices: int) -> int:
        """A seed in [0, 2**63) for this axis."""
        text = "/".join([str(self.seed), axis, *map(str, indices)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def numpy(self, axis: str, *indices: int) -> np.random.Generator:
        return np.random.default_rng(self.integer(axis, *indices))

    def torch(self, axis: str, *indices: int) -> torch.Generator:
        """A CPU generator: draws are moved to the device, so that devices share their randomness."""
        return torch.Generator().manual_seed(self.integer(axis, *indices))


@contextmanager
def isolated(rng: SeedAxes, threads: int) -> Iterator[None]:
    """Seed the global generators from `rng` and set the threads of torch and numpy; restore both on the way out.

    polobench never draws from the global generators; a foreign library may. It may also change how torch and numpy
    compute, which is restored, too.
    """
    python, legacy, before = random.getstate(), np.random.get_state(), torch.get_num_threads()
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(), threadpool_limits(threads, user_api="blas"), np.errstate(), torch.enable_grad():
        torch.set_num_threads(threads)
        torch.manual_seed(rng.integer("global/torch"))
        np.random.seed(rng.integer("global/numpy") % 2**32)
        random.seed(rng.integer("global/python"))
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.set_default_dtype(dtype)
            random.setstate(python)
            np.random.set_state(legacy)
