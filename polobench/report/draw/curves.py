"""Curves over training: the held-out return, and what else held-out evaluations say of a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from polobench.analysis.curves import mean_curve, metric_curve
from polobench.report.draw.lines import Chart, Line, draw_charts
from polobench.report.draw.panels import Panel, parts_of
from polobench.report.draw.style import LARGEST_DRAWN, Looks, name_figure
from polobench.report.formatting import decimals_for, number, plain
from polobench.store.identity import age

_AXES = {"wall_seconds": "wall-clock seconds of training", "cpu_seconds": "CPU seconds of training"}
_ACCURACIES = {
    "heldout_accuracy": "held-out pairs", "train_accuracy": "training pairs",
    "heldout_accuracy_normalised": "held-out pairs, per token",
    "train_accuracy_normalised": "training pairs, per token",
}  # fmt: skip
_OTHERS = {
    "heldout_margin": "implicit reward margin [nats]", "heldout_kl": "KL to the reference [nats per token]",
    "heldout_entropy": "entropy [nats per token]", "heldout_completion_length": "tokens per completion",
    "heldout_sampled_return": "sampled return",
}  # fmt: skip
_NEAR_CHANCE = 0.6  # from an accuracy up to it, the panel shows chance
_SAME = 1e-9
Numbers = dict[str, list[Line]]  # lines by the name of what they show


def draw_returns(page: Sequence[Panel], look: Looks, over_seconds: bool = False) -> Figure:
    """The mean return of each arm over samples or over seconds; the parts of a task share their scale."""
    charts = []
    for panel in page:
        axis = panel.seconds if over_seconds else "samples"
        lines = [Line.of(panel.name(arm), look[arm.label], mean_curve(runs, axis)) for arm, runs in panel.arms]
        scale = (panel.task, panel.budget, panel.device)
        unit = _y_name(plain(panel.arms[0][1][0].unit))
        charts.append(Chart(panel.title, lines, scale, unit, _AXES.get(axis, axis), _levels(panel)))
    return draw_charts(charts, 2, (6.0, 3.3))


def _levels(panel: Panel) -> dict[str, float]:
    """Target and floor of the newest run, by what is written beside them."""
    newest = max((run for _, runs in panel.arms for run in runs), key=age)
    decimals = decimals_for(newest.floor, newest.target, [newest.floor])
    found = {}
    for name, value in {"target": newest.target, "floor": newest.floor}.items():
        if value is not None and abs(value) < LARGEST_DRAWN:
            shown = number(value, decimals)
            found[f"{name} {shown.rstrip('0').rstrip('.') if '.' in shown else shown}"] = value
    return found


def _y_name(unit: str) -> str:
    """The unit alone where it says what it is; a long one would be longer than the axis."""
    if unit.startswith("held-out ") and len(unit) <= 36:
        return unit
    return "held-out return" if len(unit) > 24 or not unit else f"held-out return [{unit}]"


def draw_accuracies(panel: Panel, look: Looks) -> Figure | None:
    """Preference accuracy on held-out and training pairs on one scale; None if no run has it."""
    found = _metric_lines(panel, _ACCURACIES, look)
    for name in ("held-out pairs", "training pairs"):
        if name in found and _same(found[name], found.get(f"{name}, per token", [])):
            del found[f"{name}, per token"]
    lowest = min((float(np.nanmin(line.y, initial=1.0)) for lines in found.values() for line in lines), default=1.0)
    levels = {"chance": 0.5} if lowest <= _NEAR_CHANCE else {}
    return _draw_metrics(panel, found, "preference accuracy", levels)


def draw_policy(panel: Panel, look: Looks) -> Figure | None:
    """Margin, KL, entropy, length and sampled return, those that the runs have; None if they have none."""
    return _draw_metrics(panel, _metric_lines(panel, _OTHERS, look))


def _metric_lines(panel: Panel, names: Mapping[str, str], look: Looks) -> Numbers:
    """By what they show; a metric that no run has is left out."""
    found: Numbers = {}
    for column, name in names.items():
        for arm, runs in panel.arms:
            if (curve := metric_curve(runs, column)) is not None:
                found.setdefault(name, []).append(Line.of(panel.name(arm), look[arm.label], curve))
    return found


def _same(one: list[Line], two: list[Line]) -> bool:
    """Whether responses have one length, so that numbers per token order the pairs as the others do."""
    return len(one) == len(two) and all(
        np.allclose(line.y, other.y, 0, _SAME, equal_nan=True) for line, other in zip(one, two, strict=True)
    )


def _draw_metrics(
    panel: Panel, found: Numbers, y_name: str = "", levels: Mapping[str, float] | None = None
) -> Figure | None:
    """One scale for all panels if the axis has a name, else for the parts of each number."""
    charts = [
        Chart(f"{name} ({part})" if part else name, shown, y_name or name, y_name, levels=levels or {})
        for name, lines in found.items()
        for part, shown in parts_of(lines, lambda line: (line.name, line.look.family))
    ]
    if not charts:
        return None
    figure = draw_charts(charts, 3, (4.9, 3.1))
    name_figure(figure, panel.title)
    return figure
