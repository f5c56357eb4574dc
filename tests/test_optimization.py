"""What all methods share: how gradients are followed, minibatches and their parts, the KL in the reward, labels."""

from __future__ import annotations

from typing import Any

import checks
import numpy as np
import pytest
import torch
from test_language_rollouts import first_update, preferred, rewarded, small_model
from torch.nn.utils import parameters_to_vector

import polobench
from polobench.cells.runner import prepare_all
from polobench.core.adam import FusedAdam, clip
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import GradientHyperparameters
from polobench.core.optimization import Descent, Tally
from polobench.core.rollout import Rollout
from polobench.objectives.preference import ranked_minibatches
from polobench.objectives.reference import log_probs_of, with_kl_in_rewards
from polobench.objectives.surrogates import clip_fraction, clipped_terms
from polobench.policies.mlp import MLPPolicy
from polobench.run.study import parse_study
from polobench.tasks.reward import RewardTask

METHODS = ("reinforce", "trpo", "ppo", "grpo", "dpo", "ranking")


@pytest.mark.parametrize("method", METHODS)
def test_every_step_follows_the_same_settings(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam's eps, the clipping, and a learning rate that begins at its value and falls to 0 with the budget."""
    made, clips, rates = [], [], []
    adam, step = MLPPolicy.adam, MLPPolicy.gradient_step

    def noted_adam(policy: Any, parameters: Any, lr: float, eps: float) -> Any:
        made.append((lr, eps))
        return adam(policy, parameters, lr, eps)

    def noted_step(policy: Any, optimizer: Any, losses: Any, clip: float) -> Any:
        clips.append(clip)
        rates.append(optimizer.param_groups[0]["lr"])
        return step(policy, optimizer, losses, clip)

    monkeypatch.setattr(MLPPolicy, "adam", noted_adam)
    monkeypatch.setattr(MLPPolicy, "gradient_step", noted_step)
    settings = {"adam_eps": 1e-3, "max_gradient_norm": 0.25, "learning_rate_schedule": "linear"}
    result = polobench.make(method, "probe-bandit", **settings).run(0, polobench.Budget(updates=4))
    assert result.status == "ok", result.reason
    assert {eps for _, eps in made} == {1e-3}
    assert set(clips) == {0.25}
    expected = {round(lr * left, 12) for lr, _ in made for left in (1.0, 0.75, 0.5, 0.25)}
    assert {round(rate, 12) for rate in rates} == expected


def test_the_schedule_ends_at_0() -> None:
    policy = checks.small_policy(3, 2, continuous=False)
    descent = Descent(policy, policy.actor_parameters, 0.5, GradientHyperparameters(learning_rate_schedule="linear"))
    before = policy.actor_vector()
    descent.schedule(1.0)
    descent.step([sum((parameter**2).sum() for parameter in policy.actor_parameters)])
    assert torch.equal(policy.actor_vector(), before)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient"),
    [
        (1.25, 2.0, 1.25 * 2.0, 1.25 * 2.0),  # above 1 + 0.2, within 1 + 0.3
        (1.5, 2.0, 1.3 * 2.0, 0.0),
        (0.5, -2.0, 0.8 * -2.0, 0.0),  # the lower end stays at 1 - 0.2
        (0.75, -2.0, 0.8 * -2.0, 0.0),
        (1.5, -2.0, 1.5 * -2.0, 1.5 * -2.0),
    ],
)
def test_the_upper_clip_is_one_of_its_own(ratio: float, advantage: float, value: float, gradient: float) -> None:
    old, mask = torch.tensor([[-1.0]], dtype=torch.float64), torch.tensor([[True]])
    log_prob = (old + torch.tensor(ratio, dtype=torch.float64).log()).requires_grad_()
    terms = clipped_terms(log_prob, old, torch.full_like(old, advantage), 0.2, 0.3)
    assert terms.item() == pytest.approx(value, abs=1e-12)
    assert torch.autograd.grad(terms.sum(), log_prob)[0].item() == pytest.approx(gradient, abs=1e-12)
    assert bool(clip_fraction(log_prob, old, mask, 0.2, 0.3)) == (ratio not in (1.25,))


