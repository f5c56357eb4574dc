"""How long a plan will take, from what the store has measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from polobench.cells.runner import PreparedCell
from polobench.kinds.kind import ASSUMED_SAMPLES_PER_SECOND
from polobench.kinds.table import kind_of
from polobench.store.reader import Reader


def estimate(cells: Sequence[PreparedCell], store: Reader, jobs: int) -> str:
    """`about 3.1 minutes with 2 jobs (...)`, and where the rates come from."""
    rates = _measured_rates(store)
    seconds, measured = 0.0, 0
    for cell in (item.cell for item in cells if item.method is not None):
        rate = rates.get((cell.method, cell.task, cell.device))
        measured += rate is not None and not cell.plan.timed_rounds
        seconds += cell.plan.seconds(cell.budget, rate) / (1 if cell.plan.runs_alone else jobs)
    source = f"rates of {measured} from this store, else {ASSUMED_SAMPLES_PER_SECOND:,} samples/s assumed"
    return f"about {seconds / 60:.1f} minutes with {jobs} job{'s' if jobs > 1 else ''} ({source})"


def _measured_rates(store: Reader) -> dict[tuple[str, str, str], float]:
    """Samples per CPU second of the learning cells in the store: the median of each method, task and device."""
    if not store.place.exists():
        return {}
    found = defaultdict(list)
    for result in store.read()[0]:
        if result.status == "ok" and kind_of(result).learns and result.ledger.cpu_seconds > 0:
            rate = result.ledger.samples / result.ledger.cpu_seconds
            found[result.method, result.task, result.device].append(rate)
    return {key: median(rates) for key, rates in found.items()}
