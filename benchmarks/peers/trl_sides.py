"""Our side and TRL's of the same DPO, GRPO and RLOO steps, on a tiny GPT-2 and on SmolLM2-135M.

Both sides start from the same weights and take whole steps of their own loops: reading or sampling a batch, reward,
gradient, clipping, Adam, and the metrics that each library computes at every step. TRL logs and saves nothing, and its
costly defaults are off: gradient checkpointing, bfloat16 (but where both sides use it), and a reference that runs at
each step. Where completions are sampled none can end early, since the end token lies beyond the model's vocabulary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import trl
from datasets import Dataset
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from benchmarks.peers.alternation import Alternation, Comparison, Start
from benchmarks.peers.worlds import NEW_TOKENS, PAIRS, PROMPT, TINY, World, pair_task, sampling_task, training_pairs
from polobench.cells.throughput import ThroughputProbe
from polobench.core.budget import Budget, Ledger
from polobench.core.errors import PoloError
from polobench.core.optimization import Tally
from polobench.core.rollout import Rollout
from polobench.methods.dpo import DPO
from polobench.methods.grpo import GRPO, token_weights
from polobench.methods.reinforce import Reinforce
from polobench.objectives.preference import group_advantages
from polobench.objectives.surrogates import score_function_objective
from polobench.policies.causal_lm import CausalLM
from polobench.policies.generation import Completions
from polobench.tasks.text import TextCodec, as_rollout

BETA = 0.1
OUR_SETTINGS: dict[str, Any] = {"learning_rate": 1e-4, "max_gradient_norm": 1.0}
THEIR_SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-4, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "weight_decay": 0.0,
    "gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "logging_strategy": "no",
    "save_strategy": "no", "disable_tqdm": True,
}  # fmt: skip


def ours(world: World) -> dict[str, Any]:
    return OUR_SETTINGS | {"compute_dtype": world.compute_dtype}


def theirs(world: World) -> dict[str, Any]:
    return THEIR_SETTINGS | {"bf16": world.compute_dtype == "bfloat16"}


def compare_dpo(start: Start, world: World = TINY) -> Comparison:
    """A step on the same 8 pairs of 13 + 16 tokens; both sides compute the reference's log-probabilities once."""
    groups, given = training_pairs(world), world.load()
    method = RecordedDPO(pair_task(world, groups), n_groups=PAIRS, beta=BETA, **ours(world))
    with ThroughputProbe(method, 0, 1) as probe, tempfile.TemporaryDirectory() as folder:
        alternation = start(probe.step, lambda: check_losses(world, method.losses_seen, trainer.losses_seen))
        rows = [{"prompt": g.prompt, "chosen": g.responses[0], "rejected": g.responses[1]} for g in groups]
        trainer = RecordedDPOTrainer(
            model=given.model,
            args=DPOConfig(
                folder,
                max_steps=alternation.total,
                beta=BETA,
                per_device_train_batch_size=PAIRS,
                precompute_ref_log_probs=True,
                train_sampling_strategy="sequential",
                max_length=None,
                **theirs(world),
            ),
            train_dataset=Dataset.from_list(rows * alternation.total),
            processing_class=given.tokenizer,
        )
        train(trainer, alternation)
    return comparison("DPO", world, alternation)


def comparison(work: str, world: World, alternation: Alternation) -> Comparison:
    dtype = "" if world.compute_dtype == "float32" else f", {world.compute_dtype}"
    seconds = alternation.ours_seconds, alternation.theirs_seconds
    return Comparison(f"{work}, {world.name}{dtype}", f"TRL {trl.__version__}", "steps", 1, world.goal, *seconds)


class RecordedDPO(DPO):
    """Keeps the loss of every step."""

    def __init__(self, *args: Any, **hyperparameters: Any) -> None:
        super().__init__(*args, **hyperparameters)
        self.losses_seen: list[float] = []

    def improve(self, *args: Any) -> dict[str, float]:
        metrics = super().improve(*args)
        self.losses_seen.append(metrics["loss"])
        return metrics


class RecordedDPOTrainer(DPOTrainer):
    """Keeps the loss of every step."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.losses_seen: list[Tensor] = []

    def compute_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().compute_loss(*args, **kwargs)
        self.losses_seen.append(loss.detach())
        return loss


def check_losses(world: World, mine: Sequence[float], others: Sequence[Tensor]) -> None:
    """Over the steps of the warm-up, so that gradients and Adam's steps are compared, too."""
    apart = max(abs(one - float(other)) for one, other in zip(mine, others, strict=True))
    if not apart <= world.tolerance:
        steps = f"the losses of the first {len(mine)} steps"
        raise PoloError(f"DPO: {steps} differ by {apart:.1e} (allowed: {world.tolerance})")


