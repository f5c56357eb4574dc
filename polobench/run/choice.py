"""The executors by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from polobench.core.errors import UsageError, unknown
from polobench.run.executor import OpenExecutor, Serial
from polobench.run.processes import Processes
from polobench.run.ray_cluster import RayCluster
from polobench.run.remote import orders
from polobench.run.slurm import Slurm
from polobench.run.study import Study

EXECUTORS = ("processes", "serial", "ray", "slurm")


def choose(
    name: str,
    study: Study,
    folder: Path,
    jobs: int | None,
    address: str | None = None,
    chunk: int = 1,
    settings: Sequence[str] = (),
) -> OpenExecutor:
    """What opens the executor of this name for the cells of a study.

    `jobs` cells run side by side; None is one or, on a cluster, as many as it takes. `address` is the cluster's. A
    task of SLURM has `chunk` cells, and its settings read "partition=gpu".

    Raises:
        UsageError: there is none of this name, or it has no use for what it is given.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if address and name not in ("ray", "slurm"):
        raise UsageError(f"the executor {name!r} has no address (allowed with ray and slurm)")
    if (chunk > 1 or settings) and name != "slurm":
        raise UsageError("--chunk and --slurm are for the executor 'slurm'")
    if name == "processes":
        return partial(Processes, jobs or 1)
    if name == "ray":
        return lambda cells: RayCluster(orders(study), jobs or 0, address)
    if name == "slurm":
        given = dict(map(_setting, settings))
        return lambda cells: Slurm(orders(study), jobs or 0, folder, address or "slurm", chunk, given)
    if (jobs or 1) > 1 or any(cell.memory_mib for cell in study.cells):
        raise UsageError("the executor 'serial' runs one cell at a time, in a process whose memory it cannot limit")
    return lambda cells: Serial()


def _setting(text: str) -> tuple[str, int | str]:
    key, equals, value = text.partition("=")
    if not key.isidentifier() or not equals:
        raise UsageError(f"--slurm {text!r} (allowed: NAME=VALUE, as in partition=gpu)")
    return f"slurm_{key}", int(value) if value.isdecimal() else value