def groups_of(scores: list[float], groups: list[int]) -> Rollout:
    """Rows of one step each, with these returns."""
    rollout = checks.random_rollout(0, rows=len(scores), columns=1)
    on = torch.ones_like(rollout.mask)
    return rollout.attach(rewards=torch.tensor(scores).unsqueeze(1), groups=torch.tensor(groups), mask=on)


def test_grpo_clips_higher_where_asked() -> None:
    """One step of ratio 1.25 and advantage 1 in a batch of two rows: 1.2 or 1.25, over two."""
    policy, rollout = checks.small_policy(3, 2, continuous=False), groups_of([1.0, 0.0], [0, 0])
    log_probs = log_probs_of(policy, rollout, None)
    change = torch.tensor([[1.25], [1.0]], dtype=torch.float64).log()
    columns = {"advantages": torch.tensor([[1.0], [0.0]]), "weights": torch.tensor([[0.5], [0.5]])}
    batch = rollout.attach(old_log_probs=log_probs - change, **columns)
    for high, expected in ((None, 1.2), (0.3, 1.25)):
        learner: Any = polobench.make("grpo", "probe-bandit", clip_eps=0.2, clip_eps_high=high)
        loss = sum(learner.losses(policy, 2, [batch], Tally()))
        assert loss.item() == pytest.approx(-expected / 2, abs=1e-7)


def test_tied_groups_leave_the_loss_and_its_divisor() -> None:
    """Two of six rows differ: each of them weighs 1/2 instead of 1/6, and nothing else is left."""
    rollout = groups_of([1.0, 1.0, 3.0, 2.0, 0.0, 0.0], [0, 0, 1, 1, 2, 2])
    for drops, rows, weight in ((False, 6, 1 / 6), (True, 2, 1 / 2)):
        learner: Any = polobench.make("grpo", "probe-bandit", drop_tied_groups=drops, divide_by_std=False)
        batch = learner.with_advantages(rollout, 1)
        assert batch.weights.flatten().tolist() == pytest.approx([weight] * rows)
        assert [value for value in batch.advantages.flatten().tolist() if value] == [0.5, -0.5]
    assert learner.with_advantages(groups_of([1.0, 1.0], [0, 0]), 1) is None


def test_a_batch_of_tied_groups_makes_no_step() -> None:
    equal = lambda prompts, completions: [1.0] * len(completions)  # noqa: E731
    task = RewardTask("equal", small_model, ["b?", "cdb?"], ["d?"], equal, max_new_tokens=4, floor=0.0)
    result = polobench.make("grpo", task, drop_tied_groups=True).run(0, polobench.Budget(updates=2))
    assert (result.status, result.ledger.gradient_steps, result.ledger.updates) == ("ok", 0, 2)
    assert result.updates["loss"].tolist() == [0.0, 0.0]
    assert result.updates["tied_groups"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("normalization", ["grpo", "dapo", "dr_grpo"])
def test_the_mean_over_grpos_minibatches_is_the_batchs_loss(normalization: str) -> None:
    policy, rollout = checks.small_policy(3, 2, continuous=False), checks.random_rollout(0)
    learner: Any = polobench.make("grpo", "probe-bandit", normalization=normalization, divide_by_std=False)
    rows = learner.with_advantages(rollout.attach(groups=torch.tensor([0, 0, 0, 1, 1, 1])), 40).rows()
    rows = rows.attach(old_log_probs=log_probs_of(policy, rows, None) - 0.1)
    count = rows.mask.shape[0]

    def gradient(batch: Rollout) -> torch.Tensor:
        loss = sum(learner.losses(policy, count, [batch], Tally()))
        return parameters_to_vector(torch.autograd.grad(loss, policy.actor_parameters))

    batches = list(rows.minibatches(50, np.random.default_rng(0)))
    assert len(batches) > 2
    mean = sum(batch.mask.shape[0] / count * gradient(batch) for batch in batches)
    checks.close(mean, gradient(rows))


@pytest.mark.parametrize(("method", "whole"), [("grpo", {"minibatch_size": 10**6}), ("dpo", {"minibatch_groups": 99})])
def test_one_minibatch_in_one_epoch_is_the_whole_batch(method: str, whole: dict[str, int]) -> None:
    moved = []
    for settings in ({}, whole):
        with checks.bound(rewarded()) as task:
            update = first_update(method, task, compute_dtype="float64", **settings)
            moved.append(parameters_to_vector(update.policy.actor_parameters).detach())
            assert task.ledger.gradient_steps == 1
    torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=1e-9)


