"""Checks that know the answer, shared by the tests of the sound code and by the faults that are planted in it.

They look up what they check through its module at the time of the call, so that a patched fault is what they see.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn.utils import parameters_to_vector

import polobench
from polobench.core.budget import Budget, BudgetExhausted, Ledger
from polobench.core.hyperparameters import Hyperparameters
from polobench.core.optimization import Tally
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives import returns, surrogates
from polobench.policies.distributions import Categorical, DiagonalGaussian
from polobench.policies.mlp import MLPPolicy
from polobench.registry import find_task

ATOL = 1e-12


def close(actual: Tensor, expected: Tensor, atol: float = ATOL) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@contextmanager
def bound(task: str | Task, seed: int = 0, budget: int = 100_000) -> Iterator[Task]:
    found = find_task(task) if isinstance(task, str) else task
    copy = found.bind(SeedAxes(seed), Ledger(Budget.of(budget)), torch.device("cpu"), lambda policy: None)
    try:
        yield copy
    finally:
        copy.close()


def perturb(parameters: list[torch.nn.Parameter], generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def small_policy(width: int, actions: int, continuous: bool, *, seed: int = 0, critic: bool = True) -> MLPPolicy:
    """float64, far from its nearly uniform start."""
    generator = torch.Generator().manual_seed(seed)
    hp = Hyperparameters(hidden_sizes=(5,), initial_log_std=-0.3)
    policy = MLPPolicy(width, actions, continuous, hp, critic, generator)
    perturb(list(policy.parameters()), generator)
    policy.double()
    policy.ledger = Ledger(Budget(updates=1))
    return policy


def random_rollout(seed: int, rows: int = 6, columns: int = 40, padded: bool = False) -> Rollout:
    """Random ends of both kinds (also at once), each followed by the autoreset column, or by padding to the end."""
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, rows, columns)) < 0.1
    mask = np.ones((rows, columns), bool)
    for row in range(rows):
        for column in range(columns - 1):
            if mask[row, column] and (terminated | truncated)[row, column]:
                mask[row, column + 1 : columns if padded else column + 2] = False
    return Rollout(
        observations=torch.from_numpy(rng.normal(size=(rows, columns, 3))),
        final_observations=torch.from_numpy(rng.normal(size=(rows, 3))),
        actions=torch.from_numpy(rng.integers(2, size=(rows, columns))),
        rewards=torch.from_numpy(rng.normal(size=(rows, columns)) * mask),
        terminated=torch.from_numpy(terminated & mask),
        truncated=torch.from_numpy(truncated & mask),
        mask=torch.from_numpy(mask),
        groups=torch.arange(rows),
    )


def random_values(rollout: Rollout, seed: int = 0) -> Tensor:
    rows, columns = rollout.mask.shape
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns + 1)))


def advantages_by_definition(rollout: Rollout, values: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    expected = torch.zeros_like(rollout.rewards)
    for row, start in rollout.mask.nonzero().tolist():
        for step in range(start, rollout.mask.shape[1]):
            beyond = 0.0 if rollout.terminated[row, step] else values[row, step + 1]
            delta = rollout.rewards[row, step] + gamma * beyond - values[row, step]
            expected[row, start] += (gamma * gae_lambda) ** (step - start) * delta
            if rollout.terminated[row, step] or rollout.truncated[row, step]:
                break
    return expected


def check_advantages() -> None:
    for seed in range(3):
        for padded in (False, True):
            rollout = random_rollout(seed, padded=padded)
            values = random_values(rollout, seed)
            found = returns.generalized_advantages(rollout, values, 0.9, 0.8)
            close(found, advantages_by_definition(rollout, values, 0.9, 0.8))


def check_standardized_over_the_batch() -> None:
    """A good and a bad episode: within its own episode every return is average, and nothing would be learned."""
    values, mask = torch.tensor([[3.0, 3.0, 9.0], [1.0, 1.0, 1.0]]), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    expected = torch.tensor([1.2, 1.2, -0.8, -0.8, -0.8]) / 0.96**0.5
    close(returns.standardized(values, mask)[mask], expected, atol=1e-6)


def distributions(seed: int = 0, shape: tuple[int, ...] = (4, 3)) -> list[tuple]:
    """Ours, its parameters twice, torch's with each of them, and actions."""
    generator = torch.Generator().manual_seed(seed)
    old, new = torch.randn(2, *shape, 6, generator=generator, dtype=torch.float64)

    def gaussian(outputs: Tensor) -> Independent:
        return Independent(Normal(outputs[..., :3], outputs[..., 3:].exp()), 1)

    def categorical(outputs: Tensor) -> TorchCategorical:
        return TorchCategorical(logits=outputs)

    integers = torch.randint(6, shape, generator=generator)
    reals = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return [
        (Categorical(), old, new, categorical(old), categorical(new), integers),
        (DiagonalGaussian(3), old, new, gaussian(old), gaussian(new), reals),
    ]


