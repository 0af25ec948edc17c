"""A line of a chart while it grows: values with the places they were measured at, in bounded memory."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from trainer.events import At

LIMIT = 8192
"""Points a series holds at most; a chart is a few hundred dots wide."""


def _column() -> array[float]:
    return array("d")


@dataclass
class Series:
    """Values in the order of their steps. Non-finite values are kept: charts show them as gaps."""

    step: array[float] = field(default_factory=_column)
    time: array[float] = field(default_factory=_column)
    value: array[float] = field(default_factory=_column)

    def __len__(self) -> int:
        return len(self.value)

    def add(self, at: At, value: float | None) -> None:
        """Append a value, None for one that does not exist there. Thins the series when it is full."""
        self.step.append(at.step)
        self.time.append(at.time)
        self.value.append(math.nan if value is None else value)
        if len(self.value) > LIMIT:
            self._thin()

    def last(self) -> float | None:
        """The latest finite value."""
        return next((v for v in reversed(self.value) if math.isfinite(v)), None)

    def _thin(self) -> None:
        """Keep two of every four points: the lowest and the highest, a non-finite one before either.

        So a spike, a dip and a gap outlive any number of thinnings, which a mean or every second point
        would wash away.
        """
        kept: list[int] = []
        for start in range(0, len(self.value), 4):
            block = range(start, min(start + 4, len(self.value)))
            kept += sorted(_telling(self.value, block))
        for name in ("step", "time", "value"):
            column = getattr(self, name)
            setattr(self, name, array("d", (column[i] for i in kept)))


def _telling(values: array[float], block: range) -> set[int]:
    """The two indices of a block that say most."""
    finite = [i for i in block if math.isfinite(values[i])]
    if not finite:
        return {block[0]}
    low, high = min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)
    gap = next((i for i in block if not math.isfinite(values[i])), None)
    return {low, high} if gap is None else {low, gap}
