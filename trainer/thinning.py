"""Points of curves in bounded memory, with nothing lost that a chart could show. Pure, and light to import.

The steps are cut into buckets of 2**level. Of each bucket the lowest, the highest and the first value that is
no number are kept, and of the whole its two ends; so spikes, dips and gaps outlive any thinning. What is kept
is a function of the points alone: not of when it was looked at, nor of whether points that are not kept were
left out before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

LIMIT = 2048
"""Buckets that all branches span together, at most; a chart is a few hundred dots wide."""
HIGHEST = 62

T = TypeVar("T")


class Grid:
    """What the curves of all branches have in common: the lowest level at which they span at most `LIMIT`
    buckets together."""

    def __init__(self) -> None:
        self.level = 0
        self._spans: dict[int, tuple[int, int]] = {}
        self._buckets = 0
        self._curves: list[Thinned[Any]] = []

    def curve(self) -> Thinned[Any]:
        """A new curve, empty."""
        self._curves.append(Thinned(self))
        return self._curves[-1]

    def reach(self, branch: int, step: int) -> None:
        """Take in where points of a branch lie, before they are added to its curves."""
        first, last = self._spans.get(branch, (step, step - 1))
        if first <= step <= last:
            return
        before = self._count(first, last) if branch in self._spans else 0
        first, last = min(first, step), max(last, step)
        self._spans[branch] = first, last
        self._buckets += self._count(first, last) - before
        if self._buckets > LIMIT and self.level < HIGHEST:
            while self._buckets > LIMIT and self.level < HIGHEST:
                self.level += 1
                self._buckets = sum(self._count(a, b) for a, b in self._spans.values())
            for curve in self._curves:
                curve.coarsen()

    def _count(self, first: int, last: int) -> int:
        return (last >> self.level) - (first >> self.level) + 1


class Point(NamedTuple, Generic[T]):
    """number: the order in which it came. item: what goes with it."""

    step: int
    number: int
    value: float
    item: T


@dataclass(slots=True)
class Bucket(Generic[T]):
    low: Point[T] | None = None
    high: Point[T] | None = None
    gap: Point[T] | None = None

    def take(self, point: Point[T]) -> None:
        """Keep it if it says more; of equals the one that came first stays."""
        if not math.isfinite(point.value):
            if self.gap is None or point.number < self.gap.number:
                self.gap = point
            return
        if self.low is None or (point.value, point.number) < (self.low.value, self.low.number):
            self.low = point
        if self.high is None or (-point.value, point.number) < (-self.high.value, self.high.number):
            self.high = point


class Thinned(Generic[T]):
    """The points of one curve of one branch that are kept. Made by `Grid.curve`."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._level = grid.level
        self._added = 0
        self._buckets: dict[int, Bucket[T]] = {}
        self._first: Point[T] | None = None
        self.last: Point[T] | None = None

    def add(self, step: int, value: float, item: T) -> None:
        """Take in a point; the grid has been told of it."""
        self._added += 1
        point = Point(step, self._added, value, item)
        if self._first is None or step < self._first.step:
            self._first = point
        if self.last is None or step >= self.last.step:
            self.last = point
        bucket = self._buckets.get(step >> self._level)
        if bucket is None:
            bucket = self._buckets[step >> self._level] = Bucket()
        elif bucket.low is not None and bucket.low.value <= value <= bucket.high.value:  # type: ignore[union-attr]
            return
        bucket.take(point)

    def points(self) -> list[Point[T]]:
        """What is kept, in the order of the steps."""
        kept = [point for b in self._buckets.values() for point in (b.low, b.high, b.gap)]
        kept += [self._first, self.last]
        return sorted({p.number: p for p in kept if p is not None}.values(), key=lambda point: point[:2])

    def coarsen(self) -> None:
        """Come up to the grid's level."""
        finer, shift = self._buckets, self._grid.level - self._level
        self._buckets, self._level = {}, self._grid.level
        for number, bucket in finer.items():
            wider = self._buckets.setdefault(number >> shift, Bucket())
            for point in (bucket.low, bucket.high, bucket.gap):
                if point is not None:
                    wider.take(point)
