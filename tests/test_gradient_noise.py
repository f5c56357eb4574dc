"""Gradient noise at a stored policy: closed forms, a policy that stays, equal batches, stored policies, the report."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from synthetic import make_result, report_text, save_all
from test_damaged import NASTY, _changed
from test_pytest_door import bench

pytest.importorskip("transformers")

import polobench
from polobench.analysis.collection import collect
from polobench.analysis.summary import gradient_noises
from polobench.cells import gradient_noise
from polobench.cells.runner import PreparedCell, prepare, run_cell
from polobench.cells.stored import path_of
from polobench.cells.stored_policies import StoredPolicy, find_policy, make_policies, tensors_of
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
from polobench.run.library import BUILT_IN
from polobench.run.study import parse_study
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored policies of probe-bandit."""
    made = tmp_path_factory.mktemp("policies")
    make_policies("probe-bandit", made, budget=4000)
    return made


def cell_of(
    method: str, task: str, folder: Path, plan: GradientNoise | None = None, policy: str = "initial", **hyper: Any
) -> PreparedCell:
    plan = replace(plan or GradientNoise(policy, batches=5, samples=40), folder=str(folder))
    budget = plan.budget(Budget(samples=1))
    return prepare(Cell(method, method, task, 7, "cpu", budget, METHODS[method] | hyper, plan=plan))


def measured(*arguments: Any, **options: Any) -> dict[str, Any]:
    result = run_cell(cell_of(*arguments, **options))
    assert (result.status, result.traceback) == ("ok", ""), result.reason
    return result.gradient_noise


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


def enumerated(task_name: str, fixed: StoredPolicy, rewards: list[float]) -> tuple[float, float]:
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
    ("task", "policy", "rewards", "batches"),
    [
        ("probe-bandit", "initial", list(BANDIT_REWARDS), 150),
        ("probe-bandit", "trained", list(BANDIT_REWARDS), 150),
        ("token-bandit", "initial", [0.0, *REWARDS.values(), 0.0], 50),
    ],
)
def test_a_bandit_agrees_with_its_enumeration(
    folder: Path, task: str, policy: str, rewards: list[float], batches: int
) -> None:
    plan = GradientNoise(policy, batches=batches, samples=32)
    found = measured("reinforce", task, folder, plan, baseline="none", n_episodes=16)
    signal, trace = enumerated(task, find_policy(folder, find_task(task), policy), rewards)
    assert set(found["batch_samples"]) == {32}
    assert found["trace"] == pytest.approx(trace / 32, rel=4 * np.sqrt(2 / batches))
    error = np.sqrt(4 * signal * trace / 32 / batches + 2 * (trace / 32 / batches) ** 2)
    assert found["signal"] == pytest.approx(signal, abs=4 * error)
    assert found["snr"] == pytest.approx(32 * signal / trace, rel=4 * (error / signal + np.sqrt(2 / batches)))


# a policy that stays, whatever the method


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_measured_and_moves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, task: str
) -> None:
    held: list[tuple[Policy, dict[str, torch.Tensor], list[bytes]]] = []
    hold = gradient_noise.hold

    def watched(policy: Policy, hear: Any) -> None:
        critic = [parameter.detach().numpy().tobytes() for parameter in policy.critic_parameters]
        held.append((policy, {name: tensor.clone() for name, tensor in tensors_of(policy).items()}, critic))
        hold(policy, hear)

    monkeypatch.setattr(gradient_noise, "hold", watched)
    prepared = cell_of(method, task, folder)
    result = run_cell(prepared)
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


def test_the_same_cell_gives_the_same_numbers(folder: Path) -> None:
    assert measured("ppo", "probe-bandit", folder) == measured("ppo", "probe-bandit", folder)


