"""Preference and group-relative losses against those of TRL, enumeration and closed forms."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import checks
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import kl_divergence
from torch.nn.functional import logsigmoid

import polobench
from polobench.core.optimization import Tally
from polobench.core.rollout import Rollout
from polobench.methods import dpo, grpo
from polobench.objectives.preference import (
    better_pairs,
    group_advantages,
    ipo_losses,
    logistic_losses,
    plackett_luce_losses,
)
from polobench.objectives.surrogates import importance_objective
from polobench.policies.distributions import Categorical
from polobench.tasks.text import as_completions, as_rollout

VOCABULARY, HORIZON, BETA = 6, 8, 0.3
LENGTHS = (3, 1, 5, 2, 4, 5, 2)
GROUPS = (0, 0, 0, 1, 1, 1, 1)
SCORES = (2.0, 0.0, 1.0, 1.0, 1.0, 0.0, 3.0)  # one tie, in the second group
PAIRS = [(0, 1), (0, 2), (2, 1), (3, 5), (4, 5), (6, 3), (6, 4), (6, 5)]
CPU = torch.device("cpu")


@contextmanager
def float64_by_default() -> Iterator[None]:
    """For the weights of tokens, which are of the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def completions() -> Rollout:
    tokens = torch.randint(1, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    responses = [row[:length].tolist() for row, length in zip(tokens, LENGTHS)]
    prompts = [[1, 2, 3] if group else [4] for group in GROUPS]
    return as_rollout(prompts, as_completions(responses, 0, CPU), SCORES, GROUPS)


def logits_of(rollout: Rollout) -> Tensor:
    return normal(1, *rollout.mask.shape, VOCABULARY).requires_grad_()


def log_probs_of(logits: Tensor, rollout: Rollout) -> Tensor:
    """`[B, T]`, without the package's own distribution."""
    return logits.log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)


def fixed_policy(logits: Tensor) -> Any:
    return SimpleNamespace(outputs=lambda rollout: logits, distribution=Categorical())


def loss_and_gradient(loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def trainer(**settings: Any) -> SimpleNamespace:
    """What a trainer's `_compute_loss` reads of itself."""
    same = {name: lambda tensor, **_: tensor for name in ("gather", "gather_for_metrics", "reduce")}
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device=CPU, num_processes=1, sync_gradients=True, **same),
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        **settings,
    )


def our_dpo(logits: Tensor, rollout: Rollout, reference: Tensor, **hyperparameters: Any) -> Tensor:
    learner: Any = polobench.make("dpo", task="probe-bandit", **hyperparameters)
    part = rollout.attach(reference_log_probs=reference)
    return sum(learner.losses(fixed_policy(logits), [part], Tally()))


