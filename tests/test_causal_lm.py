"""A language model as a policy, and its sampling, against a loop over single sequences without padding or cache."""

from __future__ import annotations

import copy
from functools import cache, partial
from typing import Any

import checks
import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import polobench
from polobench.core.budget import Budget, BudgetExhausted, Ledger
from polobench.core.errors import UsageError
from polobench.core.hyperparameters import GradientHyperparameters
from polobench.core.optimization import Descent
from polobench.core.rollout import Rollout
from polobench.methods.grpo import token_weights
from polobench.objectives.preference import ranked_minibatches
from polobench.objectives.reference import with_kl_in_rewards, with_reference
from polobench.objectives.regression import fit_critic, value_loss
from polobench.policies import native
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import Completions, complete
from polobench.tasks.pairs import PairSet
from polobench.tasks.text import as_completions, as_rollout

VOCABULARY, LIMIT, END = 20, 6, 0
EXACT = {"gpt2": 1e-12, "llama": 1e-5}  # Llama's norms and rotations are computed in float32 whatever the weights
FAMILIES = pytest.mark.parametrize("family", EXACT)


@cache
def _model(family: str) -> Any:
    ends = {"bos_token_id": END, "eos_token_id": END, "vocab_size": VOCABULARY}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "gpt2":
            drops = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
            model: Any = GPT2LMHeadModel(GPT2Config(n_positions=32, n_embd=32, n_layer=2, n_head=4, **drops, **ends))
        else:
            sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
            model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, max_position_embeddings=32, **sizes, **ends))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the nearly uniform start
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def tiny(family: str = "gpt2", dtype: str = "float64", **settings: Any) -> CausalLM:
    policy = CausalLM(copy.deepcopy(_model(family)), compute_dtype=dtype, **settings)
    policy.ledger = Ledger(Budget(updates=1))
    return policy


def tokens_of(length: int, rng: np.random.Generator) -> list[int]:
    return rng.integers(1, VOCABULARY, length).tolist()


def every_length() -> Rollout:
    """Six prompts of 1 to 6 tokens, with completions of 1 to 5 each."""
    rng = np.random.default_rng(0)
    prompts = [tokens_of(length, rng) for length in range(1, 7)]
    rows = [(group, tokens_of(length, rng)) for group in range(6) for length in rng.permutation(5) + 1]
    responses = as_completions([response for _, response in rows], END, torch.device("cpu"))
    return as_rollout(
        [prompts[group] for group, _ in rows], responses, rng.normal(size=30).tolist(), [group for group, _ in rows]
    )


def log_probs(policy: CausalLM, rollout: Rollout) -> Tensor:
    return policy.distribution.log_prob(policy.outputs(rollout), rollout.actions) * rollout.mask


def one_by_one(family: str, rollout: Rollout) -> Tensor:
    model = copy.deepcopy(_model(family)).double()
    found = torch.zeros(rollout.mask.shape, dtype=torch.float64)
    with torch.no_grad():
        for row in range(len(found)):
            prompt = rollout.prompts[row][rollout.prompt_mask[row]]
            response = rollout.actions[row][rollout.mask[row]]
            logits = model(input_ids=torch.cat([prompt, response]).unsqueeze(0)).logits[0, len(prompt) - 1 : -1]
            found[row, : len(response)] = logits.log_softmax(-1).gather(1, response.unsqueeze(1)).squeeze(1)
    return found


@FAMILIES
def test_log_probs_are_those_of_single_sequences(family):
    rollout = every_length()
    checks.close(log_probs(tiny(family), rollout), one_by_one(family, rollout), EXACT[family])
    same = rollout.select(rollout.groups == 5)  # prompts of one length
    checks.close(log_probs(tiny(family), same), one_by_one(family, same), EXACT[family])


