"""How long a plan will take, from what the store has measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from polobench.cells.runner import PreparedCell
from polobench.store.reader import Reader

ASSUMED_SAMPLES_PER_SECOND = 4000
ASSUMED_OVERHEAD_SECONDS = 5.0
ASSUMED_THROUGHPUT_SECONDS = 10.0


def estimate(cells: Sequence[PreparedCell], store: Reader, jobs: int) -> str:
    """`about 3.1 minutes with 2 jobs (...)`, and where the rates come from."""
    rates = _measured_rates(store)
    seconds, measured = 0.0, 0
    for item in cells:
        cell = item.cell
        if item.method is None:
            continue
        if cell.rounds:
            seconds += ASSUMED_THROUGHPUT_SECONDS
            continue
        rate = rates.get((cell.method, cell.task, cell.device))
        measured += rate is not None
        samples = cell.noise.planned_samples if cell.noise else cell.budget.samples or 0
        wanted = samples / (rate or ASSUMED_SAMPLES_PER_SECOND)
        limit = cell.budget.seconds if cell.budget.seconds is not None else wanted
        seconds += (min(wanted, limit) if wanted else limit) / jobs + ASSUMED_OVERHEAD_SECONDS / jobs
    source = f"rates of {measured} from this store, else {ASSUMED_SAMPLES_PER_SECOND:,} samples/s assumed"
    return f"about {seconds / 60:.1f} minutes with {jobs} job{'s' if jobs > 1 else ''} ({source})"


def _measured_rates(store: Reader) -> dict[tuple[str, str, str], float]:
    """Samples a CPU second of the learning cells in the store, the median of each method, task and device."""
    if not store.place.exists():
        return {}
    found = defaultdict(list)
    for result in store.read()[0]:
        if result.status == "ok" and result.kind == "learning" and result.ledger.cpu_seconds > 0:
            rate = result.ledger.samples / result.ledger.cpu_seconds
            found[result.method, result.task, result.device].append(rate)
    return {key: median(rates) for key, rates in found.items()}
