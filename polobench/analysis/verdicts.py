"""A verdict on every claim of the article, from the cells of a store alone.

A pair (less, more) of methods on the places that both were measured at:

    supported      Holm's p at most `level`, d = mean(more) - mean(less) > 0, and d at least the smallest effect
    contradicted   the interval of d at 1 - level / pairs (Bonferroni) lies wholly below the smallest effect
    undecided      neither; also where the test was skipped, since data of that size could not have decided

A word, or a claim of several pairs, is supported when all its pairs are, contradicted when one is, else undecided. A
claim about a level compares its 95 % interval with the bound. Without matching cells a claim is not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from polobench.analysis.claims import Claim, Claims, Column
from polobench.analysis.measures import MEASURES, Measure, Observations, Place
from polobench.analysis.statistics.hypothesis import (
    Comparison,
    compare,
    holm,
    permutation_test,
    seeds_needed,
    smallest_p,
    stratified_mean_interval,
)
from polobench.analysis.statistics.intervals import Array, Interval, wilson_interval

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
NOT_MEASURED, NOT_TESTABLE = "not measured", "not testable here"
VERDICTS = (SUPPORTED, CONTRADICTED, UNDECIDED, NOT_MEASURED, NOT_TESTABLE)
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
    p: float = math.nan  # adjusted by Holm; NaN where there was no test
    reason: str = ""  # why it was not measured, or why the test was skipped


@dataclass(frozen=True)
class WordVerdict:
    """One word of the article's table with what was measured in its place."""

    method: str
    word: str
    verdict: str
    level: Level | None  # of the column's measure at the places that all its methods share; None without such places
    also: Mapping[str, Level]  # of the column's further measures
    pairs: tuple[PairVerdict, ...]


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


def column_verdict(observations: Observations, column: Column, rules: Claims) -> ColumnVerdict:
    """Test every word of a column."""
    observed = _observed(observations, list(column.words), column.measure)
    shared = _shared(list(observed.values()))
    noise = _noise(observations, list(column.words), column.measure)
    pairs = _pair_verdicts(observed, noise, column.pairs, column.measure, column.smallest_effect, rules)
    also = {name: _observed(observations, list(column.words), name) for name in column.also}
    words = []
    for method, word in column.words.items():
        mine = tuple(pair for pair in pairs if method in (pair.less, pair.more))
        levels = {name: level for name, found in also.items() if (level := _shared_level(found, method, name))}
        level = _shared_level(observed, method, column.measure)
        words.append(WordVerdict(method, word, _together([pair.verdict for pair in mine]), level, levels, mine))
    return ColumnVerdict(column, tuple(words), pairs, tuple(shared))


def claim_verdict(observations: Observations, claim: Claim, rules: Claims) -> ClaimVerdict:
    """Test one sentence."""
    if claim.not_testable:
        return ClaimVerdict(claim, NOT_TESTABLE, reason=claim.not_testable)
    labels = dict.fromkeys((*claim.less, *claim.more, *claim.of))
    observed = {
        label: {place: values for place, values in found.items() if not claim.tasks or place[0] in claim.tasks}
        for label, found in _observed(observations, list(labels), claim.measure).items()
    }
    if claim.of:
        return _level_verdict(observed, claim, rules)
    noise = _noise(observations, list(labels), claim.measure)
    pairs = _pair_verdicts(observed, noise, claim.pairs, claim.measure, claim.smallest_effect, rules)
    return ClaimVerdict(claim, _together([pair.verdict for pair in pairs]), pairs)


def _observed(observations: Observations, labels: Sequence[str], measure: str) -> Observed:
    return {label: observations.of(label, measure) for label in labels}


def _noise(observations: Observations, labels: Sequence[str], measure: str) -> Observed:
    """What evaluations alone give of a measure, by label; empty where none is known."""
    name = MEASURES[measure].noise
    return _observed(observations, labels, name) if name else {}


def _shared(found: Sequence[Mapping[Place, Array]]) -> list[Place]:
    """The places at which every one of them was measured."""
    places = set.intersection(*(set(item) for item in found)) if found else set()
    return sorted(places)


def _shared_level(observed: Observed, label: str, measure: str) -> Level | None:
    """At the places that all methods with any share, so that they may be compared; None where it has none there."""
    shared = _shared([found for found in observed.values() if found])
    values = [observed[label][place] for place in shared if place in observed[label]]
    return _level(values, MEASURES[measure]) if values else None


def _level(values: Sequence[Array], measure: Measure) -> Level:
    if measure.is_share:
        pooled = np.concatenate(values)
        interval = wilson_interval(int(pooled.sum()), len(pooled))
        return Level(float(pooled.mean()), interval, len(pooled), len(values))
    centre = float(np.mean([item.mean() for item in values]))
    return Level(centre, stratified_mean_interval(values), min(map(len, values)), len(values))


