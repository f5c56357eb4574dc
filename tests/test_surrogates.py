"""Policy-gradient objectives against enumeration: every trajectory, weighted by its probability."""

from __future__ import annotations

import itertools
from dataclasses import replace

import checks
import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

import polobench
from polobench.core.optimization import Tally
from polobench.objectives import surrogates
from polobench.objectives.returns import masked_mean
from polobench.objectives.surrogates import clipped_objective, importance_objective, k3_kl

CLIP_EPS = 0.2
ONE = torch.ones(1, 1, dtype=torch.bool)


@pytest.mark.parametrize("name", checks.ESTIMATORS)
def test_expected_estimate_is_the_exact_policy_gradient(name):
    checks.check_policy_gradient(name)


def test_batch_mean_shrinks_the_gradient_by_one_over_the_episodes():
    """One step, two actions, batches of two episodes: the mean holds each action's own reward, so half is lost."""
    policy, both = checks.small_policy(3, 2, continuous=False), checks.every_trajectory().select(torch.tensor([0, 2]))
    columns = {name: value[:, :1] for name, value in both._tensors() if name not in ("final_observations", "groups")}
    one_step = replace(both, **columns | {"terminated": torch.ones(2, 1, dtype=torch.bool)})
    log_probs = policy.outputs(one_step).log_softmax(-1)[torch.arange(2), 0, one_step.actions[:, 0]]
    probabilities = log_probs.exp()
    expected_return = (probabilities * one_step.rewards[:, 0]).sum()
    exact = parameters_to_vector(torch.autograd.grad(expected_return, policy.actor_parameters, retain_graph=True))
    expected = torch.zeros_like(exact)
    for rows in itertools.product(range(2), repeat=2):
        batch = one_step.select(torch.tensor(rows))
        weight = probabilities[list(rows)].prod().detach()
        expected += weight * checks.estimated_gradient("reinforce", policy, batch, baseline="batch_mean")
    checks.close(expected, exact / 2)


def test_leave_one_out_leaves_the_gradient_as_it_is():
    """All batches of two trajectories: what is taken off is the other's return, which one's own actions cannot move."""
    policy, rollout = checks.small_policy(3, 2, continuous=False), checks.every_trajectory()
    probabilities, exact = checks.probabilities_and_gradient(policy, rollout)
    expected = torch.zeros_like(exact)
    for rows in itertools.product(range(4), repeat=2):
        batch = rollout.select(torch.tensor(rows))
        estimate = checks.estimated_gradient("reinforce", policy, batch, baseline="leave_one_out")
        expected += probabilities[list(rows)].prod() * estimate
    checks.close(expected, exact)


def test_importance_objective_gives_the_new_policys_value_from_the_old_ones_samples():
    """Also far from ratio 1, and so does its gradient: sum over actions of pi_new(a) A(a)."""
    old, logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits.requires_grad_()
    advantages = torch.arange(5, dtype=torch.float64) - 1.5
    old, new = old.log_softmax(-1), logits.log_softmax(-1)
    samples = [importance_objective(new[a].view(1, 1), old[a].view(1, 1), advantages[a], ONE) for a in range(5)]
    expected, exact = (old.exp() * torch.stack(samples)).sum(), (new.exp() * advantages).sum()
    checks.close(expected, exact)
    gradient = torch.autograd.grad(expected, logits, retain_graph=True)[0]
    checks.close(gradient, torch.autograd.grad(exact, logits)[0])


@pytest.mark.parametrize(
    "objective", [importance_objective, lambda *batch: clipped_objective(*batch, clip_eps=CLIP_EPS)]
)
def test_gradient_at_ratio_one_is_the_policy_gradient(objective):
    rollout = checks.random_rollout(0)
    advantages = checks.random_values(rollout)[:, 1:]
    old = -advantages.abs()
    log_probs = old.clone().requires_grad_()
    found = torch.autograd.grad(objective(log_probs, old, advantages, rollout.mask), log_probs)[0]
    expected = torch.autograd.grad(masked_mean(log_probs * advantages, rollout.mask), log_probs)[0]
    checks.close(found, expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient"),
    [
        (1.5, 2.0, 1.2 * 2.0, 0.0),  # already more likely, and good: no further
        (1.5, -2.0, 1.5 * -2.0, 1.5 * -2.0),  # more likely, though bad: back
        (0.5, -2.0, 0.8 * -2.0, 0.0),  # already less likely, and bad: no further
        (0.5, 2.0, 0.5 * 2.0, 0.5 * 2.0),  # less likely, though good: back
        (1.1, 2.0, 1.1 * 2.0, 1.1 * 2.0),  # inside
    ],
)
def test_clipped_objective_holds_back_only_what_goes_further_out(ratio, advantage, value, gradient):
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    log_prob = (old + torch.tensor(ratio, dtype=torch.float64).log()).requires_grad_()
    objective = clipped_objective(log_prob, old, torch.full_like(old, advantage), ONE, CLIP_EPS)
    assert objective.item() == pytest.approx(value, abs=1e-12)
    assert torch.autograd.grad(objective, log_prob)[0].item() == pytest.approx(gradient, abs=1e-12)


def test_k3_is_never_negative_and_its_expectation_is_the_kl():
    checks.check_k3()


def test_k3_is_zero_at_ratio_one_and_exact_to_second_order():
    old = torch.zeros(1, 1, dtype=torch.float64)
    assert k3_kl(old, old, ONE) == 0
    assert k3_kl(old + 1e-4, old, ONE).item() == pytest.approx(0.5e-8, rel=1e-3)


def test_masked_entries_change_no_objective():
    rollout = checks.random_rollout(1)
    advantages, log_probs = checks.random_values(rollout)[:, 1:], checks.random_values(rollout, 1)[:, 1:]
    old = checks.random_values(rollout, 2)[:, 1:]
    for objective in (
        importance_objective,
        lambda *batch: clipped_objective(*batch, clip_eps=CLIP_EPS),
        lambda new, _, *rest: surrogates.score_function_objective(new, *rest, n_episodes=6),
    ):
        changed = torch.where(rollout.mask, advantages, 1e6)
        assert objective(log_probs, old, advantages, rollout.mask) == objective(log_probs, old, changed, rollout.mask)


def test_ppo_standardizes_over_the_whole_minibatch():
    """At ratio 1: the gradient is that of log pi times (A - mean) / deviation, both over all of its transitions."""
    policy, rollout = checks.small_policy(3, 2, continuous=False), checks.random_rollout(0)
    log_probs = policy.distribution.log_prob(policy.outputs(rollout), rollout.actions).detach()
    advantages = checks.random_values(rollout)[:, 1:]
    columns = {"advantages": advantages, "value_targets": advantages, "old_log_probs": log_probs}
    batch = rollout.attach(**columns).rows()
    learner = polobench.make("ppo", task="probe-bandit", epochs=1)
    (parts,) = learner.minibatches(batch, np.random.default_rng(0))
    loss = sum(learner.losses(policy, CLIP_EPS, parts, Tally()))

    chosen, actions = advantages[rollout.mask], rollout.actions[rollout.mask]
    weights = (chosen - chosen.mean()) / chosen.std(correction=0)
    new = policy.outputs(rollout)[rollout.mask].log_softmax(-1)[torch.arange(len(actions)), actions]
    expected = torch.autograd.grad(-(new * weights).mean(), policy.actor_parameters)
    found = torch.autograd.grad(loss, policy.actor_parameters)
    for mine, other in zip(found, expected, strict=True):
        checks.close(mine, other, atol=1e-7)  # 1e-8 is added to the deviation
