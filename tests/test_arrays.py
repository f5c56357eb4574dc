"""What is computed in numpy equals what torch and autograd compute: networks, distributions, objectives, updates."""

from __future__ import annotations

import copy
import itertools

import checks
import mutation
import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

import polobench
from polobench.core import arrays
from polobench.core.adam import FusedAdam
from polobench.core.arrays import Array
from polobench.core.budget import Budget, Ledger
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.seeding import SeedAxes
from polobench.objectives import preference, regression, returns, surrogates
from polobench.policies import perceptrons
from polobench.policies.distributions import Categorical, DiagonalGaussian
from polobench.policies.mlp import MLPPolicy
from polobench.policies.perceptrons import FlatAdam, FlatPerceptrons

CASES = list(itertools.product([(), (5,), (7, 6)], ["tanh", "relu"], [False, True], [False, True]))
METHODS = ["ppo", "trpo", "reinforce", "grpo", "dpo", "ranking"]


def policy_of(sizes=(7, 6), activation="tanh", continuous=False, normalize=False, dtype=torch.float64):
    hp = Hyperparameters(hidden_sizes=sizes, activation=activation, normalize_observations=normalize)
    policy = MLPPolicy(3, 3, continuous, hp, True, torch.Generator().manual_seed(0)).to(dtype)
    policy.ledger = Ledger(Budget(updates=1))
    checks.perturb(list(policy.parameters()), torch.Generator().manual_seed(1))
    if normalize:
        policy.absorb(torch.randn(50, 3, generator=torch.Generator().manual_seed(2)) * 3 + 1)
        policy.refresh_statistics()
    return policy


def rollout_of(policy, padded=False):
    """`[6, 40]` with masked columns, actions of the policy's kind, and every column that a loss reads."""
    rollout = checks.random_rollout(0, padded=padded)
    generator, shape = torch.Generator().manual_seed(3), rollout.mask.shape
    drawn = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
    actions = drawn[..., :3] if policy.log_std is not None else torch.randint(3, shape, generator=generator)
    with torch.no_grad():
        old = policy.distribution.log_prob(policy.outputs(rollout.attach(actions=actions)), actions)
    return rollout.attach(
        actions=actions, advantages=drawn[..., 3], value_targets=drawn[..., 4], old_log_probs=old + 0.3 * drawn[..., 5],
        reference_log_probs=old, groups=torch.arange(6) // 3,
    )  # fmt: skip


def close(found, expected, atol=1e-10):
    found, expected = (torch.as_tensor(x.detach().numpy() if isinstance(x, Array) else x) for x in (found, expected))
    torch.testing.assert_close(found.to(expected.dtype), expected.detach(), rtol=0, atol=atol)


def gradient(policy, loss):
    """What a loss of either kind leaves with the parameters."""
    optimizer = policy.adam(policy.actor_parameters + policy.critic_parameters, lr=0.0)
    policy.gradient_step(optimizer, [loss])
    return parameters_to_vector([p.grad for p in policy.parameters()]).clone()


def check_passes(sizes=(7, 6), activation="tanh", continuous=True, normalize=False):
    policy = policy_of(sizes, activation, continuous, normalize)
    rollout = rollout_of(policy)
    for rows in (rollout, rollout.rows()):
        fast, mask = rows.as_arrays(), rows.mask
        outputs = policy.outputs(fast).numpy()
        close(outputs[mask.numpy()], policy.outputs(rows)[mask])
        close(policy.state_values(fast), policy.state_values(rows))
        results = []
        for each in (rows, fast):
            outputs, values = policy.outputs_and_values(each)
            log_probs, entropy = (
                policy.distribution.log_prob(outputs, each.actions), policy.distribution.entropy(outputs)
            )  # fmt: skip
            loss = returns.masked_mean(log_probs * each.advantages, each.mask)
            loss = loss + 0.3 * returns.masked_mean(entropy, each.mask) - 0.7 * regression.value_loss(values, each)
            results.append((loss, gradient(policy, loss)))
        close(results[1][0], results[0][0])
        close(results[1][1], results[0][1])
    close(policy.values(rollout.as_arrays()), policy.values(rollout))


@pytest.mark.parametrize(("sizes", "activation", "continuous", "normalize"), CASES)
def test_passes_and_gradients_are_autograds(sizes, activation, continuous, normalize):
    check_passes(sizes, activation, continuous, normalize)


