"""Stores of made-up results with realistic curves: what the analysis and the report are tested on."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polobench.analysis.collection import Collection
from polobench.core.budget import LedgerTotals
from polobench.core.convergence import loss_convergence, time_to_target
from polobench.core.result import RunResult
from polobench.report.findings import Findings
from polobench.report.markdown import render
from polobench.report.page import pages
from polobench.store.folder import Store

EVALUATIONS = 20
UPDATES = 60


@dataclass(frozen=True)
class World:
    """A task's reference values."""

    floor: float
    target: float | None
    best: float
    unit: str = "episode return"


WORLDS = {
    "CartPole-v1": World(22.3, 475.0, 500.0),
    "Acrobot-v1": World(-499.0, -100.0, -82.0),
    "Pendulum-v1": World(-1230.0, -200.0, -160.0),
}
LANGUAGE_WORLDS = {
    "sums-tiny-gpt": World(0.041, None, 0.62, "held-out sampled exact match"),
    "summaries": World(0.52, 1.0, 0.83, "held-out preference accuracy"),
}
LANGUAGE_METHODS = ("dpo", "grpo", "ranking", "reinforce")
SKILLS = {"random": 0.0, "reinforce": 0.75, "ppo": 1.0, "trpo": 0.97}
SPEEDS = {"random": 60_000.0, "reinforce": 21_000.0, "ppo": 12_000.0, "trpo": 16_000.0}


def make_result(
    method: str = "ppo", task: str = "CartPole-v1", seed: int = 0, budget: int = 50_000, **changes: Any
) -> RunResult:
    """A learning run that ended ok, with a learning curve that rises towards the method's skill."""
    world = (WORLDS | LANGUAGE_WORLDS).get(task, World(0.0, 1.0, 1.0))
    rng = np.random.default_rng(zlib.crc32(f"{method} {task} {seed}".encode()))
    skill, speed = SKILLS.get(method, 0.9), SPEEDS.get(method, 10_000.0) * rng.uniform(0.9, 1.1)
    curve = _curve(world, skill, speed, budget, rng)
    updates = _updates(method, budget, rng)
    final = float(curve["return_mean"].iloc[-1])
    result = RunResult(
        method=method, label=method, task=task, seed=seed, device="cpu", budget={"samples": budget},
        hyperparameters={"hidden_sizes": [64, 64], "learning_rate": 3e-4, "gamma": 0.99},
        status="ok", reason="the budget of samples is spent", unit=world.unit, floor=world.floor, target=world.target,
        final_return=final, final_return_std=10.0, curve=curve, updates=updates,
        time_to_target=time_to_target(curve, world.target),
        loss_convergence=loss_convergence(updates["samples"].tolist(), updates["loss"].tolist()),
        ledger=_ledger(budget, speed), peak_memory_mib=float(rng.uniform(240, 260)), digest="0" * 64,
        trail=["0123abcd"] * UPDATES, started_at=f"2025-01-02T03:{seed % 60:02d}:00+00:00", provenance=_provenance(),
    )  # fmt: skip
    if world.target is not None:
        result.final_score = (final - world.floor) / (world.target - world.floor)
    for name, value in changes.items():
        setattr(result, name, value)
    return with_id(result)


def with_id(result: RunResult) -> RunResult:
    """Give the result an id that follows from what defines it."""
    parts = (result.kind, result.label, result.task, result.seed, result.device, result.budget)
    rest = (result.hyperparameters, result.provenance.get("code_hash"), result.gradient_noise.get("policy"))
    result.cell_id = f"{zlib.crc32(repr((parts, rest)).encode()):08x}{zlib.adler32(repr(parts).encode()):08x}"
    return result


def failed(result: RunResult, at: float = 0.4, status: str = "diverged", reason: str = "the loss is nan") -> RunResult:
    """The same run, ended early at that share of its budget."""
    end = at * result.ledger.samples
    result.status, result.reason = status, reason
    result.curve = result.curve[result.curve["samples"] <= end].reset_index(drop=True)
    result.updates = result.updates[result.updates["samples"] <= end].reset_index(drop=True)
    result.time_to_target = time_to_target(result.curve, result.target)
    speed = result.ledger.samples / result.ledger.wall_seconds
    result.ledger = _ledger(int(end), speed, reads=result.ledger.samples_read > 0)
    result.score_as_failed()
    return result


