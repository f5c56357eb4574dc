"""A git checkout of a made-up polobench, whose commits say how long their iterations take."""

from __future__ import annotations

import subprocess
from pathlib import Path

REGISTRY = """
from importlib.metadata import entry_points

def make(method, task, device, label, threads, tuned, **overrides):
    known = sorted(entry.name for entry in entry_points(group="polobench.methods"))
    if method not in known:
        raise ValueError(f"unknown method {method!r} (allowed: {', '.join(known)})")
    return method
"""
STOPWATCH = """
class Stopwatch:
    def __init__(self, wall): ...
"""
PROBE = """
import os, random, time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

class ThroughputProbe(nullcontext):
    def __init__(self, method, seed, iterations, *, clock):
        self.ledger, self.iteration_seconds, self.rollout_seconds = SimpleNamespace(), [], []

    def __enter__(self):
        return self

    def step(self):
        rollout, update = 1 + random.random() / 100, 1 + random.random() / 100
        {step}
        self.iteration_seconds.append(rollout + update)
        self.rollout_seconds.append(rollout)
"""
STUDY = """
[[grid]]
methods = [{methods}]
tasks = ["task"]
seeds = 1
budget = 10
throughput_rounds = 5
"""
STUBS = {
    "gymnasium.py": "",
    "torch.py": "class optim:\n    Adam = list\nclass nn:\n    Parameter = staticmethod(id)\nzeros = id\n",
}


class Checkout:
    """A git checkout of a made-up polobench."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", str(folder), inside=False)
        self.write("polobench/__init__.py", REGISTRY)
        self.write("polobench/core/budget.py", STOPWATCH)
        self.commit()

    def git(self, *arguments: str, inside: bool = True) -> str:
        where = ["-C", str(self.folder)] if inside else []
        identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        return subprocess.run(
            ["git", *identity, *where, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(
        self, step: str = "pass", methods: tuple[str, ...] = ("ppo",), dependencies: str = "[]", room: str = "cells"
    ) -> str:
        """A commit in which every iteration does `step`; its hash. The package `room` holds the timed iterations."""
        entries = "".join(f'{name} = "polobench:{name}"\n' for name in methods)
        self.write(
            "pyproject.toml",
            f'[project]\nname = "polobench"\nversion = "7"\ndependencies = {dependencies}\n'
            f'[project.entry-points."polobench.methods"]\n{entries}',
        )
        self.write(f"polobench/{room}/throughput.py", PROBE.replace("{step}", step))
        self.write("polobench/studies/speed.toml", STUDY.replace("{methods}", ", ".join(map(repr, methods))))
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "step")
        return self.git("rev-parse", "HEAD")

    @property
    def worktrees(self) -> int:
        return len(self.git("worktree", "list", "--porcelain").split("\n\n"))
