"""REINFORCE, online DPO and GRPO on CartPole-v1 beside what polobench was when the goal was set, commit 4eeb11b.

The same hyper-parameters (tuned at that commit), 20,000 samples, a process for each run, whose CPU seconds are those of
training alone. The old code is read from git into a temporary folder, where git has it.

`matrix` runs the learning cells of that commit's study `matrix` on the tasks that both have, a seed in each round, at
the values that were tuned at that commit, and counts all CPU seconds of a run, its evaluations too. sort-digits is as
it was then, six digits from the checkpoint of then: that of today has longer prompts, and other evaluations.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.alternation import Comparison
from benchmarks.peers.control import FIRST_SEED, ROUNDS, limit_seconds
from polobench.core.errors import PoloError, Unavailable

ROOT, REVISION = Path(__file__).parents[2], "4eeb11b"
TASK, SAMPLES, GOAL = "CartPole-v1", 20_000, 3.0
SORT = "sort-digits"
MATRIX = {"CartPole-v1": 100_000, "Acrobot-v1": 150_000, "Pendulum-v1": 150_000, SORT: 400_000}
METHODS = ("reinforce", "trpo", "ppo", "dpo", "grpo")
MATRIX_GOAL = 1 / 0.65  # at most 65 % of its CPU seconds
CLIPPED = {"reinforce": 1e9, "dpo": 1.0, "grpo": 1.0}  # the gradient's norm by default then; of the others as now
RUN = """
import json, sys, time
import numpy, polobench
from polobench.registry import find_task
from polobench.tasks.reward import RewardTask

def exact_match(prompts, completions):
    return [float(text == "".join(sorted(prompt[:-1]))) for prompt, text in zip(prompts, completions)]

def sorts_six_digits(checkpoint):
    drawn = numpy.random.default_rng(0).integers(0, 10**6, 5000)
    prompts = list(dict.fromkeys(f"{number:06d}=" for number in drawn))[:4500]
    settings = {"max_new_tokens": 7, "target": 0.8, "floor": 0.384}
    return RewardTask("six-digits", checkpoint, prompts[500:], prompts[:500], exact_match, **settings)

order = json.loads(sys.argv[1])
task = sorts_six_digits(order["checkpoint"]) if order["checkpoint"] else find_task(order["task"])
if not order["evaluated"]:
    task.evaluations = task.evaluation_episodes = task.final_episodes = 1
method = polobench.make(order["method"], task, tuned=False, **order["settings"])
start = time.process_time()
result = method.run(order["seed"], order["samples"])
whole = time.process_time() - start
names = "samples cpu_seconds forward_rows backward_rows discarded_transitions".split()
print(json.dumps({"status": result.status, "reason": result.reason, "file": polobench.__file__, "whole_seconds": whole}
                 | {name: getattr(result.ledger, name) for name in names}))
