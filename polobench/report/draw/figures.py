"""Every figure of the report, as PNG files; one that would have no data is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from polobench.analysis.collection import Collection, OnProgress
from polobench.analysis.gradient_noise import gradient_noises
from polobench.analysis.overall import comparables
from polobench.analysis.summary import throughputs
from polobench.report.arrivals import has_reached
from polobench.report.draw.aggregate import compared, draw_improvements, draw_profiles
from polobench.report.draw.arrivals import draw_arrivals
from polobench.report.draw.article import draw_article
from polobench.report.draw.cost import draw_costs, has_costs
from polobench.report.draw.noise import draw_noise, noise_panels
from polobench.report.draw.panels import MOST_NAMED, Drawn, Panel, merged, panels, split
from polobench.report.draw.policy import draw_accuracies, draw_policy
from polobench.report.draw.preference import draw_distributions, draw_losses, draw_shift
from polobench.report.draw.returns import draw_returns
from polobench.report.draw.style import Look, looks, natural, pages, styled
from polobench.report.draw.throughput import draw_throughput
from polobench.report.draw.update import draw_updates

PANELS_A_PAGE = 6
ARMS_A_PAGE = 24
BARS_A_PAGE = 30
Jobs = list[Callable[[], Drawn | None]]


def draw_all(collection: Collection, folder: Path, on_progress: OnProgress | None = None) -> list[Drawn]:
    """Draw what the store has data for.

    Args:
        folder: where the PNG files go; made if it is not there.
        on_progress: hears `("drawing", done, total)` of every figure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = _jobs(collection, folder)
    drawn = []
    for done, job in enumerate(jobs, 1):
        with styled():
            found = job()
        if found:
            drawn.append(found)
        if on_progress:
            on_progress("drawing", done, len(jobs))
    return drawn


def _jobs(collection: Collection, folder: Path) -> Jobs:
    look = looks(collection.labels, {arm.label: arm.method for arm in sorted(collection.arms, reverse=True)})
    every = panels(collection)
    curves = [part for panel in merged(every, ARMS_A_PAGE) if panel.has_curves for part in split(panel, look)]
    returns = list(pages(curves, PANELS_A_PAGE))
    measured = [item for item in throughputs(collection) if item.n]
    jobs: Jobs = [partial(draw_article, collection, look, folder)]
    for over_seconds in (False, True):
        jobs += [partial(draw_returns, page, number, over_seconds, look, folder) for number, page in returns]
    jobs += _comparison_jobs(collection, every, look, folder)
    parts = _parts(merged(every, ARMS_A_PAGE))
    for metric in ("loss", "kl"):
        jobs += [partial(draw_updates, part, number, metric, look, folder) for number, part in parts]
    jobs += _language_jobs([(number, part) for number, part in parts if part.speaks], look, folder)
    noises = pages(noise_panels(gradient_noises(collection)), PANELS_A_PAGE)
    jobs += [partial(draw_noise, page, number, look, folder) for number, page in noises]
    jobs += [partial(draw_throughput, page, number, look, folder) for number, page in pages(measured, BARS_A_PAGE)]
    return jobs


def _comparison_jobs(collection: Collection, every: Sequence[Panel], look: Mapping[str, Look], folder: Path) -> Jobs:
    """Over tasks, then task by task."""
    groups = compared(comparables(collection))
    jobs: Jobs = [partial(draw_profiles, page, number, look, folder) for number, page in pages(groups, PANELS_A_PAGE)]
    named = [group for group in groups if len(group.runs) <= MOST_NAMED]
    jobs += [partial(draw_improvements, group, number, look, folder) for number, group in enumerate(named, 1)]
    arrived = pages([panel for panel in every if has_reached(panel)], PANELS_A_PAGE)
    jobs += [partial(draw_arrivals, page, number, look, folder) for number, page in arrived]
    costly = pages([panel for panel in merged(every, MOST_NAMED) if has_costs(panel)], PANELS_A_PAGE)
    return jobs + [partial(draw_costs, page, number, look, folder) for number, page in costly]


def _parts(every: Sequence[Panel]) -> list[tuple[str, Panel]]:
    """Panels with no more arms than a figure shows, numbered by panel and page."""
    return [
        (f"{number:02d}-{page}", replace(panel, arms=tuple(arms)))
        for number, panel in enumerate(every, 1)
        for page, arms in pages(sorted(panel.arms, key=lambda item: natural(item[0].label)), ARMS_A_PAGE)
    ]


def _language_jobs(parts: Sequence[tuple[str, Panel]], look: Mapping[str, Look], folder: Path) -> Jobs:
    """A kind of figure for all tasks before the next kind."""
    jobs: Jobs = []
    for draw in (draw_losses, draw_accuracies, draw_policy, draw_shift, draw_distributions):
        jobs += [partial(draw, part, number, look, folder) for number, part in parts]
    return jobs
