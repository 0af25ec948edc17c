"""Points of curves in bounded memory, with nothing lost that a chart could show. Pure, and light to import.

The steps are cut into buckets of 2**level. Of each bucket the first point, the lowest, the highest and the
first value that is no number are kept, and of the whole its two ends; so spikes, dips and gaps outlive any
thinning, and the first points are a fair sample of all. What is kept is a function of the points alone: not
of when it was looked at, nor of whether points that are not kept were left out before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

LIMIT = 1024
"""Buckets that all branches span together, at most; a chart is a few hundred dots wide."""
RECENT = 2048
"""Of the newest points of a curve, so many are kept as they came, whatever the level."""
COARSE = 4
"""How much coarser the outline of gradient norm, learning rate and speed is than that of the losses."""
HIGHEST = 62
WAITING = 256
"""Points of a curve that are sorted into its buckets together: a long journal widens these many times."""

T = TypeVar("T")


class Grid:
    """What the curves of all branches have in common: the lowest level at which they span at most `LIMIT`
    buckets together, or a `share`-th of them."""

    def __init__(self, share: int = 1) -> None:
        self.level = 0
        self._share = share
        self._spans: dict[int, tuple[int, int]] = {}
        self._buckets = 0

    def curve(self) -> Thinned[Any]:
        """A new curve, empty."""
        return Thinned(self)

    def reach(self, branch: int, step: int) -> None:
        """Take in where points of a branch lie, before they are added to its curves."""
        first, last = self._spans.get(branch, (step, step - 1))
        if first <= step <= last:
            return
        before = self._count(first, last) if branch in self._spans else 0
        first, last = min(first, step), max(last, step)
        self._spans[branch] = first, last
        self._buckets += self._count(first, last) - before
        if self._too_many:
            while self._too_many:
                self.level += 1
                self._buckets = sum(self._count(a, b) for a, b in self._spans.values())

    @property
    def _too_many(self) -> bool:
        return self._buckets > LIMIT // self._share and self.level < HIGHEST

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
    first: Point[T]
    low: Point[T] | None = None
    high: Point[T] | None = None
    gap: Point[T] | None = None

    def take(self, point: Point[T]) -> None:
        """Keep it if it says more; of equals the one that came first stays."""
        if point.number < self.first.number:
            self.first = point
        if not math.isfinite(point.value):
            if self.gap is None or point.number < self.gap.number:
                self.gap = point
            return
        if self.low is None or (point.value, point.number) < (self.low.value, self.low.number):
            self.low = point
        if self.high is None or (-point.value, point.number) < (-self.high.value, self.high.number):
            self.high = point

    def points(self) -> list[Point[T]]:
        """What is kept, some of it twice."""
        return [p for p in (self.first, self.low, self.high, self.gap) if p is not None]


class Thinned(Generic[T]):
    """The points of one curve of one branch that are kept. Made by `Grid.curve`."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._level = grid.level
        self._added = 0
        self._waiting: list[tuple[int, int, float, T]] = []
        self._buckets: dict[int, Bucket[T]] = {}
        self._first: Point[T] | None = None
        self._last: Point[T] | None = None

    def add(self, step: int, value: float, item: T) -> None:
        """Take in a point; the grid has been told of it."""
        self._added += 1
        self._waiting.append((step, self._added, value, item))
        if len(self._waiting) >= WAITING:
            self._settle()

    @property
    def last(self) -> Point[T] | None:
        """The point at the last step; of several there the newest."""
        self._settle()
        return self._last

    def points(self) -> list[Point[T]]:
        """What is kept, in the order of the steps."""
        self._settle()
        kept = {point.number: point for b in self._buckets.values() for point in b.points()}
        kept |= {point.number: point for point in (self._first, self._last) if point is not None}
        return sorted(kept.values(), key=lambda point: point[:2])

    def sample(self) -> set[int]:
        """The numbers of those points that were kept whatever their value: one of each bucket."""
        self._settle()
        return {bucket.first.number for bucket in self._buckets.values()}

    def _settle(self) -> None:
        """Sort what waits into buckets as wide as the grid has them by now."""
        if self._level != self._grid.level:
            self._coarsen()
        if not self._waiting:
            return
        buckets, level = self._buckets, self._level
        first = self._waiting[0] if self._first is None else self._first
        last = self._waiting[0] if self._last is None else self._last
        for waiting in self._waiting:
            step, _, value, _ = waiting
            if step < first[0]:
                first = waiting
            if step >= last[0]:
                last = waiting
            bucket = buckets.get(step >> level)
            if bucket is None:
                bucket = buckets[step >> level] = Bucket(Point(*waiting))
            low, high = bucket.low, bucket.high
            if low is None or high is None or not low.value <= value <= high.value:
                bucket.take(Point(*waiting))
        self._first, self._last = Point(*first), Point(*last)
        self._waiting.clear()

    def _coarsen(self) -> None:
        """Come up to the grid's level."""
        finer, shift = self._buckets, self._grid.level - self._level
        self._buckets, self._level = {}, self._grid.level
        for number, bucket in finer.items():
            wider = self._buckets.setdefault(number >> shift, Bucket(bucket.first))
            for point in bucket.points():
                wider.take(point)
