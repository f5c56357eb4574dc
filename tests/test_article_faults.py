"""Each fault of the source article, planted wherever in the sound code it can stand, fails a test of the suite.

`docs/faults.md` is this table for readers; it is compared with this one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutation
import numpy as np
import pytest
import test_causal_lm
import test_distributions
import test_language_rollouts
import test_preference_objectives
import test_probes
import test_returns
import test_rollouts
import test_surrogates
import test_trust_region
import torch

from polobench.core.arrays import like
from polobench.methods import dpo, grpo, ppo, ranking, reinforce, trpo
from polobench.methods.dpo import DPO
from polobench.methods.grpo import GRPO
from polobench.methods.ranking import Ranking
from polobench.methods.reinforce import Reinforce
from polobench.objectives import preference, regression, returns, surrogates
from polobench.objectives.trust_region import LineSearch
from polobench.policies.causal_lm import CausalLM
from polobench.policies.distributions import Categorical
from polobench.policies.mlp import MLPPolicy
from polobench.policies.reading import Decoder
from polobench.tasks import pairs, reward
from polobench.tasks import preference as preference_task
from polobench.tasks.preference import PreferenceTask
from polobench.tasks.text import as_completions, as_rollout
from polobench.tasks.vector import VectorRunner

LISTED = Path(__file__).parents[1] / "docs" / "faults.md"
EPSILON = 1e-8

advantages, line_search = returns.generalized_advantages, trpo.backtracking_line_search


def only_termination_ends(runner, actions, step=VectorRunner.step):
    found = step(runner, actions)
    runner.live = ~found[1]
    return found


def truncation_ignored(rollout, *rest):
    """Goes on across the reset, as if the next episode were the same one."""
    on = {"truncated": rollout.truncated & ~rollout.truncated, "mask": rollout.mask | ~rollout.mask}
    return advantages(replace(rollout, **on), *rest)


def truncation_is_termination(rollout, *rest):
    return advantages(replace(rollout, terminated=rollout.terminated | rollout.truncated), *rest)


def no_values(policy, rollout):
    return like(rollout.mask, np.zeros((rollout.mask.shape[0], rollout.mask.shape[1] + 1), np.float32))


def standardized_by_row(values, mask):
    mean = (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    deviation = (((values - mean) ** 2 * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)) ** 0.5
    return (values - mean) / (deviation + EPSILON)


def returns_standardized_by_row(learner, policy, rollout, rewards, sound=Reinforce.returns_and_baseline):
    found, baseline = sound(learner, policy, rollout, rewards)
    return standardized_by_row(found, rollout.mask), torch.zeros_like(baseline)


def means_with_their_own(returned, groups):
    counts = torch.bincount(groups).to(returned.dtype)
    return (torch.zeros_like(counts).index_add(0, groups, returned) / counts)[groups]


def each_for_itself(returned, groups, divide_by_std, sound=grpo.group_advantages):
    return sound(returned, torch.arange(len(returned)), divide_by_std)


def no_line_search(evaluate, start, full_step, **limits):
    gain, kl = evaluate(start + full_step)
    return LineSearch(1.0, gain, kl)


def no_restore(evaluate, start, full_step, **limits):
    return line_search(lambda at: evaluate(at) if at is not start else (0.0, 0.0), start, full_step, **limits)


def no_log(margins, label_smoothing=0.0):
    return -torch.sigmoid(margins)


def no_log_of_orders(*arguments, sound=preference.plackett_luce_losses):
    return -torch.exp(-sound(*arguments))


def losses_of(change: Callable[[Any], Any], method: Any) -> Callable[..., Any]:
    """The losses of a method, of parts that are changed before."""
    sound = method.losses

    def losses(learner, *arguments):
        *policies, parts, sums = arguments
        return sound(learner, *policies, [change(part) for part in parts], sums)

    return losses


def without_reference(part):
    return part.attach(reference_log_probs=torch.zeros(part.mask.shape))


def data_without_reference(task, count, sound=PreferenceTask.preferences):
    return without_reference(sound(task, count))


def never_attached(learner, policy, its_reference, rows, sound=GRPO.with_fixed_log_probs):
    return sound(learner, policy, None, rows)


def its_own_reference(learner, policy, its_reference, parts, sums, sound=Ranking.losses):
    return sound(learner, policy, policy, parts, sums)


def last_position(part):
    last = part.mask.sum(1, keepdim=True) - 1
    return part.attach(mask=torch.zeros_like(part.mask).scatter(1, last, True))


def outputs_of_the_last_position(policy, rollout, sound=CausalLM.outputs):
    outputs = sound(policy, rollout)
    return outputs[:, -1:].expand_as(outputs)


def prompt_unmasked(prompts, completions, scores, groups):
    """The prompt's tokens, all but the first, are part of the response."""
    rows = [[*prompt[1:], *row[mask]] for prompt, row, mask in zip(prompts, completions.tokens, completions.mask)]
    longer = as_completions(rows, 0, completions.tokens.device)
    return as_rollout([prompt[:1] for prompt in prompts], longer, scores, groups)


