"""Where the CPU seconds of a run go: inside of which functions they are spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

REST = "rest"
Places = Sequence[tuple[Any, str]]  # classes or modules, and the name of a function in each


@contextmanager
def spent(parts: Mapping[str, Places], clock: Callable[[], float] = time.process_time) -> Iterator[dict[str, float]]:
    """Seconds in each part's functions, without those in the functions of other parts that they call, and the rest.

    Reading the clock takes a microsecond for each call, which is counted too.
    """
    seconds = dict.fromkeys((*parts, REST), 0.0)
    inside, since = [REST], clock()

    def turn() -> None:
        nonlocal since
        now = clock()
        seconds[inside[-1]] += now - since
        since = now

    def watched(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            turn()
            inside.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                turn()
                inside.pop()

        return call

    places = [(part, *place) for part, found in parts.items() for place in found]
    patches = [patch.object(owner, name, watched(part, getattr(owner, name))) for part, owner, name in places]
    for each in patches:
        each.start()
    try:
        yield seconds
    finally:
        turn()
        for each in patches:
            each.stop()
