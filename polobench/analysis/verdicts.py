"""A verdict on every claim of the article, from the cells of a store alone.

A pair (less, more) of methods on the places that both were measured at, d = mean(more) - mean(less):

    ceiling, no room   both reach the target on average, and all runs end within the margin of the best
    supported          the permutation test's p is at most `level`, and d at least the smallest effect
    equivalent         Welch's two one-sided p of |d| being at least the smallest effect is at most `level`
    contradicted       not so, but the one-sided p of d being at least the smallest effect is: it may be the other way
    open               none of these; also where a test was skipped, since data of that size could not have decided

Gradients are paired by the policies that both methods were measured at: the permutation exchanges within pairs, and
Student's t is that of the differences. Every p is adjusted by Holm over the pairs of methods and multiplied by the
looks that the study declares. A trend has Page's test in place of the permutation, and its ends are compared; that is
supported only where the means rise at each step. A claim about a level compares its 95 % interval with the bound.

Two sides that are equivalent fail a claim that one exceeds the other. So a word, or a claim of several pairs, is
supported when all its pairs are, mixed when it holds against some and fails against others, equivalent when all its
pairs are (or at the ceiling), contradicted when it fails against one and none is open, since an open one may still make
it mixed. Pairs without matching cells are not measured: the others decide, and the reason names them. Where studies of
the store decide differently, it is mixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from polobench.analysis.claims import Claim, Claims, Column
from polobench.analysis.measures import MEASURES, Measure, Observations, Place
from polobench.analysis.statistics.hypothesis import (
    CEILING,
    EQUIVALENT,
    OPEN,
    Comparison,
    adjusted,
    as_differences,
    as_pairs,
    below_p,
    compare,
    equivalence_p,
    is_at_ceiling,
    pairs_needed,
    permutation_p,
    seeds_needed,
    smallest_p,
    stratified_mean_interval,
    trend_p,
)
from polobench.analysis.statistics.intervals import CONFIDENCE, Array, Interval, wilson_interval

SUPPORTED, CONTRADICTED, MIXED = "supported", "contradicted", "mixed"
NOT_MEASURED, NOT_TESTABLE = "not measured", "not testable here"
VERDICTS = (SUPPORTED, MIXED, CONTRADICTED, EQUIVALENT, CEILING, OPEN, NOT_MEASURED, NOT_TESTABLE)
FAILS = (CONTRADICTED, EQUIVALENT)
Observed = Mapping[str, Mapping[Place, Array]]  # by label


@dataclass(frozen=True)
class Level:
    """A measure of one method, averaged within each place and then over them; logarithms where it is a ratio."""

    value: float
    interval: Interval
    n: int  # observations at the place with the fewest
    places: int


@dataclass(frozen=True)
class PairVerdict:
    """Whether the measure of `more` exceeds that of `less`."""

    less: str
    more: str
    verdict: str
    compared: Comparison | None = None  # at the shared places, with the Bonferroni interval; logarithms of a ratio
    places: tuple[Place, ...] = ()  # at which both were measured
    p: float = math.nan  # of d = 0, or of a trend; adjusted; NaN where there was no test
    below_p: float = math.nan  # of d being at least the smallest effect
    equal_p: float = math.nan  # of |d| being at least the smallest effect
    is_full: bool = False  # at the ceiling
    is_small: bool = False  # open, since d is above 0 and below the smallest effect
    rises: bool = True  # of a trend, whether each arm's mean is above the one before
    reason: str = ""  # why it was not measured, why the test was skipped, or what a trend lacks


@dataclass(frozen=True)
class WordVerdict:
    """One word of the article's table with what was measured in its place."""

    method: str
    word: str
    verdict: str
    level: Level | None  # of the column's measure at the places that all its methods share; None without such places
    pairs: tuple[PairVerdict, ...]
    reason: str = ""  # what it was not measured against, or which studies differ


