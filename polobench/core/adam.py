"""Adam and clipping in torch's kernels over lists of tensors, without what torch does around them at each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        self._of_one_type = [[item for item in parameters if item.dtype == kind] for kind in types]
        self._moments: dict[nn.Parameter, tuple[Tensor, Tensor, Tensor]] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        group = self.param_groups[0]
        for parameters in self._of_one_type:
            moving = [(item, item.grad, *self._moments_of(item)) for item in parameters if item.grad is not None]
            if moving:
                values, gradients, means, squares, steps = (list(column) for column in zip(*moving))
                torch._foreach_add_(steps, 1)
                torch._fused_adam_(
                    values, gradients, means, squares, [], steps,
                    lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"],
                    weight_decay=0.0, amsgrad=False, maximize=False,
                )  # fmt: skip

    def _moments_of(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, mean square and number of steps; from the first gradient on."""
        if parameter not in self._moments:
            steps = torch.zeros((), device=parameter.device)
            self._moments[parameter] = (torch.zeros_like(parameter), torch.zeros_like(parameter), steps)
        return self._moments[parameter]


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradient to this norm at most; gives the norm before, 0 where no parameter has a gradient."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
