"""Gradient noise at policies of runs: closed forms, a policy that stays, equal batches, kept policies, the report."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp
from synthetic import make_result, report_text, save_all
from test_damaged import NASTY, _changed
from test_pytest_door import bench

pytest.importorskip("transformers")

import polobench
from polobench.analysis.collection import collect
from polobench.analysis.measures import _unequal
from polobench.analysis.summary import gradient_noises
from polobench.cells import gradient_noise
from polobench.cells.fixed_policy import FixedPolicy, critic_names, tensors_of
from polobench.cells.job import bound
from polobench.cells.runner import PreparedCell, prepare, run_cell
from polobench.cells.trained_policies import Trainer
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import UsageError
from polobench.core.gradient_noise import Batches
from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.result import RunResult
from polobench.core.seeding import SeedAxes
from polobench.kinds.cell import Cell
from polobench.kinds.gradient_noise import GradientNoise
from polobench.registry import find_task
from polobench.report.page import write_report
from polobench.run.estimate import estimate
from polobench.run.study import load_study, parse_study
from polobench.store.folder import Damaged, Store
from polobench.tasks.probes import BANDIT_REWARDS
from polobench.tasks.token_bandit import REWARDS

METHODS: dict[str, dict[str, Any]] = {
    "reinforce": {"n_episodes": 8},
    "trpo": {"n_envs": 4, "n_steps": 8, "critic_epochs": 1},
    "ppo": {"n_envs": 4, "n_steps": 8, "minibatch_size": 16, "epochs": 2},
    "dpo": {"n_groups": 4, "group_size": 4},
    "grpo": {"n_groups": 4, "group_size": 4},
    "ranking": {"n_groups": 4, "group_size": 4},
}
TASKS = ("probe-bandit", "token-bandit")


TRAINING = Budget(samples=2048)  # two updates of ppo as it is
STAGES = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("POLOBENCH_CACHE", str(folder))
        yield folder


def plan_of(stage: float = 0.0, batches: int = 5, samples: int = 40, **changes: Any) -> GradientNoise:
    return replace(GradientNoise("ppo", stage, batches, samples, TRAINING, STAGES), **changes)


def cell_of(method: str, task: str, plan: GradientNoise | None = None, seed: int = 7, **hyper: Any) -> PreparedCell:
    plan = plan or plan_of()
    budget = plan.budget(Budget(samples=1))
    return prepare(Cell(method, method, task, seed, "cpu", budget, METHODS[method] | hyper, plan=plan))


def measured(*arguments: Any, **options: Any) -> dict[str, Any]:
    result = run_cell(cell_of(*arguments, **options))
    assert (result.status, result.traceback) == ("ok", ""), result.reason
    return result.gradient_noise


def policy_at(stage: float, task: str = "probe-bandit", seed: int = 7, **changes: Any) -> FixedPolicy:
    return Trainer(find_task(task), plan_of(stage, **changes)).policy(seed, stage)


# closed forms


def as_batches(gradients: np.ndarray, samples: int = 8) -> Batches:
    gram = gradients @ gradients.T
    taken = np.arange(samples, samples + len(gradients), dtype=np.float64)
    return Batches(gram.diagonal(), gram.sum(1) - gram.diagonal(), taken, samples)


def test_formulas_against_numpy() -> None:
    gradients = np.random.default_rng(0).normal(0.5, 1, (6, 4))
    batches = as_batches(gradients)
    trace = np.trace(np.cov(gradients.T))
    signal = np.sum(gradients.mean(0) ** 2) - trace / 6
    assert batches.signal_and_trace == pytest.approx((signal, trace))
    assert batches.snr == pytest.approx(8 * signal / (batches.taken.mean() * trace))
    assert batches.noise_scale == pytest.approx(8 / batches.snr)


def test_noise_scale_is_mccandlishs_of_a_small_and_a_big_batch() -> None:
    gradients = np.random.default_rng(1).normal(0.5, 1, (6, 4))
    small, big = 10, 60
    norm_small, norm_big = np.mean(np.sum(gradients**2, 1)), np.sum(gradients.mean(0) ** 2)
    signal = (big * norm_big - small * norm_small) / (big - small)
    variance = (norm_small - norm_big) / (1 / small - 1 / big)
    found = replace(as_batches(gradients), taken=np.full(6, small))
    assert found.noise_scale == pytest.approx(variance / signal)


def test_estimates_are_unbiased_and_a_variance_over_n_is_not() -> None:
    """Every outcome of three batches whose gradient is one of two vectors."""
    outcomes = np.array([[1.0, 0.0], [0.0, 3.0]])
    true_signal, true_trace = np.sum(outcomes.mean(0) ** 2), np.trace(np.cov(outcomes.T, ddof=0))
    every = [outcomes[list(drawn)] for drawn in itertools.product((0, 1), repeat=3)]
    found = np.mean([as_batches(gradients).signal_and_trace for gradients in every], axis=0)
    assert found == pytest.approx((true_signal, true_trace))
    over_n = np.mean([np.trace(np.cov(gradients.T, ddof=0)) for gradients in every])
    assert over_n != pytest.approx(true_trace, rel=0.1)


def test_no_signal_no_noise_and_no_gradient() -> None:
    opposed = as_batches(np.array([[1.0], [-1.0], [1.0], [-1.0]]))
    assert opposed.snr < 0
    assert opposed.noise_scale == np.inf
    assert as_batches(np.ones((3, 2))).snr == np.inf
    assert np.isnan(as_batches(np.zeros((3, 2))).noise_scale)


def enumerated(task_name: str, fixed: FixedPolicy, rewards: list[float]) -> tuple[float, float]:
    """|G|^2 and the covariance's trace of one episode's gradient of -r log pi, over all actions."""
    method = polobench.make("reinforce", task=task_name, baseline="none")
    task = method.task.bind(SeedAxes(7), Ledger(Budget(samples=10_000)), method.device, lambda policy: None)
    policy = task.make_policy(method.hp, critic=False)
    fixed.load_into(policy)
    rollout = task.episodes(policy, 1, 1)
    outputs = policy.outputs(rollout)
    log_probs = torch.log_softmax(outputs[0, 0], -1)
    gradients = []
    for action, reward in enumerate(rewards):
        pieces = torch.autograd.grad(-reward * log_probs[action], policy.actor_parameters, retain_graph=True)
        gradients.append(torch.cat([piece.flatten() for piece in pieces]))
    stacked, weights = torch.stack(gradients).double(), log_probs.detach().exp().double()
    mean = weights @ stacked
    task.close()
    return float(mean @ mean), float(weights @ (stacked**2).sum(1) - mean @ mean)


@pytest.mark.parametrize(
    ("task", "stage", "rewards", "batches"),
    [
        ("probe-bandit", 0.0, list(BANDIT_REWARDS), 150),
        ("probe-bandit", 1.0, list(BANDIT_REWARDS), 150),
        ("token-bandit", 0.0, [0.0, *REWARDS.values(), 0.0], 50),
    ],
)
def test_a_bandit_agrees_with_its_enumeration(task: str, stage: float, rewards: list[float], batches: int) -> None:
    plan = plan_of(stage, batches, 32)
    found = measured("reinforce", task, plan, baseline="none", n_episodes=16)
    signal, trace = enumerated(task, policy_at(stage, task), rewards)
    assert set(found["batch_samples"]) == {32}
    assert found["trace"] == pytest.approx(trace / 32, rel=4 * np.sqrt(2 / batches))
    error = np.sqrt(4 * signal * trace / 32 / batches + 2 * (trace / 32 / batches) ** 2)
    assert found["signal"] == pytest.approx(signal, abs=4 * error)
    assert found["snr"] == pytest.approx(32 * signal / trace, rel=4 * (error / signal + np.sqrt(2 / batches)))


# a policy that stays, whatever the method


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_measured_and_moves_nothing(monkeypatch: pytest.MonkeyPatch, method: str, task: str) -> None:
    held: list[tuple[Policy, dict[str, torch.Tensor], list[bytes]]] = []
    hold = gradient_noise.hold

    def watched(policy: Policy, hear: Any) -> None:
        critic = [parameter.detach().numpy().tobytes() for parameter in policy.critic_parameters]
        held.append((policy, {name: tensor.clone() for name, tensor in tensors_of(policy).items()}, critic))
        hold(policy, hear)

    monkeypatch.setattr(gradient_noise, "hold", watched)
    result = run_cell(cell_of(method, task))
    assert (result.status, result.traceback) == ("ok", ""), result.reason
    noise = result.gradient_noise
    assert noise["batches"] == len(noise["batch_samples"]) == 5
    assert np.isfinite(noise["snr"])
    assert all(40 <= taken <= 40 + 64 for taken in noise["batch_samples"])
    assert noise["warmup_samples"] >= 160
    assert result.ledger.samples == sum(noise["batch_samples"]) + noise["warmup_samples"]
    ((policy, before, critic),) = held
    names = {id(parameter) for parameter in policy.critic_parameters}
    stay = [name for name, parameter in policy.named_parameters() if id(parameter) not in names]
    assert stay
    assert all(torch.equal(before[name], dict(policy.named_parameters())[name]) for name in stay)
    after = [parameter.detach().numpy().tobytes() for parameter in policy.critic_parameters]
    assert bool(critic) == (method in ("reinforce", "trpo", "ppo") and critic != after)
    assert RunResult.from_dict(json.loads(json.dumps(result.to_dict()))).gradient_noise == noise


def test_the_same_cell_gives_the_same_numbers_and_equal_policies_other_samples() -> None:
    once, again = measured("ppo", "probe-bandit"), measured("ppo", "probe-bandit")
    assert once == again
    of_grpo = measured("ppo", "probe-bandit", plan_of(trainer="grpo"))
    assert of_grpo["policy_sha256"] == once["policy_sha256"], "before training both are what the seed gives"
    assert of_grpo["products"] != once["products"], "or two runs were one"


@pytest.mark.parametrize(("method", "more"), [("grpo", {"epochs": 3}), ("dpo", {"epochs": 3})])
def test_going_over_a_batch_again_changes_nothing(method: str, more: dict[str, int]) -> None:
    once, again = measured(method, "probe-bandit"), measured(method, "probe-bandit", **more)
    assert again["batch_samples"] == once["batch_samples"]
    assert again["squared_norms"] == pytest.approx(once["squared_norms"], rel=1e-4)
    assert again["products"] == pytest.approx(once["products"], rel=1e-4)


def test_statistics_of_observations_stay() -> None:
    found = run_cell(cell_of("ppo", "probe-bandit", normalize_observations=True))
    assert found.hyperparameters["normalize_observations"] is False  # as the trainer's
    method = polobench.make("ppo", task="probe-bandit", normalize_observations=True)
    policy = method.task.bind(
        SeedAxes(0), Ledger(Budget(samples=1)), method.device, lambda policy: None
    ).make_policy(method.hp, critic=True)  # fmt: skip
    gradient_noise.hold(policy, lambda gradient, rows: None)
    before = [buffer.clone() for buffer in policy.buffers()]
    policy.absorb(torch.ones(5, 1))
    policy.refresh_statistics()
    assert all(map(torch.equal, before, policy.buffers()))
    assert len(before) == 5


class Mover(Method):
    """Steps the policy behind its back."""

    name = "mover"

    def learn(self, task: Any, rng: SeedAxes) -> Iterator[Update]:
        policy = task.make_policy(self.hp, critic=False)
        optimizer = torch.optim.SGD(policy.actor_parameters, lr=0.1)
        while True:
            rollout = task.episodes(policy, 8, 1)
            loss = policy.outputs(rollout).square().mean()
            policy.gradient_step(optimizer, [loss])
            with torch.no_grad():
                policy.actor_parameters[-1] += 1.0
            yield Update(0.0, policy)


def test_a_policy_that_moves_all_the_same_is_caught() -> None:
    prepared = cell_of("reinforce", "probe-bandit")
    result = run_cell(replace(prepared, method=Mover(find_task("probe-bandit"))))
    assert result.status == "failed"
    assert "moved the policy" in result.reason


def test_a_method_without_gradients_is_skipped_with_the_reason() -> None:
    prepared = prepare(replace(cell_of("grpo", "probe-bandit").cell, method="random", overrides={}))
    result = run_cell(prepared)
    assert (result.status, result.gradient_noise["policy"]) == ("skipped", "ppo seed 7, stage 0")
    assert "no gradient" in result.reason


# equal batches


def test_batches_reach_their_samples_and_end_there() -> None:
    updates = [(torch.full((2,), float(index)), taken) for index, taken in enumerate([3, 3, 3, 3, 5, 9, 1])]
    found = [(gradient.tolist(), taken) for gradient, taken in gradient_noise._batches(iter(updates), 6)]
    assert found == [([0.5, 0.5], 6), ([2.5, 2.5], 6), ([4.5, 4.5], 14)]


def test_updates_that_are_too_large_leave_fewer_batches_and_say_so(tmp_path: Path) -> None:
    result = run_cell(cell_of("grpo", "probe-bandit", plan_of(batches=12, samples=5), n_groups=32))
    assert (result.status, result.gradient_noise["batches"]) == ("ok", 11)
    assert result.reason == "the budget held 11 of 12 batches"
    assert result.ledger.samples <= result.budget["samples"]
    none = run_cell(cell_of("grpo", "probe-bandit", plan_of(samples=5), n_groups=50))
    assert none.status == "failed"
    assert "of 5 batches" in none.reason
    assert gradient_noises(collect(save_all(tmp_path, result, none)))[0].batches == 11


# the policies of runs


def actor_of(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors_of(policy).items() if name not in critic_names(policy)}


def same(one: dict[str, torch.Tensor], other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("task", TASKS)
def test_a_stage_is_where_the_run_of_the_trainer_is_after_that_share(task: str) -> None:
    trainer = polobench.make("ppo", task)
    with bound(trainer, 7, Ledger(TRAINING)) as started:
        untrained = actor_of(started.make_policy(trainer.hp, critic=True))
    assert same(untrained, policy_at(0.0, task).tensors)
    for stage in (0.5, 1.0):
        whole = trainer.run(7, Budget(samples=int(stage * 2048))).policy
        assert whole is not None
        assert same(actor_of(whole), policy_at(stage, task).tensors)
        assert not same(untrained, actor_of(whole))


def test_an_annealed_run_has_its_whole_budget_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polobench.registry.tuned_values", lambda *of: {"learning_rate_schedule": "linear"})
    found = {stage: policy_at(stage, trainer="grpo") for stage in STAGES}
    trainer = polobench.make("grpo", "probe-bandit")
    half, whole = (trainer.run(7, Budget(samples=samples)).policy for samples in (1024, 2048))
    assert half is not None
    assert whole is not None
    assert same(actor_of(whole), found[1.0].tensors)
    assert not same(actor_of(half), found[0.5].tensors)


def test_all_methods_are_measured_at_one_policy_with_a_critic_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    policies: list[Policy] = []
    hold = gradient_noise.hold

    def watched(policy: Policy, hear: Any) -> None:
        policies.append(policy.frozen_copy())
        hold(policy, hear)

    monkeypatch.setattr(gradient_noise, "hold", watched)
    hashes = {measured(method, "probe-bandit", plan_of(0.5))["policy_sha256"] for method in METHODS}
    assert hashes == {policy_at(0.5).sha256}
    assert len(policies) == len(METHODS)
    assert all(same(actor_of(policy), policy_at(0.5).tensors) for policy in policies)
    critics = [[item.clone() for item in policy.critic_parameters] for policy in policies if policy.critic_parameters]
    assert len(critics) == 3
    method, seed = polobench.make("ppo", "probe-bandit"), SeedAxes(7).integer("ppo seed 7, stage 0.5")
    with bound(method, seed, Ledger(TRAINING)) as task:
        new = list(task.make_policy(method.hp, critic=True).critic_parameters)
    assert all(map(torch.equal, critic, new) for critic in critics)
    trained = method.run(7, Budget(samples=1024)).policy
    assert trained is not None
    assert not any(map(torch.equal, trained.critic_parameters, new))


def test_a_run_is_made_once_and_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*of: Any) -> Any:
        raise AssertionError("it trains")

    plan = plan_of(0.0, trainer="reinforce")
    with monkeypatch.context() as patch:
        patch.setattr("polobench.methods.reinforce.Reinforce.improve", refuse)
        Trainer(find_task("probe-bandit"), replace(plan, stages=(0.0,))).policy(11, 0.0)
    first = [policy_at(stage, seed=12) for stage in STAGES]
    monkeypatch.setattr(Trainer, "_run", refuse)
    again = [policy_at(stage, seed=12) for stage in STAGES]
    assert [policy.sha256 for policy in first] == [policy.sha256 for policy in again]
    assert len({policy.sha256 for policy in first}) == 3
    with pytest.raises(AssertionError, match="it trains"):
        policy_at(0.0, seed=13)


@pytest.mark.parametrize("fault", ["cut", "one bit", "empty", "a folder", "another"])
def test_a_damaged_kept_policy_is_made_again(cache: Path, fault: str) -> None:
    trainer = Trainer(find_task("probe-bandit"), plan_of(0.5))
    sound, path = trainer.policy(14, 0.5), trainer._path(14, 0.5)
    assert path.is_relative_to(cache)
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    if fault == "a folder":
        path.unlink()
        path.mkdir()
    else:
        other = trainer._path(14, 1.0).read_bytes()[:64]
        path.write_bytes({"cut": whole[:500], "one bit": flipped, "empty": b"", "another": other}[fault])
    assert same(dict(trainer.policy(14, 0.5).tensors), sound.tensors)
    if fault == "a folder":
        path.rmdir()
    else:
        assert path.read_bytes() == whole


def test_two_workers_that_train_at_the_same_time_end_with_one_policy(tmp_path: Path) -> None:
    script = (
        "import sys; from polobench.cells.trained_policies import *; from polobench.registry import find_task\n"
        "from polobench.core.budget import Budget\n"
        "plan = GradientNoise('ppo', 0.5, training=Budget(samples=2048), stages=(0.0, 0.5, 1.0))\n"
        "trainer = Trainer(find_task('probe-bandit'), plan)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(trainer.policy(7, 0.5).sha256)\n"
    )
    whole = [sys.executable, "-c", script]
    environment = os.environ | {"POLOBENCH_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    workers = [subprocess.Popen(whole, **pipes) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert {worker.communicate()[0] for worker in workers} == {f"{policy_at(0.5).sha256}\n"}
    kept = sorted(path.name.rpartition("-")[2] for path in (tmp_path / "policies").iterdir())
    assert kept == ["0", "0.5", "1"], "and no temporary file"


def test_another_network_is_refused() -> None:
    other = polobench.make("ppo", task="probe-bandit", hidden_sizes=[8])
    result = run_cell(replace(cell_of("ppo", "probe-bandit"), method=other))
    assert result.status == "failed"
    assert "does not fit" in result.reason


def test_what_decides_the_policy_is_part_of_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def id_of(seed: int = 7, **changes: Any) -> str:
        return cell_of("ppo", "probe-bandit", replace(plan_of(), **changes), seed).cell_id

    ids = [id_of(), id_of(seed=8), id_of(trainer="grpo"), id_of(stage=1.0), id_of(batches=6), id_of(samples=41)]
    ids.append(id_of(training=Budget(samples=2049)))
    assert id_of(stages=(0.0,)) == ids[0]
    tuned = {"learning_rate": 0.02}
    monkeypatch.setattr("polobench.registry.tuned_values", lambda *of: tuned if of[0] == "grpo" else {})
    assert id_of() == ids[0]
    ids.append(id_of(trainer="grpo"))
    assert len(set(ids)) == len(ids)


# studies, plan, doors


def noise_grid(**changes: Any) -> dict[str, Any]:
    return {"methods": ["ppo"], "tasks": ["probe-bandit"], "seeds": [7], "budget": 400} | changes


def test_a_study_asks_for_a_cell_per_method_task_and_policy() -> None:
    grid = noise_grid(methods=["ppo", {"method": "grpo", "label": "g"}], throughput_rounds=2, seeds=2)
    grid["gradient_noise"] = {"batches": 8, "samples": 64, "stages": [0, 1]}
    cells = parse_study("s", {"grid": [grid]}).cells
    assert [cell.kind for cell in cells] == ["learning"] * 4 + ["gradient_noise"] * 16 + ["throughput"] * 2
    noises = [cell for cell in cells if isinstance(cell.plan, GradientNoise)]
    first = GradientNoise("ppo", 0.0, 8, 64, Budget(samples=400), (0.0, 1.0))
    plans = [replace(first, trainer=trainer, stage=stage) for stage in (0.0, 1.0) for trainer in ("ppo", "grpo")]
    assert [(cell.label, cell.plan, cell.seed) for cell in noises] == [
        (label, plan, seed) for label in ("ppo", "g") for plan in plans for seed in range(2)
    ]
    assert noises[0].budget == Budget(samples=20 * (4 + 8) * 64)
    assert str(noises[6]) == "ppo · probe-bandit · gradient noise, grpo seed 0, stage 1 · cpu"
    grid["gradient_noise"] |= {"methods": ["grpo"]}
    assert len(parse_study("s", {"grid": [grid]}).cells) == 4 + 8 + 2


def test_the_study_measures_all_estimators_at_ten_runs_with_equal_critics() -> None:
    cells = [cell for cell in load_study("gradient-noise").cells if isinstance(cell.plan, GradientNoise)]
    tasks = {cell.task for cell in cells}
    assert tasks == {cell.task for cell in load_study("matrix").cells}
    for task in tasks:
        by_label: dict[str, set[tuple[str, int, float]]] = {}
        settings = []
        for cell in cells:
            assert isinstance(cell.plan, GradientNoise)
            if cell.task == task:
                by_label.setdefault(cell.label, set()).add((cell.plan.trainer, cell.seed, cell.plan.stage))
                settings.append(cell.overrides)
        runs = set(itertools.product(("reinforce", "trpo", "ppo", "dpo", "grpo"), (130, 131), STAGES))
        assert set(by_label) == {"reinforce", "trpo", "ppo", "online dpo", "grpo"}
        assert all(found == runs for found in by_label.values())
        fitted = [found for found in settings if "gamma" in found]
        assert len(fitted) == 90
        assert not any(_unequal(one, fitted[0]) for one in fitted)
        assert all({"critic_epochs", "epochs"} & one.keys() for one in fitted)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "gradient_noise: 3"),
        ({"batch": 3}, "unknown key of gradient_noise 'batch'"),
        ({"methods": ["grpo"]}, r"unknown method of gradient_noise 'grpo'.*\(allowed: ppo\)"),
        ({"methods": []}, "a list that is not empty"),
        ({"stages": [0.5, 1.5]}, r"stages: 1.5 \(allowed: a share of the budget, from 0 to 1\)"),
        ({"stages": ["end"]}, "a share of the budget"),
        ({"stages": []}, "a list that is not empty"),
        ({"stages": [1, 1.0]}, "is named twice"),
        ({"batches": 4}, "an integer from 5"),
        ({"batches": 2.5}, "an integer from 5"),
        ({"samples": 0}, "an integer from 1"),
    ],
)
def test_a_wrong_key_is_one_line(value: object, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_study("s", {"grid": [noise_grid(gradient_noise=value)]})
    assert "\n" not in str(caught.value)


def test_the_trainers_need_a_budget_that_gives_a_policy_twice() -> None:
    grid = noise_grid(gradient_noise={}, learning=False)
    with pytest.raises(UsageError, match=r"gradient_noise: budget 60 seconds \(allowed: samples, updates"):
        parse_study("s", {"grid": [grid | {"budget": {"seconds": 60}}]})
    del grid["budget"]
    with pytest.raises(UsageError, match=r"gradient_noise: its \[\[grid\]\] has no 'budget'"):
        parse_study("s", {"grid": [grid]})


def test_an_estimate_counts_the_samples_that_are_planned() -> None:
    cell = cell_of("ppo", "probe-bandit", plan_of(batches=26, samples=8000))
    assert estimate([cell], [], 1).startswith("about 1.1 minutes")  # 240,000 at 4,000 a second


def test_the_pytest_door_runs_such_cells(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        'devices = ["cpu"]\n[[grid]]\nmethods = ["random", "grpo"]\ntasks = ["probe-bandit"]\nseeds = [7]\n'
        "budget = 64\n"
        'gradient_noise = { methods = ["grpo"], batches = 5, samples = 64, stages = [1] }\n'
    )
    done = bench("--study", "s.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "3 passed, 1 skipped" in done.stdout
    table = polobench.load(tmp_path / "results" / "s")
    noises = table[table.kind == "gradient_noise"].set_index("method")
    assert noises.status.to_dict() == {"grpo": "ok", "random": "skipped"}
    assert set(noises.fixed_policy) == {"grpo seed 7, stage 1"}


# the store and the report


def make_noise(method: str = "ppo", stage: float = 1.0, seed: int = 0, **changes: Any) -> RunResult:
    gradients = np.random.default_rng(seed).normal(0.3, 1, (8, 5))
    found = as_batches(gradients, 512)
    signal, trace = found.signal_and_trace
    noise = {
        "policy": f"grpo seed {seed}, stage {stage:g}", "trainer": "grpo", "stage": stage, "training": "64 samples",
        "policy_sha256": "ab", "samples": 512, "batches": 8, "warmup_samples": 2048,
        "batch_samples": [int(taken) for taken in found.taken], "squared_norms": found.squared_norms.tolist(),
        "products": found.products.tolist(), "signal": signal, "trace": trace, "snr": found.snr,
        "noise_scale": found.noise_scale,
    }  # fmt: skip
    empty = {"curve": pd.DataFrame(), "updates": pd.DataFrame(), "time_to_target": {}, "loss_convergence": {}}
    base = {"kind": "gradient_noise", "gradient_noise": noise, "final_return": float("nan"), "final_score": None}
    result = make_result(method, seed=seed, **(empty | base | changes))
    result.cell_id += f"{stage:g}"
    return result


def test_all_stages_of_an_arm_are_kept_and_of_two_equal_cells_the_newer(tmp_path: Path) -> None:
    newer = make_noise(started_at="2025-02-02T00:00:00+00:00", provenance={"code_hash": "new"})
    items = gradient_noises(collect(save_all(tmp_path, make_noise(), make_noise(stage=0.0), newer)))
    assert [item.stage for item in items] == [0.0, 1.0]
    (found,) = {item.snr for item in items}
    assert found == pytest.approx(newer.gradient_noise["snr"])
    assert (items[0].n, items[0].batches) == (1, 8)
    assert np.isnan(items[0].interval.low), "batches of one run are no sample of runs"


def test_the_unit_is_the_run_and_one_without_a_gradient_is_none(tmp_path: Path) -> None:
    cells = [make_noise(seed=seed) for seed in range(4)]
    cells[3].gradient_noise |= {"squared_norms": [0.0] * 8, "products": [0.0] * 8, "snr": math.nan}
    for cell in cells:
        cell.cell_id += str(cell.seed)
    (item,) = gradient_noises(collect(save_all(tmp_path, *cells)))
    ratios = [cell.gradient_noise["snr"] for cell in cells[:3]]
    assert (item.n, item.snr) == (3, pytest.approx(np.mean(ratios)))
    ends = ttest_1samp(ratios, 0).confidence_interval(0.95)
    assert (item.interval.low, item.interval.high) == pytest.approx(tuple(ends))


def test_the_report_has_table_figure_and_csv(tmp_path: Path) -> None:
    store = save_all(tmp_path / "s", make_noise(), make_noise("<b>", 0.0), make_result())
    path = write_report(store, tmp_path / "r")
    section = (tmp_path / "r" / "diagnostics.md").read_text().partition("## Gradient noise\n")[2].partition("\n## ")[0]
    assert "| &lt;b&gt;" in section
    assert "](figures/gradient_noise_1.png)" in section
    assert "2 gradient noise, 1 learning" in path.with_name("provenance.md").read_text()
    assert (tmp_path / "r" / "figures" / "gradient_noise_1.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "r" / "tables" / "gradient_noise.csv").read_text().splitlines()) == 3


def test_a_store_without_such_cells_has_no_such_section(tmp_path: Path) -> None:
    assert "Gradient noise" not in report_text(collect(save_all(tmp_path, make_result())))


def test_an_old_file_is_read_and_a_bad_value_is_named_or_harmless(tmp_path: Path) -> None:
    old = make_result().to_dict()
    del old["gradient_noise"]
    old["cell_id"] = "old"
    save_all(tmp_path)
    (tmp_path / "old.json").write_text(json.dumps(old))
    plain = json.loads(json.dumps(make_noise().to_dict())) | {"cell_id": "bad"}
    named = 0
    for key in plain["gradient_noise"]:
        for value in NASTY:
            (tmp_path / "bad.json").write_text(_changed(plain, ("gradient_noise", key), value))
            found = collect(tmp_path)
            assert report_text(found)
            assert len(found.arms) >= 1
            named += len(found.damaged)
    assert named > 60


@pytest.mark.parametrize("change", [{"batches": 2}, {"products": [1.0]}, {"samples": 0}, {"batch_samples": [0] * 8}])
def test_what_does_not_fit_together_is_damage(tmp_path: Path, change: dict[str, Any]) -> None:
    result = make_noise()
    result.gradient_noise |= change
    store = Store(save_all(tmp_path, result))
    found = store.load(result.cell_id)
    assert isinstance(found, Damaged)
    assert "gradient_noise" in found.reason
