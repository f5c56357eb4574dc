"""A study: a TOML file that says which cells to run (docs/studies.md), read without torch; a mistake is one line."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from polobench.core.budget import Budget
from polobench.core.errors import UsageError, unknown
from polobench.core.hyperparameters import tuned_tasks, tuned_values
from polobench.kinds.cell import Cell
from polobench.kinds.environment import parse_task
from polobench.kinds.parsing import check_keys, parse_count, parse_list, parse_positive, parse_text, parse_truth
from polobench.kinds.table import kinds
from polobench.run.library import BUILT_IN, find_study

LIMITS = ("timeout_seconds", "memory_mib")
STUDY_KEYS = ("title", "devices", "threads", "tuned", "looks", *LIMITS, "grid")
MOST_SEEDS = 10_000
# and each kind's own key
GRID_KEYS = ("methods", "tasks", "seeds", "budget", "devices", "tuned_for", "probe", "smoke")


@dataclass(frozen=True)
class Study:
    """A named list of cells; those that must run alone stand last.

    Attributes:
        text, folder, devices: the file, where it lies, and what it means by `devices` where it does not say: what a
            worker on another machine makes the same cells of.
    """

    name: str
    cells: Sequence[Cell]
    title: str = ""
    text: str = ""
    folder: Path = BUILT_IN
    devices: Sequence[str] = ()

    def limited(self, **limits: float | None) -> Study:
        """The study with other limits per cell, by their names in `LIMITS`; None keeps the study's own."""
        set_here: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
        return replace(self, cells=[replace(cell, **set_here) for cell in self.cells]) if set_here else self

    def narrowed(self, parts: Sequence[str] = (), tasks: Sequence[str] = ()) -> Study:
        """The study with the cells of some parts, such as "throughput", and of some tasks alone; none means all.

        Raises `UsageError` for one that the study has not, and where no cell is of both.
        """
        for what, name, asked in (("kind of cells", "part", parts), ("task", "task", tasks)):
            there = sorted({getattr(cell, name) for cell in self.cells})
            if wrong := sorted(set(asked) - set(there)):
                raise unknown(f"{what} in {self.name!r}:", wrong[0], there)
        cells = [cell for cell in self.cells if (not parts or cell.part in parts) and (not tasks or cell.task in tasks)]
        if not cells:
            raise UsageError(f"study {self.name!r} has no {' or '.join(parts)} cells on {' or '.join(tasks)}")
        return replace(self, cells=cells)

    def untuned(self) -> list[str]:
        """A line for each task under another name with the methods whose tuned values it therefore does not take."""
        found: dict[tuple[str, str], dict[str, None]] = {}
        for cell in self.cells:
            named = str(cell.environment.get("id", cell.task))
            there = tuned_values(cell.method, named, cell.label) if cell.tuned and named != cell.task else {}
            if there.keys() - cell.overrides.keys() - tuned_values(cell.method, cell.task, cell.label).keys():
                found.setdefault((cell.task, named), {})[cell.label] = None
        return [
            f"not tuned: {', '.join(labels)} on {task!r}, since the tuned values are of {named!r} under its own name"
            for (task, named), labels in found.items()
        ]


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
    parsed = read_toml(path, "study")
    try:
        study = parse_study(path.stem, parsed, present_devices, path.parent)
        return replace(study, text=path.read_text(encoding="utf-8"), folder=path.parent.resolve())
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
    """A study from parsed TOML, in whose `folder` lie `batches/`; raises as `load_study`."""
    check_keys("key", text, STUDY_KEYS)
    grids = text.get("grid")
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise UsageError("it has no [[grid]] (allowed: one or more)")
    common = {
        "study": name,
        "threads": parse_count("threads", text.get("threads", 1)),
        "tuned": parse_truth("tuned", text.get("tuned", True)),
        "facts": {"looks": parse_count("looks", text["looks"])} if "looks" in text else {},
        **{name: parse_positive(name, text[name]) for name in LIMITS if name in text},
    }
    devices = text.get("devices", list(present_devices) or ["cpu"])
    cells = [cell for grid in grids for cell in _grid_cells(grid, devices, common, Path(folder))]
    _check_unique(cells)
    ordered = sorted(cells, key=lambda cell: cell.plan.runs_alone)
    numbered = [replace(cell, number=number) for number, cell in enumerate(ordered)]
    return Study(name, numbered, str(text.get("title", "")), folder=Path(folder), devices=present_devices)


