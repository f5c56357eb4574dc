"""A folder of this process for what has to lie beside the store, such as sockets, whose paths must be short."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path

import psutil

_PREFIX = "polobench-"


@cache
def scratch() -> str:
    """The folder, made at the first call and removed when the process ends; those of processes that were killed go."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}[0-9]*-*"):
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    return folder