def padding_unmasked(part):
    return part.attach(mask=torch.ones_like(part.mask))


def rollout_with_padding(*arguments):
    return padding_unmasked(as_rollout(*arguments))


def padded_prompts(policy, rollout, sound=CausalLM.outputs):
    return sound(policy, rollout.attach(prompt_mask=torch.ones_like(rollout.prompt_mask)))


def padding_attended_to(decoder, tokens, sound=Decoder._hidden_states):
    decoder._padded = False
    return sound(decoder, tokens)


def the_self_test_finds_padding_right():
    assert test_causal_lm.tiny().reading.pads


def mean_with_padding(values, mask):
    return values.mean()


def sum_with_padding(log_probs, its_advantages, mask, n_episodes):
    return (log_probs * its_advantages).sum() / n_episodes


def row_log_probs_of(change: Callable[[Any], Any]) -> Callable[..., Any]:
    sound = pairs.row_log_probs
    return lambda policy, rollout, batch: sound(policy, change(rollout), batch)


def kl_of_log_probs(distribution, old, new):
    log_old = old.log_softmax(-1)
    return (log_old * (log_old - new.log_softmax(-1))).sum(-1)


def k3_of_log_probs(sampler, other):
    return sampler * (sampler - other)


def kl_clamped(distribution, old, new):
    log_old, log_new = (outputs.log_softmax(-1).clamp(min=EPSILON) for outputs in (old, new))
    return (log_old.exp() * (log_old - log_new)).sum(-1)


def k3_clamped(sampler, other, sound=surrogates.k3_terms):
    return sound(sampler.clamp(min=EPSILON), other.clamp(min=EPSILON))


GAE, SEARCH = "generalized_advantages", "backtracking_line_search"
ADVANTAGES = test_returns.test_advantages_equal_the_double_sum_of_the_definition
CRITICS = test_returns.test_each_critic_is_fitted_to_what_the_definition_says
STEP = test_trust_region.test_step_improves_within_the_bound_where_the_full_step_breaks_it
GRADIENT = test_surrogates.test_expected_estimate_is_the_exact_policy_gradient
K3 = test_surrogates.test_k3_is_never_negative_and_its_expectation_is_the_kl
MASKED = test_surrogates.test_masked_entries_change_no_objective
AT_REFERENCE = test_preference_objectives.test_dpo_at_its_reference_is_ln_2
DPO_LOSS = test_preference_objectives.test_label_smoothing_is_the_expectation_over_both_labels
GRPO_LOSS = test_preference_objectives.test_grpo_against_its_reference_in_the_first_epoch
RANKING_LOSS = test_preference_objectives.test_ranking_is_its_definition
FIRST_OF_DPO = test_language_rollouts.test_first_update_of_dpo_is_at_its_reference
FIRST_OF_GRPO = test_language_rollouts.test_first_update_of_grpo_has_the_advantages_of_its_groups
ON_DATA = test_language_rollouts.test_first_update_on_data_has_the_log_probs_of_the_responses_alone
SAMPLED = test_language_rollouts.test_sampled_rollouts_hold_the_completions_alone
SINGLE = test_causal_lm.test_log_probs_are_those_of_single_sequences
PAIRS = test_causal_lm.test_pairs_are_measured_by_the_sums_over_their_responses

