"""A signal handled in another way, or not at all, for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Inside, the signal goes to `handler` (as for `signal.signal`); outside the main thread, which alone may say so,
    everything stays as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def deferred(number: signal.Signals) -> Iterator[None]:
    """The signal waits until the block is left; processes that are started inside never hear it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
