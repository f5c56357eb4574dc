"""Peak memory sees what was allocated and freed between two samples, and begins anew with each run."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from polobench.core import device
from polobench.core.device import PeakMemory

MEGABYTES = 200
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the exact peak of a process")


def touch(megabytes: int) -> None:
    np.ones(megabytes * 2**17)


def peak_of_a_transient() -> float:
    memory = PeakMemory(torch.device("cpu"))
    before = memory.mib
    touch(MEGABYTES)
    memory.sample()
    return memory.mib - before


@linux
def test_what_is_freed_before_the_next_sample_counts():
    assert peak_of_a_transient() > 0.9 * MEGABYTES


@linux
def test_a_run_does_not_inherit_an_earlier_peak():
    touch(2 * MEGABYTES)
    first = PeakMemory(torch.device("cpu")).mib
    touch(2 * MEGABYTES)
    assert PeakMemory(torch.device("cpu")).mib < first + MEGABYTES


def test_where_the_peak_cannot_be_reset_it_is_sampled(monkeypatch):
    monkeypatch.setattr(device, "_reset_resident_peak", lambda: False)
    assert peak_of_a_transient() < 0.5 * MEGABYTES
