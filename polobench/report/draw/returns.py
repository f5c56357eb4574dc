"""Learning curves: the held-out return over samples and over seconds, with a band over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from polobench.analysis.curves import mean_curve
from polobench.report.draw.lines import Line, draw_lines, name_ends
from polobench.report.draw.panels import Drawn, Panel
from polobench.report.draw.style import LARGEST_DRAWN, Look, count_axis, grid_of_axes, name_panel, save, share_y
from polobench.report.text import decimals_for, number, plain
from polobench.store.identity import age

_AXES = {"wall_seconds": "wall-clock seconds of training", "cpu_seconds": "CPU seconds of training"}
_COLUMNS = 2
_SIZE = (6.0, 3.3)


def draw_returns(
    page: Sequence[Panel], number_of_page: int, over_seconds: bool, look: Mapping[str, Look], folder: Path
) -> Drawn:
    """One page of panels over samples or over seconds; the parts of a task share their scale."""
    figure, axes = grid_of_axes(len(page), _COLUMNS, _SIZE)
    every = [return_lines(panel, _axis(panel, over_seconds), look) for panel in page]
    for ax, panel, lines in zip(axes, page, every, strict=True):
        draw_lines(ax, lines, levels(panel))
        _finish(ax, panel, _axis(panel, over_seconds), max(float(line.x[-1]) for line in lines))
    share_y([(ax, (panel.task, panel.budget, panel.device)) for ax, panel in zip(axes, page, strict=True)])
    for ax, panel, lines in zip(axes, page, every, strict=True):
        name_ends(ax, lines, _SIZE, levels(panel))
    what = "seconds" if over_seconds else "samples"
    path = save(figure, folder / f"returns_over_{what}_{number_of_page}.png")
    return Drawn(path, "returns", f"Held-out return over {what}")


def return_lines(panel: Panel, axis: str, look: Mapping[str, Look]) -> list[Line]:
    """What a panel shows: the mean return of each arm."""
    return [Line.of(panel.name(arm), look[arm.label], mean_curve(runs, axis)) for arm, runs in panel.arms]


def levels(panel: Panel) -> dict[str, float]:
    """Target and floor of the newest run, by what is written beside them."""
    newest = max((run for _, runs in panel.arms for run in runs), key=age)
    decimals = decimals_for(newest.floor, newest.target, [newest.floor])
    known = {"target": newest.target, "floor": newest.floor}
    return {
        f"{name} {_trimmed(number(value, decimals))}": value
        for name, value in known.items()
        if value is not None and abs(value) < LARGEST_DRAWN
    }


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _axis(panel: Panel, over_seconds: bool) -> str:
    return panel.seconds if over_seconds else "samples"


def _finish(ax: Axes, panel: Panel, axis: str, end: float) -> None:
    name_panel(ax, panel.title)
    ax.set_ylabel(_y_name(plain(panel.arms[0][1][0].unit)))
    count_axis(ax, end, _AXES.get(axis, axis))


def _y_name(unit: str) -> str:
    """The unit alone where it says what it is; a long one would be longer than the axis."""
    if unit.startswith("held-out ") and len(unit) <= 36:
        return unit
    return "held-out return" if len(unit) > 24 or not unit else f"held-out return [{unit}]"