def make_throughput(method: str = "ppo", task: str = "CartPole-v1", seed: int = 0, **changes: Any) -> RunResult:
    """A throughput cell of ten timed rounds of 1,024 samples."""
    rng = np.random.default_rng(zlib.crc32(f"speed {method} {task} {seed}".encode()))
    iteration = 1024 / SPEEDS.get(method, 10_000.0) * rng.uniform(0.95, 1.15, 10)
    rollout = iteration * (0.99 if method == "random" else 0.35)
    update = iteration - rollout
    throughput = {
        "rounds": 10, "warmup_rounds": 2, "iteration_seconds": iteration.tolist(),
        "rollout_seconds": rollout.tolist(), "update_seconds": update.tolist(),
        "samples_per_second": 10_240 / iteration.sum(), "updates_per_second": 10 / iteration.sum(),
        "rollout_samples_per_second": 10_240 / rollout.sum(), "update_samples_per_second": 10_240 / update.sum(),
    }  # fmt: skip
    empty = pd.DataFrame()
    base = {"kind": "throughput", "throughput": throughput, "curve": empty, "updates": empty, "time_to_target": {}}
    rest = {"loss_convergence": {}, "final_return": float("nan"), "final_score": None}
    return make_result(method, task, seed, **(base | rest | changes))


def noise_cell(
    method: str, signal: float, seed: int = 0, stage: float = 0.0, trainer: str = "ppo", noise: int | None = None
) -> RunResult:
    """32 batches of gradients of length-20 vectors, with that signal beside noise of unit variance.

    Args:
        noise: what it is drawn from, where another cell is to have the same.
    """
    rng = np.random.default_rng(len(method) + seed if noise is None else noise)
    gradients = rng.normal(0, 1, (32, 20)) + signal / math.sqrt(20)
    total = gradients.sum(axis=0)
    norms = (gradients**2).sum(axis=1)
    result = make_result(method, seed=seed, kind="gradient_noise")
    result.gradient_noise = {
        "policy": f"{trainer} seed {seed}, stage {stage:g}", "trainer": trainer, "stage": stage,
        "training": "100,000 samples", "policy_sha256": "", "samples": 100, "batches": 32, "warmup_samples": 0,
        "batch_samples": [100] * 32, "squared_norms": norms.tolist(), "products": (gradients @ total - norms).tolist(),
        "signal": signal**2, "trace": 20.0, "snr": signal**2 / 20, "noise_scale": 1.0,
    }  # fmt: skip
    result.label = method
    return result


def make_language(
    method: str = "dpo", task: str = "summaries", seed: int = 0, prompts: int = 15, pairs: int = 90, **changes: Any
) -> RunResult:
    """A run of a language model that ended ok, with what it said before and after."""
    rng = np.random.default_rng(zlib.crc32(f"language {method} {task} {seed}".encode()))
    before = _pairs(np.random.default_rng(zlib.crc32(task.encode())), prompts, pairs)
    after = {name: _moved(columns, method, rng) for name, columns in before.items()}
    measures = {"kl_to_reference": 0.0, "entropy": 2.4, "completion_length": 31.0}
    later = {"kl_to_reference": 3.1 * rng.uniform(), "entropy": 1.1 + 0.2 * rng.uniform(), "completion_length": 24.5}
    snapshots = {
        "before": _snapshot("I am not sure;\nperhaps 7", before, measures),
        "after": _snapshot(f"The answer is {seed + 3}.", after, later),
    }
    result = make_result(method, task, seed, budget=20_000)
    result.curve = result.curve.assign(**_language_columns(len(result.curve), method, rng))
    result.snapshots = snapshots
    if method in ("dpo", "ranking"):
        result.ledger = _ledger(result.ledger.samples, result.ledger.samples / result.ledger.wall_seconds, reads=True)
    for name, value in changes.items():
        setattr(result, name, value)
    return with_id(result)


