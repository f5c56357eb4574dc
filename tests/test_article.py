"""The article's versions keep their faults on purpose: each loss has the value that its formula gives by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import checks
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

import polobench
import polobench.article.episode
import polobench.article.grpo
from polobench import article
from polobench.core.arrays import Array
from polobench.core.budget import Budget, BudgetExhausted
from polobench.core.errors import UsageError
from polobench.core.rollout import Rollout
from polobench.policies.distributions import Categorical
from polobench.policies.mlp import MLPPolicy
from polobench.tasks import vector
from polobench.tasks.text import as_completions, as_rollout

LN2 = math.log(2)
CPU = torch.device("cpu")


def logits_of(probabilities: Any) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def answering(logits: Tensor) -> Any:
    """A policy that gives these logits whatever it is asked."""
    return SimpleNamespace(distribution=Categorical(), outputs=lambda rollout: logits)


def episode(truncated: bool = False) -> Rollout:
    """Three steps of action 0 and reward 1."""
    last = torch.tensor([[False, False, True]])
    return Rollout(
        observations=torch.zeros(1, 3, 3, dtype=torch.float64),
        final_observations=torch.zeros(1, 3, dtype=torch.float64),
        actions=torch.zeros(1, 3, dtype=torch.long),
        rewards=torch.ones(1, 3, dtype=torch.float64),
        terminated=last & (not truncated),
        truncated=last & truncated,
        mask=torch.ones(1, 3, dtype=torch.bool),
        groups=torch.zeros(1, dtype=torch.long),
    )


def standardized(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / deviation for value in values]


TAKEN = (0.5, 0.25, 0.8)  # probabilities of the three actions
THREE_STEPS = [[[p, 1 - p] for p in TAKEN]]


@pytest.mark.parametrize("truncated", [False, True])
def test_pg_sums_over_returns_standardised_within_the_episode(truncated):
    """With gamma 1/2 the returns are 7/4, 3/2 and 1; nothing is bootstrapped at a cut."""
    learner: Any = polobench.make("article-pg", "probe-bandit", gamma=0.5)
    loss = learner.loss(answering(logits_of(THREE_STEPS)), episode(truncated))
    advantages = standardized([1.75, 1.5, 1.0])
    assert loss.item() == pytest.approx(-sum(math.log(p) * a for p, a in zip(TAKEN, advantages)), abs=1e-6)
    assert loss.item() == pytest.approx(0.8133, abs=1e-4)


def test_pg_learns_nothing_from_the_size_of_an_episodes_returns():
    """The fault itself: an episode that is ten times as good has the same loss."""
    learner: Any = polobench.make("article-pg", "probe-bandit")
    policy, good = answering(logits_of(THREE_STEPS)), episode()
    better = good.attach(rewards=10 * good.rewards)
    assert learner.loss(policy, better).item() == pytest.approx(learner.loss(policy, good).item(), abs=1e-6)


@pytest.mark.parametrize("truncated", [False, True])
def test_ppo_discounts_by_gamma_lambda_and_has_no_values(truncated):
    """With gamma and lambda 1/2 the advantages are 21/16, 5/4 and 1 before they are standardised."""
    learner: Any = polobench.make("article-ppo", "probe-bandit", gamma=0.5, gae_lambda=0.5)
    batch = learner.with_advantages(answering(logits_of(THREE_STEPS)), episode(truncated))
    advantages = standardized([1.3125, 1.25, 1.0])
    assert batch.advantages[0].tolist() == pytest.approx(advantages, abs=1e-6)
    moved = [[[0.75, 0.25], [0.2, 0.8], [0.4, 0.6]]]  # ratios 1.5, 0.8 and 0.5
    terms = [1.2 * advantages[0], 0.8 * advantages[1], 0.8 * advantages[2]]
    assert learner.loss(answering(logits_of(moved)), batch).item() == pytest.approx(-sum(terms) / 3, abs=1e-6)


def dense_fisher(policy: Any, rollout: Rollout) -> Tensor:
    """The mean over states of sum_a pi(a) grad log pi(a) (grad log pi(a))', by enumeration."""
    log_probs = policy.outputs(rollout).log_softmax(-1)
    total = 0.0
    for step in range(rollout.mask.shape[1]):
        for action in range(log_probs.shape[-1]):
            score = torch.autograd.grad(log_probs[0, step, action], policy.actor_parameters, retain_graph=True)
            total = total + log_probs[0, step, action].exp().detach() * torch.outer(*[parameters_to_vector(score)] * 2)
    return total / rollout.mask.shape[1]