@FAMILIES
def test_log_probs_are_the_same_in_parts(family):
    policy, rollout = tiny(family), every_length()
    whole = rollout.attach(old_log_probs=one_by_one(family, rollout))
    cuts = [whole.split(size) for size in (1, 4, None)] + [whole.split_groups(size) for size in (1, 7, 12)]
    for parts in [*cuts, list(whole.minibatches(35, np.random.default_rng(0)))]:
        assert sum(part.n_samples for part in parts) == whole.n_samples
        for part in parts:
            checks.close(log_probs(policy, part), part.old_log_probs, EXACT[family])


@FAMILIES
def test_passes_without_gradients_read_as_many_rows_as_are_generated_together(family, monkeypatch):
    rollout = every_length()
    policy, whole = tiny(family, critic=True, generation_batch=4), tiny(family, critic=True)
    checks.perturb(whole.critic_parameters, torch.Generator().manual_seed(0))
    policy.load_state_dict(whole.state_dict())
    rows = []
    passes = native.hidden_states
    counted = lambda base, tokens, first: rows.append(len(tokens)) or passes(base, tokens, first)  # noqa: E731
    monkeypatch.setattr(native, "hidden_states", counted)
    with torch.no_grad():
        found = [policy.outputs(rollout), policy.values(rollout), *policy.outputs_and_all_values(rollout)]
        found.append(policy.with_critic_inputs(rollout).critic_inputs)
        assert max(rows) == 4
        assert sum(rows) == 4 * len(rollout.mask)
        wanted = [whole.outputs(rollout), whole.values(rollout), *whole.outputs_and_all_values(rollout)]
        wanted.append(whole.with_critic_inputs(rollout).critic_inputs)
    for one, other in zip(found, wanted, strict=True):
        checks.close(one, other, EXACT[family])


def test_pairs_are_measured_by_the_sums_over_their_responses():
    rollout = every_length()
    pairs, sums, lengths = PairSet.of(rollout), one_by_one("gpt2", rollout).sum(1), rollout.mask.sum(1)
    columns = {name: torch.tensor(column) for name, column in pairs.columns(tiny(), batch=4).items()}
    for side, rows in (("chosen", pairs.better), ("rejected", pairs.worse)):
        torch.testing.assert_close(columns[f"{side}_log_prob"].double(), sums[rows], rtol=1e-6, atol=0)
        assert torch.equal(columns[f"{side}_tokens"], lengths[rows])


@pytest.mark.parametrize("size", [1, 7, 12, None])
def test_groups_stay_whole(size):
    rollout = every_length()
    parts = rollout.split_groups(size)
    assert sorted(group for part in parts for group in part.groups.unique().tolist()) == list(range(6))
    assert torch.cat([part.groups for part in parts]).tolist() == rollout.groups.tolist()


@FAMILIES
def test_values_of_single_sequences_and_no_gradient_for_the_actor(family):
    policy, rollout = tiny(family, critic=True, generator=torch.Generator().manual_seed(0)), every_length()
    assert not policy.values(rollout).any()  # the head starts at 0
    checks.perturb(policy.critic_parameters, torch.Generator().manual_seed(2))
    values = policy.values(rollout)
    assert values.shape == (30, 6)
    checks.close(policy.state_values(rollout)[rollout.mask], values[:, :-1][rollout.mask], 1e-5)
    for row, alone in enumerate(rollout.split(1)):
        columns = alone.mask.shape[1] + 1
        checks.close(policy.values(alone)[0], values[row, :columns], 1e-5)
    (values**2).mean().backward()
    assert all(parameter.grad is None for parameter in policy.actor_parameters)
    assert all(parameter.grad is not None for parameter in policy.critic_parameters)


def test_the_critics_loss_is_over_the_responses_tokens():
    rollout, policy = every_length(), tiny(critic=True, generator=torch.Generator().manual_seed(0))
    targets = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(5))
    loss = value_loss(policy.state_values(rollout), rollout.attach(value_targets=targets))  # its head starts at 0
    torch.testing.assert_close(loss, (targets[rollout.mask] ** 2).mean())


