"""The measured floor of an environment: once for all cells of all studies, as far as sources and platform agree."""

from __future__ import annotations

from collections.abc import Callable

import torch

from polobench.core.kept import kept
from polobench.core.provenance import code_hash, collect


def stored_floor(modules: set[str], definition: str, measure: Callable[[], float]) -> float:
    """The stored floor of what the modules and the definition make; measured, and stored, where there is none yet.

    A definition with a `<` in it names something without a name of its own, such as a lambda, and is never stored.
    """
    if "<" in definition:
        return measure()
    code = code_hash(*sorted(modules))
    platform = collect(code, torch.device("cpu"), 1)["platform_fingerprint"]
    return kept("floors", [code, platform, definition], measure, float)
