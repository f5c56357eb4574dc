"""What a process shares, and who changed it: random state, threads, default type, folder, environment, warnings."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def _numpy_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return (name, tuple(np.asarray(keys).tolist()), *rest)


def _set_torch_state(state: tuple[int, ...]) -> None:
    torch.set_rng_state(torch.tensor(state, dtype=torch.uint8))


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


# by name: how it is read, as a value that compares, and how it is set
_PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "python's random state": (random.getstate, random.setstate),
    "numpy's global random state": (_numpy_state, np.random.set_state),
    "torch's global random state": (lambda: tuple(torch.get_rng_state().tolist()), _set_torch_state),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the working directory": (os.getcwd, os.chdir),
    "the environment variables": (lambda: dict(os.environ), _set_environment),
}
_FILTERS = "the warnings filters"


@contextmanager
def watched_state() -> Iterator[list[str]]:
    """Gives a list that afterwards names what the code inside changed; all of it is set back.

    What a run changes once and for all, such as an environment variable, so shows in every run, not in the first alone.
    """
    changed: list[str] = []
    before = {name: read() for name, (read, _) in _PARTS.items()}
    with warnings.catch_warnings():
        filters = list(warnings.filters)
        try:
            yield changed
        finally:
            changed += [_FILTERS] if list(warnings.filters) != filters else []
            for name, (read, write) in _PARTS.items():
                if read() != before[name]:
                    changed.append(name)
                    write(before[name])