# what is planted: where, in which name's place, what; then the test that must fail, and its arguments
FAULTS: dict[str, list[tuple[Any, ...]]] = {
    "truncation ignored": [
        (VectorRunner, "step", only_termination_ends, test_rollouts.test_a_time_limit_ends_an_episode),
        (returns, GAE, truncation_ignored, ADVANTAGES),
        (ppo, GAE, truncation_ignored, CRITICS, "ppo"),
        (trpo, GAE, truncation_ignored, CRITICS, "trpo"),
    ],
    "values zero": [
        *((MLPPolicy, "values", no_values, CRITICS, method) for method in ("ppo", "trpo", "reinforce")),
        (CausalLM, "values", no_values,
         test_causal_lm.test_values_of_single_sequences_and_no_gradient_for_the_actor, "gpt2"),
    ],
    "truncation as termination": [
        (returns, GAE, truncation_is_termination, ADVANTAGES),
        (ppo, GAE, truncation_is_termination, CRITICS, "ppo"),
        (ppo, GAE, truncation_is_termination,
         test_probes.test_method_reaches_the_known_answer, "ppo", "probe-truncation", 0),
        (trpo, GAE, truncation_is_termination, CRITICS, "trpo"),
        (reinforce, GAE, truncation_is_termination, CRITICS, "reinforce"),
    ],
    "standardised within one episode": [
        (returns, "standardized", standardized_by_row, test_returns.test_standardized_is_over_the_whole_batch),
        (ppo, "standardized", standardized_by_row, test_surrogates.test_ppo_standardizes_over_the_whole_minibatch),
        (trpo, "standardized", standardized_by_row,
         test_trust_region.test_advantages_are_standardized_over_the_whole_rollout),
        (Reinforce, "returns_and_baseline", returns_standardized_by_row, GRADIENT, "reinforce"),
        (reinforce, "leave_one_out_means", means_with_their_own,
         test_surrogates.test_leave_one_out_leaves_the_gradient_as_it_is),
        (grpo, "group_advantages", each_for_itself, FIRST_OF_GRPO),
    ],
    "no line search": [(trpo, SEARCH, no_line_search, STEP, "probe-bandit")],
    "no restore": [
        (trpo, SEARCH, no_restore, test_trust_region.test_step_that_fails_restores_the_parameters_bit_for_bit)
    ],
    "no log": [
        (dpo, "logistic_losses", no_log, AT_REFERENCE, 0.1),
        (ranking, "logistic_losses", no_log, RANKING_LOSS, "pairwise", "sum"),
        (ranking, "plackett_luce_losses", no_log_of_orders, RANKING_LOSS, "plackett_luce", "sum"),
    ],
    "no reference": [
        (DPO, "losses", losses_of(without_reference, DPO), AT_REFERENCE, 0.1),
        (dpo, "with_reference", lambda its_reference, batch, size: without_reference(batch),
         FIRST_OF_DPO, test_language_rollouts.rewarded, "checkpoint"),
        (PreferenceTask, "preferences", data_without_reference,
         FIRST_OF_DPO, test_language_rollouts.preferred, "checkpoint"),
        (GRPO, "with_fixed_log_probs", never_attached, GRPO_LOSS),
        (Ranking, "losses", its_own_reference, RANKING_LOSS, "pairwise", "sum"),
    ],
    "last position": [
        (DPO, "losses", losses_of(last_position, DPO), DPO_LOSS, 0.0),
        (GRPO, "losses", losses_of(last_position, GRPO), GRPO_LOSS),
        (Ranking, "losses", losses_of(last_position, Ranking), RANKING_LOSS, "pairwise", "sum"),
        (CausalLM, "outputs", outputs_of_the_last_position, SINGLE, "gpt2"),
        (pairs, "row_log_probs", row_log_probs_of(last_position), PAIRS),
    ],
    "prompt unmasked": [
        (preference_task, "as_rollout", prompt_unmasked, ON_DATA, "dpo"),
        (preference_task, "as_rollout", prompt_unmasked, ON_DATA, "ranking"),
        (reward, "as_rollout", prompt_unmasked, SAMPLED),
    ],
    "padding unmasked": [
        (DPO, "losses", losses_of(padding_unmasked, DPO), DPO_LOSS, 0.0),
        (GRPO, "losses", losses_of(padding_unmasked, GRPO), GRPO_LOSS),
        (Ranking, "losses", losses_of(padding_unmasked, Ranking), RANKING_LOSS, "pairwise", "sum"),
        (surrogates, "masked_mean", mean_with_padding, MASKED),
        (surrogates, "score_function_objective", sum_with_padding, MASKED),
        (regression, "masked_mean", mean_with_padding,
         test_causal_lm.test_the_critics_loss_is_over_the_responses_tokens),
        (preference_task, "as_rollout", rollout_with_padding, ON_DATA, "dpo"),
        (reward, "as_rollout", rollout_with_padding, SAMPLED),
        (CausalLM, "outputs", padded_prompts, SINGLE, "gpt2"),
        (Decoder, "_hidden_states", padding_attended_to, the_self_test_finds_padding_right),
        (pairs, "row_log_probs", row_log_probs_of(padding_unmasked), PAIRS),
    ],
    "KL from log-probabilities": [
        (Categorical, "kl", kl_of_log_probs, test_distributions.test_kl_agrees_with_torch_in_its_direction),
        (Categorical, "kl", kl_of_log_probs, STEP, "probe-bandit"),
        (Categorical, "kl", kl_of_log_probs, RANKING_LOSS, "pairwise", "sum"),
        (surrogates, "k3_terms", k3_of_log_probs, K3),
        (grpo, "k3_terms", k3_of_log_probs, GRPO_LOSS),
    ],
    "KL clamped": [
        (Categorical, "kl", kl_clamped, test_distributions.test_kl_agrees_with_torch_in_its_direction),
        (Categorical, "kl", kl_clamped, STEP, "probe-bandit"),
        (Categorical, "kl", kl_clamped, RANKING_LOSS, "pairwise", "sum"),
        (surrogates, "k3_terms", k3_clamped, K3),
        (grpo, "k3_terms", k3_clamped, GRPO_LOSS),
    ],
}  # fmt: skip
PLANTED = [(name, *row) for name, rows in FAULTS.items() for row in rows]


def planted_in(where: Any, attribute: str) -> str:
    owner = where.__name__ if inspect.ismodule(where) else f"{where.__module__}.{where.__qualname__}"
    return f"{owner.removeprefix('polobench.')}.{attribute}"


def node_id(test: Callable[..., None], *arguments: Any) -> str:
    values = "-".join(getattr(argument, "__name__", str(argument)) for argument in arguments)
    return f"tests/{test.__module__}.py::{test.__name__}" + (f"[{values}]" if values else "")


def listed() -> list[str]:
    """The lines of the documentation's table."""
    rows = [
        f"| {name} | `{planted_in(where, attribute)}` | `{node_id(*caught_by)}` |"
        for name, where, attribute, _, *caught_by in PLANTED
    ]
    return ["| fault | planted in | caught by |", "|---|---|---|", *rows]


@pytest.mark.parametrize("planted", PLANTED, ids=[f"{name}-{planted_in(*what[:2])}" for name, *what in PLANTED])
def test_fault_of_the_article_is_caught(planted, monkeypatch):
    mutation.check_is_caught(monkeypatch, *planted[1:])


def test_documentation_lists_these_faults():
    assert [line for line in LISTED.read_text().splitlines() if line.startswith("|")] == listed()
