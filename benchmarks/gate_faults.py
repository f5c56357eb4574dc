"""Faults that the gate must see, each planted in the sound code of a method while a context is open.

They are small, as real ones are: a sign, a constant, a forgotten term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from polobench.core.method import Method
from polobench.core.policy import Policy
from polobench.core.rollout import Rollout
from polobench.methods import dpo, grpo, ppo, trpo
from polobench.objectives.returns import generalized_advantages
from polobench.objectives.surrogates import clipped_objective, clipped_terms
from polobench.objectives.trust_region import LineSearch, backtracking_line_search

LEARNING_RATE_FACTOR = 10.0


@dataclass(frozen=True)
class Fault:
    """What is planted, and in which arm it has to be seen.

    Attributes:
        layer: of the gate that has to see it: a key of `polobench.gate.compare.LAYERS`.
        label, task: the arm of the study `ci`.
        plant: opens the context in which the fault stands.
        change: of the method of a cell, before it runs.
    """

    layer: str
    label: str
    task: str
    plant: Callable[[], Any]
    change: Callable[[Method], None] = lambda method: None


def _with_larger_steps(method: Method) -> None:
    method.hp = replace(method.hp, learning_rate=LEARNING_RATE_FACTOR * method.hp.learning_rate)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _patched(*places: tuple[object, str, object]) -> Callable[[], Any]:
    @contextmanager
    def planted() -> Iterator[None]:
        with ExitStack() as stack:
            for where, name, fault in places:
                stack.enter_context(patch.object(where, name, fault))
            yield

    return planted


def _flipped(objective: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrong(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *rest: Any) -> Tensor:
        return objective(log_probs, old_log_probs, -advantages, *rest)

    return wrong


def _without_reference(reference: Policy, rollout: Rollout, size: int | None) -> Rollout:
    return rollout.attach(reference_log_probs=torch.zeros_like(rollout.rewards))


_sound_fixed_log_probs = grpo.GRPO.with_fixed_log_probs


def _without_kl_term(self: grpo.GRPO, policy: Policy, reference: Policy | None, rows: Rollout) -> Rollout:
    return _sound_fixed_log_probs(self, policy, None, rows)


def _truncation_as_termination(rollout: Rollout, *rest: Any) -> Tensor:
    return generalized_advantages(replace(rollout, terminated=rollout.terminated | rollout.truncated), *rest)


def _lambda_ignored(rollout: Rollout, values: Tensor, gamma: float, gae_lambda: float, *rest: Any) -> Tensor:
    return generalized_advantages(rollout, values, gamma, 1.0, *rest)


def _without_restore(evaluate: Any, start: Tensor, full_step: Tensor, **rest: Any) -> LineSearch:
    """Whatever the search tries last stays where it is."""
    tried = []

    def remembered(parameters: Tensor) -> tuple[float, float]:
        tried.append(parameters)
        return (0.0, 0.0) if parameters is start else evaluate(parameters)

    return backtracking_line_search(remembered, start, full_step, **rest)


def _with_one_more_pass(improve: Callable[..., Any], rows_at: int) -> Callable[..., Any]:
    def wrong(self: Method, policy: Policy, *rest: Any) -> Any:
        with torch.no_grad():
            policy.outputs(rest[rows_at])
        return improve(self, policy, *rest)

    return wrong


CARTPOLE, DIGITS = "CartPole-v1", "sort-digits"
FAULTS: Mapping[str, Fault] = {
    "learning rate x10, ppo": Fault("learning", "ppo", CARTPOLE, _nothing, _with_larger_steps),
    "learning rate x10, grpo": Fault("learning", "grpo", DIGITS, _nothing, _with_larger_steps),
    "advantage sign flipped, ppo": Fault(
        "learning", "ppo", CARTPOLE, _patched((ppo, "clipped_objective", _flipped(clipped_objective)))
    ),
    "advantage sign flipped, grpo": Fault(
        "learning", "grpo", DIGITS, _patched((grpo, "clipped_terms", _flipped(clipped_terms)))
    ),
    "DPO without reference": Fault("learning", "dpo", DIGITS, _patched((dpo, "with_reference", _without_reference))),
    "KL term dropped": Fault(
        "learning", "grpo, KL term", DIGITS, _patched((grpo.GRPO, "with_fixed_log_probs", _without_kl_term))
    ),
    "truncation as termination, ppo": Fault(
        "fixed batch", "ppo", CARTPOLE, _patched((ppo, "generalized_advantages", _truncation_as_termination))
    ),
    "truncation as termination, trpo": Fault(
        "fixed batch", "trpo", CARTPOLE, _patched((trpo, "generalized_advantages", _truncation_as_termination))
    ),
    "lambda ignored, ppo": Fault(
        "fixed batch", "ppo", CARTPOLE, _patched((ppo, "generalized_advantages", _lambda_ignored))
    ),
    "lambda ignored, trpo": Fault(
        "fixed batch", "trpo", CARTPOLE, _patched((trpo, "generalized_advantages", _lambda_ignored))
    ),
    "line search without restore": Fault(
        "fixed batch", "trpo, step that fails", CARTPOLE, _patched((trpo, "backtracking_line_search", _without_restore))
    ),
    "one extra forward pass, ppo": Fault(
        "cost", "ppo", CARTPOLE, _patched((ppo.PPO, "improve", _with_one_more_pass(ppo.PPO.improve, 1)))
    ),
    "one extra forward pass, trpo": Fault(
        "cost", "trpo", CARTPOLE, _patched((trpo.TRPO, "improve", _with_one_more_pass(trpo.TRPO.improve, 0)))
    ),
    "one extra forward pass, grpo": Fault(
        "cost", "grpo", DIGITS, _patched((grpo.GRPO, "improve", _with_one_more_pass(grpo.GRPO.improve, 2)))
    ),
}