def trl_dpo(logits: Tensor, rollout: Rollout, reference: Tensor, loss: str) -> Tensor:
    module = pytest.importorskip("trl.trainer.dpo_trainer")
    chosen, rejected = torch.tensor(PAIRS).T
    rows, pairs = torch.cat([chosen, rejected]), len(PAIRS)
    mask = rollout.mask[rows]
    output = SimpleNamespace(
        log_probs=(log_probs_of(logits, rollout)[rows] * mask),
        entropy=torch.zeros(mask.shape),
        mean_logits=torch.zeros(mask.shape),
        is_top1=mask,
    )
    fixed = (reference * rollout.mask).sum(1)[rows]
    before = torch.zeros(2 * pairs, 1, dtype=torch.long)  # the prompt: one token, which is not in the mask
    inputs = {
        "input_ids": torch.cat([before, rollout.actions[rows]], 1),
        "attention_mask": torch.cat([before + 1, mask.long()], 1),
        "completion_mask": torch.cat([before, mask.long()], 1),
        "ref_chosen_logps": fixed[:pairs],
        "ref_rejected_logps": fixed[pairs:],
    }
    settings = trainer(
        ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=[loss], loss_weights=[1.0],
        beta=BETA, label_smoothing=0.0, use_weighting=False, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    return module.DPOTrainer._compute_loss(settings, lambda **_: output, inputs, False)


def check_dpo(loss: str) -> None:
    rollout = completions()
    logits, reference = logits_of(rollout), normal(2, *rollout.mask.shape)
    ours = loss_and_gradient(our_dpo(logits, rollout, reference, loss=loss, beta=BETA), logits)
    theirs = loss_and_gradient(trl_dpo(logits, rollout, reference, loss), logits)
    for mine, other in zip(ours, theirs, strict=True):
        checks.close(mine, other, atol=1e-9)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_dpo_is_that_of_trl(loss):
    check_dpo(loss)


@pytest.mark.parametrize(
    ("loss", "name", "fault"),
    [
        ("sigmoid", "better_pairs", lambda scores, groups: better_pairs(-scores, groups)),
        ("sigmoid", "logistic_losses", lambda margins, smoothing: len(margins) * logistic_losses(margins, smoothing)),
        ("ipo", "ipo_losses", lambda differences, beta: (differences - 1 / beta) ** 2),
        ("ipo", "better_pairs", lambda scores, groups: better_pairs(-scores, groups)),
    ],
)
def test_a_fault_in_dpo_is_seen(monkeypatch, loss, name, fault):
    pytest.importorskip("trl")
    monkeypatch.setattr(dpo, name, fault)
    with pytest.raises(AssertionError):
        check_dpo(loss)


def test_ipo_sums_over_tokens_are_seen(monkeypatch):
    pytest.importorskip("trl")
    monkeypatch.setattr(dpo, "ipo_losses", lambda differences, beta: ipo_losses(differences * 2, beta))
    with pytest.raises(AssertionError):
        check_dpo("ipo")


@float64_by_default()
def check_grpo(normalization: str, beta: float) -> None:
    module = pytest.importorskip("trl.trainer.grpo_trainer")
    rollout = completions()
    logits, mask, advantages = logits_of(rollout), rollout.mask, normal(3, len(LENGTHS))
    log_probs = log_probs_of(logits, rollout)
    old = log_probs.detach() + 0.3 * normal(4, *mask.shape)
    reference = log_probs.detach() + 0.5 * normal(5, *mask.shape)
    ratio = (log_probs.detach() - old).exp()[mask]
    assert ratio.min() < 0.8  # also beyond the clip
    assert ratio.max() > 1.2

    learner: Any = polobench.make("grpo", task="probe-bandit", beta=beta, normalization=normalization, clip_eps=0.2)
    part = rollout.attach(
        advantages=advantages.unsqueeze(1).expand_as(mask),
        weights=grpo.token_weights(mask, normalization, HORIZON),
        old_log_probs=old,
        **({"reference_log_probs": reference} if beta else {}),
    )
    ours = sum(learner.losses(fixed_policy(logits), len(LENGTHS), [part], Tally()))

    settings = trainer(
        _get_per_token_logps_and_entropies=lambda *_, **__: (log_probs, torch.zeros(mask.shape), None),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        beta=beta, loss_type=normalization, epsilon_low=0.2, epsilon_high=0.2, importance_sampling_level="token",
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, max_completion_length=HORIZON,
        current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
    )  # fmt: skip
    inputs = {
        "prompt_ids": rollout.prompts, "prompt_mask": rollout.prompt_mask, "completion_ids": rollout.actions,
        "completion_mask": mask.long(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference, "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    theirs = module.GRPOTrainer._compute_loss(settings, None, inputs)
    for mine, other in zip(loss_and_gradient(ours, logits), loss_and_gradient(theirs, logits), strict=True):
        checks.close(mine, other, atol=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("normalization", ["grpo", "dapo", "dr_grpo"])
def test_grpo_is_that_of_trl(normalization, beta):
    check_grpo(normalization, beta)


SOUND_K3, SOUND_WEIGHTS = grpo.k3_terms, grpo.token_weights
NEXT = {"grpo": "dapo", "dapo": "dr_grpo", "dr_grpo": "grpo"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("k3_terms", lambda sampler, other: SOUND_K3(other, sampler)),  # the other direction
        ("clipped_terms", lambda new, old, advantages, *clip: (new - old).exp() * advantages),
        ("token_weights", lambda mask, normalization, horizon: mask.double()),  # a sum, not a mean
        ("token_weights", lambda mask, normalization, horizon: SOUND_WEIGHTS(mask, NEXT[normalization], horizon)),
    ],
)
@pytest.mark.parametrize("normalization", ["grpo", "dapo", "dr_grpo"])
def test_a_fault_in_grpo_is_seen(monkeypatch, normalization, name, fault):
    pytest.importorskip("trl")
    monkeypatch.setattr(grpo, name, fault)
    with pytest.raises(AssertionError):
        check_grpo(normalization, 0.04)


def test_every_pair_that_does_not_tie_counts_once():
    better, worse = better_pairs(torch.tensor(SCORES), torch.tensor(GROUPS))
    assert sorted(zip(better.tolist(), worse.tolist())) == sorted(PAIRS)
    ranked, one = better_pairs(torch.arange(5.0), torch.zeros(5, dtype=torch.long))
    assert len(ranked) == len(one) == 5 * 4 // 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_the_expectation_over_both_labels(smoothing):
    rollout = completions()
    logits, reference = logits_of(rollout), normal(2, *rollout.mask.shape)
    found = our_dpo(logits, rollout, reference, beta=BETA, label_smoothing=smoothing)
    ratios = ((log_probs_of(logits, rollout) - reference) * rollout.mask).sum(1)
    expected = torch.zeros((), dtype=torch.float64)
    for better, worse in PAIRS:
        for probability, chosen, rejected in ((1 - smoothing, better, worse), (smoothing, worse, better)):
            expected = expected - probability * logsigmoid(BETA * (ratios[chosen] - ratios[rejected])) / len(PAIRS)
    for mine, other in zip(loss_and_gradient(found, logits), loss_and_gradient(expected, logits), strict=True):
        checks.close(mine, other)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_at_its_reference_is_ln_2(beta):
    rollout = completions()
    logits = logits_of(rollout)
    reference = Categorical().log_prob(logits, rollout.actions).detach()
    loss = our_dpo(logits, rollout, reference, beta=beta)
    assert loss.item() == math.log(2)


def test_plackett_luce_is_a_distribution_over_the_orders():
    values, group = normal(6, 4), torch.zeros(4, dtype=torch.long)
    odds, probabilities = values.exp(), []
    for order in itertools.permutations(range(4)):
        scores = torch.zeros(4)
        scores[list(order)] = torch.tensor([3.0, 2.0, 1.0, 0.0])
        expected = math.prod(float(odds[item] / odds[list(order[place:])].sum()) for place, item in enumerate(order))
        found = (-plackett_luce_losses(values, scores, group).sum()).exp().item()
        assert found == pytest.approx(expected, abs=1e-12)
        probabilities.append(found)
    assert sum(probabilities) == pytest.approx(1, abs=1e-12)


def test_plackett_luce_of_several_groups_is_that_of_each():
    values, scores, groups = normal(7, 7), torch.tensor(SCORES), torch.tensor(GROUPS)
    alone = [
        plackett_luce_losses(values[groups == g], scores[groups == g], torch.zeros(int((groups == g).sum())))
        for g in (0, 1)
    ]
    checks.close(plackett_luce_losses(values, scores, groups), torch.cat(alone))


def test_tied_responses_do_not_compete():
    scores, group = torch.tensor([1.0, 1.0, 0.0, 2.0]), torch.zeros(4, dtype=torch.long)
    jacobian: Any = torch.autograd.functional.jacobian(lambda v: plackett_luce_losses(v, scores, group), normal(8, 4))
    assert jacobian[0, 1] == jacobian[1, 0] == 0
    assert (jacobian[3, :3] > 0).all()
    values = normal(8, 4).requires_grad_()
    losses = plackett_luce_losses(values, torch.ones(4), group)
    assert losses.tolist() == [0.0] * 4
    assert torch.autograd.grad(losses.sum(), values)[0].tolist() == [0.0] * 4


def test_group_advantages_are_those_of_leave_one_out_but_for_a_factor():
    returns, groups = normal(9, 7), torch.tensor(GROUPS)
    found = group_advantages(returns, groups, divide_by_std=False)
    for row, group in enumerate(GROUPS):
        others = [returns[other] for other in range(7) if GROUPS[other] == group and other != row]
        size = len(others) + 1
        left_out = returns[row] - torch.stack(others).mean()
        checks.close(size / (size - 1) * found[row], left_out)


def test_group_advantages_over_the_deviation():
    returns, groups = normal(9, 7), torch.tensor(GROUPS)
    found = group_advantages(returns, groups, divide_by_std=True)
    for group in (0, 1):
        mine = returns[groups == group]
        expected = (mine - mine.mean()) / (mine.std(correction=0) + 1e-4)
        checks.close(found[groups == group], expected)


# the sum of equal returns rounds, so the mean may miss them by a little
@pytest.mark.parametrize("divide_by_std", [False, True])
@pytest.mark.parametrize("size", [2, 8, 64])
def test_a_group_of_equal_returns_has_advantages_of_0(size, divide_by_std):
    returns = torch.full((2 * size,), 0.1)
    assert not group_advantages(returns, torch.arange(2).repeat_interleave(size), divide_by_std).any()


@float64_by_default()
def test_grpo_without_clipping_is_the_importance_objective():
    rollout = completions()
    logits, mask = logits_of(rollout), rollout.mask
    old, advantages = normal(4, *mask.shape), normal(3, len(LENGTHS)).unsqueeze(1).expand_as(mask)
    learner: Any = polobench.make("grpo", task="probe-bandit", normalization="dapo", clip_eps=1e9)
    weights = grpo.token_weights(mask, "dapo", HORIZON)
    part = rollout.attach(advantages=advantages, weights=weights, old_log_probs=old)
    found = sum(learner.losses(fixed_policy(logits), len(LENGTHS), [part], Tally()))
    checks.close(found, -importance_objective(log_probs_of(logits, rollout), old, advantages, mask))


@float64_by_default()
def test_grpo_against_its_reference_in_the_first_epoch():
    """The sampler is the policy itself, at ratio 1: all that the loss adds to the advantages is the k3 estimate."""
    rollout = completions()
    logits, mask = logits_of(rollout), rollout.mask
    fixed = normal(2, *mask.shape, VOCABULARY)
    advantages = normal(3, len(LENGTHS)).unsqueeze(1).expand_as(mask)
    learner: Any = polobench.make("grpo", task="probe-bandit", normalization="dapo", beta=0.04)
    part = rollout.attach(advantages=advantages, weights=grpo.token_weights(mask, "dapo", HORIZON))
    part, tally = learner.with_fixed_log_probs(fixed_policy(logits), fixed_policy(fixed), part), Tally()
    found = sum(learner.losses(fixed_policy(logits), len(LENGTHS), [part], tally))

    log_probs = log_probs_of(logits, rollout)
    log_ratio = log_probs_of(fixed, rollout) - log_probs
    k3 = log_ratio.exp() - 1 - log_ratio
    surrogate = (log_probs - log_probs.detach()).exp() * advantages
    assert tally.means(1).get("kl_to_reference") == pytest.approx(float(k3[mask].mean().detach()), abs=1e-9)
    expected = -(surrogate - 0.04 * k3)[mask].mean()
    for mine, other in zip(loss_and_gradient(found, logits), loss_and_gradient(expected, logits), strict=True):
        checks.close(mine, other)


def ranking_by_definition(logits: Tensor, fixed: Tensor, loss: str, score: str, kl_coef: float) -> Tensor:
    """Response by response, pair by pair and token by token; the KL by torch's own."""
    rollout = completions()
    rows = [row[:length] for row, length in zip(log_probs_of(logits, rollout), LENGTHS)]
    values = [BETA * (row.sum() if score == "sum" else row.mean()) for row in rows]
    if loss == "pairwise":
        ranked = [-logsigmoid(values[better] - values[worse]) for better, worse in PAIRS]
        fit = torch.stack(ranked).mean()
    else:
        worse = [[values[other] for better, other in PAIRS if better == row] for row in range(len(rows))]
        odds = [value.exp() / sum(rival.exp() for rival in [value, *rivals]) for value, rivals in zip(values, worse)]
        fit = -torch.stack(odds).log().sum() / len(set(GROUPS))
    kl = kl_divergence(TorchCategorical(logits=logits), TorchCategorical(logits=fixed))
    return fit + kl_coef * torch.cat([row[:length] for row, length in zip(kl, LENGTHS)]).mean()


@pytest.mark.parametrize("score", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["pairwise", "plackett_luce"])
def test_ranking_is_its_definition(loss, score):
    rollout = completions()
    logits, fixed = logits_of(rollout), normal(2, *rollout.mask.shape, VOCABULARY)
    learner: Any = polobench.make("ranking", task="probe-bandit", loss=loss, score=score, beta=BETA, kl_coef=0.5)
    found = sum(learner.losses(fixed_policy(logits), fixed_policy(fixed), [rollout], Tally()))
    expected = ranking_by_definition(logits, fixed, loss, score, 0.5)
    for mine, other in zip(loss_and_gradient(found, logits), loss_and_gradient(expected, logits), strict=True):
        checks.close(mine, other)
