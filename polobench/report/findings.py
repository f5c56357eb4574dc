"""What the sections of a report read, each computed once however many of them read it."""

from __future__ import annotations

import math
from functools import cached_property

import pandas as pd

from polobench.analysis import article, frontier, language, overall, reliability, summary, tuning
from polobench.analysis.claims import Claims, load_claims
from polobench.analysis.collection import Arm, Collection, looks_of, more_than_declared
from polobench.analysis.measures import Observations
from polobench.analysis.overall import FINAL_SCORE, USE_CASES, standings, standings_of
from polobench.analysis.statistics.hypothesis import Contrast, against_best
from polobench.analysis.verdicts import NOT_MEASURED, claim_verdict, column_verdict
from polobench.report import words
from polobench.report.draw import panels
from polobench.report.draw.arrivals import arrivals_of
from polobench.report.draw.style import Looks, looks


class Findings:
    """All that a report says, in numbers; the functions that compute them say what they are.

    Args:
        collection: the store, or several as one.
        rules: the claims that get a verdict; by default the source article's.
        history: whose trend the report shows, as `polobench.gate.history.history_table` gives it.
    """

    def __init__(
        self, collection: Collection, rules: Claims | None = None, history: pd.DataFrame | None = None
    ) -> None:
        self.collection = collection
        self.rules = rules or load_claims()
        self.history = history
        self.ran = [cell for cell in collection.cells if cell.status != "skipped"]

    # by task and budget
    comparisons = cached_property(lambda self: summary.comparisons(self.collection))
    budgets = cached_property(lambda self: words.budgets(self.collection))
    task_files = cached_property(lambda self: words.task_files(task for task, _ in self.comparisons))

    @cached_property
    def contrasts(self) -> dict[tuple[str, str], list[Contrast[Arm]]]:
        """Each arm of a task and budget against its best one; nothing is concluded from smoke runs."""
        found = {place: group for place, group in self.comparisons.items() if not summary.is_smoke(group)}
        return {place: self._against_best(group) for place, group in found.items()}

    def _against_best(self, group: list[summary.ArmSummary]) -> list[Contrast[Arm]]:
        returns, runs = self.collection.final_returns, [self.collection.arms[item.arm] for item in group]
        return against_best(
            [(item.arm, [returns(item.arm)]) for item in group],
            scale=(group[0].floor, math.nan if group[0].target is None else group[0].target),
            looks=looks_of(run for found in runs for run in found),
            refused=next(filter(None, map(more_than_declared, runs)), ""),
        )

    # what figures show: all arms of a task and budget, and parts of them with as many as a panel or a figure holds
    @cached_property
    def looks(self) -> Looks:
        tuned = {arm.label: arm.method for arm in self.trials}
        return looks(list(dict.fromkeys([*self.collection.labels, *tuned])), tuned | self.collection.methods)

    panels = cached_property(lambda self: panels.panels(self.collection))
    curves = cached_property(
        lambda self: panels.with_curves(
            self.panels, self.looks, {label for group in self.groups for label in group.runs}
        )
    )
    parts = cached_property(lambda self: panels.numbered(self.panels))
    spoken = cached_property(lambda self: [(number, part) for number, part in self.parts if part.speaks])
    arrivals = cached_property(lambda self: arrivals_of(self.panels))

    # over the tasks of a world: the groups, their numbers, their standings by final score and by use case
    groups = cached_property(lambda self: overall.comparables(self.collection))
    overalls = cached_property(lambda self: [(group, overall.overall(group)) for group in self.groups])
    leaders = cached_property(lambda self: [standings_of(group, FINAL_SCORE) for group in self.groups])
    use_cases = cached_property(lambda self: [(case, standings(self.groups, case)) for case in USE_CASES])

    # the article: verdicts on its ratings and claims, and its methods run again
    observations = cached_property(lambda self: Observations(self.collection))
    columns = cached_property(
        lambda self: [column_verdict(self.observations, item, self.rules) for item in self.rules.columns]
    )
    claims = cached_property(
        lambda self: [claim_verdict(self.observations, item, self.rules) for item in self.rules.claims]
    )
    article_arms = cached_property(lambda self: article.episode_arms(self.collection))
    article_losses = cached_property(lambda self: article.loss_shapes(self.collection))
    article_costs = cached_property(lambda self: article.beside_sound(self.collection))

    # arm by arm, or cell by cell
    troubled = cached_property(lambda self: reliability.troubled(self.collection))
    throughputs = cached_property(lambda self: summary.throughputs(self.collection))
    frontier = cached_property(lambda self: frontier.places(self.collection))
    at_equal_kl = cached_property(lambda self: frontier.at_equal_kl(self.collection))
    best_of = cached_property(lambda self: frontier.best_of(self.collection))
    pursuits = cached_property(lambda self: frontier.pursuits(self.collection))
    noises = cached_property(lambda self: summary.gradient_noises(self.collection))
    preferences = cached_property(lambda self: language.preferences(self.collection))
    measures = cached_property(lambda self: language.measures(self.collection))
    sharpenings = cached_property(lambda self: language.sharpenings(self.collection))
    conversations = cached_property(lambda self: language.conversations(self.collection))
    notes = cached_property(lambda self: language.notes(self.collection))
    trials = cached_property(lambda self: self.observations.trials)
    searches = cached_property(lambda self: [tuning.Search.of(*item) for item in self.trials.items()])

    @property
    def has_ratings(self) -> bool:
        """Whether a rating of the article's table has a measure in this store."""
        return any(word.level or word.verdict != NOT_MEASURED for column in self.columns for word in column.words)

    @property
    def has_verdicts(self) -> bool:
        """Whether a rating or a claim has one."""
        claims = any(item.levels or any(pair.compared for pair in item.pairs) for item in self.claims)
        return self.has_ratings or claims

    @property
    def is_first_look(self) -> bool:
        """Whether the store holds smoke runs: it shows that the parts work together, and its reader is new here."""
        return any(run.provenance.get("smoke") is True for run in self.ran)