def check_log_prob() -> None:
    for ours, old, _, theirs, _, actions in distributions():
        close(ours.log_prob(old, actions), theirs.log_prob(actions))


def check_kl() -> None:
    for ours, old, new, theirs_old, theirs_new, _ in distributions():
        close(ours.kl(old, new), kl_divergence(theirs_old, theirs_new))


def check_k3() -> None:
    """Never negative, and its expectation under the old policy is KL(old || new), by enumeration."""
    old, new = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    one = torch.ones(1, 1, dtype=torch.bool)
    samples = torch.stack([surrogates.k3_kl(new[a].view(1, 1), old[a].view(1, 1), one) for a in range(5)])
    assert (samples >= 0).all()
    close((old.exp() * samples).sum(), (old.exp() * (old - new)).sum())


def first_update(method: str, probe: str, **hyperparameters: object) -> tuple[Rollout, Tensor, Rollout]:
    """Of a method's first update on a probe: its rollout, the values `[B, T + 1]` of the critic that it began with,
    and all transitions `[M, 1]` that the critic was then fitted to, in one epoch.
    """
    rollouts: list[Rollout] = []
    batches: list[Rollout] = []
    critics: list[torch.nn.Module] = []

    def watch(policy: MLPPolicy) -> None:
        critics.append(copy.deepcopy(policy.critic))
        fit = policy.state_values
        policy.state_values = lambda batch: batches.append(batch) or fit(batch)

    def recorded(verb: Callable[..., Rollout]) -> Callable[..., Rollout]:
        return lambda *arguments: rollouts.append(verb(*arguments)) or rollouts[-1]

    task = find_task(probe).bind(SeedAxes(0), Ledger(Budget.of(100_000)), torch.device("cpu"), watch)
    task.fragments, task.episodes = recorded(task.fragments), recorded(task.episodes)
    next(polobench.make(method, task=probe, **hyperparameters).learn(task, SeedAxes(0)))
    task.close()
    states = torch.cat([rollouts[0].observations, rollouts[0].final_observations.unsqueeze(1)], 1)
    seen = {
        name: torch.cat([torch.from_numpy(getattr(batch, name).numpy()) for batch in batches])
        for name, _ in batches[0]._tensors()
    }
    return rollouts[0], critics[0](states).squeeze(-1).detach(), replace(batches[0], **seen)


def every_trajectory() -> Rollout:
    """A two-step task: the first action, 0 or 1, leads to state 1 or 2; all four trajectories, a row each."""
    first, second = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    states = torch.stack([torch.zeros_like(first), first + 1], dim=1)
    observations = torch.nn.functional.one_hot(states, 3).double()
    ends = torch.tensor([[False, True]] * 4)
    return Rollout(
        observations=observations,
        final_observations=observations[:, 1],
        actions=torch.stack([first, second], dim=1),
        rewards=torch.tensor([[0.5, 1.0], [0.5, -2.0], [-1.0, 3.0], [-1.0, 0.25]], dtype=torch.float64),
        terminated=ends,
        truncated=torch.zeros_like(ends),
        mask=torch.ones_like(ends),
        groups=torch.zeros(4, dtype=torch.long),
    )


def estimated_gradient(method: str, policy: MLPPolicy, trajectory: Rollout, **hyperparameters: object) -> Tensor:
    """What a method would climb after this one trajectory, without discount, taken from its own code."""
    learner = polobench.make(method, task="probe-bandit", gamma=1.0, **hyperparameters)
    if method == "reinforce":
        returned, baseline = learner.returns_and_baseline(policy, trajectory, trajectory.rewards)
        loss = sum(learner.losses(policy, [trajectory.attach(advantages=returned - baseline)], Tally()))
        return -parameters_to_vector(torch.autograd.grad(loss, policy.actor_parameters))
    advantages = returns.generalized_advantages(trajectory, torch.zeros(1, 3, dtype=torch.float64), 1.0, 1.0)
    log_probs = policy.distribution.log_prob(policy.outputs(trajectory), trajectory.actions).detach()
    batch = trajectory.attach(advantages=advantages, old_log_probs=log_probs, value_targets=advantages)
    steps = trajectory.mask.shape[1]  # these two average over the steps
    if method == "trpo":
        return steps * learner.surrogate_gradient(policy, [batch])[0]
    loss = sum(learner.losses(policy, 0.2, [batch], Tally()))
    return -steps * parameters_to_vector(torch.autograd.grad(loss, policy.actor_parameters))


ESTIMATORS = {
    "reinforce": {"baseline": "none"},
    "reinforce with a value baseline": {"baseline": "value"},
    "trpo": {},
    "ppo": {"standardize_advantages": False},
}


