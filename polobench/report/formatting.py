"""Numbers and names as every format of the report prints them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from polobench.analysis.statistics.intervals import Interval
from polobench.core.printable import printable

NOTHING = "–"
_LONGEST = 300
MOST_DECIMALS, HUGE = 4, 1e12  # what these do not show is written with an exponent


def plain(text: object, longest: int = _LONGEST) -> str:
    """One line without control characters, for a terminal or a figure."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def number(value: float | None, decimals: int = 0) -> str:
    """With thousands separators and fixed decimals; a dash for what is not known, "never" for infinity."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "never" if value > 0 else "-inf"
    text = f"{value:,.{decimals}f}"
    vanishes = decimals >= MOST_DECIMALS and value != 0 and not text.strip("-0.,")
    if vanishes or abs(value) >= HUGE:
        return f"{value:.2e}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def significant(value: float | None, digits: int = 3) -> str:
    """With at least `digits` significant digits, for quantities whose size is not known beforehand."""
    if value is None or not math.isfinite(value) or value == 0:
        return number(value)
    return number(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def decimals_for(floor: float, target: float | None, values: Sequence[float]) -> int:
    """Decimals that show a thousandth of the way from floor to target, or of the values' size without a target."""
    size = abs(target - floor) if target is not None else max(map(abs, values), default=math.nan)
    return min(MOST_DECIMALS, max(0, 3 - math.floor(math.log10(size)))) if math.isfinite(size) and size > 0 else 1


def with_ends(value: float, interval: Interval, decimals: int = 2) -> str:
    """`1.04 [1.03, 1.05]`, or the value alone where there is no interval."""
    shown, low, high = (number(part, decimals) for part in (value, interval.low, interval.high))
    return shown if math.isnan(interval.low) else f"{shown} [{low}, {high}]"


def counts_text(counts: Mapping[str, int]) -> str:
    """`ok 4, failed 1`."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def share(count: int | None, n: int, interval: Interval | None) -> str:
    """`4/5 [38 %, 96 %]`."""
    if count is None or interval is None or math.isnan(interval.low):
        return NOTHING
    return f"{count}/{n} [{100 * interval.low:.0f} %, {100 * interval.high:.0f} %]"


def p_value(p: float) -> str:
    """Three decimals; a dash where there was no test."""
    return NOTHING if math.isnan(p) else "< 0.001" if p < 0.001 else number(p, 3)


def p_text(p: float, sign: str = "=") -> str:
    """`p = 0.012`, `p < 0.001`; as the bound of several, with the sign `≤`, it is rounded up."""
    shown = p_value(math.ceil(1000 * p) / 1000 if sign == "≤" and p >= 0.001 else p)
    return f"p {shown}" if "<" in shown else f"p {sign} {shown}"


def sentence(text: str) -> str:
    """With a capital and a full stop; nothing of nothing."""
    return f"{text[0].upper()}{text[1:]}." if text else ""


def runs_of(seeds: Iterable[int]) -> str:
    """`0-4, 7`: integers as ranges."""
    runs = groupby(enumerate(sorted(set(seeds))), lambda item: item[1] - item[0])
    found = [[seed for _, seed in run] for _, run in runs]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)


def span(low: str, high: str) -> str:
    """`low to high`, or the one if they are the same."""
    return low if low == high else f"{low} to {high}"


def known_of(known: int, n: int) -> str:
    """`5`, or `4/5` where one is not known."""
    return str(n) if known == n else f"{known}/{n}"


def quoted(name: str) -> str:
    """A name, in quotes where it holds a comma: beside others it would read like two."""
    return f'"{name}"' if "," in name else name


def listed(names: Iterable[str], last: str = "") -> str:
    """`a, b, "c, d"`; with a word before the last one where it is given."""
    shown = [quoted(name) for name in names]
    if last and len(shown) > 1:
        return f"{', '.join(shown[:-1])} {last} {shown[-1]}"
    return ", ".join(shown)


def counted(count: int, one: str, many: str = "") -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