def varied_episode() -> Rollout:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    return episode().attach(observations=drawn, actions=torch.tensor([[0, 1, 0]]))


def test_trpo_takes_the_full_step():
    learner: Any = polobench.make("article-trpo", "probe-bandit", max_kl=0.02, cg_steps=200)
    policy, rollout = checks.small_policy(3, 2, continuous=False, critic=False), varied_episode()
    advantages = torch.tensor([[1.0, -1.0, 2.0]], dtype=torch.float64)
    log_probs = policy.distribution.log_prob(policy.outputs(rollout), rollout.actions)
    gradient = parameters_to_vector(torch.autograd.grad((log_probs * advantages).mean(), policy.actor_parameters))
    fisher = dense_fisher(policy, rollout) + 0.1 * torch.eye(len(gradient), dtype=torch.float64)
    direction = torch.linalg.solve(fisher, gradient)
    expected = direction * torch.sqrt(2 * 0.02 / (direction @ fisher @ direction))
    checks.close(learner.full_step(policy, rollout, advantages), expected, atol=1e-5)


def test_trpo_stays_where_it_is_after_an_episode_of_one_step():
    """Its one return is its own mean, so there is nothing to climb."""
    result = polobench.make("article-trpo", "probe-bandit").run(0, 10)
    assert (result.status, result.ledger.updates) == ("ok", 10)
    assert not result.updates["kl"].any()


def test_trpos_step_stands_although_it_breaks_the_bound():
    result = polobench.make("article-trpo", "CartPole-v1", max_kl=2.0).run(0, Budget(updates=20))
    assert result.status == "ok"
    assert (result.updates["kl"] > 0).all()  # none was taken back
    assert result.updates["kl"].max() > 2


def group(scores: tuple[float, ...], responses: list[list[int]]) -> Rollout:
    return as_rollout([[1, 2]] * len(scores), as_completions(responses, 0, CPU), scores, [0] * len(scores))


def test_dpo_compares_whole_vocabularies_at_the_last_position():
    learner: Any = polobench.make("article-dpo", "probe-bandit")
    last = [[[0.8, 0.2]], [[0.5, 0.5]]]
    logits = torch.cat([torch.randn(2, 2, 2, dtype=torch.float64), logits_of(last)], 1)
    better_first = group((1.0, 0.0), [[1, 2, 0], [2, 0]])
    terms = [1 / (1 + 1.6**-0.5), 1 / (1 + 0.4**-0.5)]
    assert learner.loss(answering(logits), better_first).item() == pytest.approx(-sum(terms) / 2, abs=1e-9)
    better_last = group((0.0, 1.0), [[1, 2, 0], [2, 0]])
    terms = [1 / (1 + 1.6**0.5), 1 / (1 + 0.4**0.5)]
    assert learner.loss(answering(logits), better_last).item() == pytest.approx(-sum(terms) / 2, abs=1e-9)


def test_dpos_last_position_is_that_of_the_padded_sequence():
    """Of the shorter response it is behind an end token, which nothing masks."""
    with checks.bound("article-pairs") as task:
        policy: Any = task.make_policy(polobench.make("article-dpo", "probe-bandit").hp, critic=False)
        batch = task.preferences(1)
        assert batch.mask[:, -1].tolist().count(True) == 1
        tokens = torch.cat([batch.prompts, batch.actions[:, :-1]], 1)
        expected = policy.model(tokens).logits[:, -1]
        checks.close(policy.outputs(batch)[:, -1], expected, atol=1e-4)


