"""A study: a TOML file that says which cells to run. Read without torch; every mistake is one line.

title = "..."                     # optional
devices = ["cpu"]                 # optional; default: every device that is present
threads = 1                       # optional, of torch
tuned = true                      # optional; false: "ppo" means its defaults, not the task's tuned values
timeout_seconds = 600             # optional, a cell

[[grid]]                          # one or more; the cells are their cross products
methods = ["ppo", {method = "ppo", label = "ppo, clip 0.1", clip_eps = 0.1}]
tasks = ["CartPole-v1"]
seeds = "0-4"                     # or 5 (0 to 4), or "3,7", or [3, 7]
budget = 40_000                   # samples, or {samples = ..., updates = ..., seconds = ...}
throughput_rounds = 20            # optional; adds one throughput cell a method, task and device
# optional; adds one gradient-noise cell a method, task, device and policy, of so many batches of about so many samples;
# the policies lie beside the study in policies/TASK-POLICY.safetensors; what is left out is as here, batches at least 5
gradient_noise = {policies = ["initial", "trained"], batches = 32, samples = 4096}
fixed_batch = true                # optional; adds one cell a method, task and device: an update on the task's stored
                                  # batch (batches/TASK.safetensors beside the study), from its initial policy
learning = false                  # optional; no learning cells, so that it needs no budget
probe = true                      # optional; the task has a known answer: the gate asks every run to reach the target
smoke = true                      # optional; the report says that nothing is concluded from these runs
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from polobench.cells.noise_plan import FIXED_POLICIES, LEAST_BATCHES, NoisePlan
from polobench.core.budget import Budget
from polobench.core.errors import UsageError, unknown
from polobench.run.library import BUILT_IN, find_study

STUDY_KEYS = ("title", "devices", "threads", "tuned", "timeout_seconds", "grid")
MOST_SEEDS = 10_000
GRID_KEYS = (
    "methods", "tasks", "seeds", "budget", "devices", "throughput_rounds", "gradient_noise", "fixed_batch", "learning",
    "probe", "smoke",
)  # fmt: skip
WARMUP_ROUNDS = 3


@dataclass(frozen=True)
class Cell:
    """One run that a study asks for; `overrides` are the hyper-parameters that it sets by hand.

    The others are the task's tuned values (`methods/tuned.toml`) or, unless `tuned`, the method's defaults.

    The study's name, and whether it calls the run a probe or a smoke run, go along for the record and define nothing.

    A learning cell has `rounds = 0` and no `noise` or `batches`; a throughput cell times that many iterations, a
    gradient-noise cell has that plan, and a fixed-batch cell the folder of the stored `batches`.
    """

    method: str
    label: str
    task: str
    seed: int
    device: str
    budget: Budget
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    threads: int = 1
    timeout_seconds: float | None = None
    rounds: int = 0
    noise: NoisePlan | None = None
    batches: str = ""
    tuned: bool = True
    study: str = field(default="", compare=False)
    probe: bool = field(default=False, compare=False)
    smoke: bool = field(default=False, compare=False)

    @property
    def kind(self) -> str:
        if self.rounds:
            return "throughput"
        return "gradient_noise" if self.noise else "fixed_batch" if self.batches else "learning"

    @property
    def part(self) -> str:
        """The kind, where learning cells with a known answer are "probe"."""
        return "probe" if self.probe and self.kind == "learning" else self.kind

    def __str__(self) -> str:
        noise = f"gradient noise, {self.noise.policy} policy" if self.noise else ""
        which = "throughput" if self.rounds else "fixed batch" if self.batches else noise or f"seed {self.seed}"
        return f"{self.label} · {self.task} · {which} · {self.device}"


@dataclass(frozen=True)
class Study:
    """A named list of cells; the throughput cells stand last."""

    name: str
    cells: Sequence[Cell]
    title: str = ""


@dataclass(frozen=True)
class _Variant:
    method: str
    label: str
    overrides: Mapping[str, Any]


def parse_seeds(value: object) -> list[int]:
    """`5` means 0 to 4; `"3,7"` and `"10-19"` list seeds; so does a list of integers.

    Raises:
        UsageError: anything else.
    """
    if type(value) is int or (isinstance(value, str) and value.strip().isdecimal()):
        ranges = [range(int(value))]
    elif isinstance(value, str):
        ranges = [_seed_range(part.strip()) for part in value.split(",")]
    elif isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        ranges = [range(item, item + 1) for item in value]
    else:
        ranges = []
    if not ranges or not all(part.stop > part.start for part in ranges):
        raise UsageError(f"seeds: {value!r} (allowed: 5 for seeds 0 to 4, a list as in 3,7 or a range as in 10-19)")
    if max(part.stop - part.start for part in ranges) > MOST_SEEDS:
        raise UsageError(f"seeds: {value!r} are too many (allowed: at most {MOST_SEEDS:,})")
    return [seed for part in ranges for seed in part]


def _seed_range(part: str) -> range:
    first, dash, last = part.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        return range(0)
    return range(int(first), int(last or first) + 1)


def load_study(path: Path | str, present_devices: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: of the TOML file, or its name (`polobench.run.library`).
        present_devices: what `devices` means where the study does not say.

    Raises:
        UsageError: no such file, no TOML, an unknown key, a bad value, or a cell that is named twice.
    """
    path = find_study(path)
    text = read_toml(path, "study")
    try:
        return parse_study(path.stem, text, present_devices, path.parent)
    except UsageError as error:
        raise UsageError(f"study {str(path)!r}: {error}") from error


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """The parsed file; raises `UsageError`, which calls it a `kind`, if there is none or it is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no {kind} at {str(path)!r} (`polobench list studies` shows the studies at hand)") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{kind} {str(path)!r} cannot be read: {error}") from error


def parse_study(
    name: str,
    text: Mapping[str, Any],
    present_devices: Sequence[str] = (),
    folder: Path | str = BUILT_IN,
) -> Study:
    """A study from parsed TOML, in whose `folder` lie `policies/` and `batches/`; raises as `load_study`."""
    _check_keys("key", text, STUDY_KEYS)
    grids = text.get("grid")
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise UsageError("it has no [[grid]] (allowed: one or more)")
    common = {
        "study": name,
        "threads": _positive_int("threads", text.get("threads", 1)),
        "tuned": _truth("tuned", text.get("tuned", True)),
        "timeout_seconds": _positive_or_none("timeout_seconds", text.get("timeout_seconds")),
    }
    devices = text.get("devices", list(present_devices) or ["cpu"])
    cells = [cell for grid in grids for cell in _grid_cells(grid, devices, common, Path(folder))]
    _check_unique(cells)
    return Study(name, sorted(cells, key=lambda cell: cell.rounds > 0), str(text.get("title", "")))


def _grid_cells(grid: Mapping[str, Any], devices: object, common: Mapping[str, Any], folder: Path) -> list[Cell]:
    _check_keys("grid key", grid, GRID_KEYS)
    learns = _truth("learning", grid.get("learning", True))
    needed = ("methods", "tasks", "seeds", *(["budget"] if learns else []))
    for key in needed:
        if key not in grid:
            raise UsageError(f"a [[grid]] has no {key!r} (needed: {', '.join(needed)})")
    variants = [_variant(item) for item in _list("methods", grid["methods"])]
    tasks = [_text("tasks", item) for item in _list("tasks", grid["tasks"])]
    where = [_text("devices", item) for item in _list("devices", grid.get("devices", devices))]
    seeds, budget = parse_seeds(grid["seeds"]), Budget.of(grid.get("budget", 1))
    common = {**common, **{key: _truth(key, grid.get(key, False)) for key in ("probe", "smoke")}}
    arms = list(product(variants, tasks, where))
    cells = [
        Cell(v.method, v.label, task, seed, device, budget, v.overrides, **common)
        for (v, task, device), seed in product(arms, seeds if learns else [])
    ]
    if "gradient_noise" in grid:
        cells += [
            Cell(v.method, v.label, task, seeds[0], device, plan.budget, v.overrides, noise=plan, **common)
            for (v, task, device), plan in product(arms, _noise_plans(grid["gradient_noise"], str(folder / "policies")))
        ]
    if _truth("fixed_batch", grid.get("fixed_batch", False)):
        one, batches = Budget(updates=1), str(folder / "batches")
        cells += [
            Cell(v.method, v.label, task, seeds[0], device, one, v.overrides, batches=batches, **common)
            for v, task, device in arms
        ]
    if "throughput_rounds" in grid:
        count = _positive_int("throughput_rounds", grid["throughput_rounds"])
        timed = Budget(updates=count + WARMUP_ROUNDS)
        cells += [
            Cell(v.method, v.label, task, seeds[0], device, timed, v.overrides, rounds=count, **common)
            for v, task, device in arms
        ]
    return cells


def _noise_plans(value: object, folder: str) -> list[NoisePlan]:
    if not isinstance(value, dict):
        raise UsageError(f"gradient_noise: {value!r} (allowed: {{policies = [...], batches = 32, samples = 4096}})")
    _check_keys("key of gradient_noise", value, ("policies", "batches", "samples"))
    policies = [_text("policies", item) for item in _list("policies", value.get("policies", list(FIXED_POLICIES)))]
    for policy in policies:
        if policy not in FIXED_POLICIES:
            raise unknown("fixed policy", policy, FIXED_POLICIES)
    batches = _positive_int("batches", value.get("batches", NoisePlan.batches))
    samples = _positive_int("samples", value.get("samples", NoisePlan.samples))
    if batches < LEAST_BATCHES:
        raise UsageError(f"batches: {batches} (allowed: an integer from {LEAST_BATCHES})")
    return [NoisePlan(policy, batches, samples, folder) for policy in policies]


def _variant(item: object) -> _Variant:
    if isinstance(item, str):
        return _Variant(item, item, {})
    if isinstance(item, dict) and isinstance(item.get("method"), str):
        overrides = {key: value for key, value in item.items() if key not in ("method", "label")}
        for key in ("task", "device", "threads", "tuned"):
            if key in overrides:
                raise UsageError(f"methods: {key!r} is not a hyper-parameter; it stands beside `methods`")
        return _Variant(item["method"], _text("label", item.get("label", item["method"])), overrides)
    raise UsageError(f'methods: {item!r} (allowed: a name, or {{method = "name", label = "...", ...}})')


def _check_keys(kind: str, table: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for key in table:
        if key not in allowed:
            raise unknown(kind, key, allowed)


def _check_unique(cells: Sequence[Cell]) -> None:
    names = Counter((c.label, c.task, c.seed, c.device, str(c.budget), c.kind, c.noise) for c in cells)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        label, task, seed, device, budget, kind, _ = twice[0]
        raise UsageError(
            f"the {kind} cell {label!r} on {task!r}, seed {seed}, {device}, {budget} is named twice "
            "(give variants of a method labels of their own)"
        )


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{name}: {value!r} (allowed: a list that is not empty)")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UsageError(f"{name}: {value!r} (allowed: text that can be printed)")
    return value


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}: {value!r} (allowed: true, false)")
    return value


def _positive_int(name: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{name}: {value!r} (allowed: an integer from 1)")
    return value


def _positive_or_none(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"{name}: {value!r} (allowed: a positive number)")
    return float(value)
