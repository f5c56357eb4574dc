"""Planting a fault in the sound code, and seeing that a test fails on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import test_probes


def check_is_caught(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Any, test: Callable[..., None], *arguments: object
) -> None:
    """The test passes on the sound code, and fails with `fault` in the place of `name` in the module or class `where`.

    Args:
        monkeypatch: plants the fault and takes it out again.
        where, name, fault: what is planted.
        test, arguments: a test or a check of the suite, and what it is called with.
    """
    test_probes.passes(test, *arguments)
    monkeypatch.setattr(where, name, fault)
    monkeypatch.setattr(test_probes, "passes", lambda check, *its: check(*its))  # what passed before was sound
    with pytest.raises(AssertionError):
        test(*arguments)