RANKED = ((2.0, 1.0, 0.0), [[1, 1, 0], [1, 0], [1, 1, 1]])
EVEN = torch.full((3, 3, 2), 0.5, dtype=torch.float64).log()


@pytest.mark.parametrize(("unlikely", "expected"), [(0.5, [-3 * LN2, -2 * LN2, -3 * LN2]), (1e-6, [-10.0] * 3)])
def test_grpo_clamps_the_log_probability_of_a_whole_response(unlikely, expected):
    learner: Any = polobench.make("article-grpo", "probe-bandit")
    ranked = group(*RANKED)
    log_probs = torch.full(ranked.mask.shape, math.log(unlikely), dtype=torch.float64, requires_grad=True)
    scores = learner.scores(log_probs, ranked.mask)
    assert scores.tolist() == pytest.approx(expected)
    scores.sum().backward()
    assert log_probs.grad is not None
    assert bool(log_probs.grad.any()) == (unlikely == 0.5)  # below the clamp nothing of the ranking is learned


def test_grpo_clamps_each_token_in_the_other_reading():
    learner: Any = polobench.make("article-grpo", "probe-bandit", clamp="token")
    ranked = group(*RANKED)
    log_probs = torch.full(ranked.mask.shape, -12.0)
    assert learner.scores(log_probs, ranked.mask).tolist() == [-30.0, -20.0, -30.0]


def test_grpos_loss_is_over_all_pairs_with_a_kl_that_is_none():
    """Of 3 ranked responses 3 pairs; tokens are as likely as not, so the scores are -3, -2 and -3 times log 2."""
    learner: Any = polobench.make("article-grpo", "probe-bandit")
    ranked = group(*RANKED)
    base = answering(logits_of([[[0.8, 0.2]] * 3] * 3))
    margins = [-LN2, 0.0, LN2]
    ranking = sum(math.log1p(math.exp(-margin)) for margin in margins) / 3
    no_kl = sum(-LN2 * (-LN2 - math.log(q)) for q in (0.8, 0.2)) / 2
    assert no_kl < 0
    assert learner.loss(answering(EVEN), base, ranked).item() == pytest.approx(ranking + 0.02 * no_kl, abs=1e-9)


def test_grpos_learning_rate_falls_to_0_over_the_budget():
    seen: list[float] = []
    learner: Any = polobench.make("article-grpo", "article-groups")
    step = torch.optim.AdamW.step

    def spy(optimizer: Any, *arguments: Any) -> Any:
        seen.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        assert learner.run(0, Budget(updates=4)).status == "ok"
    assert seen == pytest.approx([5e-5, 3.75e-5, 2.5e-5, 1.25e-5])


def upright(observations: Tensor, noise: Tensor) -> Tensor:
    """A linear controller that holds the pole for ever."""
    position, velocity, angle, rate = observations.unbind(-1)
    return (0.1 * position + 0.3 * velocity + 2.0 * angle + rate > 0).long()


def test_an_untruncated_episode_goes_on_until_the_ledger_ends_it():
    with checks.bound("CartPole-v1", budget=2_000) as task:
        policy: Any = task.floor_policy()
        policy.act = upright
        assert task.episodes(policy, 1, 1).mask.shape == (1, 500)
        with pytest.raises(BudgetExhausted):
            task.untruncated_episode(policy)
        assert task.ledger.samples == 2_000


