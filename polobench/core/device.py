"""Devices by name: which are present, how to wait for one, and peak memory."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import psutil
import torch

from polobench.core.errors import Unavailable, unknown

DEVICES = ("cpu", "cuda", "mps")
TORCH_COMPILER = "torch._dynamo"  # a second to load, which the first optimizer of torch's does


def reason_absent(name: str) -> str | None:
    """Why a device cannot be used here, or None; raises `UsageError` for a name that is none of `DEVICES`."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
    if name == "mps" and not torch.backends.mps.is_available():
        return "torch finds no MPS device" if torch.backends.mps.is_built() else "this torch is built without MPS"
    return None


def present_devices() -> list[str]:
    """The names that can be used here."""
    return [name for name in DEVICES if reason_absent(name) is None]


def resolve_device(name: str) -> torch.device:
    """The torch device; raises `UsageError` for an unknown name, `Unavailable` with the reason for an absent one."""
    if reason := reason_absent(name):
        raise Unavailable(f"device {name!r} is absent: {reason}")
    return torch.device(name)


@cache
def warm_up(device: torch.device) -> None:
    """Load what torch loads at its first step, so that no run's clock pays for it; once per process and device."""
    weight = torch.nn.Parameter(torch.zeros(4, 4, device=device))
    optimizer = torch.optim.Adam([weight])
    (torch.zeros(4, 4, device=device) @ weight).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    synchronize(device)


def synchronize(device: torch.device) -> None:
    """Wait until everything queued on the device is done; without it a clock measures the queueing alone."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class PeakMemory:
    """Peak memory of a run [MiB]: what the allocator saw on CUDA, else the largest resident set of the process.

    Linux keeps the exact peak; elsewhere it is the largest of the sizes seen at updates.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._peak_bytes = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._exact = device.type != "cuda" and _reset_resident_peak()
        self.sample()

    def sample(self) -> None:
        if self._device.type == "cuda":
            self._peak_bytes = torch.cuda.max_memory_allocated(self._device)
        elif not self._exact:
            self._peak_bytes = max(self._peak_bytes, self._process.memory_info().rss)

    @property
    def mib(self) -> float:
        return (_resident_peak_bytes() if self._exact else self._peak_bytes) / 2**20


def _reset_resident_peak() -> bool:
    """Let the peak that Linux keeps of this process start anew (man 5 proc, clear_refs); False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _resident_peak_bytes() > 0
    except OSError:
        return False


def _resident_peak_bytes() -> int:
    peak = re.search(r"^VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(peak[1]) if peak else 0
