"""Advantage actor-critic (A2C): one gradient step on each short fragment, without a trust region.

    L = E[ -log pi(a | s) A + (R - V(s))^2 / 2 ],   A = R - V(s) held fixed,   R the return, V beyond the fragment's end

Source: Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", algorithm S3. Departures: synchronous
environments, Adam in place of RMSprop, no entropy bonus.
"""

from dataclasses import dataclass

import torch

from polobench import Method, Update
from polobench.core.hyperparameters import Hyperparameters, hyperparameter
from polobench.objectives.returns import generalized_advantages, masked_mean


@dataclass(frozen=True, kw_only=True)
class A2CHyperparameters(Hyperparameters):
    n_steps: int = hyperparameter(8, "steps of each of 8 environments per fragment", low=1)
    learning_rate: float = hyperparameter(3e-3, "Adam learning rate", low=0)


class A2C(Method[A2CHyperparameters]):
    """Synchronous, with a learned value function."""

    name = "a2c"

    def learn(self, task, rng):
        policy = task.make_policy(self.hp, critic=True)
        optimizer = torch.optim.Adam(policy.parameters(), lr=self.hp.learning_rate)
        while True:
            rollout = task.fragments(policy, 8, self.hp.n_steps)
            values, outputs = policy.values(rollout), policy.outputs(rollout)
            advantages = generalized_advantages(rollout, values.detach(), gamma=0.99, gae_lambda=1.0)
            errors = advantages + (values.detach() - values)[:, :-1]
            terms = errors**2 / 2 - policy.distribution.log_prob(outputs, rollout.actions) * advantages
            step = policy.gradient_step(optimizer, [masked_mean(terms, rollout.mask)], 0.5)
            yield Update(step.loss.item(), policy, {"gradient_norm": step.gradient_norm.item()})
