"""The natural-gradient step under a KL bound: conjugate gradient and a backtracking line search.

Source: Schulman et al. 2015, "Trust Region Policy Optimization", section 6 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Solve A x = target for a symmetric positive definite A, given as `product(v) = A v`.

    Args:
        target: `[n]`.
        steps: at most this many products.
        tolerance: stop when the squared residual is below it.

    Returns:
        x `[n]`, and the scalar x'A x, for which the residual r = target - A x saves a product: x'(target - r).

    Source: Hestenes and Stiefel 1952.
    """
    solution, residual, direction = torch.zeros_like(target), target.clone(), target.clone()
    squared = residual @ residual
    for _ in range(steps):
        if squared < tolerance:
            break
        image = product(direction)
        length = squared / (direction @ image)
        solution += length * direction
        residual -= length * image
        squared, before = residual @ residual, squared
        direction = residual + squared / before * direction
    return solution, solution @ (target - residual)


@dataclass(frozen=True)
class LineSearch:
    """The accepted share of the full step (0 if none was) and the surrogate and KL [nats] where it ended."""

    fraction: float
    surrogate: float
    kl: float

    @property
    def accepted(self) -> bool:
        return self.fraction > 0


def backtracking_line_search(
    evaluate: Callable[[Tensor], tuple[float, float]],
    start: Tensor,
    full_step: Tensor,
    *,
    max_kl: float,
    backtracks: int,
    shrink: float,
) -> LineSearch:
    """The longest of `full_step` times 1, shrink, shrink^2, ... that improves the surrogate within the KL bound.

    Args:
        evaluate: moves the policy to parameters `[n]` and gives the surrogate's gain over `start` and KL(old || new).
        start: `[n]`; if no length will do, the policy is moved back to exactly these.
        full_step: `[n]`.
    """
    for attempt in range(backtracks + 1):
        fraction = shrink**attempt
        gain, kl = evaluate(start + fraction * full_step)
        if gain > 0 and kl <= max_kl:  # both False for NaN
            return LineSearch(fraction, gain, kl)
    evaluate(start)
    return LineSearch(0.0, 0.0, 0.0)
