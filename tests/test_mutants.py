"""Faults beside the article's, planted one at a time: each must fail a check that the sound code passes.

Those that the article has are in `test_article_faults`.
"""

from __future__ import annotations

from dataclasses import replace

import checks
import mutation
import numpy as np
import pytest
import torch

from polobench.core.rollout import Rollout
from polobench.methods import ppo, reinforce, trpo
from polobench.objectives import returns, surrogates
from polobench.policies.distributions import Categorical, DiagonalGaussian
from polobench.tasks import control

advantages = returns.generalized_advantages


def ghosts_used(rollout, *rest):
    return advantages(replace(rollout, mask=torch.ones_like(rollout.mask)), *rest)


def lambda_without_gamma(rollout, values, gamma, gae_lambda, *rest):
    return advantages(rollout, values, 1.0, gae_lambda, *rest)


def unmasked_ghosts(recording, *column, add=control._Recording.add):
    add(recording, *column[:-1], np.ones_like(column[-1]))


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


GAE = "generalized_advantages"
# what is patched: where, which name, with what; then the check that must see it, and its arguments
MUTANTS = {
    "autoreset columns in advantages": (returns, GAE, ghosts_used, checks.check_advantages),
    "advantages without discount": (returns, GAE, lambda_without_gamma, checks.check_advantages),
    "autoreset columns not masked": (control._Recording, "add", unmasked_ghosts, checks.check_ghosts_are_masked),
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
    mutation.check_is_caught(monkeypatch, *MUTANTS[name])
