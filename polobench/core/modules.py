"""Modules that a user names: in a task's `module:Id-v0`, or in a wrapper's `module:Class`."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from types import ModuleType

from polobench.core.errors import UsageError, first_line


def import_named(name: str) -> ModuleType:
    """The module of this name; one that is not installed is looked for in the current folder, as `python -m` does.

    The folder is added to the path, behind all others, only then: nothing in it can shadow what is installed. Raises
    `UsageError` with the reason if it does not import.
    """
    try:
        if find_spec(name.partition(".")[0]) is None and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"module {name!r} does not import: {first_line(error)}") from error
