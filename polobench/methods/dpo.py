"""Direct Preference Optimization: the policy itself is a reward model, fitted to pairs of responses.

    L(theta) = -E[ log sigmoid( beta ( log pi(y_w | x) / pi_ref(y_w | x) - log pi(y_l | x) / pi_ref(y_l | x) ) ) ]

y_w was preferred to y_l for the prompt x; log pi(y | x) is the sum over the response's tokens, the prompt's left out.

Source: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
equation 7.

Where pairs come from (`source`): the task's data set; or responses that the policy itself samples, ranked by the task's
reward, anew for every batch. That is online DPO, and labelled so (Guo et al. 2024, "Direct Language Model Alignment
from Online AI Feedback", with a verifier in place of the annotator). In control an episode is a response and its return
ranks it.

Variants:
- `label_smoothing` e > 0 is cDPO (Mitchell 2023): each label is wrong with probability e.
- Loss "ipo" is (h - 1 / (2 beta))^2 (Azar et al. 2024, equation 17), of log-ratios averaged over each response's
  tokens: the paper sums; its authors' experiments, and the peers, average.

Departures from the paper:
- All pairs of a ranked group count, not one pair per prompt.
- Each batch may be used in several `epochs`, and these divided into minibatches of whole groups.
- With `reference` "sampler" the log-ratios are against the policy that sampled the pairs, which moves at each batch. It
  is refused with one gradient step per batch: every margin would be 0, the loss ln 2, and beta without effect.
  "checkpoint" is the paper's fixed reference, and what data sets are always used with.
- Adam in place of RMSprop, no warm-up; the gradient's norm is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from polobench.core.errors import UsageError
from polobench.core.hyperparameters import RankedHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.optimization import Descent, Tally
from polobench.core.policy import Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout, minibatch_bounds
from polobench.core.seeding import SeedAxes
from polobench.core.task import Task
from polobench.objectives.preference import better_pairs, ipo_losses, logistic_losses, ranked_minibatches, tally_pairs
from polobench.objectives.reference import with_reference
from polobench.objectives.returns import masked_mean


@dataclass(frozen=True, kw_only=True)
class DPOHyperparameters(RankedHyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    reference: str = hyperparameter("checkpoint", "reference of sampled pairs", choices=("checkpoint", "sampler"))
    loss: str = hyperparameter("sigmoid", "loss function of a pair's margin", choices=("sigmoid", "ipo"))
    beta: float = hyperparameter(0.1, "strength of the pull towards the reference policy", low=1e-6)
    label_smoothing: float = hyperparameter(0.0, "probability that a label is wrong", low=0, high=0.5)


class DPO(Method[DPOHyperparameters]):
    """Trains on the pairs of a data set, or on pairs that the policy samples: online DPO.

    Raises:
        UsageError: the reference "sampler" with one gradient step per batch, on sampled pairs.
    """

    name = "dpo"

    @property
    def reads_data(self) -> bool:
        """Whether the pairs are a data set's."""
        return self.hp.source == "data" or (self.hp.source == "auto" and self.task.has_preferences)

    def default_label(self) -> str:
        return self.name if self.reads_data else f"online {self.name}"

    def check(self) -> None:
        hp = self.hp
        one_step = hp.epochs == 1 and len(minibatch_bounds(hp.n_groups, hp.minibatch_groups)) == 2
        if hp.reference == "sampler" and one_step and not self.reads_data:
            raise UsageError(
                "dpo: with reference 'sampler' and one gradient step per batch every margin is 0 (allowed: epochs from "
                "2, minibatch_groups below n_groups, or reference 'checkpoint')"
            )

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        descent = Descent(policy, policy.actor_parameters, hp.learning_rate, hp)
        shuffle = rng.numpy("minibatches")
        while True:
            descent.schedule(task.progress())
            batch = policy.prepare(task.ranked_groups(policy, hp.source, hp.n_groups, hp.group_size))
            if batch.reference_log_probs is None:
                reference = policy if hp.reference == "sampler" else task.reference_policy()
                batch = with_reference(reference, batch, hp.micro_batch)
            metrics = self.improve(policy, descent, batch, shuffle)
            metrics |= {"reward": float(batch.returns.mean()), "completion_length": batch.mean_length}
            yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def improve(
        self, policy: Policy, descent: Descent, batch: Rollout, shuffle: np.random.Generator
    ) -> dict[str, float]:
        """The gradient steps on the pairs of a batch; gives the mean of every metric over them."""
        return descent.fit(ranked_minibatches(batch, self.hp, shuffle), partial(self.losses, policy))

    def losses(self, policy: Policy, parts: list[Rollout], tally: Tally) -> Iterator[Tensor]:
        """The loss of each part, scalars that add up to the mean over all pairs."""
        pairs = [better_pairs(part.returns, part.groups) for part in parts]
        n_pairs, n_steps = sum(len(better) for better, _ in pairs), sum(part.n_samples for part in parts)
        tally.add(pairs=float(n_pairs))
        for part, (better, worse) in zip(parts, pairs, strict=True):
            assert part.reference_log_probs is not None
            outputs = policy.outputs(part)
            log_probs = policy.distribution.log_prob(outputs, part.actions) * part.mask
            log_ratios = (log_probs - part.reference_log_probs * part.mask).sum(1)
            losses, margins = self.pair_losses(log_ratios, part.mask.sum(1), better, worse)
            with torch.no_grad():
                tally_pairs(tally, margins, log_probs.sum(1), better, worse, n_pairs)
                entropy = masked_mean(policy.distribution.entropy(outputs), part.mask)
                tally.add(part.n_samples / n_steps, entropy=entropy)
            yield losses.sum() / n_pairs

    def pair_losses(self, log_ratios: Tensor, lengths: Tensor, better: Tensor, worse: Tensor) -> tuple[Tensor, Tensor]:
        """`[N]` losses, and `[N]` differences of the implicit rewards beta log(pi / pi_ref), in nats.

        Args:
            log_ratios: `[B]` summed over each response.
            lengths: `[B]` tokens in each response.
            better, worse: `[N]` indices.
        """
        hp = self.hp
        margins = hp.beta * (log_ratios[better] - log_ratios[worse])
        if hp.loss == "sigmoid":
            return logistic_losses(margins, hp.label_smoothing), margins
        means = log_ratios / lengths
        return ipo_losses(means[better] - means[worse], hp.beta), margins