def _grid_cells(grid: Mapping[str, Any], devices: object, common: Mapping[str, Any], folder: Path) -> list[Cell]:
    check_keys("grid key", grid, [*GRID_KEYS, *(kind.grid_key for kind in kinds().values())])
    plans = [plan for kind in kinds().values() for plan in kind.asked(grid, folder)]
    needed = ("methods", "tasks", "seeds", *(["budget"] if any(plan.learns for plan in plans) else []))
    for key in needed:
        if key not in grid:
            raise UsageError(f"a [[grid]] has no {key!r} (needed: {', '.join(needed)})")
    variants = [_variant(item) for item in parse_list("methods", grid["methods"])]
    if "tuned_for" in grid:
        variants = [_tuned_for(parse_text("tuned_for", grid["tuned_for"]), item) for item in variants]
    tasks = [parse_task(item) for item in parse_list("tasks", grid["tasks"])]
    where = [parse_text("devices", item) for item in parse_list("devices", grid.get("devices", devices))]
    seeds, budget = parse_seeds(grid["seeds"]), Budget.of(grid.get("budget", 1))
    declared = {"seeds": len(seeds)} if "looks" in common["facts"] else {}
    common = {
        **common,
        "facts": common["facts"] | declared,
        **{key: parse_truth(key, grid.get(key, False)) for key in ("probe", "smoke")},
    }
    return [
        Cell(
            task=task, seed=seed, device=device, budget=plan.budget(budget), plan=plan, environment=environment,
            **(common | variant),
        )
        for kind in kinds().values()
        for variant, (task, environment), device in product(variants, tasks, where)
        for plan in plans
        if isinstance(plan, kind)
        for seed in (seeds if plan.every_seed else seeds[:1])
    ]  # fmt: skip


def _variant(item: object) -> dict[str, Any]:
    """What a cell has of an entry of `methods`."""
    if isinstance(item, str):
        return {"method": item, "label": item}
    if isinstance(item, dict) and isinstance(item.get("method"), str):
        overrides = {key: value for key, value in item.items() if key not in ("method", "label")}
        for key in ("task", "device", "threads", "tuned"):
            if key in overrides:
                raise UsageError(f"methods: {key!r} is not a hyper-parameter; it stands beside `methods`")
        label = parse_text("label", item.get("label", item["method"]))
        return {"method": item["method"], "label": label, "overrides": overrides}
    raise UsageError(f'methods: {item!r} (allowed: a name, or {{method = "name", label = "...", ...}})')


def _tuned_for(task: str, variant: Mapping[str, Any]) -> dict[str, Any]:
    """The variant with the values that were tuned for this task, in place of those of its own; what it sets stays."""
    values = tuned_values(variant["method"], task, variant["label"])
    if not values:
        raise unknown(f"tuned_for of {variant['label']!r}:", task, tuned_tasks(variant["method"]))
    return {**variant, "overrides": values | variant.get("overrides", {}), "tuned": False}


def _check_unique(cells: Sequence[Cell]) -> None:
    names = Counter((c.label, c.task, c.seed, c.device, str(c.budget), c.kind, c.plan) for c in cells)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        label, task, seed, device, budget, kind, _ = twice[0]
        raise UsageError(
            f"the {kind} cell {label!r} on {task!r}, seed {seed}, {device}, {budget} is named twice "
            "(give variants of a method labels of their own)"
        )
