"""Conjugate gradient, line search, Jacobian and Fisher products, and TRPO's step, against linear algebra."""

from __future__ import annotations

import math
from dataclasses import replace

import checks
import numpy as np
import pytest
import torch
from torch import nn

import polobench
from polobench.objectives.returns import masked_mean
from polobench.objectives.trust_region import LineSearch, backtracking_line_search, conjugate_gradient

KINDS = pytest.mark.parametrize("continuous", [False, True], ids=["categorical", "gaussian"])


def test_conjugate_gradient_solves_n_equations_in_n_steps():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    matrix, solution = root @ root.T + torch.eye(8), torch.randn(8, generator=generator, dtype=torch.float64)
    products = []

    def product(vector):
        products.append(vector)
        return matrix @ vector

    target = matrix @ solution
    checks.close(conjugate_gradient(product, target, steps=8, tolerance=0.0)[0], solution, atol=1e-11)
    assert len(products) == 8
    assert (conjugate_gradient(product, target, steps=7, tolerance=0.0)[0] - solution).norm() > 1e-6


@pytest.mark.parametrize("steps", [0, 1, 3, 8])
def test_conjugate_gradient_knows_the_curvature_of_what_it_found_wherever_it_stops(steps):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(8), torch.randn(8, generator=generator, dtype=torch.float64)
    found, curvature = conjugate_gradient(lambda vector: matrix @ vector, target, steps=steps, tolerance=0.0)
    torch.testing.assert_close(curvature, found @ matrix @ found, rtol=1e-10, atol=0.0)


def test_conjugate_gradient_needs_a_step_for_each_distinct_eigenvalue_and_none_for_zero():
    matrix = torch.tensor([2.0, 2.0, 5.0, 5.0], dtype=torch.float64)
    target = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    checks.close(conjugate_gradient(lambda v: matrix * v, target, steps=2, tolerance=0.0)[0], target / matrix)
    zero = torch.zeros(4)
    assert torch.equal(conjugate_gradient(lambda v: matrix * v, zero, steps=5, tolerance=1e-10)[0], zero)


def search(gain, kl, start, step, backtracks=10):
    """A line search that remembers where it left the parameters."""
    left = []

    def evaluate(parameters):
        left.append(parameters.clone())
        return gain(parameters), kl(parameters)

    found = backtracking_line_search(evaluate, start, step, max_kl=0.1, backtracks=backtracks, shrink=0.5)
    return found, left


def test_line_search_takes_the_full_step_to_the_top_of_a_parabola():
    found, left = search(lambda x: 1 - float((x - 1) ** 2), lambda x: 0.0, torch.zeros(1), torch.ones(1))
    assert found == LineSearch(1.0, 1.0, 0.0)
    assert torch.equal(left[-1], torch.ones(1))


def test_line_search_shortens_until_the_kl_fits():
    found, left = search(lambda x: float(x), lambda x: float(x**2), torch.zeros(1), torch.ones(1))
    assert found == LineSearch(0.25, 0.25, 0.0625)
    assert torch.equal(left[-1], torch.tensor([0.25]))


def test_line_search_shortens_until_the_surrogate_improves():
    found, _ = search(lambda x: float(x * (0.3 - x)), lambda x: 0.0, torch.zeros(1), torch.ones(1))
    assert found.fraction == 0.25


@pytest.mark.parametrize(
    ("gain", "kl"), [(-1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (math.nan, 0.0), (1.0, math.nan), (math.nan, math.nan)]
)
def test_line_search_moves_back_to_the_start_bit_for_bit(gain, kl):
    start = torch.tensor([0.1, -1e-30, 3e7])
    found, left = search(lambda x: gain, lambda x: kl, start, torch.full((3,), 0.7), backtracks=3)
    assert not found.accepted
    assert len(left) == 5
    assert torch.equal(left[-1], start)


class Outputs(nn.Module):
    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, rollout):
        return self.policy.outputs(rollout)


