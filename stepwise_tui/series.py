"""A line of a chart while it grows: values with the places they were measured at, in bounded memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.events import At
from trainer.thinning import Grid, Thinned


class Columns(NamedTuple):
    """Steps, seconds since the epoch, and values; one of each for a point."""

    step: NDArray[np.float64]
    time: NDArray[np.float64]
    value: NDArray[np.float64]


class Series:
    """Values in the order of their steps. Non-finite values are kept: charts show them as gaps."""

    def __init__(self, grid: Grid) -> None:
        self._points: Thinned[float] = grid.curve()
        self._grid = grid
        self._columns: Columns | None = None
        self._level = 0

    def add(self, at: At, value: float | None) -> None:
        """Append a value, None for one that does not exist there. The grid has been told of it."""
        self._points.add(at.step, math.nan if value is None else value, at.time)
        self._columns = None

    @property
    def columns(self) -> Columns:
        """What is kept."""
        if self._columns is None or self._level != self._grid.level:
            self._level = self._grid.level
            points = self._points.points()
            rows = np.array([(p.step, p.item, p.value) for p in points], dtype=np.float64).reshape(-1, 3)
            self._columns = Columns(*rows.T)
        return self._columns
