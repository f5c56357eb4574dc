"""What holds for every `Rollout` that a task hands out, `[B, T]`."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from polobench.core.policy import Policy, unmetered
from polobench.core.rollout import Rollout


def check_shapes(name: str, rollout: Rollout) -> None:
    """`[B, T]`, the right types, nothing infinite."""
    shape = tuple(rollout.mask.shape)
    assert len(shape) == 2, f"the mask of `{name}` has the shape {shape} (allowed: [B, T])"
    state = tuple(rollout.observations.shape[2:])
    expected = {
        "rewards": shape, "terminated": shape, "truncated": shape, "groups": shape[:1],
        "observations": (*shape, *state), "final_observations": (*shape[:1], *state),
        "actions": (*shape, *rollout.actions.shape[2:]),
    }  # fmt: skip
    for column, wanted in expected.items():
        found = tuple(getattr(rollout, column).shape)
        assert found == wanted, f"{column} of `{name}` has the shape {found} (allowed: {wanted})"
    dtypes = {"terminated": torch.bool, "truncated": torch.bool, "mask": torch.bool, "groups": torch.long}
    for column, dtype in dtypes.items():
        given = getattr(rollout, column).dtype
        assert given == dtype, f"{column} of `{name}` is of {given} (allowed: {dtype})"
    assert rollout.rewards.is_floating_point(), f"rewards of `{name}` are of {rollout.rewards.dtype} (allowed: floats)"
    for column in ("observations", "final_observations", "actions", "rewards"):
        assert bool(torch.isfinite(getattr(rollout, column)).all()), f"{column} of `{name}` are not finite"
    if rollout.prompts is not None:
        _check_prompts(name, rollout)


def _check_prompts(name: str, rollout: Rollout) -> None:
    assert rollout.prompts is not None
    assert rollout.prompt_mask is not None, f"`{name}` has prompts and no prompt_mask"
    mask = rollout.prompt_mask
    assert mask.shape == rollout.prompts.shape, f"prompts and prompt_mask of `{name}` differ in shape"
    assert bool((mask[:, 1:] >= mask[:, :-1]).all()), f"prompts of `{name}` are padded elsewhere than on the left"
    assert bool(mask[:, -1].all()), f"a prompt of `{name}` is empty"
    follows = torch.equal(rollout.prompts[:, -1], rollout.observations[:, 0])
    assert follows, f"the first observation of `{name}` is not its prompt's last token"


def check_mask(name: str, rollout: Rollout) -> None:
    """Masked is what follows an episode's end, its autoreset step or padding, and nothing else."""
    mask, ended = rollout.mask, ends(rollout)
    assert rollout.n_samples, f"`{name}` holds no sample"
    assert not bool((ended & ~mask).any()), f"`{name}` ends an episode in a masked step"
    assert not bool((ended[:, :-1] & mask[:, 1:]).any()), f"the step after an episode's end is not masked in `{name}`"
    reason = ended[:, :-1] | ~mask[:, :-1]
    assert not bool((~mask[:, 1:] & ~reason).any()), f"`{name}` masks a step within an episode"
    units = rollout.rows().n_samples
    assert units == rollout.n_samples, f"`rows()` of `{name}` holds {units} samples of {rollout.n_samples}"


def check_episodes(rollout: Rollout, groups: int, size: int, horizon: int) -> None:
    """One whole episode per row, `size` rows per group from one start state."""
    mask, ended = rollout.mask, ends(rollout)
    numbers = [row // size for row in range(groups * size)]
    found = rollout.groups.tolist()
    assert found == numbers, f"groups of `episodes` are {found} (allowed: {numbers})"
    assert bool(mask[:, 0].all()), "a row of `episodes` begins with a masked step"
    assert bool((mask[:, :-1] >= mask[:, 1:]).all()), "a row of `episodes` goes on after its end"
    count = ended.sum(1).tolist()
    assert set(count) == {1}, f"rows of `episodes` end {count} times (allowed: once)"
    longest = int(mask.sum(1).max())
    assert longest <= horizon, f"an episode has {longest} steps, and the task's horizon is {horizon}"
    for start in (rollout.observations[:, 0], rollout.prompts):
        if start is not None:
            grouped = start.view(groups, size, *start.shape[1:])
            assert bool((grouped == grouped[:, :1]).all()), "rows of one group do not share their start state"


def check_readable(name: str, rollout: Rollout, policy: Policy) -> None:
    """The task's own policy gives outputs `[B, T, P]`, log-probabilities `[B, T]` and values `[B, T + 1]` of it."""
    rows, columns = rollout.mask.shape
    with torch.no_grad(), unmetered(policy):
        outputs, values = policy.outputs(rollout), policy.values(rollout)
        log_probs = policy.distribution.log_prob(outputs, rollout.actions)
    found = {"outputs": tuple(outputs.shape[:-1]), "log_prob": tuple(log_probs.shape), "values": tuple(values.shape)}
    wanted = {"outputs": (rows, columns), "log_prob": (rows, columns), "values": (rows, columns + 1)}
    assert found == wanted, f"what the policy gives of `{name}` has the shapes {found} (allowed: {wanted})"
    assert bool(torch.isfinite(log_probs[rollout.mask]).all()), f"the policy finds an action of `{name}` impossible"


def ends(rollout: Rollout) -> Tensor:
    """`[B, T]` the steps that end an episode."""
    return rollout.terminated | rollout.truncated


def differing(one: Rollout, other: Rollout) -> list[str]:
    """The columns in which two rollouts are not the same bits."""
    names = [field.name for field in dataclasses.fields(Rollout)]
    return [name for name in names if not _same(getattr(one, name), getattr(other, name))]


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other or one == other