@dataclass(frozen=True)
class ColumnVerdict:
    """A column of the article's table, its methods in the article's order."""

    column: Column
    words: tuple[WordVerdict, ...]
    pairs: tuple[PairVerdict, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class ClaimVerdict:
    """One sentence of the article."""

    claim: Claim
    verdict: str
    pairs: tuple[PairVerdict, ...] = ()
    levels: Mapping[str, Level] | None = None  # by method, of a claim about a level
    reason: str = ""


Judged = TypeVar("Judged", WordVerdict, ClaimVerdict)


def column_verdict(observations: Observations, column: Column, rules: Claims) -> ColumnVerdict:
    """Test every word of a column, and say where the studies of the store judge one differently."""
    found = _judged_column(observations, column, rules)
    alone = {name: _judged_column(part, column, rules) for name, part in observations.studies.items()}
    words = [
        _with_studies(word, {name: item.words[place].verdict for name, item in alone.items()})
        for place, word in enumerate(found.words)
    ]
    return replace(found, words=tuple(words))


def _judged_column(observations: Observations, column: Column, rules: Claims) -> ColumnVerdict:
    labels = list(column.words)
    observed = _observed(observations, labels, column.measure, rules)
    pairs = _pair_verdicts(observations, observed, column, rules)
    words = []
    for method, word in column.words.items():
        mine = tuple(pair for pair in pairs if method in (pair.less, pair.more))
        level = _shared_level(observations, observed, method, column.measure)
        verdict = _together([pair.verdict for pair in mine])
        words.append(WordVerdict(method, word, verdict, level, mine, _unmeasured(method, mine)))
    return ColumnVerdict(column, tuple(words), pairs, tuple(_shared([found for found in observed.values() if found])))


def _unmeasured(method: str, pairs: Sequence[PairVerdict]) -> str:
    """What the pairs that decide say nothing about."""
    absent = [pair.less if pair.more == method else pair.more for pair in pairs if pair.verdict == NOT_MEASURED]
    return f"not measured against {', '.join(absent)}" if 0 < len(absent) < len(pairs) else ""


def claim_verdict(observations: Observations, claim: Claim, rules: Claims) -> ClaimVerdict:
    """Test one sentence, and say where the studies of the store judge it differently."""
    alone = {name: _judged(part, claim, rules).verdict for name, part in observations.studies.items()}
    return _with_studies(_judged(observations, claim, rules), alone)


def _with_studies(found: Judged, verdicts: Mapping[str, str]) -> Judged:
    """Mixed where the verdicts of the studies, by name, do not agree whether the article is right."""
    told = {name: verdict for name, verdict in verdicts.items() if verdict in (SUPPORTED, MIXED, *FAILS)}
    if len({CONTRADICTED if verdict in FAILS else verdict for verdict in told.values()}) < 2:
        return found
    words = ", ".join(f"{name} {verdict}" for name, verdict in told.items())
    return replace(found, verdict=MIXED, reason=f"studies differ: {words}")


def _judged(observations: Observations, claim: Claim, rules: Claims) -> ClaimVerdict:
    if claim.not_testable:
        return ClaimVerdict(claim, NOT_TESTABLE, reason=claim.not_testable)
    labels = list(dict.fromkeys((*claim.less, *claim.more, *claim.of, *claim.trend)))
    observed = {
        label: {place: values for place, values in found.items() if not claim.tasks or place[0] in claim.tasks}
        for label, found in _observed(observations, labels, claim.measure, rules).items()
    }
    if claim.of:
        return _level_verdict(observations, observed, claim, rules)
    pairs = _pair_verdicts(observations, observed, claim, rules)
    return ClaimVerdict(claim, _together([pair.verdict for pair in pairs]), pairs)


def _observed(observations: Observations, labels: Sequence[str], measure: str, rules: Claims) -> Observed:
    """Of the methods for language only what was measured there."""
    found = {label: observations.of(label, measure) for label in labels}
    for label in set(labels) & set(rules.on_language):
        found[label] = {place: item for place, item in found[label].items() if place[0] in observations.language}
    return found


def _shared(found: Sequence[Mapping[Place, Array]]) -> list[Place]:
    """The places at which every one of them was measured."""
    places = set.intersection(*(set(item) for item in found)) if found else set()
    return sorted(places)


def _shared_level(observations: Observations, observed: Observed, label: str, name: str) -> Level | None:
    """At the places that all methods with any share, so that they may be compared; None where it has none there."""
    measure, shared = MEASURES[name], _shared([found for found in observed.values() if found])
    places = observations.longest(shared, label, measure.kind) if observed[label] else []
    return _level([observed[label][place] for place in places], measure) if places else None


def _level(values: Sequence[Array], measure: Measure, confidence: float = CONFIDENCE) -> Level:
    if measure.is_share:
        pooled = np.concatenate(values)
        interval = wilson_interval(int(pooled.sum()), len(pooled), confidence=confidence)
        return Level(float(pooled.mean()), interval, len(pooled), len(values))
    centre = float(np.mean([item.mean() for item in values]))
    interval = stratified_mean_interval(values, confidence=confidence)
    return Level(centre, interval, min(map(len, values)), len(values))


def _pair_verdicts(
    observations: Observations, observed: Observed, rule: Column | Claim, rules: Claims
) -> tuple[PairVerdict, ...]:
    """All pairs of one column or claim: they share `level`, also with those that were not tested."""
    measure = MEASURES[rule.measure]
    effect = math.log(rule.smallest_effect) if measure.is_ratio else rule.smallest_effect
    looks = observations.looks(_compared(observed, rule.pairs), measure.kind)
    alpha = rules.level / (looks * len(rule.pairs))
    noise = _observed(observations, list(observed), measure.noise, rules) if measure.noise else {}
    drafts = []
    for less, more in rule.pairs:
        draft = _draft(observations, observed, less, more, rule, alpha, effect, rules)
        drafts.append(_open_by_noise(draft, noise, effect))
    p_values = adjusted([draft.p for draft in drafts], looks)
    below = adjusted([draft.below_p for draft in drafts], looks)
    equal = adjusted([draft.equal_p for draft in drafts], looks)
    return tuple(
        draft if math.isnan(draft.p) else _decided(replace(draft, p=p, below_p=q, equal_p=r), effect, rules.level)
        for draft, p, q, r in zip(drafts, p_values, below, equal, strict=True)
    )


def _compared(observed: Observed, pairs: Sequence[tuple[str, str]]) -> dict[str, set[Place]]:
    """The places of each label at which it meets another one of its pairs."""
    met: dict[str, set[Place]] = {label: set() for label in observed}
    for pair in pairs:
        for label in pair:
            met[label] |= set(_shared([observed[name] for name in pair]))
    return met


def _draft(
    observations: Observations, observed: Observed, less: str, more: str, rule: Column | Claim, alpha: float,
    effect: float, rules: Claims,
) -> PairVerdict:  # fmt: skip
    """A pair with its own p, or with the reason why there is none."""
    measure, trend = MEASURES[rule.measure], getattr(rule, "trend", ())
    absent = [label for label in trend or (less, more) if not observed[label]]
    places = observations.longest(_shared([observed[label] for label in trend or (less, more)]), less, measure.kind)
    paired = observations.pairs(less, more, rule.measure)
    if measure.by_policy:
        places = [place for place in places if place in paired]
    if not places:
        who = f"no matching {' and '.join(absent)} runs" if absent else "never measured on the same task and budget"
        return PairVerdict(less, more, NOT_MEASURED, reason=who)
    places = [
        place for place in places if any((observed[label][place] != measure.never).any() for label in (less, more))
    ]
    if not places:
        return PairVerdict(less, more, NOT_MEASURED, reason="no run of either got there")
    strata = [paired.get(place) or (observed[more][place], observed[less][place]) for place in places]
    exchanged = as_pairs(strata) if paired else strata
    strata = as_differences(strata) if paired else strata
    compared = compare(strata, alpha=alpha, confidence=1 - alpha)
    is_full = measure.is_score and compared.n > 1 and is_at_ceiling(strata)
    untested = PairVerdict(less, more, OPEN, compared, tuple(places), is_full=is_full)
    tasks = len({place[0] for place in places})
    least, where = (rules.least_seeds_on_one_task, "one task") if tasks == 1 else (rules.least_seeds, f"{tasks} tasks")
    refused = observations.refused(less, more, rule.measure)
    if refused or compared.n < least:
        return replace(untested, reason=refused or f"{measure.counted(compared.n)} on {where}; the test needs {least}")
    if smallest_p(exchanged) > alpha:
        needed = pairs_needed(alpha, tasks) if paired else seeds_needed(alpha, tasks)
        return replace(untested, reason=f"too few seeds to reach p = {alpha:.2g}; the test needs {needed}")
    arms = [[observed[label][place] for label in trend] for place in places]
    if trend and any(len({len(values) for values in place}) > 1 for place in arms):
        return replace(untested, reason="the arms have different seeds")
    p = trend_p(arms) if trend else permutation_p(exchanged)
    means = np.mean([[values.mean() for values in place] for place in arms], axis=0)
    rises = bool((np.diff(means) > 0).all())
    return replace(untested, rises=rises, p=p, below_p=below_p(strata, effect), equal_p=equivalence_p(strata, effect))


def _open_by_noise(draft: PairVerdict, noise: Observed, effect: float) -> PairVerdict:
    """No test where evaluations alone would give more than the effect that is looked for."""
    arms = [noise[label] for label in (draft.less, draft.more) if noise]
    found = [[values[place].mean() for place in draft.places if len(values.get(place, ()))] for values in arms]
    alone = [float(np.mean(means)) for means in found if means]
    if math.isnan(draft.p) or not any(given > effect for given in alone):
        return draft
    reason = f"the noise of evaluations alone gives {max(alone):.2f}, more than the smallest effect, {effect:g}"
    return replace(draft, p=math.nan, below_p=math.nan, equal_p=math.nan, reason=reason)


def _decided(draft: PairVerdict, effect: float, level: float) -> PairVerdict:
    """The verdict of a pair that was tested."""
    found = draft.compared
    assert found is not None
    if draft.is_full:
        return replace(draft, verdict=CEILING)
    if draft.p <= level and found.difference > 0 and found.difference >= effect:
        lacks = "" if draft.rises else "the means do not rise at each step"
        return replace(draft, verdict=OPEN if lacks else SUPPORTED, reason=lacks)
    if draft.equal_p <= level:
        return replace(draft, verdict=EQUIVALENT)
    if draft.below_p <= level:
        return replace(draft, verdict=CONTRADICTED)
    return replace(draft, verdict=OPEN, is_small=draft.p <= level and found.difference > 0)


def _level_verdict(observations: Observations, observed: Observed, claim: Claim, rules: Claims) -> ClaimVerdict:
    """Of a claim that each of its methods has a measure on one side of a bound."""
    measure = MEASURES[claim.measure]
    kept = {
        label: {place: values[place] for place in observations.longest(values, label, measure.kind)}
        for label, values in observed.items()
        if values
    }
    alpha = rules.level / (observations.looks(kept, measure.kind) * len(claim.of))
    found = {label: _level(list(values.values()), measure, 1 - alpha) for label, values in kept.items()}
    absent = [label for label in claim.of if label not in found]
    reasons = {
        label: _untold(observations, label, kept[label], level, measure, rules) for label, level in found.items()
    }
    verdicts = [NOT_MEASURED] * len(absent)
    verdicts += [OPEN if reasons[label] else _bounded(level, claim) for label, level in found.items()]
    said = [f"no matching {' and '.join(absent)} runs"] if absent else []
    said += [f"{label} has {reason}" for label, reason in reasons.items() if reason]
    return ClaimVerdict(claim, _together(verdicts), levels=found, reason="; ".join(said))


def _untold(
    observations: Observations, label: str, places: Iterable[Place], level: Level, measure: Measure, rules: Claims
) -> str:
    """Why a level gets no verdict: too few runs, or more than were declared."""
    tasks = len({task for task, *_ in places})
    least = rules.least_seeds_on_one_task if tasks == 1 else rules.least_seeds
    if level.n < least:
        return f"n = {level.n}, the test needs {least}"
    return observations.undeclared(label, places, measure.kind)


def _bounded(level: Level, claim: Claim) -> str:
    low, high = level.interval.low, level.interval.high
    if math.isnan(claim.at_most):
        holds, fails = low >= claim.at_least, high < claim.at_least
    else:
        holds, fails = high <= claim.at_most, low > claim.at_most
    return SUPPORTED if holds else CONTRADICTED if fails else OPEN


def _together(verdicts: Sequence[str]) -> str:
    """Of the measured pairs: support needs all of them; see the module's first lines."""
    found = {verdict for verdict in verdicts if verdict != NOT_MEASURED}
    if len(found) < 2:
        return found.pop() if found else NOT_MEASURED
    if found == {EQUIVALENT, CEILING}:
        return EQUIVALENT
    if found & {*FAILS}:
        if SUPPORTED in found:
            return MIXED
        return OPEN if OPEN in found else CONTRADICTED
    return CEILING if found == {CEILING, SUPPORTED} else OPEN
