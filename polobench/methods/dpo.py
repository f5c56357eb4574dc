"""Direct Preference Optimization: the policy itself is a reward model, fitted to pairs of responses.

    L(theta) = -E[ log sigmoid( beta ( log pi(y_w | x) / pi_ref(y_w | x) - log pi(y_l | x) / pi_ref(y_l | x) ) ) ]

y_w was preferred to y_l for the prompt x; log pi(y | x) is the sum over the response's tokens, the prompt's left out.

Source: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
equation 7.

Where pairs come from (`source`): the task's data set; or responses that the policy itself samples, ranked by the task's
reward, sampled anew every `refresh_updates` updates (Guo et al. 2024, "Direct Language Model Alignment from Online AI
Feedback", with a verifier in place of the annotator). In control an episode is a response and its return ranks it.

Variants:
- `label_smoothing` e > 0 is cDPO (Mitchell 2023): each label is wrong with probability e.
- Loss "ipo" is (h - 1 / (2 beta))^2 (Azar et al. 2024, equation 17), of log-ratios averaged over each response's
  tokens: the paper sums; its authors' experiments, and the peers, average.

Departures from the paper:
- All pairs of a ranked group count, not one pair per prompt.
- With `reference` "sampler" the log-ratios are against the policy that sampled the pairs, which moves at each refresh.
  It is refused with one update per batch: every margin would be 0, the loss ln 2, and beta without effect.
  "checkpoint" is the paper's fixed reference, and what data sets are always used with.
- Adam in place of RMSprop, no warm-up; the gradient's norm is clipped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polobench.core.errors import UsageError
from polobench.core.hyperparameters import GroupHyperparameters, hyperparameter
from polobench.core.method import Method
from polobench.core.policy import Optimizer, Policy
from polobench.core.recorder import Update
from polobench.core.rollout import Rollout
from polobench.core.seeding import SeedAxes
from polobench.core.task import SOURCES, Task
from polobench.objectives.preference import better_pairs, ipo_losses, logistic_losses, with_reference


@dataclass(frozen=True, kw_only=True)
class DPOHyperparameters(GroupHyperparameters):
    """Fields as declared below; `polobench list methods --json` prints them."""

    source: str = hyperparameter("auto", "source of pairs; auto: data if any, else the policy", choices=SOURCES)
    refresh_updates: int = hyperparameter(1, "updates on each batch before the policy samples a new one", low=1)
    reference: str = hyperparameter("checkpoint", "reference of sampled pairs", choices=("checkpoint", "sampler"))
    loss: str = hyperparameter("sigmoid", "loss function of a pair's margin", choices=("sigmoid", "ipo"))
    beta: float = hyperparameter(0.1, "strength of the pull towards the reference policy", low=1e-6)
    label_smoothing: float = hyperparameter(0.0, "probability that a label is wrong", low=0, high=0.5)


class DPO(Method[DPOHyperparameters]):
    """Trains on the pairs of a data set, or on pairs that the policy samples and that are refreshed: online DPO.

    Raises:
        UsageError: the reference "sampler" with one gradient step per batch, on sampled pairs.
    """

    name = "dpo"

    def __init__(
        self, task: Task, device: str = "cpu", label: str | None = None, threads: int = 1, /, **hyperparameters: Any
    ) -> None:
        super().__init__(task, device, label, threads, **hyperparameters)
        hp = self.hp
        reads_data = hp.source == "data" or (hp.source == "auto" and task.has_preferences)
        if hp.reference == "sampler" and hp.refresh_updates == 1 and not reads_data:
            raise UsageError(
                "dpo: with reference 'sampler' and refresh_updates 1 every margin is 0 (allowed: refresh_updates from "
                "2, or reference 'checkpoint')"
            )

    def learn(self, task: Task, rng: SeedAxes) -> Iterator[Update]:
        hp = self.hp
        policy = task.make_policy(hp, critic=False)
        optimizer = policy.adam(policy.actor_parameters, lr=hp.learning_rate)
        while True:
            batch = task.ranked_groups(policy, hp.source, hp.n_groups, hp.group_size)
            is_data = batch.reference_log_probs is not None
            reference = policy if hp.reference == "sampler" else task.reference_policy()
            parts = [
                part if is_data else with_reference(reference, part)
                for part in policy.prepare(batch).split_groups(hp.micro_batch)
            ]
            for _ in range(1 if is_data else hp.refresh_updates):
                metrics = self.improve(policy, optimizer, parts)
                metrics |= {"reward": float(batch.returns.mean()), "completion_length": batch.mean_length}
                yield Update(loss=metrics.pop("loss"), policy=policy, metrics=metrics)

    def improve(self, policy: Policy, optimizer: Optimizer, parts: list[Rollout]) -> dict[str, float]:
        """One gradient step on the pairs of a batch; gives the metrics."""
        sums: dict[str, float | Tensor] = defaultdict(float)
        rows = sum(part.n_rows for part in parts)
        step = policy.gradient_step(optimizer, self.losses(policy, parts, sums), rows, self.hp.max_gradient_norm)
        metrics = {"loss": step.loss, "gradient_norm": step.gradient_norm} | sums
        return {name: float(value) for name, value in metrics.items()}

    def losses(self, policy: Policy, parts: list[Rollout], sums: dict[str, float | Tensor]) -> Iterator[Tensor]:
        """The loss of each part, scalars that add up to the mean over all pairs; adds the parts' metrics to `sums`."""
        pairs = [better_pairs(part.returns, part.groups) for part in parts]
        n_pairs, n_tokens = sum(len(better) for better, _ in pairs), sum(part.n_samples for part in parts)
        sums["pairs"] += n_pairs
        for part, (better, worse) in zip(parts, pairs, strict=True):
            assert part.reference_log_probs is not None
            outputs = policy.outputs(part)
            log_probs = policy.distribution.log_prob(outputs, part.actions) * part.mask
            log_ratios = (log_probs - part.reference_log_probs * part.mask).sum(1)
            losses, margins = self.pair_losses(log_ratios, part.mask.sum(1), better, worse)
            with torch.no_grad():
                sums["accuracy"] += (margins > 0).sum() / n_pairs
                sums["margin"] += margins.sum() / n_pairs
                sums["chosen_log_prob"] += log_probs.sum(1)[better].sum() / n_pairs
                sums["rejected_log_prob"] += log_probs.sum(1)[worse].sum() / n_pairs
                sums["entropy"] += (policy.distribution.entropy(outputs) * part.mask).sum() / n_tokens
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
