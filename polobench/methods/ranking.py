"""Ranking: the policy's log-probabilities of several responses are fitted to their order, held by a KL penalty.

    all pairs:       L = -mean over y_i better than y_j of log sigmoid( beta (s_i - s_j) )  +  c KL
    Plackett-Luce:   L = -mean over groups of sum_k log( exp(beta s_k) / sum_(l = k or worse) exp(beta s_l) )  +  c KL
    s_i = log pi(y_i | x),   KL = mean over the responses' tokens of KL( pi(. | x, y_<t) || pi_ref(. | x, y_<t) )

This is a sound version of what the source article calls GRPO (polobench/article/grpo.py). It has no sampled advantage
and no clipped ratio, so it is not GRPO; its KL is one between distributions.

Sources: Yuan et al. 2023, "RRHF: Rank Responses to Align Language Models with Human Feedback", section 3 (ranking by
the policy's own log-probabilities); Burges et al. 2005, "Learning to Rank using Gradient Descent", section 3 (the
pairwise logistic loss); Plackett 1975, "The Analysis of Permutations".

Departures:
- RRHF uses a hinge and adds a likelihood term on the best response; here the KL keeps the policy a language model.
- The KL is taken over the whole vocabulary, at the states of the ranked responses, which the policy did not visit
  itself where they come from a data set.
- Tied responses do not compete with each other in Plackett-Luce.
- Adam, and the gradient's norm is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from polobench.core.hyperparameters import RankedHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.optimization import Descent, Tally
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.preference import (
    better_pairs,
    logistic_losses,
    plackett_luce_losses,
    ranked_minibatches,
    tally_pairs,
)
from polobench.objectives.returns import masked_mean


@dataclass(frozen=True, kw_only=True)
class RankingHyperparameters(RankedHyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    loss: str = hyperparameter("pairwise", "loss function of a ranked group", choices=("pairwise", "plackett_luce"))
    score: str = hyperparameter("sum", "value of a response from its log-probabilities", choices=("sum", "mean"))
    beta: float = hyperparameter(1.0, "factor on the responses' values", low=1e-6)
    kl_coef: float = hyperparameter(0.02, "weight of the KL to the reference policy", low=0)


class Ranking(Method[RankingHyperparameters]):
    """Trains on ranked groups of a data set, or of the policy's own responses."""

    name = "ranking"

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        descent = Descent(policy, policy.actor_parameters, hp.learning_rate, hp)
        shuffle, losses = rng.numpy("minibatches"), partial(self.losses, policy, task.reference_policy())
        while True:
            descent.schedule(task.progress())
            batch = task.ranked_groups(policy, hp.source, hp.n_groups, hp.group_size)
            metrics = descent.fit(ranked_minibatches(batch, hp, shuffle), losses)
            metrics |= {"reward": float(batch.returns.mean()), "completion_length": batch.mean_length}
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def losses(self, policy: Policy, reference: Policy, parts: list[Rollout], tally: Tally) -> Iterator[Tensor]:
        """The loss of each part, scalars that add up to the minibatch's."""
        pairs = [better_pairs(part.returns, part.groups) for part in parts]
        n_pairs, n_steps = sum(len(better) for better, _ in pairs), sum(part.n_samples for part in parts)
        n_groups = sum(len(set(part.groups.tolist())) for part in parts)
        for part, (better, worse) in zip(parts, pairs, strict=True):
            outputs, share = policy.outputs(part), part.n_samples / n_steps
            log_probs = (policy.distribution.log_prob(outputs, part.actions) * part.mask).sum(1)
            values = self.hp.beta * (log_probs if self.hp.score == "sum" else log_probs / part.mask.sum(1))
            margins = values[better] - values[worse]
            if self.hp.loss == "pairwise":
                loss = logistic_losses(margins).sum() / n_pairs
            else:
                loss = plackett_luce_losses(values, part.returns, part.groups).sum() / n_groups
            with torch.no_grad():
                fixed = reference.outputs(part)
            kl = masked_mean(policy.distribution.kl(outputs, fixed), part.mask)
            with torch.no_grad():
                tally_pairs(tally, margins, log_probs, better, worse, n_pairs)
                entropy = masked_mean(policy.distribution.entropy(outputs), part.mask)
                tally.add(share, kl_to_reference=kl, entropy=entropy)
            yield loss + self.hp.kl_coef * share * kl
