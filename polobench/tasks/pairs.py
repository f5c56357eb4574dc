"""Fixed preference pairs, and how likely a policy finds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polobench.core.rollout import Rollout
from polobench.objectives.preference import better_pairs
from polobench.policies.causal_lm import CausalLM

Columns = dict[str, list[float]]


@dataclass(frozen=True)
class PairSet:
    """The pairs of some ranked groups.

    Attributes:
        responses: `[B, T]` the responses, their returns the scores.
        better, worse: `[N]` the rows of each pair.
    """

    responses: Rollout
    better: Tensor
    worse: Tensor

    @classmethod
    def of(cls, responses: Rollout) -> PairSet:
        """Every pair that does not tie."""
        return cls(responses, *better_pairs(responses.returns, responses.groups))

    def columns(self, policy: CausalLM, batch: int) -> Columns:
        """A row a pair, as in `snapshots` of docs/results-format.md: log-probabilities in nats, lengths in tokens."""
        log_probs = row_log_probs(policy, self.responses, batch)
        lengths = self.responses.mask.sum(1)
        return {
            "prompt": self.responses.groups[self.better].tolist(),
            "chosen_log_prob": log_probs[self.better].tolist(),
            "rejected_log_prob": log_probs[self.worse].tolist(),
            "chosen_tokens": lengths[self.better].tolist(),
            "rejected_tokens": lengths[self.worse].tolist(),
        }


def row_log_probs(policy: CausalLM, rollout: Rollout, batch: int) -> Tensor:
    """`[B]` the log-probability of each row, in nats, `batch` rows at a time."""
    sums = []
    for part in rollout.split(batch):
        log_probs = policy.distribution.log_prob(policy.outputs(part), part.actions)
        sums.append((log_probs * part.mask).sum(1))
    return torch.cat(sums)


def accuracies(columns: Columns) -> tuple[float, float]:
    """The share of pairs whose chosen response is the likelier one: by the sum over its tokens, and by the mean."""
    means = _column(columns, "chosen_log_prob") / _column(columns, "chosen_tokens")
    means = means - _column(columns, "rejected_log_prob") / _column(columns, "rejected_tokens")
    return _share_above_zero(_gap(columns)), _share_above_zero(means)


def margin(columns: Columns, before: Columns) -> float:
    """How much more the log-probability of the chosen response rose than that of the rejected one, mean in nats.

    Args:
        columns, before: of the same pairs under the policy and under its reference.
    """
    return float((_gap(columns) - _gap(before)).mean())


def implicit_accuracy(columns: Columns, before: Columns) -> float:
    """The share of pairs whose chosen response has the larger implicit reward, log(pi / pi_ref) of all its tokens.

    Args:
        columns, before: as in `margin`.
    """
    return _share_above_zero(_gap(columns) - _gap(before))


def _gap(columns: Columns) -> Tensor:
    return _column(columns, "chosen_log_prob") - _column(columns, "rejected_log_prob")


def _column(columns: Columns, name: str) -> Tensor:
    return torch.tensor(columns[name], dtype=torch.float64)


def _share_above_zero(differences: Tensor) -> float:
    """A tie counts one half."""
    return float(((differences > 0).double() + 0.5 * (differences == 0)).mean())
