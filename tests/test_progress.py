"""What a sweep shows: a table of the running cells on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from polobench.core.budget import Budget, LedgerTotals
from polobench.core.recorder import Progress
from polobench.core.result import RunResult
from polobench.kinds.cell import Cell
from polobench.run.progress import Display, clock_text

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
UP = "\x1b[1A"


@dataclass
class Screen:
    """A terminal, or a file, of a fixed size, and a clock that is set by hand."""

    width: int = 100
    height: int = 24
    terminal: bool = True
    now: float = 0.0
    file: io.StringIO = field(default_factory=io.StringIO)

    def display(self, total: int) -> Display:
        console = Console(
            file=self.file, force_terminal=self.terminal, width=self.width, height=self.height, color_system=None
        )
        return Display(total, console, clock=lambda: self.now)

    @property
    def frame(self) -> list[str]:
        """The lines that were drawn last."""
        last = re.split(r"(?:\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*)|\x1b\[\?25[lh]", self.file.getvalue())
        return [line.rstrip() for line in ESCAPES.sub("", [part for part in last if part.strip()][-1]).splitlines()]


def cell(seed: int = 0, label: str = "ppo") -> Cell:
    return Cell("ppo", label, "CartPole-v1", seed, "cpu", Budget(samples=1000))


def ended(status: str = "ok", **changes: object) -> RunResult:
    result = RunResult("ppo", "ppo", "CartPole-v1", 0, "cpu", {"samples": 1000}, status=status, final_return=123.4)
    result.ledger = LedgerTotals(samples=1000, wall_seconds=2.0)
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def test_table_of_running_cells() -> None:
    screen = Screen()
    with screen.display(4) as display:
        display.started(cell(0))
        display.started(cell(1))
        screen.now = 10.0
        display.moved(cell(0), Progress(0.1, 100, None))
        screen.now = 20.0
        display.moved(cell(0), Progress(0.3, 300, 22.31))
        head, first, second, sweep = screen.frame
        assert head.split() == ["cell", "status", "samples/s", "return", "left"]
        # 200 samples and a fifth of the budget in the 10 seconds since the first word
        assert first.split() == [
            "ppo",
            "·",
            "CartPole-v1",
            "·",
            "seed",
            "0",
            "·",
            "cpu",
            "30",
            "%",
            "20",
            "22.31",
            "0:35",
        ]
        assert second.split()[-4:] == ["starting", "–", "–", "–"]
        # 0.3 of 4 cells in 20 seconds
        assert sweep == "0/4 cells, about 4:07 left"


def test_ended_cells_are_lines_above_the_table() -> None:
    screen = Screen()
    with screen.display(3) as display:
        for seed, result in enumerate(
            (ended(), ended("failed", reason="ValueError: no"), ended("skipped", reason="absent"))
        ):
            display.started(cell(seed))
            screen.now += 5.0
            display.finished(cell(seed), result)
    text = ESCAPES.sub("", screen.file.getvalue())
    assert "[1/3] ppo · CartPole-v1 · seed 0 · cpu: return 123.4, 1,000 samples in 2.0 s" in text
    assert "[2/3] ppo · CartPole-v1 · seed 1 · cpu: failed: ValueError: no" in text
    assert screen.frame == ["3/3 cells, ok 1, failed 1, skipped 1, about 0:00 left"]


def test_skipped_cells_promise_no_speed() -> None:
    screen = Screen()
    with screen.display(10) as display:
        for seed in range(5):
            display.started(cell(seed))
            display.finished(cell(seed), ended("skipped", reason="absent"))
        screen.now = 1.0
        display.started(cell(5))
        assert screen.frame[-1] == "5/10 cells, skipped 5"
        screen.now = 8.0
        display.finished(cell(5), ended())
        assert screen.frame[-1] == "6/10 cells, skipped 5, ok 1, about 0:32 left"


@pytest.mark.parametrize("height", [1, 2, 4, 6, 10])
def test_terminal_with_fewer_lines_than_cells(height: int) -> None:
    screen = Screen(width=40, height=height)
    with screen.display(50) as display:
        for seed in range(50):
            screen.now += 1.0
            display.started(cell(seed, label="a label that is longer than the terminal is wide"))
            display.moved(cell(seed, label="a label that is longer than the terminal is wide"), Progress(0.5, 10, 1.0))
        frame = screen.frame
        assert len(frame) <= height
        assert all(len(line) <= 40 for line in frame)
        assert frame[-1].startswith("0/50 cells")
        if height > 6:
            assert frame[-2] == f"… and {50 - (height - 4)} more"
    moves = re.findall(rf"(?:{re.escape(UP)}(?:\x1b\[2K)?)+", screen.file.getvalue())
    assert max((move.count(UP) for move in moves), default=0) < max(2, height)  # never above the screen


def test_many_words_are_one_frame() -> None:
    screen = Screen()
    with screen.display(1) as display:
        display.started(cell())
        before = len(screen.file.getvalue())
        for samples in range(100):
            display.moved(cell(), Progress(samples / 100, samples, None))
        assert len(screen.file.getvalue()) == before
        screen.now = 1.0
        display.moved(cell(), Progress(0.99, 99, None))
        assert len(screen.file.getvalue()) > before


def test_plain_lines_where_there_is_no_terminal() -> None:
    screen = Screen(terminal=False)
    with screen.display(1) as display:
        display.started(cell())
        display.moved(cell(), Progress(0.5, 500, 20.0))
        display.finished(cell(), ended())
    line = "[1/1] ppo · CartPole-v1 · seed 0 · cpu: return 123.4, 1,000 samples in 2.0 s\n"
    assert screen.file.getvalue() == line


def test_foreign_text_moves_no_cursor() -> None:
    screen, hostile = Screen(terminal=False), "[red]\x1b[2J\x07\nx\u202e\ud800"
    with screen.display(1) as display:
        display.started(cell(label=hostile))
        display.finished(cell(label=hostile), ended("failed", reason=hostile))
    text = screen.file.getvalue()
    assert all(sign.isprintable() for sign in text.removesuffix("\n"))
    assert text.count("[red]") == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (42.0, "0:42"), (723.0, "12:03"), (3723.0, "1:02:03"), (59.7, "1:00")]
)
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
