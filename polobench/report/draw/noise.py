"""Gradient noise: the signal-to-noise of each method's gradient at the fixed policies, a panel a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from polobench.analysis.gradient_noise import NoiseSummary
from polobench.report.draw.panels import Drawn
from polobench.report.draw.style import GREY, Look, grid_of_axes, name_panel, save, short

_COLUMNS = 2
_NOTHING = 1e-6  # below it the axis is linear at any rate
_POLICIES = ("initial", "trained")
_OFFSETS = (-0.16, 0.16)
Panel = tuple[str, Sequence[NoiseSummary]]


def noise_panels(items: Sequence[NoiseSummary]) -> list[Panel]:
    """The cells of each task and device together."""
    names = sorted({(item.arm.task, item.arm.device) for item in items})
    return [
        (f"{short(task)} ({short(device)})", [x for x in items if (x.arm.task, x.arm.device) == (task, device)])
        for task, device in names
    ]


def draw_noise(page: Sequence[Panel], number_of_page: int, look: Mapping[str, Look], folder: Path) -> Drawn:
    """Dots with intervals: hollow at the initial policy, filled at the trained one."""
    tallest = max(len({item.arm.label for item in items}) for _, items in page)
    figure, axes = grid_of_axes(len(page), _COLUMNS, (5.2, 0.36 * tallest + 1.2))
    for ax, (title, items) in zip(axes, page, strict=True):
        _draw_panel(ax, items, look)
        name_panel(ax, title)
    handles = [
        Line2D([], [], color=GREY, marker="o", linestyle="none", label=f"{policy} policy", **_face(policy, GREY))
        for policy in _POLICIES
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=1, label="signal = noise"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    path = save(figure, folder / f"gradient_noise_{number_of_page}.png")
    return Drawn(path, "noise", "Signal-to-noise of the gradient at fixed policies")


def _face(policy: str, colour: object) -> dict[str, Any]:
    return {"markerfacecolor": colour if policy == _POLICIES[1] else "white", "markersize": 7, "markeredgewidth": 1.6}


def _draw_panel(ax: Axes, items: Sequence[NoiseSummary], look: Mapping[str, Look]) -> None:
    labels = sorted({item.arm.label for item in items})
    drawn = [item for item in items if math.isfinite(item.snr)]
    for item in drawn:
        place = labels.index(item.arm.label) + _OFFSETS[item.policy == _POLICIES[1]]
        colour = look[item.arm.label].colour
        if not math.isnan(item.interval.low):
            ax.hlines(place, item.interval.low, item.interval.high, color=colour, linewidth=1.8)
        ax.plot(item.snr, place, marker="o", color=colour, linestyle="none", **_face(item.policy, colour))
    ax.axvline(1, color=GREY, linewidth=1, zorder=1)
    _scale(ax, drawn)
    ax.set_yticks(range(len(labels)), [short(label) for label in labels])
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    samples = sorted({item.samples for item in items})
    ax.set_xlabel(f"signal-to-noise of {' or '.join(f'{count:,}' for count in samples)} samples")


def _scale(ax: Axes, drawn: Sequence[NoiseSummary]) -> None:
    """Logarithmic; linear around 0 where noise hides a signal, so that an interval shows how far it goes below."""
    ends = np.array([[item.snr, item.interval.low, item.interval.high] for item in drawn]).ravel()
    ends = ends[np.isfinite(ends)]
    if (ends > 0).all():
        ax.set_xscale("log")
    else:
        smallest = min((item.snr for item in drawn if item.snr > 0), default=1.0)
        ax.set_xscale("symlog", linthresh=max(_NOTHING, 10 ** math.floor(math.log10(smallest))))
        ax.axvline(0, color=GREY, linewidth=1, linestyle=":", zorder=1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