@pytest.mark.parametrize(("method", "more"), [("grpo", {"epochs": 3}), ("dpo", {"epochs": 3})])
def test_going_over_a_batch_again_changes_nothing(folder: Path, method: str, more: dict[str, int]) -> None:
    once, again = measured(method, "probe-bandit", folder), measured(method, "probe-bandit", folder, **more)
    assert again["batch_samples"] == once["batch_samples"]
    assert again["squared_norms"] == pytest.approx(once["squared_norms"], rel=1e-4)
    assert again["products"] == pytest.approx(once["products"], rel=1e-4)


def test_statistics_of_observations_stay(folder: Path) -> None:
    plan = GradientNoise("initial", 5, 40)
    found = run_cell(cell_of("ppo", "probe-bandit", folder, plan, normalize_observations=True))
    assert found.hyperparameters["normalize_observations"] is False  # as the stored policy's
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
            policy.gradient_step(optimizer, [loss], 8)
            with torch.no_grad():
                policy.actor_parameters[-1] += 1.0
            yield Update(0.0, policy)


def test_a_policy_that_moves_all_the_same_is_caught(folder: Path) -> None:
    prepared = cell_of("reinforce", "probe-bandit", folder)
    result = run_cell(replace(prepared, method=Mover(find_task("probe-bandit"))))
    assert result.status == "failed"
    assert "moved the policy" in result.reason


def test_a_method_without_gradients_is_skipped_with_the_reason(folder: Path) -> None:
    prepared = prepare(replace(cell_of("grpo", "probe-bandit", folder).cell, method="random", overrides={}))
    result = run_cell(prepared)
    assert (result.status, result.gradient_noise["policy"]) == ("skipped", "initial")
    assert "no gradient" in result.reason


# equal batches


def test_batches_reach_their_samples_and_end_there() -> None:
    updates = [(torch.full((2,), float(index)), taken) for index, taken in enumerate([3, 3, 3, 3, 5, 9, 1])]
    found = [(gradient.tolist(), taken) for gradient, taken in gradient_noise._batches(iter(updates), 6)]
    assert found == [([0.5, 0.5], 6), ([2.5, 2.5], 6), ([4.5, 4.5], 14)]


def test_updates_that_are_too_large_leave_fewer_batches_and_say_so(folder: Path, tmp_path: Path) -> None:
    result = run_cell(cell_of("grpo", "probe-bandit", folder, GradientNoise("initial", 12, 5), n_groups=32))
    assert (result.status, result.gradient_noise["batches"]) == ("ok", 11)
    assert result.reason == "the budget held 11 of 12 batches"
    assert result.ledger.samples <= result.budget["samples"]
    none = run_cell(cell_of("grpo", "probe-bandit", folder, GradientNoise("initial", 5, 5), n_groups=50))
    assert none.status == "failed"
    assert "of 5 batches" in none.reason
    assert gradient_noises(collect(save_all(tmp_path, result, none)))[0].batches == 11


# stored policies


def test_a_stored_policy_gives_the_same_outputs(folder: Path) -> None:
    task = find_task("probe-bandit")
    initial, trained = (find_policy(folder, task, name) for name in ("initial", "trained"))
    method = polobench.make("ppo", task=task, **trained.network)
    bound = method.task.bind(SeedAxes(1000), Ledger(Budget(samples=8)), method.device, lambda policy: None)
    policy = bound.make_policy(method.hp, critic=True)
    assert all(torch.equal(tensor, initial.tensors[name]) for name, tensor in tensors_of(policy).items())
    rollout = bound.episodes(policy, 4, 1)
    first = policy.outputs(rollout)
    trained.load_into(policy)
    assert all(torch.equal(tensor, trained.tensors[name]) for name, tensor in tensors_of(policy).items())
    best = int(np.argmax(BANDIT_REWARDS))
    assert (policy.outputs(rollout)[..., best] > first[..., best]).all()
    without = bound.make_policy(method.hp, critic=False)
    trained.load_into(without)
    assert torch.equal(without.outputs(rollout), policy.outputs(rollout))
    bound.close()


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "sort-digits", "order-digits"])
def test_the_policies_of_this_repository_fit_their_tasks(name: str) -> None:
    task, stored = find_task(name), BUILT_IN / "policies"
    initial, trained = (find_policy(stored, task, policy) for policy in ("initial", "trained"))
    assert bool(initial.tensors) == bool(initial.sha256) == (name.endswith("-v1"))
    method = polobench.make("grpo", task=task, **trained.network)
    bound = method.task.bind(SeedAxes(0), Ledger(Budget(samples=1)), method.device, lambda policy: None)
    policy = bound.make_policy(method.hp, critic=False)
    for fixed in (initial, trained):
        fixed.load_into(policy)
    assert all(torch.equal(tensor, trained.tensors[key]) for key, tensor in tensors_of(policy).items())
    bound.close()


