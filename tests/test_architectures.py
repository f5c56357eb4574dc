"""Tiny models of many architectures: read as they are, or refused by name; docs/architectures.md says which."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("trl")

import architectures
import transformers
from architectures import ARCHITECTURES, TABLE, TOLERANCE, Outcome, made, outcome

from polobench.core.budget import Budget, Ledger
from polobench.policies import reading
from polobench.policies.causal_lm import CausalLM
from polobench.policies.reading import Head, Reading

NEEDED = {
    "Llama", "Qwen2", "Qwen3", "Gemma", "Gemma 2", "Gemma 3 (text)", "Mistral, window of 4", "Phi-3", "GPT-2", "OLMo 2",
    "Granite", "Cohere",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    transformers.logging.set_verbosity_error()


def written() -> dict[str, str]:
    """The rows of the table by architecture, each without the difference."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    return {line.split("|")[1].strip(): line.rsplit("|", 2)[0] + "|" for line in lines}


found = cache(outcome)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_architecture_does_what_the_table_says(name: str) -> None:
    got = found(name)
    assert got.refused or got.agrees, got
    assert "\n" not in got.refused
    assert written()[name] == got.row(name)


def test_the_table_has_all_and_most_agree() -> None:
    rows = written()
    assert set(rows) == set(ARCHITECTURES)
    assert len(rows) >= 40
    agree = {name for name, row in rows.items() if "| agrees |" in row}
    assert len(agree) >= 32
    assert agree >= NEEDED
    assert all(
        float(line.split("|")[-2]) <= TOLERANCE for line in TABLE.read_text().splitlines() if "| agrees |" in line
    )


def planted(name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Outcome:
    """The outcome with a reading that is wrong."""
    right = reading.self_test(made(name), name)
    wrong = Reading(**(vars(right) | changes))
    assert wrong != right
    monkeypatch.setattr("polobench.policies.causal_lm.self_test", lambda *of: wrong)
    return outcome(name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [("Granite", {"bare_head": True}), ("Cohere", {"bare_head": True}), ("Gemma 2", {"bare_head": True}),
     ("Gemma 2", {"pads": True}), ("RWKV", {"cache": "own"})],
)  # fmt: skip
def test_a_wrong_reading_differs(name: str, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert planted(name, monkeypatch, **fault).difference > 100 * TOLERANCE


def test_a_preallocated_cache_is_wrong_where_layers_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        off = planted("Gemma 4 (text)", monkeypatch, cache="preallocated").difference
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return
    assert off > 100 * TOLERANCE


def test_a_scale_that_is_skipped_is_off_by_its_size() -> None:
    model = made("Granite")
    policy = CausalLM(copy.deepcopy(model), compute_dtype="float64")
    hidden = torch.randn(3, 32, dtype=torch.float64)
    bare, own = Head(policy.model, bare=True)(hidden), Head(policy.model, bare=False)(hidden)
    torch.testing.assert_close(bare, own * 8.0)


@pytest.mark.parametrize("name", ["Gemma 3 (images, too)", "GPT-2"])
def test_gradients_of_what_a_text_does_not_use_are_0(name: str) -> None:
    policy, rollout = CausalLM(made(name), compute_dtype="float64"), architectures.pairs()
    policy.ledger = Ledger(Budget(updates=1))
    gradient = policy.actor_gradient([policy.outputs(rollout).log_softmax(-1)[..., 5].mean()])
    product = policy.fisher_product([rollout], damping=0.0)
    images = torch.cat([torch.full((p.numel(),), "vision" in n) for n, p in policy.model.named_parameters()])
    assert images.any() == (name != "GPT-2")
    for found in (gradient, product(policy.actor_vector())):
        assert found[~images].any()
        assert not found[images].any()


def test_a_difference_that_is_no_number_is_seen() -> None:
    nothing = torch.full((3,), torch.nan)
    assert architectures.off(nothing, torch.ones(3)) == float("inf")
    assert reading._difference(nothing, torch.zeros(3)) == float("inf")
