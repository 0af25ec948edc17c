"""Where an axis is marked, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable

from stepwise_tui.text import short


def linear(low: float, high: float, count: int, *, whole: bool = False) -> tuple[list[float], float]:
    """About `count` round numbers from `low` to `high`, which is above it, and their distance.

    The distance is 1, 2 or 5 times a power of ten, and a whole number where that is asked for.
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)], step


def logarithmic(low: float, high: float, count: int) -> list[float]:
    """Exponents from `low` to `high` of powers of ten, with their 2 and 5 or 3 where there is room."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [power + math.log10(factor) for power in powers for factor in factors]
        marks = [mark for mark in marks if low <= mark <= high]
        if len(marks) <= max(count, 2):
            return marks
    return marks[:: math.ceil(len(marks) / max(count, 2))]


def label(value: float, step: float) -> str:
    """A number as precise as the marks beside it need."""
    if abs(value) >= 1e9 or step < 1e-6:
        return plain(value)
    if abs(value) >= 1000:
        return thousands(value, step)
    digits = 0 if step >= 1 else min(6, math.ceil(-math.log10(step) - 1e-9))
    return f"{value:.{digits}f}"


def thousands(value: float, step: float) -> str:
    """2k, and 2.5k where the marks are closer than a thousand."""
    if abs(value) >= 1e6 or step < 10:
        return short(value) if step >= 10 else f"{value:,.0f}"
    digits = 0 if value % 1000 == 0 else 1 if step >= 100 else 2
    return f"{value / 1000:.{digits}f}k"


def plain(value: float) -> str:
    """A number in the fewest signs, as on a logarithmic axis."""
    if 0.001 <= abs(value) < 10_000:
        return f"{value:g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def around(low: float, high: float, count: int, *, log: bool) -> tuple[float, float]:
    """The nearest limits outside `low` and `high` that are marks of an axis with about `count` of them.

    log: both are exponents of ten.
    """
    if log:
        return _exponent(low, math.floor, max), _exponent(high, math.ceil, min)
    _, step = linear(low, high, count)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _exponent(value: float, whole: Callable[[float], int], best: Callable[[list[float]], float]) -> float:
    """The nearest exponent on one side whose number is 1, 2 or 5 times a power of ten."""
    power = whole(value)
    marks = [p + math.log10(factor) for p in (power - 1, power, power + 1) for factor in (1, 2, 5)]
    beyond = [m for m in marks if (m <= value + 1e-9 if whole is math.floor else m >= value - 1e-9)]
    return best(beyond)


def granule(span: float, parts: int) -> float:
    """1, 2 or 5 times a power of ten: the largest of which at least `parts` go into `span`."""
    power = 10.0 ** math.floor(math.log10(span / parts))
    return max(power * factor for factor in (1, 2, 5) if power * factor * parts <= span * (1 + 1e-9))
