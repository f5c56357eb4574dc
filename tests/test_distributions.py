"""Action distributions against torch's own, Fisher matrices against Hessians, sampling against probabilities."""

from __future__ import annotations

import math

import checks
import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from polobench.core.arrays import Array
from polobench.policies.distributions import Categorical, DiagonalGaussian
from polobench.policies.uniform import UniformActions

KINDS = pytest.mark.parametrize("kind", [0, 1], ids=["categorical", "gaussian"])


def test_log_prob_agrees_with_torch():
    checks.check_log_prob()


def test_kl_agrees_with_torch_in_its_direction():
    checks.check_kl()


@KINDS
def test_entropy_and_mode_agree_with_torch(kind):
    ours, old, _, theirs, *_ = checks.distributions()[kind]
    checks.close(ours.entropy(old), theirs.entropy())
    assert torch.equal(ours.mode(old), theirs.mode)


@KINDS
def test_kl_to_itself_is_zero(kind):
    ours, old, *_ = checks.distributions()[kind]
    checks.close(ours.kl(old, old), torch.zeros(old.shape[:-1], dtype=torch.float64))


@KINDS
def test_fisher_is_the_hessian_of_the_kl_at_the_old_parameters(kind):
    ours, old, new, *_ = checks.distributions(shape=(1,))[kind]
    outputs, tangent = old[0], new[0]
    hessian = torch.autograd.functional.hessian(lambda moved: ours.kl(outputs, moved), outputs)
    checks.close(ours.fisher(outputs, tangent), hessian @ tangent)


def test_categorical_samples_have_the_distributions_frequencies():
    logits = torch.tensor([0.3, -1.0, 1.5, 0.0])
    count = 20_000
    noise = torch.from_numpy(Categorical().noise(np.random.default_rng(0), (count,)))
    actions = Categorical().sample(logits.expand(count, 4), noise)
    expected = logits.double().softmax(-1).numpy() * count
    assert chisquare(np.bincount(actions, minlength=4), expected).pvalue > 0.01


def test_categorical_inverse_cdf_at_its_edges():
    """Probabilities 0, 1/4, 3/4 and 0: an action of probability 0 is never taken, whatever the noise."""
    logits = torch.tensor([-torch.inf, 0.0, np.log(3.0), -torch.inf])
    noise = torch.tensor([0.0, 0.2499, 0.2501, 0.7, np.nextafter(np.float32(1), np.float32(0))])
    actions = Categorical().sample(logits.expand(5, 4), noise)
    assert actions.tolist() == [1, 1, 2, 2, 2]


@pytest.mark.parametrize("actions", [2, 3], ids=["two actions", "three actions"])
def test_categorical_samples_of_arrays_are_those_of_tensors(actions):
    logits = torch.randn(5_000, actions, generator=torch.Generator().manual_seed(0))
    noise = torch.from_numpy(Categorical().noise(np.random.default_rng(0), (5_000,)))
    expected = Categorical().sample(logits, noise)
    found = Categorical().sample(Array(logits.numpy()), Array(noise.numpy())).numpy()
    assert found.dtype == np.int64
    assert np.mean(found == expected.numpy()) > 0.999  # noise within rounding of a bound may fall to either side


def test_categorical_noise_near_one_stays_within_the_actions():
    """In float32 the probabilities of many actions may add up to less than the largest noise."""
    logits = torch.randn(500, 1000, generator=torch.Generator().manual_seed(0))
    noise = torch.full((500,), float(np.nextafter(np.float32(1), np.float32(0))))
    assert (logits.softmax(-1).cumsum(-1)[:, -1] <= noise).any()
    assert int(Categorical().sample(logits, noise).max()) <= 999


def test_gaussian_sample_is_mean_plus_deviation_times_noise():
    outputs = torch.tensor([1.0, -2.0, math.log(0.5), math.log(3.0)])
    sample = DiagonalGaussian(2).sample(outputs, torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(sample, torch.tensor([2.0, -5.0]))


def test_gaussian_noise_is_standard_normal():
    noise = DiagonalGaussian(2).noise(np.random.default_rng(0), (5, 1000))
    assert noise.shape == (5, 1000, 2)
    assert kstest(noise.ravel(), "norm").pvalue > 0.01


@pytest.mark.parametrize(("continuous", "volume"), [(False, 3.0), (True, 8.0)])
def test_uniform_actions_have_the_density_of_their_volume(continuous, volume):
    ours, outputs = UniformActions(3, continuous, center=0.0, half=1.0), torch.zeros(2, 0)
    torch.testing.assert_close(ours.log_prob(outputs, outputs), torch.full((2,), -math.log(volume)))
    torch.testing.assert_close(ours.entropy(outputs), torch.full((2,), math.log(volume)))
    noise = ours.noise(np.random.default_rng(0), (3000,))
    if continuous:
        assert kstest(noise.ravel(), "uniform", args=(-1, 2)).pvalue > 0.01
    else:
        assert chisquare(np.bincount(noise)).pvalue > 0.01