def check_fisher(sizes=(7, 6), activation="tanh", continuous=True, normalize=False):
    policy = policy_of(sizes, activation, continuous, normalize)
    rows = rollout_of(policy).rows()
    vector = torch.randn(len(policy.actor_vector()), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    counted = []
    for each in (rows, rows.as_arrays()):
        policy.ledger = Ledger(Budget(updates=1))
        product = policy.fisher_product([each], 0.1)
        counted.append((product(vector), policy.ledger.forward_rows))
        close(policy.fisher_product(each.split(7), 0.1)(vector), counted[-1][0])
    close(counted[1][0], counted[0][0])
    assert counted[1][1] == counted[0][1]


@pytest.mark.parametrize(("sizes", "activation", "continuous", "normalize"), CASES)
def test_fisher_products_are_autograds(sizes, activation, continuous, normalize):
    check_fisher(sizes, activation, continuous, normalize)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_backward_pass_gives_the_bits_of_the_vjp_and_uses_up_the_states(activation):
    flat = policy_of((7, 6), activation, dtype=torch.float32).flat
    rows, cotangent = (np.random.default_rng(seed).normal(size=(50, 3)).astype(np.float32) for seed in (0, 1))
    states = flat.forward(rows, 0)
    kept = [state.copy() for state in states]
    expected = flat.vjp(states, cotangent, 0).copy()
    assert all(map(np.array_equal, states, kept))
    flat.gradient[:] = 0
    flat.backward(states, cotangent, 0)
    assert np.array_equal(flat.gradient[flat.blocks[0]], expected)
    assert expected.any()
    with pytest.raises(IndexError):
        flat.backward(states, cotangent, 0)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
def test_rows_of_a_mask_and_back_are_those_of_numpys_index(shape):
    mask = np.random.default_rng(0).random((4, 9)) < 0.6
    mask[0] = False
    values = np.random.default_rng(1).normal(size=(4, 9, *shape)).astype(np.float32)
    leaf, spread = Leaf(values), np.zeros_like(values)
    chosen = leaf.array[Array(mask)]
    assert np.array_equal(chosen.numpy(), values[mask])
    spread[mask] = values[mask]
    found = chosen.spread_over(Array(mask))
    assert np.array_equal(found.numpy(), spread)
    (found * Array(values)).sum().backward()
    assert np.array_equal(leaf.cotangent, spread)


OBJECTIVES = {
    "score": lambda x, b: surrogates.score_function_objective(x, b.advantages, b.mask, 6),
    "importance": lambda x, b: surrogates.importance_objective(x, b.old_log_probs, b.advantages, b.mask),
    "clipped": lambda x, b: surrogates.clipped_objective(x, b.old_log_probs, b.advantages, b.mask, 0.1),
    "barely clipped": lambda x, b: surrogates.clipped_objective(x, b.old_log_probs, b.advantages, b.mask, 1e-4),
    "k3": lambda x, b: surrogates.k3_kl(x, b.old_log_probs, b.mask),
    "value": lambda x, b: regression.value_loss(x, b),
    "standardized": lambda x, b: returns.masked_mean(x * returns.standardized(b.advantages, b.mask), b.mask),
    "logistic": lambda x, b: preference.logistic_losses(x[b.mask] * 3, 0.1).sum(),
    "ipo": lambda x, b: preference.ipo_losses(x.sum(1) / b.mask.sum(1), 0.1).sum(),
}


class Leaf:
    """An array whose cotangent is kept."""

    def __init__(self, value):
        self.array = Array(value, [(None, lambda g: setattr(self, "cotangent", arrays.spread(g, value)))])


def check_objective(name):
    policy = policy_of()
    rollout = rollout_of(policy)
    at = rollout.advantages.clone().flip(0).requires_grad_()
    expected = OBJECTIVES[name](at, rollout)
    expected.backward()
    leaf = Leaf(at.detach().numpy())
    found = OBJECTIVES[name](leaf.array, rollout.as_arrays())
    found.backward()
    close(found, expected)
    close(leaf.cotangent, at.grad)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_and_their_derivatives_are_autograds(name):
    check_objective(name)


OPERATIONS = {
    "+": lambda x, y: (x + y) + 1.5,
    "-": lambda x, y: (2.0 - x) - y,
    "*": lambda x, y: x * y * 3,
    "/": lambda x, y: x / y / 2,
    "powers": lambda x, y: x**3 + y**2,
    "exp": lambda x, y: x.exp() + y.expm1(),
    "sums": lambda x, y: x.sum(1) * y.sum(1) + (x * y).mean(1),
    "shapes": lambda x, y: x.flatten(0, 1).unsqueeze(-1) * y.flatten(0, 1).unsqueeze(-1),
    "index": lambda x, y: x[:, 1:] * y[:, :-1],
    "masks": lambda x, y: (x * (y.detach() > 0))[(y.detach() < 0.5) & ~(y.detach() <= -1)],
    "softmax": lambda x, y: x.softmax(-1) * y.log_softmax(-1),
    "half a distribution": lambda x, y: x.chunk(2, -1)[1] * y.chunk(2, -1)[0],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_their_derivatives_are_torchs(name):
    tensors = [torch.randn(5, 4, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1)]
    leaves = [Leaf(tensor.numpy().copy()) for tensor in tensors]
    for tensor in tensors:
        tensor.requires_grad_()
    expected = OPERATIONS[name](*tensors)
    (expected**2).sum().backward()
    found = OPERATIONS[name](*(leaf.array for leaf in leaves))
    (found**2).sum().backward()
    close(found, expected)
    for leaf, tensor in zip(leaves, tensors, strict=True):
        if tensor.grad is not None:
            close(leaf.cotangent, tensor.grad)


@pytest.mark.parametrize("kind", [Categorical(), DiagonalGaussian(2)], ids=["categorical", "gaussian"])
def test_distributions_of_arrays_are_those_of_tensors(kind):
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(6, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    noise = torch.from_numpy(kind.noise(np.random.default_rng(0), (6, 5)))
    actions = kind.sample(old, noise)
    fast = Array(old.numpy())
    close(kind.sample(fast, Array(noise.numpy())), actions)
    close(kind.mode(fast), kind.mode(old))
    close(kind.log_prob(fast, Array(actions.numpy())), kind.log_prob(old, actions))
    close(kind.entropy(fast), kind.entropy(old))
    close(kind.kl(fast, Array(new.numpy())), kind.kl(old, new))
    close(kind.fisher(fast, Array(new.numpy())), kind.fisher(old, new))


def check_adam(clip=0.3):
    ours, theirs = policy_of(continuous=True), policy_of(continuous=True)
    optimizer = ours.adam(ours.actor_parameters + ours.critic_parameters, lr=0.05, eps=1e-5)
    assert isinstance(optimizer, FlatAdam)
    reference = torch.optim.Adam(theirs.actor_parameters + theirs.critic_parameters, lr=0.05, eps=1e-5)
    for step in range(6):
        norms = []
        for policy, stepped in ((ours, optimizer), (theirs, reference)):
            loss = sum((p**2 * (step + 1)).sum() for p in policy.parameters())
            norms.append(float(policy.gradient_step(stepped, [loss], clip).gradient_norm))
            stepped.param_groups[0]["lr"] = 0.05 / (step + 2)
        assert np.isnan(norms[0]) if clip is None else abs(norms[0] - norms[1]) < 1e-9
    close(parameters_to_vector(ours.parameters()), parameters_to_vector(theirs.parameters()))


@pytest.mark.parametrize("clip", [None, 0.3])
def test_adam_on_the_flat_vector_is_torchs(clip):
    check_adam(clip)


def test_adam_of_other_parameters_is_that_of_any_policy():
    policy = policy_of()
    for chosen in (
        policy.actor_parameters[:2],
        policy.critic_parameters + policy.actor_parameters,
        [policy.critic[0].weight],
    ):
        assert isinstance(policy.adam(chosen, lr=0.1), FusedAdam)


def reference_only(monkeypatch):
    """A policy without fast parts: what a policy of others is."""
    monkeypatch.setattr(FlatPerceptrons, "flatten", lambda networks: setattr(networks, "usable", False))


def updated(method, task, settings):
    """The parameters after three updates in float64, with what was recorded and counted."""
    learner, seen = polobench.make(method, task=task, tuned=False, **settings), []
    with checks.bound(task) as bound:
        build = bound.build_policy
        bound.build_policy = lambda *arguments, **named: build(*arguments, **named).double()
        for number, update in enumerate(learner.learn(bound, SeedAxes(0))):
            seen.append(dict(update.metrics) | {"loss": update.loss})
            if number == 2:
                return parameters_to_vector(update.policy.parameters()).detach().clone(), seen, bound.ledger
    raise AssertionError("no three updates")


SETTINGS = {
    "ppo": {"n_envs": 4, "n_steps": 32, "minibatch_size": 50, "epochs": 4, "entropy_coef": 0.01, "micro_batch": 20,
            "clip_schedule": "linear", "learning_rate_schedule": "linear"},
    "trpo": {"n_envs": 4, "n_steps": 32, "fisher_rows": 0.5, "micro_batch": 50},
    "reinforce": {"n_episodes": 6, "entropy_coef": 0.01, "normalize_rewards": True, "micro_batch": 4},
    "grpo": {"n_groups": 3, "group_size": 3, "epochs": 3, "beta": 0.1, "minibatch_size": 60, "clip_eps_high": 0.3},
    "dpo": {"n_groups": 3, "group_size": 3, "micro_batch": 4, "epochs": 2, "minibatch_groups": 2},
    "ranking": {"n_groups": 3, "group_size": 3},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_three_updates_are_those_of_the_reference(method, monkeypatch):
    """Rollouts, gradients, Adam and the metrics: on CartPole-v1, with normalised observations, to rounding."""
    settings = SETTINGS[method] | {"normalize_observations": True, "hidden_sizes": (16, 16)}
    found, metrics, ledger = updated(method, "CartPole-v1", settings)
    reference_only(monkeypatch)
    expected, its_metrics, its_ledger = updated(method, "CartPole-v1", settings)
    close(found, expected, 1e-7)
    assert ledger.samples == its_ledger.samples
    assert ledger.gradient_steps == its_ledger.gradient_steps
    if method in ("reinforce", "dpo"):  # whose padding is spared
        assert ledger.backward_rows < its_ledger.backward_rows
    elif method != "trpo":  # which needs a backward pass to make forward products by autograd
        assert ledger.backward_rows == its_ledger.backward_rows
    for mine, other in zip(metrics, its_metrics, strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            assert float(value) == pytest.approx(float(other[name]), abs=1e-6, rel=1e-6), name


@pytest.mark.parametrize("change", ["copied", "double", "loaded", "set", "stepped by torch"])
def test_the_networks_follow_whatever_changes_the_parameters(change):
    policy = policy_of(dtype=torch.float32)
    if change == "copied":
        before, policy = policy, copy.deepcopy(policy)
        checks.perturb(list(before.parameters()), torch.Generator().manual_seed(5))  # which the copy must not feel
    elif change == "double":
        policy.double()
    elif change == "loaded":
        other = policy_of(dtype=torch.float32)
        checks.perturb(list(other.parameters()), torch.Generator().manual_seed(6))
        policy.load_state_dict(other.state_dict())
    elif change == "set":
        policy.set_actor_vector(torch.linspace(-1, 1, len(policy.actor_vector())))
    else:
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
        policy.gradient_step(optimizer, [sum((p**2).sum() for p in policy.parameters())], 0.5)
    rollout = checks.random_rollout(0).rows()
    rollout = rollout.attach(observations=rollout.observations.to(next(policy.parameters()).dtype))
    close(policy.outputs(rollout.as_arrays()), policy.outputs(rollout), 1e-5)
    close(policy.state_values(rollout.as_arrays()), policy.state_values(rollout), 1e-5)
    assert np.array_equal(policy.flat.vector, parameters_to_vector(policy.parameters()).detach().numpy())


NO_DERIVATIVE = {kind: (forward, lambda *_: None) for kind, (forward, _) in perceptrons._ACTIVATIONS.items()}


def without_entropy(array, entropy=Array.softmax_entropy):
    return entropy(array).detach()


def tail_forgotten(networks, states, cotangent, number, keep=True, vjp=FlatPerceptrons.vjp):
    found = vjp(networks, states, cotangent, number, keep)
    networks._slopes[number][1][:] = 0
    return found


def no_bias_correction(optimizer, step=FlatAdam.step):
    optimizer._steps = 10**6
    step(optimizer)


def never_clipped(log_probs, old, advantages, low, high):
    ratio = np.exp(log_probs.value - old)
    held = np.clip(ratio, 1 - low, 1 + high)
    return log_probs.known(np.minimum(ratio * advantages, held * advantages), lambda: ratio * advantages)


MUTANTS = {
    "activation left out": (perceptrons, "_ACTIVATIONS", NO_DERIVATIVE, check_fisher),
    "entropy without slope": (Array, "softmax_entropy", without_entropy, check_passes, (7, 6), "tanh", False),
    "log deviations without gradient": (FlatPerceptrons, "vjp", tail_forgotten, check_passes),
    "no bias correction": (FlatAdam, "step", no_bias_correction, check_adam),
    "the slope is not clipped": (surrogates, "_clipped_arrays", never_clipped, check_objective, "clipped"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_fault_is_caught(name, monkeypatch):
    mutation.check_is_caught(monkeypatch, *MUTANTS[name])
