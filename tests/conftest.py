"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

LONGEST_ID = 60


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pytest that a test starts is nobody's worker; pytest-benchmark would take no rounds in one."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small lose time on threads, most of all where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A case that is a list, a table or a path is called by what it holds, and not by its number."""
    if isinstance(val, BaseException):
        return type(val).__name__
    if isinstance(val, str):
        return None if len(val) <= LONGEST_ID else repr(val)[:LONGEST_ID]
    return repr(val)[:LONGEST_ID] if isinstance(val, (dict, list, tuple, range, Path)) and _is_plain(val) else None


def _is_plain(val: object) -> bool:
    """Whether it reads the same in every process."""
    if isinstance(val, dict):
        return all(map(_is_plain, [*val, *val.values()]))
    if isinstance(val, (list, tuple)):
        return all(map(_is_plain, val))
    return val is None or isinstance(val, (str, int, float, range, Path))
