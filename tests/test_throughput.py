"""Throughput cells: a device that works behind the clock's back is waited for, or the figure is shown to be wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import polobench
from polobench.cells.runner import prepare, run_cell
from polobench.cells.throughput import ThroughputProbe
from polobench.core.errors import Unavailable
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.method import ForeignMethod, Method
from polobench.core.recorder import Update
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.kinds.cell import Cell
from polobench.kinds.throughput import Throughput
from polobench.run.progress import outcome
from polobench.tasks.probes import bandit

WORK_SECONDS = 3.0


class FakeAsynchronousDevice:
    """Launching work takes no time; it is done, and the clock moves, when somebody waits."""

    def __init__(self) -> None:
        self.now, self._queued = 0.0, 0.0

    def launch(self) -> None:
        self._queued += WORK_SECONDS

    def wait(self, device: torch.device) -> None:
        self.now, self._queued = self.now + self._queued, 0.0

    def clock(self) -> float:
        return self.now


class Launcher(Method):
    name = "launcher"

    def __init__(self, gpu: FakeAsynchronousDevice) -> None:
        super().__init__(bandit())
        self._gpu = gpu

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        policy = task.floor_policy()
        while True:
            task.fragments(policy, 2, 4)
            self._gpu.launch()
            yield Update(0.0, policy)


def measured_seconds(gpu: FakeAsynchronousDevice, wait: object) -> float:
    with ThroughputProbe(Launcher(gpu), 0, 4, wait=wait, clock=gpu.clock) as probe:  # type: ignore[arg-type]
        for _ in range(4):
            probe.step()
        return sum(probe.summary(rounds=3)["iteration_seconds"])


def test_the_device_is_waited_for_inside_the_timed_call() -> None:
    gpu = FakeAsynchronousDevice()
    assert measured_seconds(gpu, gpu.wait) == 3 * WORK_SECONDS


def test_a_missing_wait_is_caught() -> None:
    gpu = FakeAsynchronousDevice()
    with pytest.raises(AssertionError):
        assert measured_seconds(gpu, lambda device: None) == 3 * WORK_SECONDS


def test_rollout_and_update_add_up_to_the_iteration_and_warmup_is_left_out() -> None:
    method = polobench.make("ppo", task="probe-bandit", n_steps=8)
    with ThroughputProbe(method, 0, 5) as probe:
        for _ in range(5):
            probe.step()
        summary = probe.summary(rounds=2)
    assert summary["rounds"] == 2
    assert summary["warmup_rounds"] == 3
    assert summary["iteration_seconds"] == probe.iteration_seconds[-2:]
    sums = [a + b for a, b in zip(summary["rollout_seconds"], summary["update_seconds"], strict=True)]
    assert sums == pytest.approx(summary["iteration_seconds"])
    assert all(0 < part < whole for part, whole in zip(summary["rollout_seconds"], summary["iteration_seconds"]))
    samples = sum(probe.samples[-2:])
    assert summary["samples_per_second"] == pytest.approx(samples / sum(summary["iteration_seconds"]))


def test_rates_over_more_rounds_than_were_timed_are_refused() -> None:
    with ThroughputProbe(polobench.make("random", task="probe-bandit"), 0, 5) as probe:
        probe.step()
        with pytest.raises(ValueError, match="only 1 of 2"):
            probe.summary(rounds=2)


def test_random_state_and_threads_are_as_before() -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with ThroughputProbe(polobench.make("reinforce", task="probe-bandit"), 0, 1) as probe:
        probe.step()
    assert torch.equal(before, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()


def test_a_foreign_loop_cannot_be_timed_apart() -> None:
    class Foreign(ForeignMethod):
        name = "foreign"

        def train(self, task: Task, rng: SeedAxes, record: object) -> None: ...

    with pytest.raises(Unavailable, match="owns its loop"):
        ThroughputProbe(Foreign(bandit()), 0, 1)


def test_a_throughput_cell_that_fails_says_why() -> None:
    setting = {"initial_log_std": 0.0}
    cell = Cell("ppo", "ppo", "probe-bandit", 0, "cpu", polobench.Budget(updates=4), setting, plan=Throughput(1))
    prepared = prepare(cell)
    assert prepared.method is not None
    prepared.method.learn = lambda task, rng: iter(())  # type: ignore[method-assign]
    result = run_cell(prepared)
    assert (result.status, result.kind) == ("failed", "throughput")
    assert "StopIteration" in result.reason


def test_rounds_on_an_old_batch_are_no_speed_of_zero() -> None:
    def learn(task: Task, rng: SeedAxes) -> Iterator[Update]:
        policy = task.make_policy(Hyperparameters(), critic=False)
        task.episodes(policy, 2, 4)
        while True:
            yield Update(0.0, policy)

    cell = Cell("ppo", "ppo", "probe-bandit", 0, "cpu", polobench.Budget(updates=4), plan=Throughput(2))
    prepared = prepare(cell)
    assert prepared.method is not None
    prepared.method.learn = learn  # type: ignore[method-assign]
    result = run_cell(prepared)
    rates = {name: value for name, value in result.throughput.items() if name.endswith("_per_second")}
    assert (result.status, result.ledger.samples) == ("ok", 8)
    assert rates.pop("updates_per_second") > 0
    assert set(rates.values()) == {None}
    assert "2 timed rounds took no new samples" in result.reason
    assert outcome(result) == result.reason