def probabilities_and_gradient(policy: MLPPolicy, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """`[B]` of each of all trajectories, and the gradient of the expected return in the actor's parameters."""
    log_probs = policy.outputs(rollout).log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
    probabilities = log_probs.sum(1).exp()
    expected_return = (probabilities * rollout.rewards.sum(1)).sum()
    exact = parameters_to_vector(torch.autograd.grad(expected_return, policy.actor_parameters))
    assert exact.norm() > 0.1
    return probabilities.detach(), exact


def check_policy_gradient(name: str) -> None:
    """The estimates of all trajectories, weighted by their probabilities, are the gradient of the expected return."""
    policy, rollout = small_policy(3, 2, continuous=False), every_trajectory()
    probabilities, exact = probabilities_and_gradient(policy, rollout)
    rows = [rollout.select(torch.tensor([row])) for row in range(4)]
    estimates = [estimated_gradient(name.split()[0], policy, row, **ESTIMATORS[name]) for row in rows]
    close(sum(p * estimate for p, estimate in zip(probabilities, estimates, strict=True)), exact)


def check_minibatches() -> None:
    """Every epoch sees every row exactly once."""
    for count in (1, 5, 8, 9, 10, 64):
        rows = random_rollout(0, rows=count, columns=1)
        batches = rows.minibatches(4, np.random.default_rng(0))
        assert sorted(row for batch in batches for row in batch.groups.tolist()) == list(range(count))


def trust_region_case(task: str = "probe-bandit", **hyperparameters: object) -> tuple:
    """TRPO, a float64 policy and a real rollout with real advantages, ready for one `improve`."""
    learner = polobench.make("trpo", task=task, hidden_sizes=(8,), **hyperparameters)
    with bound(task) as running:
        policy = running.make_policy(learner.hp, critic=True)
        perturb(policy.actor_parameters, torch.Generator().manual_seed(0))
        rollout = running.fragments(policy, 4, 64)
    policy.double()
    rollout = replace(
        rollout, **{name: value.double() for name, value in rollout._tensors() if value.is_floating_point()}
    )
    advantages = returns.generalized_advantages(rollout, policy.values(rollout).detach(), 0.99, 0.95)
    rows = rollout.attach(advantages=returns.standardized(advantages, rollout.mask)).rows()
    return learner, policy, rows


def gain_and_kl(policy: MLPPolicy, rows: Rollout, before: Tensor, after: Tensor) -> tuple[float, float]:
    """Of a move of the actor from parameters `before` to `after`, by torch's own distributions."""
    made = []
    for parameters in (before, after):
        policy.set_actor_vector(parameters)
        outputs = policy.outputs(rows).detach()
        if isinstance(policy.distribution, Categorical):
            made.append(TorchCategorical(logits=outputs))
        else:
            mean, log_std = outputs.chunk(2, -1)
            made.append(Independent(Normal(mean, log_std.exp()), 1))
    old, new = made
    ratio = (new.log_prob(rows.actions) - old.log_prob(rows.actions)).exp()
    return float(((ratio - 1) * rows.advantages).mean()), float(kl_divergence(old, new).mean())


def check_trust_region_step(task: str = "probe-bandit", max_kl: float = 0.5) -> None:
    """One step improves the surrogate and stays within the bound, where the full step does not."""
    learner, policy, rows = trust_region_case(task, max_kl=max_kl, cg_damping=0.0)
    before = policy.actor_vector()
    found, metrics = learner.improve(policy, rows, np.random.default_rng(0))
    after = policy.actor_vector()
    gain, kl = gain_and_kl(policy, rows, before, after)
    assert 0 < kl <= max_kl + ATOL
    assert gain > 0
    assert found.accepted
    assert abs(found.surrogate - gain) + abs(metrics["kl"] - kl) < 1e-9
    assert gain_and_kl(policy, rows, before, before + (after - before) / found.fraction)[1] > max_kl


def check_failed_step_restores() -> None:
    """No length of a step will do if only the full one is tried and it breaks the bound: nothing may have moved."""
    learner, policy, rows = trust_region_case(max_kl=0.5, cg_damping=0.0, backtracks=0)
    before = policy.actor_vector()
    found, _ = learner.improve(policy, rows, np.random.default_rng(0))
    assert not found.accepted
    assert torch.equal(policy.actor_vector(), before)


def check_ghosts_are_masked() -> None:
    """Bandit episodes last one step, so every other column is the autoreset, which is neither used nor charged."""
    with bound("probe-bandit") as task:
        rollout = task.fragments(task.floor_policy(), 3, 6)
        assert rollout.mask.tolist() == [[True, False] * 3] * 3
        assert torch.equal(rollout.terminated, rollout.mask)
        assert task.ledger.samples == 9
        assert task.ledger.discarded_transitions == 9


def check_time_limit_ends_an_episode() -> None:
    """A policy that always stays in probe-truncation has episodes of ten steps, cut by the time limit."""
    with bound("probe-truncation", budget=100) as task:
        policy = task.floor_policy()
        policy.act = lambda observations, noise: torch.zeros_like(noise)
        try:
            rollout = task.episodes(policy, groups=3, size=1)
        except BudgetExhausted:
            raise AssertionError("the episode never ended") from None
        assert rollout.mask.shape == (3, 10)
        assert rollout.mask.all()
        assert rollout.truncated.sum(1).tolist() == [1, 1, 1]
        assert not rollout.terminated.any()
