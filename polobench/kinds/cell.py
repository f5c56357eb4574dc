"""A cell: one run that a study asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polobench.core.budget import Budget
from polobench.kinds.kind import Kind
from polobench.kinds.learning import Learning

PROBE = "probe"


@dataclass(frozen=True)
class Cell:
    """One run that a study asks for.

    Attributes:
        overrides: the hyper-parameters that the study sets by hand. The others are the task's tuned values
            (`methods/tuned.toml`) or, unless `tuned`, the method's defaults.
        environment: what the study says of the task beside its name (`kinds/environment.py`); mostly nothing.
        timeout_seconds, memory_mib: limits of the cell's process and its children, above which they are ended.
        plan: the kind of the cell, and what a cell of this kind is to do.
        split: "tuning" where it is a tuning trial, evaluated on what is never reported.
        study, probe, smoke: the study's name, and whether it calls this a probe or a smoke run; for the record, they
            define nothing.
        facts: what else its provenance says of it: the study's `looks`, or which trial it is; they define nothing.
        number: its place in the whole study, by which a worker on another machine finds it; it defines nothing.
    """

    method: str
    label: str
    task: str
    seed: int
    device: str
    budget: Budget
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    threads: int = 1
    timeout_seconds: float | None = None
    memory_mib: float | None = None
    plan: Kind = field(default_factory=Learning)
    tuned: bool = True
    environment: Mapping[str, Any] = field(default_factory=dict, hash=False)
    split: str = "heldout"
    study: str = field(default="", compare=False)
    probe: bool = field(default=False, compare=False)
    smoke: bool = field(default=False, compare=False)
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    number: int = field(default=0, compare=False)

    @property
    def kind(self) -> str:
        """The kind's name."""
        return self.plan.name

    @property
    def part(self) -> str:
        """What `polobench run --only` calls it: its kind, or a probe, which learns and has a known answer."""
        return PROBE if self.probe and self.plan.learns else self.kind

    def __str__(self) -> str:
        return f"{self.label} · {self.task} · {self.plan.title(self.seed)} · {self.device}"
