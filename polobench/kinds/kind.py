"""What a kind of cell is. A new kind is a module beside this one, its running half in `cells/`, and a line in table.py.

Nothing here loads torch, so that studies and results can be read without it; `running` is loaded when a cell is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Self

from polobench.core.budget import Budget
from polobench.core.result import RunResult

ASSUMED_SAMPLES_PER_SECOND = 4000
ASSUMED_OVERHEAD_SECONDS = 5.0
DRAWN_METRICS = ("loss", "kl", "episode_return")
DRAWN = ("samples", *DRAWN_METRICS)


@dataclass(frozen=True)
class Kind(ABC):
    """A kind of cell; an instance is what one cell is to do, its fields what the study says of that.

    A field that compares is part of the cell's id.

    Attributes:
        name: of the kind, as results store it.
        grid_key: the key of a study's [[grid]] that asks for such cells.
        running: "module:class" of the running half, a `polobench.cells.job.Job`.
        runs_alone: nothing else may run on the machine meanwhile.
        defining: what defines the cell beside its arm, seed and settings: keys of the kind's own part of a result, by
            their names in words.
        learns: the cell is a whole run, which has a return and a budget that the study sets.
        every_seed: such cells run on each of the grid's seeds; others on the first.
    """

    name: ClassVar[str]
    grid_key: ClassVar[str]
    running: ClassVar[str]
    runs_alone: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    every_seed: ClassVar[bool] = False
    defining: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def asked(cls, grid: Mapping[str, Any], folder: Path) -> list[Self]:
        """What each method of a [[grid]] is to do on each task, from the value under `grid_key`.

        Stored batches lie in the study's `folder`. Raises `UsageError`, in one line, for a wrong value.
        """

    @abstractmethod
    def budget(self, asked: Budget) -> Budget:
        """What a cell may use; `asked` is the grid's budget."""

    @abstractmethod
    def title(self, seed: int) -> str:
        """What tells the cell from others of its method and task, in words."""

    def test_id(self, seed: int, budget: Budget) -> list[str]:
        """What tells the cell's test from others of its method, task and device."""
        return []

    @property
    def timed_rounds(self) -> int:
        """How many of the cell's steps are timed one by one; 0 where the cell is timed as a whole."""
        return 0

    def job(self, task: Any) -> Any:
        """The running half of this cell, with whatever files it reads."""
        return resolve_name(self.running)(self, task)

    def describe(self, result: RunResult, hashes: Mapping[str, str]) -> None:  # noqa: B027 (most note nothing)
        """Note in a result that has no numbers yet what was asked for; `hashes` are those of the stored files."""

    def seconds(self, budget: Budget, samples_per_second: float | None) -> float:
        """How long the cell is expected to take, evaluations left out; the rate is what the store has measured."""
        wanted = self.expected_samples(budget) / (samples_per_second or ASSUMED_SAMPLES_PER_SECOND)
        limit = wanted if budget.seconds is None else budget.seconds
        return (min(wanted, limit) if wanted else limit) + ASSUMED_OVERHEAD_SECONDS

    def expected_samples(self, budget: Budget) -> int:
        """How many samples the cell is expected to take; 0 if nobody knows."""
        return 0

    @classmethod
    def problems(cls, result: RunResult) -> Iterator[str]:
        """What is wrong with the part of a result that is the kind's own, key by key."""
        return iter(())

    @classmethod
    def definition(cls, result: RunResult) -> dict[str, object]:
        """What defines the cell beside its arm, seed and settings, by its name in words."""
        own = getattr(result, cls.name, result.measured)
        return {words: own.get(key) for words, key in cls.defining.items()}

    @classmethod
    def variant(cls, result: RunResult) -> str:
        """What tells results of one arm and seed apart, such as the policy that it is measured at."""
        return ""

    @classmethod
    def trim(cls, plain: dict[str, Any]) -> None:
        """Take out of a file's plain data what no report needs: ten thousand trails would fill the memory."""
        plain["trail"] = plain["traceback"] = ""
        plain["updates"] = {name: plain["updates"][name] for name in DRAWN if name in plain["updates"]}

    @classmethod
    @abstractmethod
    def outcome(cls, result: RunResult) -> str:
        """One line on a cell that ended ok."""

    @classmethod
    def extra_info(cls, result: RunResult) -> dict[str, Any]:
        """What pytest-benchmark's file carries of a result beside its cell id; the store holds the rest."""
        return {}