@FAMILIES
def test_one_pass_for_actor_and_critic_gives_what_two_give(family):
    policy, rollout = tiny(family, critic=True, generator=torch.Generator().manual_seed(0)), every_length()
    checks.perturb(policy.critic_parameters, torch.Generator().manual_seed(2))
    outputs, values = policy.outputs_and_values(rollout)
    assert torch.equal(outputs, policy.outputs(rollout))
    assert torch.equal(values, policy.state_values(rollout))
    values.sum().backward()
    assert all(parameter.grad is None for parameter in policy.actor_parameters)


@FAMILIES
def test_one_pass_before_an_update_gives_what_two_give(family):
    policy, rollout = tiny(family, critic=True, generator=torch.Generator().manual_seed(0)), every_length()
    checks.perturb(policy.critic_parameters, torch.Generator().manual_seed(2))
    before = policy.ledger.forward_rows
    outputs, values = policy.outputs_and_all_values(rollout)
    both = policy.ledger.forward_rows - before
    assert not outputs.requires_grad
    assert torch.equal(values, policy.values(rollout))
    assert both == policy.ledger.forward_rows - before - both, "the model was read more than once"
    checks.close(outputs, policy.outputs(rollout), 1e-5)


def test_a_fit_of_the_critic_reads_the_model_once():
    rollout = every_length()
    targets = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    fitted = []
    for once in (True, False):
        policy = tiny(critic=True, generator=torch.Generator().manual_seed(0))
        attach = policy.with_critic_inputs
        if not once:  # every minibatch reads the model anew
            policy.with_critic_inputs = lambda rows, attach=attach: rows if len(rows.mask) == 30 else attach(rows)
        descent = Descent(policy, policy.critic_parameters, 1e-2, GradientHyperparameters())
        rows = rollout.attach(value_targets=targets)
        loss = fit_critic(policy, descent, rows, epochs=3, minibatch_size=40, shuffle=np.random.default_rng(0))
        fitted.append((loss, policy.ledger.forward_rows, [p.detach() for p in policy.critic_parameters]))
    (loss, rows_once, parameters), (other_loss, rows_anew, others) = fitted
    assert loss == pytest.approx(other_loss, abs=1e-9)
    for mine, other in zip(parameters, others, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-7)
    assert 2.5 * rows_once < rows_anew


def test_rows_that_come_back_have_their_prompts_and_those_of_a_head_alone_are_none():
    policy, rollout = tiny(critic=True, generator=torch.Generator().manual_seed(0)), every_length()
    before = policy.ledger.forward_rows
    policy.outputs(rollout).sum().backward()
    rows = policy.ledger.forward_rows - before
    assert rows > rollout.mask.numel(), "prompts are read, too"
    assert policy.ledger.backward_rows == rows
    outputs, values = policy.outputs_and_values(rollout)
    (outputs.sum() + values.sum()).backward()
    assert policy.ledger.backward_rows == 2 * rows, "a value head reads what the policy's pass has made"
    descent = Descent(policy, policy.critic_parameters, 1e-2, GradientHyperparameters())
    fitted = rollout.attach(value_targets=torch.zeros(rollout.mask.shape, dtype=torch.float64))
    fit_critic(policy, descent, fitted, epochs=3, minibatch_size=40, shuffle=np.random.default_rng(0))
    assert policy.ledger.backward_rows == 2 * rows
    outputs, _, vjp = policy.linearize(rollout)
    vjp(outputs.detach())
    assert policy.ledger.backward_rows == 4 * rows


