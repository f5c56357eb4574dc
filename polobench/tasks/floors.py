"""What a task measures once for all cells of all studies, as far as sources and platform agree, such as its floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from polobench.core.kept import kept
from polobench.core.provenance import code_hash, collect

T = TypeVar("T")


def stored(kind: str, modules: set[str], definition: str, measure: Callable[[], Any], read: Callable[[Any], T]) -> T:
    """The stored value of what the modules and the definition make; measured, and stored, where there is none yet.

    A definition with a `<` in it names something without a name of its own, such as a lambda, and is never stored.
    `kind`, `measure` and `read` are as in `kept`.
    """
    if "<" in definition:
        return read(measure())
    code = code_hash(*sorted(modules))
    platform = collect(code, torch.device("cpu"), 1)["platform_fingerprint"]
    return kept(kind, [code, platform, definition], measure, read)


def stored_floor(modules: set[str], definition: str, measure: Callable[[], float]) -> float:
    """As `stored`."""
    return stored("floors", modules, definition, measure, float)
