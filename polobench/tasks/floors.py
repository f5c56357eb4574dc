"""The measured floor of an environment: once for all cells of all studies, in polobench's cache folder.

It is kept under a hash of everything that decides it: the environment's sources, arguments and limit, and the platform.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress

import torch

from polobench.core.provenance import code_hash, collect
from polobench.policies.pretrained import cache_root


def stored_floor(modules: set[str], definition: str, measure: Callable[[], float]) -> float:
    """The stored floor of what the modules and the definition make; measured, and stored, where there is none yet.

    A definition with a `<` in it names something without a name of its own, such as a lambda, and is never stored.
    """
    if "<" in definition:
        return measure()
    code = code_hash(*sorted(modules))
    platform = collect(code, torch.device("cpu"), 1)["platform_fingerprint"]
    key = hashlib.sha256("\n".join([code, platform, definition]).encode()).hexdigest()[:32]
    path = cache_root() / "floors" / key
    with suppress(OSError, ValueError):
        if math.isfinite(floor := float(path.read_text())):
            return floor
    floor = measure()
    with suppress(OSError):  # a folder that cannot be written to: the next cell measures again
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{key}.{os.getpid()}")
        part.write_text(repr(floor))
        part.replace(path)
    return floor
