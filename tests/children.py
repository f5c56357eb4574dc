"""Commands as processes of their own, and plug-ins for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

MINI = """
devices = ["cpu"]
[[grid]]
methods = ["random", "ppo"]
tasks = ["probe-bandit"]
seeds = 2
budget = 600
throughput_rounds = 2
"""
ENDLESS = """
devices = ["cpu"]
[[grid]]
methods = ["random"]
tasks = ["probe-bandit"]
seeds = 2
budget = 600
[[grid]]
methods = ["random"]
tasks = ["probe-bandit"]
seeds = "7-7"
budget = 2_000_000_000
"""


def plug_in(folder: Path, module: str, source: str, *entries: str) -> None:
    """A distribution in the folder, for whoever has it on PYTHONPATH; an entry is "group:name=object"."""
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = []
    for entry in entries:
        group, _, value = entry.partition(":")
        lines += [f"[polobench.{group}]", value]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def write_study(folder: Path, text: str = MINI, name: str = "mini") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def started(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`polobench` with these arguments, as a process of its own."""
    whole = [sys.executable, "-m", "polobench", *arguments]
    return subprocess.run(whole, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)


def hear_interrupts() -> None:
    """A background job of a shell, as a CI step may be, starts with SIGINT ignored, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
