"""Advantages that are rounding give TRPO no direction: its step is as long for a tiny gradient as for a large one."""

import pytest
import torch

from polobench.methods.trpo import beyond_rounding


@pytest.mark.parametrize(("size", "is_kept"), [(1e-6, False), (1e-4, True), (1.0, True)])
def test_advantages_within_the_rounding_of_the_values_are_zero(size: float, is_kept: bool) -> None:
    values = torch.full((2, 4), 10.0)
    advantages = size * torch.tensor([[1.0, -1.0, 0.5], [0.0, 0.2, -0.3]])
    assert torch.equal(beyond_rounding(advantages, values), advantages if is_kept else torch.zeros(2, 3))