@FAMILIES
def test_jacobian_products(family):
    policy, rollout = tiny(family), every_length().select(torch.arange(0, 30, 4))
    mask = rollout.mask.unsqueeze(-1)
    generator, point = torch.Generator().manual_seed(3), policy.actor_vector()
    outputs, jvp, vjp = policy.linearize(rollout)
    tangent = torch.randn(point.shape, generator=generator, dtype=torch.float64)
    cotangent = torch.randn(outputs.shape, generator=generator, dtype=torch.float64) * mask
    pushed = jvp(tangent) * mask
    inner = (cotangent * pushed).sum()
    checks.close((vjp(cotangent) * tangent).sum() / inner, torch.ones_like(inner), 100 * EXACT[family])
    step = 1e-6 if family == "gpt2" else 1e-3
    with torch.no_grad():
        sides = []
        for sign in (1, -1):
            policy.set_actor_vector(point + sign * step * tangent)
            sides.append(policy.outputs(rollout))
    difference = (sides[0] - sides[1]) / (2 * step) * mask
    assert (difference - pushed).norm() < (1e-7 if family == "gpt2" else 1e-3) * pushed.norm()


def gradient_of(method: str, policy: CausalLM, rollout: Rollout, micro_batch: int | None, **settings: Any) -> Tensor:
    learner: Any = polobench.make(method, "probe-bandit", micro_batch=micro_batch, max_gradient_norm=1e9, **settings)
    parameters = policy.actor_parameters + policy.critic_parameters
    descent, shuffle = Descent(policy, parameters, 0.0, learner.hp), np.random.default_rng(0)
    reference = policy.frozen_copy()
    checks.perturb(reference.actor_parameters, torch.Generator().manual_seed(4))
    advantages = rollout.returns.double().unsqueeze(1).expand_as(rollout.mask)
    if method == "grpo":
        weights = token_weights(rollout.mask, learner.hp.normalization, LIMIT).double()
        batch = rollout.attach(advantages=advantages, weights=weights)
        learner.improve(policy, reference, descent, batch, shuffle)
    elif method == "dpo":
        learner.improve(policy, descent, with_reference(reference, rollout, micro_batch), shuffle)
    elif method == "ranking":
        descent.fit(ranked_minibatches(rollout, learner.hp, shuffle), partial(learner.losses, policy, reference))
    elif method == "reinforce":
        learner.improve(policy, descent, rollout.attach(advantages=advantages))
    else:
        with_kl, _ = with_kl_in_rewards(policy, reference, rollout, 0.5, micro_batch)
        batch = learner.with_targets(policy, with_kl, with_kl.rewards)
        learner.improve(policy, descent, batch, 0.2, shuffle)
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


@FAMILIES
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("reinforce", {"entropy_coef": 0.1}),
        ("ppo", {"epochs": 1, "minibatch_size": 10**6, "entropy_coef": 0.1}),
        ("grpo", {"beta": 0.04}),
        ("grpo", {"normalization": "dapo"}),
        ("dpo", {}),
        ("dpo", {"loss": "ipo"}),
        ("ranking", {}),
        ("ranking", {"loss": "plackett_luce", "score": "mean"}),
    ],
)
def test_gradients_add_up_over_micro_batches(family, method, settings):
    rollout, critic = every_length(), method == "ppo"

    def gradient(micro_batch: int | None) -> Tensor:
        policy = tiny(family, critic=critic, generator=torch.Generator().manual_seed(0)).double()
        return gradient_of(method, policy, rollout, micro_batch, **settings)

    whole = gradient(None)
    assert whole.norm() > 1e-3
    for micro_batch in (1, 3):
        assert (gradient(micro_batch) - whole).norm() < EXACT[family] * whole.norm()


@FAMILIES
def test_a_trust_region_step_adds_up_over_micro_batches(family):
    """The gradient, the Fisher products and the line search, all of which a step goes through."""
    rollout = every_length()
    advantages = rollout.returns.double().unsqueeze(1).expand_as(rollout.mask)
    found = []
    for micro_batch in (None, 7):
        policy = tiny(family)
        learner: Any = polobench.make("trpo", "probe-bandit", micro_batch=micro_batch, cg_steps=3)
        start = policy.actor_vector()
        search, metrics = learner.improve(policy, rollout.attach(advantages=advantages), np.random.default_rng(0))
        assert search.accepted
        found.append((policy.actor_vector() - start, metrics))
    (whole, its_metrics), (parts, metrics) = found
    assert (parts - whole).norm() < 100 * EXACT[family] * whole.norm()
    assert metrics == pytest.approx(its_metrics, rel=1e3 * EXACT[family])


