"""In which order `polobench ab` takes iterations, and for how long, by a fake clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polobench.ab import speed
from polobench.ab import timing as ab
from polobench.ab.processes import Timing
from polobench.ab.timing import BLOCKS, LEAST_PAIRS, WARMUP_PAIRS, TimedCell, time_cell
from polobench.core.budget import Budget
from polobench.kinds.cell import Cell
from polobench.kinds.throughput import Throughput

CELL = Cell("ppo", "ppo", "CartPole-v1", 0, "cpu", Budget(updates=8), plan=Throughput(5))


class Machine:
    """A clock that moves by what workers do; `drift` multiplies the seconds that everything takes, a second."""

    def __init__(self, costs: tuple[float, float], start: float = 0.5, drift: float = 0.0) -> None:
        self.now, self.costs, self.start, self.drift = 0.0, costs, start, drift
        self.turns: list[int] = []
        self.events: list[str] = []
        self.opened = self.closed = 0

    def clock(self) -> float:
        return self.now

    def take(self, seconds: float) -> float:
        spent = seconds * (1 + self.drift * self.now)
        self.now += spent
        return spent

    def open_both(self, order: np.random.Generator) -> tuple[FakeWorker, FakeWorker]:
        self.opened += 2
        return FakeWorker(self, 0), FakeWorker(self, 1)

    def measure(self, seconds: float, device: str = "cpu") -> TimedCell:
        order = np.random.default_rng(0)
        return time_cell(replace(CELL, device=device), self.open_both, seconds, order, lambda share: None, self.clock)


class FakeWorker:
    def __init__(self, machine: Machine, side: int) -> None:
        self._machine, self._side, self._open = machine, side, True

    def ready(self) -> None:
        self._machine.take(self._machine.start)

    def begin(self) -> None:
        self._machine.turns.append(self._side)
        self._machine.events.append("begin")

    def timing(self) -> Timing:
        self._machine.events.append("end")
        return Timing(self._machine.take(self._machine.costs[self._side]), 0.0)

    def close(self) -> None:
        self._machine.closed += self._open
        self._open = False


def test_both_take_turns_in_an_order_drawn_anew_and_the_first_pair_of_a_block_is_left_out() -> None:
    machine = Machine((0.1, 0.1))
    found = machine.measure(20)
    pairs = [tuple(machine.turns[at : at + 2]) for at in range(0, len(machine.turns), 2)]
    assert set(pairs) == {(0, 1), (1, 0)}
    assert len(found.blocks) == BLOCKS
    assert len(pairs) == sum(map(len, found.blocks)) + BLOCKS * WARMUP_PAIRS
    assert machine.opened == machine.closed == 2 * BLOCKS


@pytest.mark.parametrize(
    ("device", "bound", "at_once"), [("cpu", True, True), ("cpu", False, False), ("cuda", True, False)]
)
def test_a_pair_shares_a_core_or_takes_turns(
    device: str, bound: bool, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ab, "cores_for", lambda cell: [0] if bound and cell.device == "cpu" else [])
    machine = Machine((0.1, 0.1))
    machine.measure(5, device)
    expected = ["begin", "begin", "end", "end"] if at_once else ["begin", "end"] * 2
    assert machine.events == expected * (len(machine.events) // 4)


def test_another_device_has_no_core_of_its_own() -> None:
    assert ab.cores_for(replace(CELL, device="cuda")) == []


@pytest.mark.parametrize(("start", "blocks"), [(0.1, BLOCKS), (4.0, 2), (30.0, 2)])
def test_the_start_of_the_processes_counts_and_a_block_that_does_not_fit_is_left_out(start: float, blocks: int) -> None:
    machine = Machine((0.5, 0.5), start)
    found = machine.measure(25)
    assert len(found.blocks) == blocks
    assert min(map(len, found.blocks)) >= LEAST_PAIRS
    assert machine.opened == machine.closed
    assert machine.now <= max(25 + 1, 2 * (2 * start + 3))  # two blocks are measured in any case: one decides nothing


def test_a_machine_that_slows_down_slows_both() -> None:
    machine = Machine((0.1, 0.115), drift=0.2)
    found = speed.ratio(machine.measure(25).seconds("iteration"))
    assert found.value == pytest.approx(1.15, rel=0.02)
    one_after_the_other = Machine((0.1, 0.1), drift=0.2)
    base, head = ([one_after_the_other.take(0.1) for _ in range(40)] for _ in range(2))
    assert speed.ratio([list(zip(base, head, strict=True))] * 2).verdict == speed.SLOWER
