"""The curves of a run's branches while they grow: values with the places they were measured at, in bounded
memory.

Of the whole a thinned outline is kept (`trainer.record.thinning`), and of the newest points all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.events import At, Evaluated, Metrics
from trainer.record import thinning
from trainer.record.thinning import Grid, Thinned

Floats = NDArray[np.float64]


class Columns(NamedTuple):
    """Steps, seconds since the epoch, and values; one of each for a point, in the order of the steps.

    fair: whether a point was kept whatever its value; the others are extremes, which would pull a mean.
    """

    step: Floats
    time: Floats
    value: Floats
    fair: NDArray[np.bool_]


NOTHING = Columns(np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=np.bool_))


class Recent:
    """The newest `thinning.RECENT` rows of one kind of event, of all branches, as they came."""

    def __init__(self, values: int) -> None:
        self._most = thinning.RECENT
        self._rows = np.empty((2 * self._most, 3 + values))
        self._end = 0
        self.added = 0

    def add(self, branch: int, at: At, *values: float | None) -> None:
        """Take in a row; None stands for a value that does not exist there."""
        if self._end == len(self._rows):
            self._rows[: self._most] = self._rows[-self._most :]
            self._end = self._most
        self._rows[self._end] = branch, at.step, at.time, *(math.nan if v is None else v for v in values)
        self._end += 1
        self.added += 1

    def of(self, branch: int, value: int) -> tuple[Floats, Floats, Floats]:
        """Steps, times and values of one branch, in the order of the steps."""
        rows = self._rows[max(0, self._end - self._most) : self._end]
        rows = rows[rows[:, 0] == branch]
        if (np.diff(rows[:, 1]) < 0).any():
            rows = rows[np.argsort(rows[:, 1], kind="stable")]
        return rows[:, 1], rows[:, 2], rows[:, 3 + value]


class Series:
    """One value of one kind of event of one branch. Values that are not finite are kept: charts show them as
    gaps."""

    def __init__(self, grid: Grid, recent: Recent, branch: int, value: int) -> None:
        """value: which of the event's values it is, from 0."""
        self._points: Thinned[float] = grid.curve()
        self._grid, self._recent, self._branch, self._value = grid, recent, branch, value
        self._thinned = NOTHING
        self._columns = self._thinned
        self._seen: tuple[int, int] | None = None
        self._level, self._last = 0, -1
        self._final: float = 0.0
        self._stale = False

    def add(self, at: At, value: float | None) -> None:
        """Append a value, None for one that does not exist there. The grid has been told of it, and the row
        is among the recent."""
        self._points.add(at.step, math.nan if value is None else value, at.time)
        self._final = self._final if at.step >= self._last else -1.0
        self._last, self._stale = max(self._last, at.step), True

    @property
    def columns(self) -> Columns:
        """What is kept: the outline up to the newest points, then these."""
        seen = (self._grid.level, self._recent.added)
        if self._seen != seen:
            self._seen = seen
            self._columns = self._joined()
        return self._columns

    def _joined(self) -> Columns:
        step, time, value = self._recent.of(self._branch, self._value)
        if not len(step):
            return self._outline(math.inf)
        outline = self._outline(step[0])
        before = int(np.searchsorted(outline.step, step[0]))
        return Columns(
            np.concatenate([outline.step[:before], step]),
            np.concatenate([outline.time[:before], time]),
            np.concatenate([outline.value[:before], value]),
            np.concatenate([outline.fair[:before], np.ones(len(step), dtype=np.bool_)]),
        )

    def _outline(self, end: float) -> Columns:
        """What is kept of the whole; right before step `end` at least. It is looked at anew only when more of
        it is asked for than was settled then, that is, seldom: the newest points are had elsewhere."""
        if self._level != self._grid.level or (self._stale and end > self._final):
            self._stale, self._level = False, self._grid.level
            points, sample = self._points.points(), self._points.sample()
            rows = np.array([(p.step, p.item, p.value) for p in points], dtype=np.float64).reshape(-1, 3)
            fair = np.fromiter((p.number in sample for p in points), np.bool_, len(points))
            self._thinned = Columns(rows[:, 0], rows[:, 1], rows[:, 2], fair)
            self._final = float(self._last >> self._level << self._level)
        return self._thinned


@dataclass
class Kept:
    """What the curves of all branches share. steps: of losses and accuracies. coarse: of what is looked at
    less closely. beyond: of removals when all is gone. metrics, evaluations: their newest."""

    steps: Grid = field(default_factory=Grid)
    coarse: Grid = field(default_factory=lambda: Grid(thinning.COARSE))
    beyond: Grid = field(default_factory=Grid)
    metrics: Recent = field(default_factory=lambda: Recent(6))
    evaluations: Recent = field(default_factory=lambda: Recent(2))


class Branch:
    """One line of history.

    stages: where removals were made that took something: the first event after each. beyond: the same once
    all is gone and the schedule counts on; thinned.
    """

    def __init__(self, number: int, kept: Kept) -> None:
        self._number, self._kept = number, kept
        losses = [Series(kept.steps, kept.metrics, number, value) for value in range(3)]
        others = [Series(kept.coarse, kept.metrics, number, value) for value in range(3, 6)]
        scores = [Series(kept.steps, kept.evaluations, number, value) for value in range(2)]
        self.loss, self.loss_answer, self.loss_cot = losses
        self.grad_norm, self.lr, self.speed = others
        self.accuracy, self.token_accuracy = scores
        self.stages: list[At] = []
        self.beyond: Thinned[At] = kept.beyond.curve()

    def measured(self, event: Metrics) -> None:
        """Take in what training measured."""
        kept, at = self._kept, event.at
        kept.steps.reach(self._number, at.step)
        kept.coarse.reach(self._number, at.step)
        losses = event.loss, event.loss_answer, event.loss_cot
        values = *losses, event.grad_norm, event.lr, event.tokens_per_second
        kept.metrics.add(self._number, at, *values)
        curves = self.loss, self.loss_answer, self.loss_cot, self.grad_norm, self.lr, self.speed
        for curve, value in zip(curves, values, strict=True):
            curve.add(at, value)

    def evaluated(self, event: Evaluated) -> None:
        """Take in what an evaluation found."""
        self._kept.steps.reach(self._number, event.at.step)
        self._kept.evaluations.add(self._number, event.at, event.accuracy, event.token_accuracy)
        self.accuracy.add(event.at, event.accuracy)
        self.token_accuracy.add(event.at, event.token_accuracy)

    @property
    def removals(self) -> list[At]:
        """All of them, in order."""
        return [*self.stages, *(point.item for point in self.beyond.points())]

    @property
    def scheduled(self) -> int:
        """The removals that were called for so far, -1 before the first event."""
        last = self.beyond.last
        return last.item.scheduled if last else self.stages[-1].scheduled if self.stages else -1

    def since(self, at: At) -> int:
        """The step at which the scheduled removals of `at` were reached."""
        found = (a.step for a in reversed(self.removals) if a.scheduled == at.scheduled and a.step <= at.step)
        return next(found, at.step)