def test_another_network_is_refused(folder: Path) -> None:
    prepared = cell_of("ppo", "probe-bandit", folder)
    assert prepared.method is not None
    other = polobench.make("ppo", task="probe-bandit", hidden_sizes=[8])
    result = run_cell(replace(prepared, method=other))
    assert result.status == "failed"
    assert "does not fit" in result.reason


@pytest.mark.parametrize("fault", ["missing", "damaged", "foreign", "other task"])
def test_a_bad_file_is_one_line(folder: Path, tmp_path: Path, fault: str) -> None:
    task, path = find_task("probe-bandit"), path_of(tmp_path, "probe-bandit", "trained")
    good = path_of(folder, "probe-bandit", "trained").read_bytes()
    content = {"damaged": good[:100], "foreign": save({"weight": torch.ones(1)}), "other task": good}
    said = {
        "missing": r"no stored policy at .*stored_policies .* probe-bandit` makes it",
        "damaged": "is no stored policy",
        "foreign": "is no stored policy",
        "other task": "not of 'probe-delayed-reward', 'trained'",
    }
    if fault == "other task":
        task = find_task("probe-delayed-reward")
        path = path_of(tmp_path, task.name, "trained")
    if fault in content:
        path.write_bytes(content[fault])
    with pytest.raises(UsageError, match=said[fault]) as caught:
        find_policy(tmp_path, task, "trained")
    assert "\n" not in str(caught.value)


def test_the_files_hash_and_what_is_asked_are_part_of_the_id(folder: Path, tmp_path: Path) -> None:
    plan = GradientNoise("initial", 5, 40)
    ids = [cell_of("ppo", "probe-bandit", folder, plan).cell_id]
    ids += [cell_of("ppo", "probe-bandit", folder, replace(plan, **change)).cell_id
            for change in ({"policy": "trained"}, {"batches": 6}, {"samples": 41})]  # fmt: skip
    make_policies("probe-bandit", tmp_path, budget=5000)
    assert cell_of("ppo", "probe-bandit", tmp_path, plan).cell_id == ids[0]  # the same bytes from another folder
    path_of(tmp_path, "probe-bandit", "trained").rename(tmp_path / "kept")
    ids.append(cell_of("ppo", "probe-bandit", _with_other_bytes(tmp_path), plan).cell_id)
    assert len(set(ids)) == len(ids)


def _with_other_bytes(folder: Path) -> Path:
    path = path_of(folder, "probe-bandit", "initial")
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) + 1 for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata)
    return folder


# studies, plan, doors


def noise_grid(**changes: Any) -> dict[str, Any]:
    return {"methods": ["ppo"], "tasks": ["probe-bandit"], "seeds": [7], "budget": 400} | changes


