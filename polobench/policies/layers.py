"""Layers whose first weights draw nothing from torch's global generator."""

from __future__ import annotations

import torch
from torch import nn


def blank_linear(width_in: int, width_out: int, device: torch.device | str = "cpu") -> nn.Linear:
    """A linear layer to be filled; `to_empty` and `skip_init` would load sympy, in half a second."""
    linear = nn.Linear(width_in, width_out, device="meta")
    for name, parameter in list(linear.named_parameters()):
        setattr(linear, name, nn.Parameter(torch.empty(parameter.shape, device=device)))
    return linear