def case(continuous):
    """A float64 policy, a rollout with masked columns, and the outputs as a function of the actor's parameters."""
    policy, rollout = checks.small_policy(3, 2, continuous), checks.random_rollout(0, rows=3, columns=8)
    module = Outputs(policy)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    shapes = [(names[id(parameter)], parameter.shape) for parameter in policy.actor_parameters]

    def outputs_at(vector):
        pieces = vector.split([shape.numel() for _, shape in shapes])
        parameters = {name: piece.view(shape) for (name, shape), piece in zip(shapes, pieces, strict=True)}
        return torch.func.functional_call(module, parameters, (rollout,))

    return policy, rollout, outputs_at


@KINDS
def test_linearize_multiplies_by_the_jacobian_and_its_transpose(continuous):
    policy, rollout, outputs_at = case(continuous)
    start = policy.actor_vector()
    jacobian = torch.autograd.functional.jacobian(outputs_at, start)
    generator = torch.Generator().manual_seed(1)
    tangent = torch.randn(start.shape, generator=generator, dtype=torch.float64)
    outputs, jvp, vjp = policy.linearize(rollout)
    cotangent = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    checks.close(outputs, outputs_at(start))
    checks.close(jvp(tangent), jacobian @ tangent)
    checks.close(vjp(cotangent), torch.tensordot(cotangent, jacobian, 3))


@KINDS
def test_fisher_product_is_the_hessian_of_the_mean_kl(continuous):
    policy, rollout, outputs_at = case(continuous)
    start = policy.actor_vector()
    old = outputs_at(start).detach()
    hessian = torch.autograd.functional.hessian(
        lambda moved: masked_mean(policy.distribution.kl(old, outputs_at(moved)), rollout.mask), start
    )
    tangent = torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for damping in (0.0, 0.1):
        learner = polobench.make("trpo", task="probe-bandit", cg_damping=damping)
        product = learner.fisher_product(policy, rollout, np.random.default_rng(0))
        checks.close(product(tangent), hessian @ tangent + damping * tangent)


@pytest.mark.parametrize("task", ["probe-bandit", "probe-continuous-target"])
def test_step_improves_within_the_bound_where_the_full_step_breaks_it(task):
    checks.check_trust_region_step(task)


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_step_with_default_settings_improves_within_the_bound(task):
    learner, policy, rows = checks.trust_region_case(task)
    before = policy.actor_vector()
    found, _ = learner.improve(policy, rows, np.random.default_rng(0))
    gain, kl = checks.gain_and_kl(policy, rows, before, policy.actor_vector())
    assert found.accepted
    assert gain > 0
    assert 0 < kl <= learner.hp.max_kl + checks.ATOL


def test_step_that_fails_restores_the_parameters_bit_for_bit():
    checks.check_failed_step_restores()


@pytest.mark.parametrize("advantage", [0.0, math.nan])
def test_step_without_a_usable_gradient_moves_nothing(advantage):
    learner, policy, rows = checks.trust_region_case()
    rows = replace(rows, advantages=torch.full_like(rows.rewards, advantage))
    before = policy.actor_vector()
    found, _ = learner.improve(policy, rows, np.random.default_rng(0))
    assert not found.accepted
    assert torch.equal(policy.actor_vector(), before)


def test_step_leaves_the_critic_alone():
    learner, policy, rows = checks.trust_region_case()
    before = [parameter.clone() for parameter in policy.critic_parameters]
    assert learner.improve(policy, rows, np.random.default_rng(0))[0].accepted
    assert all(torch.equal(old, new) for old, new in zip(before, policy.critic_parameters, strict=True))


def test_advantages_are_standardized_over_the_whole_rollout():
    settings = {"n_envs": 4, "n_steps": 25, "critic_epochs": 1}
    rollout, values, fitted = checks.first_update("trpo", "probe-truncation", gamma=0.9, gae_lambda=0.8, **settings)
    raw = checks.advantages_by_definition(rollout, values, 0.9, 0.8)[rollout.mask]
    expected = (raw - raw.mean()) / raw.std(correction=0)
    checks.close(fitted.advantages.flatten().sort()[0], expected.sort()[0], atol=1e-5)
