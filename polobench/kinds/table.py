"""The table of kinds, in which a kind of cell is one line.

A plug-in adds its own as `[project.entry-points."polobench.kinds"]`: a subclass of `Kind` by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from polobench.core.errors import first_line
from polobench.core.result import RunResult
from polobench.kinds.fixed_batch import FixedBatch
from polobench.kinds.gradient_noise import GradientNoise
from polobench.kinds.kind import Kind
from polobench.kinds.learning import Learning
from polobench.kinds.throughput import Throughput

BUILT_IN: tuple[type[Kind], ...] = (
    Learning,
    Throughput,
    GradientNoise,
    FixedBatch,
)


@cache
def kinds() -> Mapping[str, type[Kind]]:
    """Every kind by name; a plug-in's that does not load, or has the name of another, is left out with a warning."""
    found = {kind.name: kind for kind in BUILT_IN}
    for entry in sorted(entry_points(group="polobench.kinds"), key=lambda entry: (entry.name, entry.value)):
        try:
            kind = entry.load()
            if not issubclass(kind, Kind) or kind.name != entry.name or kind.name in found:
                raise TypeError(f"it is no polobench.kinds.kind.Kind, or its name is not {entry.name!r} or is taken")
        except Exception as error:
            warnings.warn(f"kind of cells {entry.name!r} is left out: {first_line(error)}", stacklevel=2)
        else:
            found[kind.name] = kind
    return found


def kind_of(result: RunResult) -> type[Kind]:
    """The kind of a result's cell."""
    return kinds()[result.kind]
