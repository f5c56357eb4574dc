"""Advantages, reward scaling and explained variance against definitions, closed forms and Stable-Baselines3."""

from __future__ import annotations

import math

import checks
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polobench.core.rollout import Rollout
from polobench.objectives.preference import group_advantages
from polobench.objectives.returns import (
    RewardScaler,
    explained_variance,
    generalized_advantages,
    leave_one_out_means,
)

GAMMA, GAE_LAMBDA = 0.9, 0.8


def test_advantages_equal_the_double_sum_of_the_definition():
    checks.check_advantages()


def test_standardized_is_over_the_whole_batch():
    checks.check_standardized_over_the_batch()


@pytest.mark.parametrize("padded", [False, True])
def test_masked_columns_have_no_advantage_and_lend_none(padded):
    rollout = checks.random_rollout(3, padded=padded)
    values = checks.random_values(rollout)
    found = generalized_advantages(rollout, values, GAMMA, GAE_LAMBDA)
    assert (found[~rollout.mask] == 0).all()
    assert (~rollout.mask).sum() > 10
    rewards = torch.where(rollout.mask, rollout.rewards, 1e6)
    assert torch.equal(found, generalized_advantages(rollout, values, GAMMA, GAE_LAMBDA, rewards))


def test_lambda_zero_is_the_one_step_error():
    rollout = checks.random_rollout(4)
    values = checks.random_values(rollout)
    following = torch.where(rollout.terminated, 0.0, values[:, 1:])
    expected = (rollout.rewards + GAMMA * following - values[:, :-1]) * rollout.mask
    checks.close(generalized_advantages(rollout, values, GAMMA, 0.0), expected)


def returns_to_go(rollout: Rollout, values: torch.Tensor) -> torch.Tensor:
    """Each episode's discounted rewards, and the value of the state where it was cut (or the rollout ended)."""
    expected = torch.zeros_like(rollout.rewards)
    for row, start in rollout.mask.nonzero().tolist():
        step, discount, total = start, 1.0, 0.0
        while True:
            total += discount * float(rollout.rewards[row, step])
            discount *= GAMMA
            if rollout.terminated[row, step]:
                break
            if rollout.truncated[row, step] or step + 1 == rollout.mask.shape[1]:
                total += discount * float(values[row, step + 1])
                break
            step += 1
        expected[row, start] = total
    return expected


@pytest.mark.parametrize("critic", [0.0, 1.0])
def test_lambda_one_is_the_whole_return_minus_the_value(critic):
    rollout = checks.random_rollout(5)
    values = critic * checks.random_values(rollout)
    expected = (returns_to_go(rollout, values) - values[:, :-1]) * rollout.mask
    checks.close(generalized_advantages(rollout, values, GAMMA, 1.0), expected)


def test_advantages_agree_with_stable_baselines3():
    """Its convention: no autoreset column; the reward of a truncated step carries gamma times the next value."""
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    rollout = checks.random_rollout(6)
    values = checks.random_values(rollout)
    ours = generalized_advantages(rollout, values, GAMMA, GAE_LAMBDA)
    for row in range(len(ours)):
        kept = rollout.mask[row]
        cut = rollout.truncated[row] & ~rollout.terminated[row]
        done = (rollout.terminated[row] | rollout.truncated[row])[kept].numpy()
        steps = int(kept.sum())
        space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)
        theirs = buffers.RolloutBuffer(steps, *space, "cpu", gae_lambda=GAE_LAMBDA, gamma=GAMMA, n_envs=1)
        theirs.rewards = (rollout.rewards[row] + GAMMA * values[row, 1:] * cut)[kept].numpy()[:, None]
        theirs.values = values[row, :-1][kept].numpy()[:, None]
        theirs.episode_starts = np.concatenate([[1.0], done[:-1]])[:, None]
        theirs.advantages = np.zeros((steps, 1))
        theirs.compute_returns_and_advantage(values[row, -1:], done[-1:])
        checks.close(ours[row][kept], torch.from_numpy(theirs.advantages[:, 0]))


def test_reward_scaler_divides_by_the_deviation_of_all_discounted_returns_so_far():
    """The environments go on from rollout to rollout, and so do their discounted returns."""
    whole = checks.random_rollout(7, columns=60)
    names = ("observations", "actions", "rewards", "terminated", "truncated", "mask")
    scale, seen, running = RewardScaler(GAMMA), [], np.zeros(len(whole.rewards))
    for start in (0, 20, 40):
        cut = {name: getattr(whole, name)[:, start : start + 20] for name in names}
        part = Rollout(final_observations=whole.final_observations, groups=whole.groups, **cut)
        for column in range(20):
            for row in range(len(running)):
                running[row] = GAMMA * running[row] + float(part.rewards[row, column])
                if part.mask[row, column]:
                    seen.append(running[row])
                if part.terminated[row, column] or part.truncated[row, column] or not part.mask[row, column]:
                    running[row] = 0.0
        checks.close(scale(part), part.rewards / math.sqrt(np.var(seen) + 1e-8))


def test_explained_variance_at_its_closed_forms():
    targets = torch.tensor([[1.0, 2.0, 3.0, 99.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(targets + 5, targets, mask) == 1  # a constant error explains everything
    assert explained_variance(torch.zeros_like(targets), targets, mask) == 0
    assert explained_variance(-targets, targets, mask) == pytest.approx(-3)
    assert explained_variance(targets / 2, targets, mask) == pytest.approx(0.75)
    assert math.isnan(explained_variance(targets, torch.ones_like(targets), mask))


def test_leave_one_out_is_the_mean_of_the_others_and_scales_the_centred_advantage():
    returns = torch.tensor([1.0, 4.0, 7.0, 2.0, 5.0, 5.0, 1.0], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    others = leave_one_out_means(returns, groups)
    assert others.tolist() == pytest.approx([5.5, 4.0, 2.5, 11 / 3, 8 / 3, 8 / 3, 4.0], abs=1e-12)
    sizes = torch.bincount(groups)[groups]
    centred = group_advantages(returns, groups, divide_by_std=False)
    torch.testing.assert_close(returns - others, centred * sizes / (sizes - 1), rtol=0, atol=1e-12)


FRAGMENTS = {"n_envs": 4, "n_steps": 25, "gae_lambda": GAE_LAMBDA}  # episodes of 1 step or of 10, which end within
CRITICS = {
    "ppo": FRAGMENTS | {"epochs": 1},
    "trpo": FRAGMENTS | {"critic_epochs": 1},
    "reinforce": {"n_episodes": 4, "critic_epochs": 1},
}


@pytest.mark.parametrize("method", CRITICS)
def test_each_critic_is_fitted_to_what_the_definition_says(method):
    """From its own values: where the time limit cut, that of the last state goes on."""
    settings = CRITICS[method]
    rollout, values, fitted = checks.first_update(method, "probe-truncation", gamma=GAMMA, **settings)
    assert rollout.truncated.any()
    assert rollout.terminated.any()
    gae_lambda = settings.get("gae_lambda", 1.0)
    expected = checks.advantages_by_definition(rollout, values, GAMMA, gae_lambda) + values[:, :-1]
    checks.close(fitted.value_targets.flatten().sort()[0], expected[rollout.mask].sort()[0], atol=1e-5)
