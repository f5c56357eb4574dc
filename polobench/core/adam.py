"""Adam and clipping in torch's kernels over lists of tensors, without what torch does around them at each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)


class FusedAdam:
    """What `torch.optim.Adam(fused=True)` and `clip_grad_norm_` compute, bit for bit; the calls around their kernels
    cost a tiny model a tenth of an update.

    Source: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1.

    Args:
        parameters: on one device; those without a gradient are left as they are.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float, eps: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": lr, "betas": BETAS, "eps": eps}]
        types = {parameter.dtype for parameter in parameters}
        self._of_one_type = [_Moments([item for item in parameters if item.dtype == kind]) for kind in types]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        group = self.param_groups[0]
        for moments in self._of_one_type:
            values, gradients, means, squares, steps = moments.of_moving()
            if values:
                torch._fused_adam_(
                    values, gradients, means, squares, [], steps,
                    lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"],
                    weight_decay=0.0, amsgrad=False, maximize=False,
                )  # fmt: skip


class _Moments:
    """Mean gradients, mean squares and numbers of steps of parameters of one type."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._means, self._squares = ([torch.zeros_like(item) for item in parameters] for _ in range(2))
        self._counts = torch.zeros(len(parameters), device=parameters[0].device)
        self._steps = self._counts.unbind()  # views: one addition counts for all

    def of_moving(self) -> list[list[Any]]:
        """Values, gradients, means, mean squares and steps of the parameters with a gradient, whose steps now count."""
        moving = [item.grad is not None for item in self._parameters]
        self._counts += 1 if all(moving) else torch.tensor(moving, device=self._counts.device)
        gradients = [item.grad for item in self._parameters]
        columns = (self._parameters, gradients, self._means, self._squares, self._steps)
        return [list(compress(column, moving)) for column in columns]


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradient to this norm at most; gives the norm before, 0 where no parameter has a gradient."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if norm.is_cpu and norm + 1e-6 <= max_norm:  # the factor is 1; asking another device would wait for it
        return norm
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