def failed_language(result: RunResult, at: float = 0.4) -> RunResult:
    """The same run, ended early: nobody asked it anything after that."""
    result.snapshots.pop("after", None)
    return failed(result, at)


def language_demo(folder: Path, seeds: int = 5) -> Path:
    """Four methods on two tasks, one failed run: a store as a language study leaves it."""
    names = [(method, task, seed) for task in LANGUAGE_WORLDS for method in LANGUAGE_METHODS for seed in range(seeds)]
    results = {name: make_language(*name) for name in names}
    failed_language(results["grpo", "summaries", 0])
    return save_all(folder, *results.values())


def save_all(folder: Path, *results: RunResult) -> Path:
    """A store of these results."""
    store = Store(folder)
    store.prepare()
    for result in results:
        store.save(result)
    return folder


def report_pages(collection: Collection, **more: Any) -> dict[str, str]:
    """The Markdown of every page of a report by its file, without drawing."""
    return {page.file: render(page) for page in pages(Findings(collection, **more))}


def report_text(collection: Collection, **more: Any) -> str:
    """All pages below each other."""
    return "\n".join(report_pages(collection, **more).values())


def demo(folder: Path, seeds: int = 5) -> Path:
    """Four methods on three tasks, two failed runs, throughput cells: a store as a study leaves it."""
    results = [
        make_result(method, task, seed) for task in sorted(WORLDS) for method in sorted(SKILLS) for seed in range(seeds)
    ]
    for result in results:
        if (result.method, result.task, result.seed) in {("reinforce", "Pendulum-v1", 1), ("trpo", "CartPole-v1", 2)}:
            failed(result, at=0.4 if result.method == "trpo" else 0.15)
        result.ran_beside_others = result.task == "Acrobot-v1"
    speeds = [make_throughput(method, task, seed) for task in WORLDS for method in SKILLS for seed in range(2)]
    return save_all(folder, *results, *speeds)


def _curve(world: World, skill: float, speed: float, budget: int, rng: np.random.Generator) -> pd.DataFrame:
    progress = np.linspace(0, 1, EVALUATIONS + 1)
    samples = np.round(np.minimum(progress * budget + (progress > 0) * rng.uniform(0, 900), budget))
    middle, reach = rng.uniform(0.2, 0.45), skill * (world.best - world.floor)
    rising = 1 / (1 + np.exp(-14 * (progress - middle)))
    noise = rng.normal(0, 0.05 * abs(world.best - world.floor), len(progress)) * (1.1 - rising)
    returns = np.minimum(world.floor + reach * (rising - rising[0]) / (rising[-1] - rising[0]) + noise, world.best)
    frame = pd.DataFrame({"progress": progress, "samples": samples, "updates": np.arange(EVALUATIONS + 1.0)})
    frame["wall_seconds"], frame["cpu_seconds"] = samples / speed, 1.02 * samples / speed
    frame["return_mean"], frame["return_std"] = returns, 10.0
    target = world.floor + 1.0 if world.target is None else world.target
    frame["score"] = (returns - world.floor) / (target - world.floor)
    frame["train_return"] = returns - 5
    return frame


def _updates(method: str, budget: int, rng: np.random.Generator) -> pd.DataFrame:
    samples = np.linspace(budget / UPDATES, budget, UPDATES)
    if method == "random":
        return pd.DataFrame({"samples": samples, "loss": np.zeros(UPDATES)})
    size = {"reinforce": 40.0, "ppo": 8.0}.get(method, -0.05)
    loss = size * (np.exp(-samples / budget * 3) + rng.normal(0, 0.08, UPDATES))
    typical = {"reinforce": 2e-3, "ppo": 1e-2}.get(method, 8e-3)
    spread = 0.15 if method == "trpo" else 0.6
    return pd.DataFrame({"samples": samples, "loss": loss, "kl": typical * rng.lognormal(0, spread, UPDATES)})