def compare_grpo(start: Start, world: World = TINY) -> Comparison:
    """A step on prompts of 16 tokens: completions of 16 tokens, reward, update; no reference, one epoch."""
    method = GRPO(
        sampling_task(world), n_groups=world.groups, group_size=world.group_size, divide_by_std=False, **ours(world)
    )

    def objective(policy: CausalLM, batch: Rollout) -> Tensor:
        advantages = group_advantages(batch.returns, batch.groups, divide_by_std=False)
        batch = batch.attach(
            advantages=advantages.unsqueeze(1).expand_as(batch.mask),
            weights=token_weights(batch.mask, "grpo", NEW_TOKENS),
        )
        return sum(method.losses(policy, world.rows, [batch], Tally()), torch.zeros(()))

    settings = {"scale_rewards": "none", "loss_type": "grpo"}
    return _compare_sampled("GRPO", world, method, objective, start, GRPOTrainer, GRPOConfig, settings)


def compare_rloo(start: Start, world: World = TINY) -> Comparison:
    """The same with REINFORCE and the leave-one-out baseline, whose loss TRL writes as a clipped ratio of 1."""
    settings = {"gamma": 1.0, "baseline": "leave_one_out"} | ours(world)
    method = Reinforce(sampling_task(world), n_episodes=world.rows, group_size=world.group_size, **settings)

    def objective(policy: CausalLM, batch: Rollout) -> Tensor:
        returns, baseline = method.returns_and_baseline(policy, batch, batch.rewards)
        log_probs = policy.distribution.log_prob(policy.outputs(batch), batch.actions)
        return -score_function_objective(log_probs, returns - baseline, batch.mask, world.rows)

    return _compare_sampled("RLOO", world, method, objective, start, RLOOTrainer, RLOOConfig, {})


def _compare_sampled(
    work: str,
    world: World,
    method: Any,
    objective: Callable[[CausalLM, Rollout], Tensor],
    start: Start,
    trainer_class: Any,
    config_class: Any,
    settings: dict[str, Any],
) -> Comparison:
    """Steps of a method that samples, beside those of a trainer of TRL's; `objective` is our loss of a batch."""
    given = world.endless()
    with ThroughputProbe(method, 0, 1) as probe, tempfile.TemporaryDirectory() as folder:
        alternation = start(probe.step, lambda: check_gradient(work, world, objective, trainer, probe.samples))
        trainer = _recorded(trainer_class)(
            model=given.model,
            reward_funcs=world.first_half_share,
            args=config_class(
                folder,
                max_steps=alternation.total,
                per_device_train_batch_size=world.rows,
                steps_per_generation=1,
                num_generations=world.group_size,
                num_iterations=1,
                max_completion_length=NEW_TOKENS,
                beta=0.0,
                **settings,
                **theirs(world),
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in world.texts(1_000, PROMPT, "prompts")]),
            processing_class=given.tokenizer,
        )
        train(trainer, alternation)
    return comparison(work, world, alternation)


def _recorded(trainer_class: Any) -> Any:
    class Recorded(trainer_class):  # type: ignore[misc]
        """Keeps batch and gradient of the first step."""

        first: tuple[dict[str, Any], Tensor] | None = None

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
            loss: Tensor = super()._compute_loss(model, inputs)
            if self.first is None:
                gradient = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
                self.first = (inputs, parameters_to_vector(gradient))
            return loss

    return Recorded


def check_gradient(
    work: str, world: World, objective: Callable[[CausalLM, Rollout], Tensor], trainer: Any, samples: Sequence[int]
) -> None:
    """On TRL's first batch, from the same weights; the losses themselves differ by constants where a ratio is 1."""
    assert trainer.first is not None
    inputs, gradient = trainer.first
    wanted = world.rows * NEW_TOKENS
    tokens = {wanted, int(inputs["completion_mask"].sum()), *samples}
    if len(tokens) > 1:
        raise PoloError(f"{work}: the steps are of {sorted(tokens)} tokens (allowed: {wanted})")
    given = world.endless()
    policy = CausalLM(given.model, compute_dtype=world.compute_dtype)
    policy.ledger = Ledger(Budget(updates=1))
    objective(policy, batch_of(world, given.tokenizer, inputs)).backward()  # type: ignore[no-untyped-call]
    found = parameters_to_vector([weight.grad for weight in policy.actor_parameters])
    apart = float((found - gradient).norm() / gradient.norm())
    if not apart <= world.tolerance:
        raise PoloError(f"{work}: the gradients of one batch differ by {apart:.1e} (allowed: {world.tolerance})")


def batch_of(world: World, tokenizer: Any, inputs: dict[str, Any]) -> Rollout:
    """TRL's batch as one of ours, with our own reward."""
    prompts, mask = inputs["prompt_ids"].tolist(), inputs["completion_mask"].bool()
    codec = TextCodec(tokenizer)
    texts = [codec.text(row) for row in inputs["completion_ids"].tolist()]
    groups = {prompt: number for number, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    completions = Completions(inputs["completion_ids"], mask, torch.zeros(mask.shape))
    rewards = world.first_half_share(texts, texts)
    return as_rollout(prompts, completions, rewards, [groups[tuple(prompt)] for prompt in prompts])


class InTurns(TrainerCallback):
    """Takes a step of ours between the trainer's."""

    def __init__(self, alternation: Alternation) -> None:
        self._alternation = alternation

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._alternation.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._alternation.after_step()


def train(trainer: Any, alternation: Alternation) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(InTurns(alternation))
    trainer.train()
