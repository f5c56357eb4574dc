"""Historical faults, planted one at a time: each must fail a check that the sound code passes."""

from __future__ import annotations

from dataclasses import replace

import checks
import numpy as np
import pytest
import torch
from test_probes import check_probe, passes

from polobench.core.rollout import Rollout
from polobench.methods import ppo, reinforce, trpo
from polobench.objectives import returns, surrogates
from polobench.objectives.trust_region import LineSearch
from polobench.policies.distributions import Categorical, DiagonalGaussian
from polobench.policies.mlp import MLPPolicy
from polobench.tasks import control
from polobench.tasks.vector import VectorRunner

advantages, line_search = returns.generalized_advantages, trpo.backtracking_line_search


def truncation_is_termination(rollout, *rest):
    return advantages(replace(rollout, terminated=rollout.terminated | rollout.truncated), *rest)


def truncation_ignored(rollout, *rest):
    """Goes on across the reset, as if the next episode were the same one."""
    on = {"truncated": torch.zeros_like(rollout.truncated), "mask": torch.ones_like(rollout.mask)}
    return advantages(replace(rollout, **on), *rest)


def ghosts_used(rollout, *rest):
    return advantages(replace(rollout, mask=torch.ones_like(rollout.mask)), *rest)


def lambda_without_gamma(rollout, values, gamma, gae_lambda, *rest):
    return advantages(rollout, values, 1.0, gae_lambda, *rest)


def standardized_within_each_row(values, mask):
    mean = (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    deviation = (((values - mean) ** 2 * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).sqrt()
    return (values - mean) / (deviation + 1e-8)


def no_values(policy, rollout):
    return torch.zeros(rollout.mask.shape[0], rollout.mask.shape[1] + 1)


def only_termination_ends(runner, actions, step=VectorRunner.step):
    found = step(runner, actions)
    runner.live = ~found[1]
    return found


def unmasked_ghosts(recording, *column, add=control._Recording.add):
    add(recording, *column[:-1], np.ones_like(column[-1]))


def no_line_search(evaluate, start, full_step, **limits):
    gain, kl = evaluate(start + full_step)
    return LineSearch(1.0, gain, kl)


def search_that_does_not_restore(evaluate, start, full_step, **limits):
    return line_search(lambda at: evaluate(at) if at is not start else (0.0, 0.0), start, full_step, **limits)


def dropped_remainder(rows, size, generator, split=Rollout.minibatches):
    return (batch for batch in split(rows, size, generator) if batch.mask.shape[0] == size)


def negated(module, name):
    objective = getattr(module, name)
    return name, lambda *batch: -objective(*batch)


def swapped_k3(log_probs, old_log_probs, mask, k3=surrogates.k3_kl):
    return k3(old_log_probs, log_probs, mask)


def unnormalized_categorical(self, outputs, actions):
    return outputs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def unnormalized_gaussian(self, outputs, actions):
    mean, log_std = outputs.chunk(2, -1)
    return -0.5 * (((actions - mean) / log_std.exp()) ** 2).sum(-1)


def swapped(kind):
    return lambda self, old, new, kl=kind.kl: kl(self, new, old)


GAE, SEARCH, TRUNCATION = "generalized_advantages", "backtracking_line_search", "probe-truncation"
# what is patched: where, which name, with what; then the check that must see it, and its arguments
MUTANTS = {
    "truncation as termination": (returns, GAE, truncation_is_termination, checks.check_advantages),
    "truncation ignored": (returns, GAE, truncation_ignored, checks.check_advantages),
    "autoreset columns in advantages": (returns, GAE, ghosts_used, checks.check_advantages),
    "advantages without discount": (returns, GAE, lambda_without_gamma, checks.check_advantages),
    "truncation as termination in PPO": (ppo, GAE, truncation_is_termination, check_probe, "ppo", TRUNCATION, 0),
    "truncation as termination in TRPO": (trpo, GAE, truncation_is_termination, check_probe, "trpo", TRUNCATION, 0),
    "truncation as termination in REINFORCE": (
        *(reinforce, GAE, truncation_is_termination),
        *(check_probe, "reinforce", TRUNCATION, 0),
    ),
    "values fixed at zero": (MLPPolicy, "values", no_values, check_probe, "trpo", TRUNCATION, 0),
    "episode ends only at termination": (
        *(VectorRunner, "step", only_termination_ends),
        checks.check_time_limit_ends_an_episode,
    ),
    "autoreset columns not masked": (control._Recording, "add", unmasked_ghosts, checks.check_ghosts_are_masked),
    "standardized within one episode": (
        *(returns, "standardized", standardized_within_each_row),
        checks.check_standardized_over_the_batch,
    ),
    "TRPO without a line search": (trpo, SEARCH, no_line_search, checks.check_trust_region_step),
    "line search does not restore": (trpo, SEARCH, search_that_does_not_restore, checks.check_failed_step_restores),
    "minibatches drop the remainder": (Rollout, "minibatches", dropped_remainder, checks.check_minibatches),
    "REINFORCE descends": (
        reinforce,
        *negated(reinforce, "score_function_objective"),
        checks.check_policy_gradient,
        "reinforce",
    ),
    "TRPO descends": (trpo, *negated(trpo, "importance_objective"), checks.check_policy_gradient, "trpo"),
    "PPO descends": (ppo, *negated(ppo, "clipped_objective"), checks.check_policy_gradient, "ppo"),
    "categorical KL swapped": (Categorical, "kl", swapped(Categorical), checks.check_kl),
    "Gaussian KL swapped": (DiagonalGaussian, "kl", swapped(DiagonalGaussian), checks.check_kl),
    "k3 swapped": (surrogates, "k3_kl", swapped_k3, checks.check_k3),
    "logits as log-probabilities": (Categorical, "log_prob", unnormalized_categorical, checks.check_log_prob),
    "Gaussian density unnormalized": (DiagonalGaussian, "log_prob", unnormalized_gaussian, checks.check_log_prob),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_fault_is_caught(name, monkeypatch):
    where, attribute, fault, check, *arguments = MUTANTS[name]
    passes(check, *arguments)
    monkeypatch.setattr(where, attribute, fault)
    with pytest.raises(AssertionError):
        check(*arguments)