def _pairs(rng: np.random.Generator, prompts: int, pairs: int) -> dict[str, Any]:
    """Held-out and training pairs of a policy that prefers nothing yet; longer responses are less likely."""
    found = {}
    for name in ("heldout", "train"):
        lengths = {f"{kind}_tokens": rng.integers(8, 40, pairs) for kind in ("chosen", "rejected")}
        columns: dict[str, Any] = {"prompt": (np.arange(pairs) * prompts // pairs).tolist()}
        easy = rng.normal(0, 0.25, prompts)[columns["prompt"]]
        for kind in ("chosen", "rejected"):
            tokens = lengths[f"{kind}_tokens"]
            columns[f"{kind}_log_prob"] = (-tokens * np.exp(rng.normal(0.4, 0.2, pairs) - easy)).tolist()
            columns[f"{kind}_tokens"] = tokens.tolist()
        found[name] = columns
    return found


def _moved(columns: dict[str, Any], method: str, rng: np.random.Generator) -> dict[str, Any]:
    """DPO makes both less likely, the rejected one more so; the others hardly look at the pairs."""
    chosen, rejected = {"dpo": (-4.0, -25.0), "ranking": (6.0, -9.0)}.get(method, (3.0, 1.0))
    noise = rng.normal(0, 0.3 * abs(rejected) + 1.0, (2, len(columns["prompt"])))
    moved = {
        f"{kind}_log_prob": np.minimum(np.array(columns[f"{kind}_log_prob"]) + gain + noise[row], -0.01).tolist()
        for row, (kind, gain) in enumerate((("chosen", chosen), ("rejected", rejected)))
    }
    return columns | moved


def _snapshot(answer: str, pairs: dict[str, Any], measures: dict[str, float]) -> dict[str, Any]:
    completions = [
        {"prompt": f"What is {number} + {number + 3}?", "completion": answer, "reward": float(number % 2)}
        for number in range(10)
    ]
    return {"completions": completions, "pairs": pairs, "measures": measures, "notes": {"chosen equals rejected": 2}}


def _language_columns(rows: int, method: str, rng: np.random.Generator) -> dict[str, Any]:
    """Further columns of the curve; a method that ranks has its training pairs too."""
    rise = np.linspace(0, 1, rows) ** 0.6
    reach = {"dpo": 0.3, "ranking": 0.25}.get(method, 0.05)
    columns = {
        "heldout_accuracy": 0.52 + reach * rise + rng.normal(0, 0.01, rows),
        "heldout_kl": 9 * reach * rise, "heldout_entropy": 2.4 - rise + rng.normal(0, 0.03, rows),
        "heldout_completion_length": 31 - 6 * rise, "heldout_margin": 60 * reach * rise,
    }  # fmt: skip
    return columns | ({"train_accuracy": 0.52 + 1.4 * reach * rise} if method in ("dpo", "ranking") else {})


def _ledger(samples: int, speed: float, reads: bool = False) -> LedgerTotals:
    """Of a run that samples, or that reads its data."""
    seconds = samples / speed
    source = {"samples_read" if reads else "samples_generated": samples}
    return LedgerTotals(
        samples=samples, **source, samples_unspent=0, updates=UPDATES, gradient_steps=10 * UPDATES,
        forward_rows=20 * samples, backward_rows=10 * samples, rollout_seconds=0.35 * seconds, wall_seconds=seconds,
        cpu_seconds=1.02 * seconds,
    )  # fmt: skip


def _provenance() -> dict[str, Any]:
    return {
        "code_hash": "c0de", "versions": {"python": "3.11.9", "torch": "2.13.0", "polobench": "0.1.0"},
        "commit": "0123456789abcdef0123", "dirty": False, "os": "Linux", "os_release": "6.1", "machine": "x86_64",
        "cpu_model": "A Processor", "cpu_count": 2, "instruction_set": "AVX512", "threads": 1, "device_name": "cpu",
        "platform_fingerprint": "f1f1f1f1f1f1f1f1",
    }  # fmt: skip