def squares(policy: CausalLM, rollout: Rollout) -> Tensor:
    return (log_probs(policy, rollout) ** 2).mean()


@FAMILIES
def test_bfloat16_has_float32_masters_in_step(family):
    policy, rollout = tiny(family, "bfloat16"), every_length()
    optimizer = torch.optim.Adam(policy.actor_parameters, lr=1e-3)
    start = policy.actor_vector()
    for _ in range(3):
        policy.gradient_step(optimizer, [squares(policy, rollout)])
        for master, weight in zip(policy.actor_parameters, policy.model.parameters(), strict=True):
            assert master.dtype == master.grad.dtype == torch.float32
            assert weight.dtype == torch.bfloat16
            assert torch.equal(weight, master.bfloat16())
    assert not torch.equal(policy.actor_vector(), start)
    policy.set_actor_vector(start)
    assert torch.equal(next(policy.model.parameters()), next(iter(policy.actor_parameters)).bfloat16())
    assert policy.outputs(rollout).dtype == torch.float32
    with pytest.raises(UsageError, match="bfloat16"):
        policy.linearize(rollout)


def test_bfloat16_gradients_are_added_in_float32():
    rollout = every_length()
    halves = [rollout.select(torch.arange(15)), rollout.select(torch.arange(15, 30))]

    def gradient(parts: list[Rollout]) -> list[Tensor]:
        policy = tiny("gpt2", "bfloat16")
        still = torch.optim.SGD(policy.actor_parameters, lr=0.0)
        policy.gradient_step(still, (squares(policy, part) for part in parts))
        return [parameter.grad for parameter in policy.actor_parameters]

    both, first, second = gradient(halves), gradient(halves[:1]), gradient(halves[1:])
    for found, one, other in zip(both, first, second, strict=True):
        assert torch.equal(found, one + other)
    assert any(not torch.equal(found, found.bfloat16().float()) for found in both)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_copy_stays(dtype):
    policy, rollout = tiny("gpt2", dtype), every_length()
    frozen = policy.frozen_copy()
    before = frozen.outputs(rollout)
    assert torch.equal(before, policy.outputs(rollout))
    assert frozen.masters is None
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert frozen.ledger is policy.ledger
    optimizer = torch.optim.Adam(policy.actor_parameters, lr=1e-2)
    policy.gradient_step(optimizer, [squares(policy, rollout)])
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert torch.equal(frozen.outputs(rollout), before)
    assert not torch.equal(policy.outputs(rollout), before)


def test_temperature_divides_the_logits():
    rollout = every_length()
    checks.close(tiny(temperature=2.5).outputs(rollout), tiny().outputs(rollout) / 2.5)


