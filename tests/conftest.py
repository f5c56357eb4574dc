"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from checks import bound

from polobench.core.task import Task


@pytest.fixture
def bind() -> Iterator[Callable[..., Task]]:
    """Makes bound tasks, `bind(task, seed=0, budget=100_000)`, and closes them at the end."""
    with ExitStack() as opened:
        yield lambda *args, **kwargs: opened.enter_context(bound(*args, **kwargs))