def _pair_verdicts(
    observed: Observed,
    noise: Observed,
    pairs: Sequence[tuple[str, str]],
    measure: str,
    smallest_effect: float,
    rules: Claims,
) -> tuple[PairVerdict, ...]:
    """All pairs of one column or claim: they share `level`, also with those that were not tested."""
    effect = math.log(smallest_effect) if MEASURES[measure].is_ratio else smallest_effect
    alpha = rules.level / len(pairs)
    drafts = [_draft(observed, less, more, MEASURES[measure], alpha, rules) for less, more in pairs]
    drafts = [_open_by_noise(draft, noise, effect) for draft in drafts]
    adjusted = holm([1.0 if math.isnan(draft.p) else draft.p for draft in drafts])
    return tuple(
        draft if math.isnan(draft.p) else _decided(draft, p, effect, rules.level)
        for draft, p in zip(drafts, adjusted, strict=True)
    )


def _draft(observed: Observed, less: str, more: str, measure: Measure, alpha: float, rules: Claims) -> PairVerdict:
    """A pair with its own p, or with the reason why there is none."""
    absent = [label for label in (less, more) if not observed[label]]
    places = _shared([observed[less], observed[more]])
    if not places:
        who = f"no matching {' and '.join(absent)} runs" if absent else "never measured on the same task and budget"
        return PairVerdict(less, more, NOT_MEASURED, reason=who)
    strata = [(observed[more][place], observed[less][place]) for place in places]
    compared = compare(strata, alpha=alpha, confidence=1 - alpha)
    untested = PairVerdict(less, more, UNDECIDED, compared, tuple(places))
    tasks = len({place[0] for place in places})
    least, where = (rules.least_seeds_on_one_task, "one task") if tasks == 1 else (rules.least_seeds, f"{tasks} tasks")
    if compared.n < least:
        return replace(untested, reason=f"{compared.n} {measure.observation} on {where}; the test needs {least}")
    if smallest_p(strata) > alpha:
        needed = seeds_needed(alpha, tasks)
        return replace(untested, reason=f"too few seeds to reach p = {alpha:.2g}; the test needs {needed}")
    return replace(untested, p=permutation_test(strata).p)


def _open_by_noise(draft: PairVerdict, noise: Observed, effect: float) -> PairVerdict:
    """No test where evaluations alone would give more than the effect that is looked for."""
    found = [noise[label] for label in (draft.less, draft.more) if noise]
    alone = [float(np.mean([values[place].mean() for place in draft.places if place in values])) for values in found]
    if math.isnan(draft.p) or not any(given > effect for given in alone):
        return draft
    reason = f"the noise of evaluations alone gives {max(alone):.2f}, more than the smallest effect, {effect:g}"
    return replace(draft, p=math.nan, reason=reason)


def _decided(draft: PairVerdict, p: float, effect: float, level: float) -> PairVerdict:
    """The verdict of a pair that was tested, with Holm's p."""
    found = draft.compared
    assert found is not None
    if p <= level and found.difference > 0 and found.difference >= effect:
        return replace(draft, verdict=SUPPORTED, p=p)
    return replace(draft, verdict=CONTRADICTED if found.interval.high < effect else UNDECIDED, p=p)


def _level_verdict(observed: Observed, claim: Claim, rules: Claims) -> ClaimVerdict:
    """Of a claim that each of its methods has a measure on one side of a bound."""
    measure = MEASURES[claim.measure]
    found = {label: _level(list(values.values()), measure) for label, values in observed.items() if values}
    absent = [label for label in claim.of if label not in found]
    few = {label: level.n for label, level in found.items() if level.n < rules.least_seeds}
    verdicts = [NOT_MEASURED] * len(absent)
    verdicts += [UNDECIDED if label in few else _bounded(level, claim) for label, level in found.items()]
    reasons = [f"no matching {' and '.join(absent)} runs"] if absent else []
    reasons += [f"{label} has n = {n}, the test needs {rules.least_seeds}" for label, n in few.items()]
    return ClaimVerdict(claim, _together(verdicts), levels=found, reason="; ".join(reasons))


def _bounded(level: Level, claim: Claim) -> str:
    low, high = level.interval.low, level.interval.high
    if math.isnan(claim.at_most):
        holds, fails = low >= claim.at_least, high < claim.at_least
    else:
        holds, fails = high <= claim.at_most, low > claim.at_most
    return SUPPORTED if holds else CONTRADICTED if fails else UNDECIDED


def _together(verdicts: Sequence[str]) -> str:
    """Of all pairs: one contradiction is enough; support needs all of them."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    if set(verdicts) == {SUPPORTED}:
        return SUPPORTED
    return NOT_MEASURED if set(verdicts) <= {NOT_MEASURED} else UNDECIDED