def test_an_untruncated_episode_ends_at_termination():
    with checks.bound("CartPole-v1") as task:
        found = [task.untruncated_episode(task.floor_policy()) for _ in range(3)]
        assert task.ledger.samples == task.ledger.reward_calls == sum(rollout.n_samples for rollout in found)
        assert task.drain_episode_returns() == [float(rollout.returns) for rollout in found]
        for rollout in found:
            assert rollout.mask.all()
            assert rollout.terminated[0].tolist() == [False] * (rollout.mask.shape[1] - 1) + [True]
            assert not rollout.truncated.any()
        assert len({float(rollout.observations[0, 0, 0]) for rollout in found}) == 3


def test_an_untruncated_episode_needs_a_budget_that_ends_it():
    with (
        checks.bound("CartPole-v1", budget=Budget(updates=5)) as task,
        pytest.raises(UsageError, match="may never end"),
    ):
        task.untruncated_episode(task.floor_policy())


def test_language_has_no_untruncated_episode():
    result = polobench.make("article-pg", "token-bandit").run(0, Budget(updates=1, samples=100))
    assert result.status == "failed"
    assert "has no episode without a time limit" in result.reason
    assert polobench.make("article-pg", "token-bandit", episode_end="time_limit").run(0, 50).status == "ok"


RUNS = {
    "article-pg": ("CartPole-v1", {}),
    "article-pg until the time limit": ("CartPole-v1", {"episode_end": "time_limit"}),
    "article-trpo": ("CartPole-v1", {}),
    "article-ppo": ("CartPole-v1", {}),
    "article-dpo": ("article-pairs", {}),
    "article-grpo": ("article-groups", {}),
    "article-grpo by token": ("article-groups", {"clamp": "token"}),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_run_ends_within_its_budget(name):
    task, settings = RUNS[name]
    result = polobench.make(name.split()[0], task, **settings).run(0, Budget(updates=3, samples=2_000))
    assert (result.status, result.reason) == ("ok", "the budget of updates is spent")
    assert result.ledger.updates == len(result.updates) == 3
    assert result.ledger.samples <= 2_000
    if task == "CartPole-v1":
        assert result.updates["episode_return"].sum() == result.ledger.samples


def test_article_pg_ends_in_an_episode_that_does_not(monkeypatch):
    """As printed its loop would hold a perfect policy for ever; the samples end it, and nothing is learned of it."""

    def act(policy, observations, noise):
        return Array(upright(torch.from_numpy(observations.numpy()), noise).numpy())

    monkeypatch.setattr(MLPPolicy, "act", act)
    result = polobench.make("article-pg", "CartPole-v1").run(0, Budget(updates=50, samples=1_500))
    assert result.status == "failed"
    assert result.reason.startswith("no update fits the budget")
    assert (result.ledger.updates, result.ledger.samples) == (0, 1_500)


def time_limit_kept(env, action):
    return env.env.step(action)


FIXES = {
    "returns as they are": (
        *(article.episode, "standardized", lambda values, mask: values),
        *(test_pg_sums_over_returns_standardised_within_the_episode, False),
    ),
    "a wider clamp": (
        *(article.grpo, "CLAMP", 1e9),
        *(test_grpo_clamps_the_log_probability_of_a_whole_response, 1e-6, [-10.0] * 3),
    ),
    "a logarithm": (
        *(torch, "sigmoid", torch.nn.functional.logsigmoid),
        test_dpo_compares_whole_vocabularies_at_the_last_position,
    ),
    "a KL of probabilities": (
        *(article.grpo.ArticleGRPO, "would_be_kl", lambda self, new, base, mask: Categorical().kl(new, base).mean()),
        test_grpos_loss_is_over_all_pairs_with_a_kl_that_is_none,
    ),
    "a time limit": (
        *(vector.Untruncated, "step", time_limit_kept),
        test_an_untruncated_episode_goes_on_until_the_ledger_ends_it,
    ),
}


@pytest.mark.parametrize("name", FIXES)
def test_a_hidden_fix_is_seen(name, monkeypatch):
    where, attribute, fix, check, *arguments = FIXES[name]
    monkeypatch.setattr(where, attribute, fix)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*arguments)