def test_grpo_keeps_its_samplers_log_probs_where_a_batch_makes_several_steps() -> None:
    """Rows stay whole in language, so three of seven steps are two minibatches of 20 steps, though they hold 21."""
    policy, rollout = checks.small_policy(3, 2, continuous=False), checks.random_rollout(0, rows=3, columns=7)
    for size, epochs, keeps in ((20, 1, True), (21, 1, False), (None, 1, False), (None, 2, True)):
        learner: Any = polobench.make("grpo", "probe-bandit", minibatch_size=size, epochs=epochs)
        rows = learner.with_fixed_log_probs(policy, None, rollout)
        assert (rows.old_log_probs is not None) == keeps
        assert (epochs * len(list(rows.minibatches(size, np.random.default_rng(0)))) > 1) == keeps


def test_minibatches_of_groups_hold_whole_ones() -> None:
    """Every epoch sees every row once, beside those of its group; groups are numbered from 0 in order."""
    sizes = [2, 3, 1, 4, 2]
    of = torch.arange(5).repeat_interleave(torch.tensor(sizes))
    rollout = groups_of(torch.arange(12.0).tolist(), of.tolist())
    for rows in (rollout, rollout.as_arrays()):
        seen = []
        for batch in rows.group_minibatches(2, np.random.default_rng(0), epochs=3):
            numbers, scores = (np.asarray(column.numpy()) for column in (batch.groups, batch.rewards))
            owners = of.numpy()[scores.flatten().astype(int)]
            assert [sizes[owner] for owner in dict.fromkeys(owners)] == np.bincount(numbers).tolist()
            assert sorted(numbers) == numbers.tolist()
            seen += scores.flatten().tolist()
        assert sorted(seen) == sorted(rollout.rewards.flatten().tolist() * 3)
        assert seen[:12] != seen[12:24]


def test_a_minibatch_without_a_pair_makes_no_step() -> None:
    hp = polobench.make("dpo", "probe-bandit", minibatch_groups=1).hp
    rollout = groups_of([1.0, 1.0, 0.0, 1.0, 2.0, 2.0], [0, 0, 1, 1, 2, 2])
    (parts,) = ranked_minibatches(rollout, hp, np.random.default_rng(0))
    assert parts[0].rewards.flatten().tolist() == [0.0, 1.0]


def test_epochs_of_one_minibatch_of_groups_give_the_same_parts() -> None:
    hp = polobench.make("dpo", "probe-bandit", epochs=3, micro_batch=2).hp
    ranked, tied = groups_of([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1]), groups_of([1.0, 1.0], [0, 0])
    found = list(ranked_minibatches(ranked, hp, np.random.default_rng(0)))
    assert [len(parts) for parts in found] == [2, 2, 2]
    assert all(parts is found[0] for parts in found)
    assert not list(ranked_minibatches(tied, hp, np.random.default_rng(0)))