"""


@dataclass(frozen=True)
class Setting:
    """Hyper-parameters that both know by one name, and what each calls its own way.

    Attributes:
        together: episodes that are stepped side by side.
        minibatch: rows of most gradient steps, about; what the limit multiplies at once.
    """

    shared: dict[str, Any]
    together: int
    minibatch: int
    then: dict[str, Any]
    now: dict[str, Any]


SETTINGS = {
    "reinforce": Setting(
        {"n_episodes": 2, "learning_rate": 0.00218, "critic_learning_rate": 0.00399, "max_gradient_norm": 1e9},
        together=2, minibatch=256, then={}, now={},
    ),
    "dpo": Setting(
        {"n_groups": 2, "group_size": 4, "learning_rate": 0.00221, "beta": 0.0104, "reference": "sampler",
         "max_gradient_norm": 1.0},
        together=8, minibatch=1_024, then={"refresh_updates": 8}, now={"epochs": 8},
    ),
    "grpo": Setting(
        {"n_groups": 2, "group_size": 4, "epochs": 2, "learning_rate": 0.00595, "max_gradient_norm": 1.0},
        together=8, minibatch=1_024, then={}, now={},
    ),
}  # fmt: skip


def compare(name: str, method: str, rounds: int | None) -> Comparison:
    """A run of each side and the limit in each round, in an order drawn by a fixed seed."""
    setting, draw = SETTINGS[method], random.Random(name)
    per_sample: dict[str, list[float]] = {"now": [], "then": [], "limit": []}
    with tempfile.TemporaryDirectory() as folder:
        roots = {"now": ROOT, "then": old_code(Path(folder))}
        for number in range(rounds or ROUNDS):
            for side in draw.sample(list(roots), len(roots)):
                chosen = setting.shared | getattr(setting, side)
                found = run(roots[side], TASK, method, FIRST_SEED + number, SAMPLES, chosen)
                per_sample[side].append(found["cpu_seconds"] / found["samples"])
                if side == "now":
                    counts = found
            seconds = limit_seconds(TASK, setting.together, setting.minibatch, counts)
            per_sample["limit"].append(seconds / counts["samples"])
    now, then, limit = per_sample.values()
    label = "online DPO" if method == "dpo" else {"reinforce": "REINFORCE", "grpo": "GRPO"}[method]
    return Comparison(f"{label}, {TASK}", f"polobench {REVISION}", "samples", 1, GOAL, now, then, limit)


def compare_matrix(rounds: int | None) -> Comparison:
    """All cells of a seed in a round, the two commits in turns."""
    seconds: dict[str, list[float]] = {"now": [], "then": []}
    with tempfile.TemporaryDirectory() as folder:
        roots = {"now": ROOT, "then": old_code(Path(folder))}
        old = roots["then"] / "polobench"
        tuned = tomllib.loads((old / "methods" / "tuned.toml").read_text("utf-8"))
        checkpoint = old / "tasks" / "checkpoints" / SORT
        for seed in range(FIRST_SEED, FIRST_SEED + (rounds or 1)):
            cells = [(task, method, seed, samples) for task, samples in MATRIX.items() for method in METHODS]
            found = [
                {
                    side: run(root, *cell, settings(tuned, *cell[:2], side), checkpoint)["whole_seconds"]
                    for side, root in roots.items()
                }
                for cell in cells
            ]
            for side, of in seconds.items():
                of.append(sum(cell[side] for cell in found))
    return Comparison("matrix study", f"polobench {REVISION}", "seeds", 1, MATRIX_GOAL, *seconds.values())


def settings(tuned: dict[str, Any], task: str, method: str, side: str) -> dict[str, Any]:
    """What was tuned then, as each commit calls it."""
    found: dict[str, Any] = dict(tuned[method][task])
    if side == "then":
        return found
    if method in CLIPPED:
        found.setdefault("max_gradient_norm", CLIPPED[method])
    if method == "dpo" and found.setdefault("epochs", found.pop("refresh_updates", 1)) == 1:
        found["reference"] = "checkpoint"  # one step on pairs of the sampler follows no margin, and is refused now
    return found


WORKS: dict[str, Callable[[int | None], Comparison]] = {
    **{f"{method}-cartpole": partial(compare, f"{method}-cartpole", method) for method in SETTINGS},
    "matrix": compare_matrix,
}


def old_code(folder: Path) -> Path:
    """The package as it was, in `folder`; raises `Unavailable` where git does not have it."""
    command = ["git", "-C", str(ROOT), "archive", REVISION, "polobench"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise Unavailable(f"git does not have commit {REVISION} here (a shallow clone, or no checkout)") from None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def run(
    root: Path, task: str, method: str, seed: int, samples: int, chosen: dict[str, Any], checkpoint: Path | None = None
) -> dict[str, Any]:
    """Counts and CPU seconds of a run by the package in `root`, at chosen hyper-parameters.

    With a checkpoint, from which sort-digits starts, the run is evaluated as cells are.
    """
    order = {"task": task, "method": method, "settings": chosen, "seed": seed, "samples": samples}
    order |= {"evaluated": checkpoint is not None, "checkpoint": str(checkpoint) if task == SORT and checkpoint else ""}
    command = [sys.executable, "-P", "-W", "ignore", "-c", RUN, json.dumps(order)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | threads | {"PYTHONPATH": str(root)}
    )
    if done.returncode:
        raise PoloError(f"{method} by the code in {str(root)!r}: {last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    if found["status"] != "ok" or not Path(found["file"]).is_relative_to(root):
        raise PoloError(f"{method} by the code in {found['file']!r}: {found['reason']}")
    return found


def last_line(text: str) -> str:
    """Of what a process printed: its reason."""
    return (text.strip() or "it says nothing").splitlines()[-1]