def questions(count: int = 64) -> list[list[int]]:
    """Some of them twice, of 1 to 6 tokens."""
    rng = np.random.default_rng(5)
    different = [tokens_of(1 + index % 6, rng) for index in range(count // 2 + 1)]
    return [different[index // 2] for index in range(count)]


def uniforms_for(prompts: list[list[int]]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(6).random((len(prompts), LIMIT)))


def sampled(policy: CausalLM, prompts: list[list[int]], uniforms: Tensor | None, **settings: Any) -> Completions:
    return complete(policy, prompts, uniforms, **{"limit": LIMIT, "end_token": END, "batch": 64} | settings)


@FAMILIES
def test_samples_do_not_depend_on_the_batch_or_the_cache(family):
    policy, prompts = tiny(family), questions()
    uniforms = uniforms_for(prompts)
    found = sampled(policy, prompts, uniforms)
    for batch in (1, 7):
        other = sampled(policy, prompts, uniforms, batch=batch)
        assert torch.equal(other.tokens, found.tokens)
        assert torch.equal(other.mask, found.mask)
        checks.close(other.log_probs, found.log_probs, EXACT[family])
    for row, prompt in enumerate(prompts):
        tokens = list(prompt)
        for column in range(int(found.mask[row].sum())):
            tokens.append(int(policy.act(torch.tensor([tokens]), uniforms[row, column].view(1))))
        assert tokens[len(prompt) :] == found.tokens[row][found.mask[row]].tolist()
    assert not found.tokens.is_inference()


@FAMILIES
def test_sampled_log_probs_are_those_of_the_policy(family):
    policy, prompts = tiny(family, temperature=1.3), questions()
    found = sampled(policy, prompts, uniforms_for(prompts))
    rollout = as_rollout(prompts, found, [0.0] * len(prompts), range(len(prompts)))
    checks.close(found.log_probs, log_probs(policy, rollout), EXACT[family])


def test_an_end_token_is_the_last_one_of_its_row():
    policy, prompts = tiny(), questions()
    found = sampled(policy, prompts, uniforms_for(prompts))
    lengths = found.mask.sum(1)
    assert len(lengths.unique()) > 2
    assert found.tokens.shape[1] == lengths.max()
    for tokens, log_prob, length in zip(found.tokens, found.log_probs, lengths):
        inside = tokens[:length]
        assert not (inside[:-1] == END).any()
        assert inside[-1] == END or length == LIMIT
        assert (tokens[length:] == END).all()
        assert not log_prob[length:].any()


@FAMILIES
def test_without_uniforms_the_most_likely_token(family):
    policy, prompts = tiny(family), questions(16)
    found = sampled(policy, prompts, None, batch=5)
    for row, prompt in enumerate(prompts):
        tokens = list(prompt)
        for column in range(int(found.mask[row].sum())):
            logits = policy.next_token_logits(torch.tensor([tokens]))
            assert found.tokens[row, column] == logits.argmax()
            assert policy.act_greedily(torch.tensor([tokens]), torch.zeros(1)) == logits.argmax()
            tokens.append(int(logits.argmax()))


def test_frequencies_are_the_probabilities():
    policy, count = tiny(), 10_000
    grid = (torch.arange(count, dtype=torch.float64) + 0.5).unsqueeze(1) / count
    found = sampled(policy, [[3, 5]] * count, grid, limit=1, batch=count)
    expected = policy.next_token_logits(torch.tensor([[3, 5]])).softmax(-1)[0] * count
    counts = torch.bincount(found.tokens[:, 0], minlength=VOCABULARY)
    assert ((counts - expected).abs() <= 1).all()


def test_the_live_rows_are_told_before_each_step():
    policy, prompts = tiny(), questions()
    heard: list[int] = []
    found = sampled(policy, prompts, uniforms_for(prompts), before_step=heard.append)
    assert heard == found.mask.sum(0).tolist()
    heard.clear()
    sampled(policy, prompts, uniforms_for(prompts), before_step=heard.append, batch=7)
    assert sum(heard) == found.mask.sum()


def test_the_listener_may_stop_the_sampling():
    policy, prompts = tiny(), questions()
    ledger = Ledger(Budget(samples=100))
    with pytest.raises(BudgetExhausted):
        sampled(policy, prompts, uniforms_for(prompts), before_step=ledger.charge_generated)
    assert ledger.samples == 64


# a uniform just below 1 rounds up to 1 in narrower types
@pytest.mark.parametrize("uniform", [0.99999999, 1 - 2**-53])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_an_impossible_last_token_is_never_taken(monkeypatch, dtype, uniform):
    policy = tiny("gpt2", dtype)
    logits = policy.logits

    def without_the_last(hidden: Tensor) -> Tensor:
        return logits(hidden).index_fill(-1, torch.tensor([VOCABULARY - 2, VOCABULARY - 1]), -torch.inf)

    monkeypatch.setattr(policy, "logits", without_the_last)
    prompts = questions()
    found = sampled(policy, prompts, torch.full((64, LIMIT), uniform, dtype=torch.float64))
    assert found.tokens.max() < VOCABULARY - 2
    assert found.log_probs.isfinite().all()