def test_kl_in_the_reward_is_that_of_whole_responses() -> None:
    """Over all trajectories: the estimates' mean is the gradient of the return minus kl_coef KL(pi || pi_ref)."""
    policy, rollout = checks.small_policy(3, 2, continuous=False), checks.every_trajectory()
    reference = policy.frozen_copy()
    checks.perturb(reference.actor_parameters, torch.Generator().manual_seed(4))
    new, fixed = (
        each.outputs(rollout).log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1).sum(1)
        for each in (policy, reference)
    )
    probabilities, kl = new.exp().detach(), (new.exp() * (new - fixed.detach())).sum()
    exact = (new.exp() * rollout.rewards.sum(1)).sum() - 0.7 * kl
    expected = parameters_to_vector(torch.autograd.grad(exact, policy.actor_parameters))
    found, estimates = torch.zeros_like(expected), []
    for row, probability in enumerate(probabilities):
        penalized, estimate = with_kl_in_rewards(policy, reference, rollout.select(torch.tensor([row])), 0.7, None)
        found += probability * checks.estimated_gradient("reinforce", policy, penalized, baseline="none")
        estimates.append(2 * estimate)  # the mean over two steps
    checks.close(found, expected)
    assert float((probabilities * torch.tensor(estimates)).sum()) == pytest.approx(float(kl.detach()), abs=1e-6)


@pytest.mark.parametrize("method", ["reinforce", "ppo"])
def test_kl_in_the_reward_is_0_at_the_checkpoint(method: str) -> None:
    """Exactly, so that the first update is that without it; the passes that it takes are charged."""
    moved, rows = [], []
    for kl_coef in (0.0, 0.5):
        with checks.bound(rewarded()) as task:
            update = first_update(method, task, kl_coef=kl_coef, micro_batch=3)
            moved.append(parameters_to_vector(update.policy.parameters()).detach())
            rows.append(task.ledger.forward_rows)
            assert update.metrics.get("kl_to_reference") == (0.0 if kl_coef else None)
    assert torch.equal(*moved)
    assert rows[1] > rows[0]
    with pytest.raises(UsageError, match=r"kl_coef is 0.5, but task 'CartPole-v1' has no reference policy"):
        polobench.make(method, "CartPole-v1", kl_coef=0.5)


def test_sampled_pairs_are_called_online_dpo() -> None:
    assert polobench.make("dpo", preferred()).label == "dpo"
    assert polobench.make("dpo", preferred(), source="policy").label == "online dpo"
    assert polobench.make("dpo", rewarded(), label="dpo, mine").label == "dpo, mine"
    grid = {"methods": ["dpo", "ppo"], "tasks": ["probe-bandit"], "seeds": 2, "budget": 100}
    cells = prepare_all(parse_study("s", {"devices": ["cpu"], "grid": [grid]}).cells)
    assert [item.cell.label for item in cells] == ["online dpo"] * 2 + ["ppo"] * 2
    again = prepare_all([item.cell for item in cells])
    assert [item.cell_id for item in again] == [item.cell_id for item in cells]


@pytest.mark.parametrize(("other", "max_norm"), [(torch.float32, 0.3), (torch.float64, 1e6)])
def test_adam_and_clipping_are_torchs_bit_for_bit(other: torch.dtype, max_norm: float) -> None:
    """Of parameters of one type or two, one of which never has a gradient and one only later."""
    shapes = {(5, 3): torch.float32, (7,): other, (4,): torch.float32, (2,): torch.float32}
    draws = torch.Generator().manual_seed(0)

    def drawn() -> list[torch.Tensor]:
        return [torch.randn(shape, dtype=dtype, generator=draws) for shape, dtype in shapes.items()]

    assert clip([torch.nn.Parameter(torch.ones(2))], 0.5) == 0, "no gradient at all, as of a policy that is held"
    start = drawn()
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    mine, torchs = FusedAdam(ours, 0.1, 1e-5), torch.optim.Adam(theirs, lr=0.1, eps=1e-5, fused=True)
    for step in range(4):
        mine.zero_grad()
        torchs.zero_grad()
        for index, gradient in enumerate(drawn()[: 3 if step else 2]):
            ours[index].grad, theirs[index].grad = gradient.clone(), gradient.clone()
        norm, torchs_norm = clip(ours, max_norm), torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        assert norm == torchs_norm if other == torch.float32 else torch.isclose(norm, torchs_norm)
        mine.step()
        torchs.step()
        for stepped in (mine, torchs):
            stepped.param_groups[0]["lr"] = 0.05 / (step + 1)
    for one, other, value in zip(ours, theirs, start, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, value) == (value.shape == (2,))