def test_a_study_asks_for_a_cell_a_method_task_and_policy() -> None:
    grid = noise_grid(methods=["ppo", "grpo"], throughput_rounds=2, seeds=2)
    grid["gradient_noise"] = {"batches": 8, "samples": 64}
    cells = parse_study("s", {"grid": [grid]}, folder="here").cells
    assert [cell.kind for cell in cells] == ["learning"] * 4 + ["gradient_noise"] * 4 + ["throughput"] * 2
    plans = [cell.plan for cell in cells if isinstance(cell.plan, GradientNoise)]
    assert plans[:2] == [GradientNoise(policy, 8, 64) for policy in ("initial", "trained")]
    assert {plan.folder for plan in plans} == {"here/policies"}
    assert cells[4].budget == Budget(samples=20 * (4 + 8) * 64)
    assert str(cells[5]) == "ppo · probe-bandit · gradient noise, trained policy · cpu"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "gradient_noise: 3"),
        ({"batch": 3}, "unknown key of gradient_noise 'batch'"),
        ({"policies": ["halfway"]}, "unknown stored policy 'halfway'"),
        ({"policies": []}, "a list that is not empty"),
        ({"policies": ["initial", "initial"]}, "is named twice"),
        ({"batches": 4}, "an integer from 5"),
        ({"batches": 2.5}, "an integer from 5"),
        ({"samples": 0}, "an integer from 1"),
    ],
)
def test_a_wrong_key_is_one_line(value: object, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_study("s", {"grid": [noise_grid(gradient_noise=value)]})
    assert "\n" not in str(caught.value)


def test_an_estimate_counts_the_samples_that_are_planned(folder: Path, tmp_path: Path) -> None:
    cell = cell_of("ppo", "probe-bandit", folder, GradientNoise("initial", 26, 8000))
    assert estimate([cell], [], 1).startswith("about 1.1 minutes")  # 240,000 at 4,000 a second


def test_the_pytest_door_runs_such_cells(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "policies").symlink_to(folder)
    (tmp_path / "s.toml").write_text(
        'devices = ["cpu"]\n[[grid]]\nmethods = ["random", "grpo"]\ntasks = ["probe-bandit"]\nseeds = [7]\n'
        "budget = 64\n"
        'gradient_noise = { batches = 5, samples = 64, policies = ["trained"] }\n'
    )
    done = bench("--study", "s.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "3 passed, 1 skipped" in done.stdout
    table = polobench.load(tmp_path / "results" / "s")
    status = table[table.kind == "gradient_noise"].set_index("method").status
    assert status.to_dict() == {"grpo": "ok", "random": "skipped"}


# the store and the report


def make_noise(method: str = "ppo", policy: str = "trained", seed: int = 0, **changes: Any) -> RunResult:
    gradients = np.random.default_rng(seed).normal(0.3, 1, (8, 5))
    found = as_batches(gradients, 512)
    signal, trace = found.signal_and_trace
    noise = {
        "policy": policy, "policy_sha256": "ab", "samples": 512, "batches": 8, "warmup_samples": 2048,
        "batch_samples": [int(taken) for taken in found.taken], "squared_norms": found.squared_norms.tolist(),
        "products": found.products.tolist(), "signal": signal, "trace": trace, "snr": found.snr,
        "noise_scale": found.noise_scale, "mean_cosine": 0.25,
    }  # fmt: skip
    empty = {"curve": pd.DataFrame(), "updates": pd.DataFrame(), "time_to_target": {}, "loss_convergence": {}}
    base = {"kind": "gradient_noise", "gradient_noise": noise, "final_return": float("nan"), "final_score": None}
    result = make_result(method, seed=seed, **(empty | base | changes))
    result.cell_id += policy
    return result


def test_both_policies_of_an_arm_are_kept_and_of_two_runs_the_newer(tmp_path: Path) -> None:
    newer = make_noise(started_at="2025-02-02T00:00:00+00:00", provenance={"code_hash": "new"})
    items = gradient_noises(collect(save_all(tmp_path, make_noise(), make_noise(policy="initial"), newer)))
    assert [item.policy for item in items] == ["initial", "trained"]
    (found,) = {item.snr for item in items}
    assert found == pytest.approx(newer.gradient_noise["snr"])
    assert (items[0].n, items[0].batches) == (1, 8)
    assert np.isnan(items[0].interval.low), "batches of one run are no sample of runs"


def test_the_report_has_table_figure_and_csv(tmp_path: Path) -> None:
    store = save_all(tmp_path / "s", make_noise(), make_noise("<b>", "initial"), make_result())
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
