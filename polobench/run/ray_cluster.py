"""Cells as tasks of Ray, on this machine or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

from polobench.cells.runner import PreparedCell
from polobench.core.errors import Unavailable, UsageError, first_line
from polobench.core.recorder import Progress
from polobench.run.executor import Ended, Executor, Moved, Outcome
from polobench.run.remote import Orders, heard, words
from polobench.run.scratch import scratch

MOST_LOSSES = 3  # of the machine under one cell
WAIT_SECONDS = 1.0
LOOPBACK = "127.0.0.1"
# Ray takes 30 % of the memory for objects unless told otherwise; ours are a few kilobytes of JSON
_OBJECT_STORE_BYTES = 128 * 2**20


class RayCluster(Executor):
    """Runs each cell as a task that asks for the cell's CPUs and, on a GPU device, one GPU.

    A cell whose machine is lost runs again elsewhere.

    Args:
        jobs: how many side by side; 0 for as many as the cluster has CPUs.
        address: of a cluster to join; without one a cluster is started here that listens on loopback alone.

    Raises (when entered):
        Unavailable: Ray is not installed.
        UsageError: there is no such cluster.
    """

    def __init__(self, orders: Orders, jobs: int, address: str | None = None) -> None:
        self._orders, self._address, self.capacity = orders, address, jobs
        self._running: dict[Any, PreparedCell] = {}  # by the stream of its words
        self._losses: dict[str, int] = {}
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        ray = self._ray = _ray()
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not self._address:
            settings |= {"num_cpus": self.capacity or None, "include_dashboard": False, "_temp_dir": scratch()}
            settings |= {"_node_ip_address": LOOPBACK, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            with _temporary_files_in(settings.get("_temp_dir")):
                ray.init(self._address or "local", **settings)
        except (ConnectionError, ValueError, RuntimeError) as error:
            self._exit.close()
            raise UsageError(f"no Ray cluster at {self._address or 'this machine'}: {first_line(error)}") from error
        self._exit.callback(ray.shutdown)
        if not self._address and any(node["NodeManagerAddress"] != LOOPBACK for node in ray.nodes()):
            self._exit.close()  # whoever loaded Ray before us did so without the setting below
            raise UsageError("Ray would listen beyond this machine (set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0)")
        self.capacity = self.capacity or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._words = ray.remote(num_returns="streaming", max_retries=0)(words)
        return self

    def __exit__(self, *error: object) -> None:
        for stream in self._running:
            with suppress(Exception):  # it may have ended meanwhile, or its machine
                self._ray.cancel(stream, force=True)
        self._exit.close()

    def start(self, prepared: PreparedCell) -> None:
        cell = prepared.cell
        wanted = {"num_cpus": cell.threads, "num_gpus": int(cell.device == "cuda"), "name": str(cell)}
        memory = {"memory": int(cell.memory_mib * 2**20)} if cell.memory_mib else {}
        self._running[self._words.options(**wanted, **memory).remote(self._orders(prepared))] = prepared

    def outcomes(self, moved: Moved) -> Sequence[tuple[PreparedCell, Outcome]]:
        ready, _ = self._ray.wait(list(self._running), timeout=WAIT_SECONDS, fetch_local=False)
        ended = []
        for stream in ready:
            prepared, word = self._running[stream], self._hear(stream)
            if isinstance(word, Progress):
                moved(prepared, word)
                continue
            del self._running[stream]
            if word is None:
                self.start(prepared)
            else:
                ended.append((prepared, word))
        return ended

    def _hear(self, stream: Any) -> Progress | Outcome | None:
        """The next word of a stream; None where its machine is lost and the cell is to run again."""
        errors = self._ray.exceptions
        try:
            return heard(self._ray.get(next(stream)))
        except errors.RayTaskError as error:
            return Ended("crashed", f"its worker failed: {first_line(error.cause)}")
        except errors.OutOfMemoryError:
            return Ended("out_of_memory", "Ray ended its worker, since the machine was short of memory")
        except (errors.RayError, StopIteration) as error:
            cell_id = self._running[stream].cell_id
            self._losses[cell_id] = self._losses.get(cell_id, 0) + 1
            if self._losses[cell_id] < MOST_LOSSES:
                return None
            return Ended("crashed", f"its machine was lost {MOST_LOSSES} times ({first_line(error)})")


@contextmanager
def _temporary_files_in(folder: str | None) -> Iterator[None]:
    """Processes that are started inside put theirs there: Ray kills its workers, which then leave them."""
    before = os.environ.get("TMPDIR")
    os.environ |= {"TMPDIR": folder} if folder else {}
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before


def _ray() -> Any:
    """Ray, told before it loads to send no usage statistics and to keep 127.0.0.1 as the address of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise Unavailable('the executor needs Ray: pip install "polobench[ray]"') from None
    return ray
