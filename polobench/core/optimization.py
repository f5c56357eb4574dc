"""How gradients are followed, once for all methods: Adam, its schedule, the clipping, and the steps on minibatches.

A minibatch is given in the parts of a pass (`Rollout.split`). A method gives the loss of each part; these add up to the
minibatch's loss, so that the parts' gradients add up to its gradient.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor, nn

from polobench.core.hyperparameters import GradientHyperparameters
from polobench.core.policy import GradientStep, Policy
from polobench.core.rollout import Rollout


class Tally:
    """The metrics of gradient steps, by name; numbers are read from tensors only at the end."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[float, Tensor | float]]] = defaultdict(list)

    def add(self, share: float = 1.0, **values: Tensor | float) -> None:
        """What a part adds to a step's metrics: its values times its share of the minibatch."""
        for name, value in values.items():
            self._seen[name].append((share, value if isinstance(value, float) else value.detach()))

    def extend(self, step: Tally) -> None:
        """Take in the metrics of a step."""
        for name, values in step._seen.items():
            self._seen[name] += values

    def means(self, steps: int) -> dict[str, float]:
        """Of each metric, over so many steps."""
        return {name: sum(share * float(value) for share, value in of) / steps for name, of in self._seen.items()}


Losses = Callable[[list[Rollout], Tally], Iterator[Tensor]]


class FarEnough(Exception):
    """Raised by a loss in place of its last part: this step is not made, and none after it."""


class Descent:
    """Adam on some of a policy's parameters, as the hyper-parameters say."""

    def __init__(
        self, policy: Policy, parameters: Sequence[nn.Parameter], learning_rate: float, hp: GradientHyperparameters
    ) -> None:
        self._policy, self._learning_rate, self._hp = policy, learning_rate, hp
        self._optimizer = policy.adam(parameters, lr=learning_rate, eps=hp.adam_eps)

    def schedule(self, progress: float) -> None:
        """Set the learning rate of an update that begins after this fraction of the budget."""
        left = 1.0 - progress if self._hp.learning_rate_schedule == "linear" else 1.0
        self._optimizer.param_groups[0]["lr"] = self._learning_rate * left

    def step(self, losses: Iterable[Tensor]) -> GradientStep:
        """One step down the gradient of the sum of `losses`."""
        return self._policy.gradient_step(self._optimizer, losses, self._hp.max_gradient_norm)

    def fit(self, minibatches: Iterable[list[Rollout]], losses: Losses) -> dict[str, float]:
        """A step on each minibatch; gives each metric's mean over the steps.

        Args:
            minibatches: each in its parts.
            losses: of the parts, scalars; tells the tally its metrics.
        """
        tally, steps = Tally(), 0
        for parts in minibatches:
            found = Tally()
            try:
                step = self.step(losses(parts, found))
            except FarEnough:
                break
            found.add(loss=step.loss, gradient_norm=step.gradient_norm)
            tally.extend(found)
            steps += 1
        return tally.means(steps) if steps else {"loss": math.nan}
